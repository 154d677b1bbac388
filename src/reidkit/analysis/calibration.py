"""What a score says about two images: the probability that they show one identity, and error rates.

A :class:`Calibration` is fitted once, on identities that the network was not trained on, and kept as plain
numbers with the encoder.

*Probability.* Where scores are calibrated, the odds that a pair shows one identity are its likelihood ratio,
density of the positive pairs over that of the negative pairs at this score, times the odds before looking.
The ratio is the slope of the ROC curve's upper convex hull: isotonic regression, without a form of the curve
assumed (Fawcett and Niculescu-Mizil, "PAV and the ROC convex hull", Machine Learning 2007). Half a pair is
added to both counts of each piece of the hull, so that what was never seen does not become impossible.

*Threshold at a false-match rate.* The lowest score at which at most this share of negative pairs is accepted.
Its interval is a bootstrap over identities, as pairs that share an identity are not independent.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.analysis.roc import Roc, check_cosine, roc
from reidkit.errors import ConfigError, DataError, shown
from reidkit.evaluation.comparison import Comparison
from reidkit.evaluation.unit_rows import Indices

RATES_PER_DECADE = 10
MIN_FALSE_MATCHES = 10
"""A false-match rate is told only where it was seen on at least so many pairs."""

_HIGHEST_RATE = 0.1
_DIGITS = 6

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How scores (cosines) of one encoder are to be read.

    Attributes:
        scores: (K,), ascending, at which ``log_likelihood_ratios`` were found; linear in between, constant
            outside.
        log_likelihood_ratios: (K,), natural logarithms, ascending.
        false_match_rates: (R,), ascending, ten a decade up to 0.1, as low as the number of pairs allows.
        thresholds: (R,), the lowest scores that keep these rates.
        true_match_rates: (R,), shares of the positive pairs that score at least as much.
        threshold_intervals: (R,), 95 % bootstrap intervals of the thresholds.
        equal_error_rate: where the share of negative pairs accepted is that of positive pairs rejected.
        num_positive, num_negative: pairs it was fitted on.
        num_identities: that occur in these pairs.
        source: the data it was fitted on, in words.
    """

    scores: Numbers
    log_likelihood_ratios: Numbers
    false_match_rates: Numbers
    thresholds: Numbers
    true_match_rates: Numbers
    threshold_intervals: tuple[tuple[float, float], ...]
    equal_error_rate: float
    num_positive: int
    num_negative: int
    num_identities: int
    source: str = ""

    def probability(self, scores: ArrayLike, *, prior: float = 0.5) -> NDArray[np.float64]:
        """Probabilities that pairs with these scores (any shape) show one identity.

        ``prior`` is how probable that was before looking: 0.5 for a pair that is as likely the one as the
        other. In a gallery of 10,000 images, 5 of which may show the query's identity, it is 0.0005.
        """
        if not 0 < prior < 1:
            raise ConfigError(f"prior is {prior}; give a probability between 0 and 1")
        scores = np.asarray(scores, np.float64)
        log_odds = np.interp(scores, self.scores, self.log_likelihood_ratios) + math.log(prior / (1 - prior))
        probability: NDArray[np.float64] = 1 / (1 + np.exp(-log_odds))
        # A score that is no number has no probability.
        return np.where(np.isnan(scores), np.nan, probability)

    def threshold_at(self, false_match_rate: float) -> float:
        """The score from which on pairs are accepted if this share of the negative pairs may be.

        Between the rates it was fitted for the score is interpolated.

        Raises :class:`ConfigError` for rates above 0.1, or lower than the number of pairs could tell.
        """
        return float(self._at(false_match_rate, self.thresholds))

    def threshold_interval_at(self, false_match_rate: float) -> tuple[float, float]:
        """95 % interval of :meth:`threshold_at`; raises as that does."""
        lows, highs = zip(*self.threshold_intervals, strict=True) if self.threshold_intervals else ((), ())
        return float(self._at(false_match_rate, lows)), float(self._at(false_match_rate, highs))

    def true_match_rate_at(self, false_match_rate: float) -> float:
        """Share of the positive pairs accepted at :meth:`threshold_at`; raises as that does."""
        return float(self._at(false_match_rate, self.true_match_rates))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, a few kilobytes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Back from :meth:`as_dict`, with or without JSON in between; further keys are not looked at.

        Raises :class:`DataError` where a value is missing or does not fit.
        """
        from pydantic import TypeAdapter, ValidationError

        try:
            calibration = TypeAdapter(cls).validate_python(
                {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
            )
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise DataError(
                f"this is no calibration ({where}: {fault['msg']}, not {shown(fault['input'])}); fit it again"
            ) from error
        if problem := calibration._problem():
            raise DataError(f"this is no calibration ({problem}); fit it again")
        return calibration

    def __str__(self) -> str:
        lines = [
            f"calibrated on {self.source or 'unnamed data'}: {self.num_positive:,} pairs of one person and "
            f"{self.num_negative:,} of two, equal error rate {100 * self.equal_error_rate:.2f} %",
            "false-match rate  threshold (95 % interval)  true-match rate",
        ]
        for rate in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
            if self.false_match_rates and rate >= self.false_match_rates[0]:
                low, high = self.threshold_interval_at(rate)
                lines.append(
                    f"{100 * rate:14g} %  {self.threshold_at(rate):9.4f} ({low:.4f} to {high:.4f})"
                    f"  {100 * self.true_match_rate_at(rate):13.1f} %"
                )
        return "\n".join(lines)

    def _problem(self) -> str | None:
        """What keeps the figures from being those of a calibration."""
        by_score = (self.scores, self.log_likelihood_ratios)
        by_rate = (self.false_match_rates, self.thresholds, self.true_match_rates)
        intervals = [bound for interval in self.threshold_intervals for bound in interval]
        if not all(map(math.isfinite, [*sum(by_score + by_rate, ()), *intervals, self.equal_error_rate])):
            return "a figure is not finite"
        if not self.scores or len(self.scores) != len(self.log_likelihood_ratios):
            return "scores and log_likelihood_ratios are not of one length"
        if len({len(self.threshold_intervals), *map(len, by_rate)}) > 1:
            return "false_match_rates and what belongs to them are not of one length"
        if not (_ascends(self.scores) and _ascends(self.false_match_rates)):
            return "scores or false_match_rates do not ascend"
        if any(not 0 < rate <= _HIGHEST_RATE for rate in self.false_match_rates):
            return f"false_match_rates are outside of 0 to {_HIGHEST_RATE}"
        return None

    def _at(self, rate: float, values: Numbers) -> float:
        if not self.false_match_rates or not self.false_match_rates[0] <= rate <= _HIGHEST_RATE:
            told = f"{self.false_match_rates[0]:.2g} to {_HIGHEST_RATE}" if self.false_match_rates else "none"
            raise ConfigError(
                f"false-match rate {rate:g} cannot be told from {self.num_negative:,} pairs of two persons, "
                f"all that this was fitted on; rates that can: {told}"
            )
        return float(np.interp(math.log(rate), np.log(self.false_match_rates), values))


def fit_calibration(
    comparison: Comparison,
    *,
    curve: Roc | None = None,
    source: str = "",
    num_resamples: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Calibrate an encoder on features of identities that it was not trained on.

    The negatives pass by once for their ROC curve, where it is not given, and once to be counted by identity
    at thresholds that are taken from it.

    Args:
        comparison: the features, by cosine; its camera filter says which pairs count.
        curve: its :func:`reidkit.analysis.roc.roc`, where that is known.
        source: what the features are of, for the reader.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DataError: no pair of one identity or none of two is kept.
        ConfigError: scores that are no cosines.
    """
    curve = roc(comparison) if curve is None else curve
    scores, log_likelihood_ratios = _likelihood_ratios(curve)
    # Where the highest scores of all fall together, no threshold keeps a low rate.
    rates = [rate for rate in _rates(curve.num_negative) if np.isfinite(curve.threshold_at(rate))]
    thresholds = [curve.threshold_at(rate) for rate in rates]
    # Beyond the rates on both sides: a resample's thresholds lie outside of the curve's own.
    grid = np.unique(
        [curve.threshold_at(rate) for rate in np.geomspace(min(rates, default=0.1) / 10, 0.5, 100)]
    )
    counter = _FalseMatchCounter(comparison, grid[np.isfinite(grid)])
    comparison.read_negatives(counter)
    counts = counter.result()
    intervals = _threshold_intervals(rates, counts, num_resamples=num_resamples, seed=seed)
    return Calibration(
        scores=_numbers(scores),
        log_likelihood_ratios=_numbers(log_likelihood_ratios),
        false_match_rates=tuple(rates),
        thresholds=_numbers(thresholds),
        true_match_rates=_numbers([curve.true_positive_rate_at(rate) for rate in rates]),
        threshold_intervals=tuple((low, high) for low, high in map(_numbers, intervals)),
        equal_error_rate=curve.equal_error_rate,
        num_positive=curve.num_positive,
        num_negative=curve.num_negative,
        num_identities=len(counts.totals),
        source=source,
    )


def _likelihood_ratios(curve: Roc) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean scores (K,) of the pieces of the ROC's convex hull, ascending, and their log likelihood ratios."""
    from scipy.optimize import isotonic_regression  # slow to import, and calibrations are mostly read

    # Pairs between one threshold and the next, by ascending score.
    positive = np.diff(np.rint(curve.true_positive_rates * curve.num_positive))[::-1]
    negative = np.diff(np.rint(curve.false_positive_rates * curve.num_negative))[::-1]
    seen = positive + negative > 0
    positive, negative, edges = positive[seen], negative[seen], curve.thresholds[:0:-1][seen]
    # The shares of one identity's pairs, made to rise with the score: the hull's slopes, in other units.
    fitted = isotonic_regression(positive / (positive + negative), weights=positive + negative)
    starts = _distinct_pieces(positive, negative, fitted.blocks[:-1])
    # Each pair counts at the lower edge of its bin, less than 1e-4 below its score.
    sums = np.add.reduceat((positive + negative) * edges, starts)
    positive, negative = np.add.reduceat(positive, starts), np.add.reduceat(negative, starts)
    ratios = (positive + 0.5) / (curve.num_positive + 0.5) / (negative + 0.5) * (curve.num_negative + 0.5)
    # The half pairs may put pieces of few pairs out of order.
    log_ratios = np.minimum.accumulate(np.log(ratios)[::-1])[::-1]
    return sums / (positive + negative), log_ratios


def _distinct_pieces(
    positive: NDArray[np.float64], negative: NDArray[np.float64], starts: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Where pieces start that differ in slope; rounding may have kept apart some that do not."""
    sums = [np.add.reduceat(counts, starts) for counts in (positive, negative)]
    steeper = sums[0][1:] * sums[1][:-1] > sums[0][:-1] * sums[1][1:]  # counts, so that this is exact
    distinct: NDArray[np.intp] = starts[np.concatenate([[True], steeper])]
    return distinct


def _rates(num_negative: int) -> list[float]:
    """Ten a decade from 0.1 down, ascending, as long as enough false matches are to be expected."""
    rates = []
    step = RATES_PER_DECADE
    while (rate := float(f"{10 ** (-step / RATES_PER_DECADE):.6g}")) * num_negative >= MIN_FALSE_MATCHES:
        rates.append(rate)
        step += 1
    return rates[::-1]


def _threshold_intervals(
    rates: list[float], counts: _FalseMatches, *, num_resamples: int, seed: int
) -> NDArray[np.float64]:
    """95 % intervals (R, 2) of the thresholds, drawing identities with replacement.

    A pair counts as often as both of its identities are drawn, w_i w_j times. With w = 1 + d that is
    1 + d_i + d_j up to a product of two small numbers, so that the sums over pairs that a resample needs are
    sums over identities.
    """
    if not rates:
        return np.empty((0, 2))
    generator = np.random.default_rng(seed)
    num_identities = len(counts.totals)
    found = np.empty((num_resamples, len(rates)))
    for resample in range(num_resamples):
        drawn = generator.integers(num_identities, size=num_identities)
        times = np.bincount(drawn, minlength=num_identities) - 0.5  # each pair is counted with both
        accepted = np.maximum(times @ counts.accepted, 0.5)  # (T,)
        # Falling with the threshold, as a rate is; differences of estimates need not.
        shares = np.maximum.accumulate(accepted[::-1]) / max(times @ counts.totals, 0.5)
        found[resample] = np.interp(np.log(rates), np.log(shares), counts.thresholds[::-1])
    intervals: NDArray[np.float64] = np.quantile(found, [0.025, 0.975], axis=0).T
    return intervals


class _FalseMatches(NamedTuple):
    """Pairs of two identities by the identities in them, so that each pair is there twice.

    ``accepted`` (I, T) are those that score at least each of ``thresholds`` (T,), ``totals`` (I,) all.
    """

    thresholds: NDArray[np.float64]
    accepted: NDArray[np.float64]
    totals: NDArray[np.float64]


class _FalseMatchCounter:
    """Counts :class:`_FalseMatches` while the scores of all negatives pass by."""

    def __init__(self, comparison: Comparison, thresholds: NDArray[np.float64]) -> None:
        check_cosine(comparison)
        self._query_identities = comparison.query_identities
        self._gallery_identities = comparison.gallery_identities
        num_identities = 1 + int(max(self._query_identities.max(), self._gallery_identities.max()))
        self._thresholds = thresholds
        self._counts = np.zeros((num_identities, len(thresholds) + 1), np.int64)
        self._totals = np.zeros(num_identities, np.int64)

    def read(self, queries: Indices, items: Indices, scores: NDArray[np.float64]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        kept = np.isfinite(scores)
        asked, shown = self._query_identities[queries], self._gallery_identities[items]
        np.add.at(self._totals, asked, kept.sum(axis=1))
        np.add.at(self._totals, shown, kept.sum(axis=0))
        rows, columns = np.nonzero(scores >= self._thresholds.min(initial=np.inf))
        bins = np.searchsorted(self._thresholds, scores[rows, columns], side="right")
        num_bins = self._counts.shape[1]
        for identities in (asked[rows], shown[columns]):
            counted = np.bincount(identities * num_bins + bins, minlength=self._counts.size)
            self._counts += counted.reshape(self._counts.shape)

    def result(self) -> _FalseMatches:
        """The counts, when all has been read."""
        at_least = np.cumsum(self._counts[:, :0:-1], axis=1)[:, ::-1]
        met = self._totals > 0
        return _FalseMatches(
            self._thresholds, at_least[met].astype(np.float64), self._totals[met].astype(np.float64)
        )


def _numbers(values: ArrayLike) -> Numbers:
    return tuple(round(float(value), _DIGITS) for value in np.asarray(values))


def _ascends(values: Numbers) -> bool:
    return all(low <= high for low, high in pairwise(values))
