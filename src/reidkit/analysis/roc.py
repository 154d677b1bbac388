"""What scores mean: distance distributions, error rates at a threshold.

Everything here counts the pairs that a protocol keeps (see :mod:`reidkit.evaluation.protocols`): positive
pairs show one identity, negative pairs two. Where there is no gallery, each two items are counted in both
orders. Pairs pass by in blocks and only their histograms are kept; scores are exact, so that the counts
depend on neither blocks nor threads. One pass can serve several counters, those of
:mod:`reidkit.analysis.breakdown` too: ``comparison.read_negatives(RocCounter(comparison),
DistanceCounter(comparison))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.comparison import Comparison, Pairs
from reidkit.evaluation.unit_rows import Indices

SCORE_BINS = 20_000
"""Thresholds of a ROC curve: the multiples of 1e-4 in [-1, 1)."""


@dataclass(frozen=True, slots=True, eq=False)
class DistanceDistributions:
    """Histograms of the Euclidean distances between unit embeddings, 0 to 2, of kept pairs.

    Attributes:
        edges: (num_bins + 1,).
        positive: (num_bins,) numbers of pairs; the last bin includes its upper edge.
        negative: (num_bins,) likewise.
        mean_positive: mean distance of the positive pairs.
        mean_negative: mean distance of the negative pairs.
        hardest_positive: largest distance of a positive pair.
        hardest_negative: smallest distance of a negative pair.
        notes: what the reader must know.
    """

    edges: NDArray[np.float64]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    mean_positive: float
    mean_negative: float
    hardest_positive: float
    hardest_negative: float
    notes: tuple[str, ...] = ()

    @property
    def num_positive(self) -> int:
        return int(self.positive.sum())

    @property
    def num_negative(self) -> int:
        return int(self.negative.sum())

    @property
    def overlap(self) -> float:
        """Area that the two histograms share when each has area 1: 0 where they are apart, 1 where equal."""
        shares = np.minimum(self.positive / self.num_positive, self.negative / self.num_negative)
        return float(shares.sum())

    @property
    def gap(self) -> float:
        """Hardest negative minus hardest positive distance, what MSML trains: above 0 all pairs are apart."""
        return self.hardest_negative - self.hardest_positive

    def __str__(self) -> str:
        lines = [
            f"positive: {self.num_positive} pairs, mean distance {self.mean_positive:.3f}, "
            f"hardest {self.hardest_positive:.3f}",
            f"negative: {self.num_negative} pairs, mean distance {self.mean_negative:.3f}, "
            f"hardest {self.hardest_negative:.3f}",
            f"overlap {100 * self.overlap:.1f} %, gap {self.gap:.3f}",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@dataclass(frozen=True, slots=True, eq=False)
class Roc:
    """Rates of accepted pairs when pairs that score at least a threshold are accepted as one identity.

    Thresholds are the multiples of 1e-4 from just below 1 down to -1, and infinity before them; the rates
    are exact at each of them. All arrays (T,), rates ascending.
    """

    thresholds: NDArray[np.float64]
    false_positive_rates: NDArray[np.float64]
    true_positive_rates: NDArray[np.float64]
    num_positive: int
    num_negative: int
    notes: tuple[str, ...] = ()

    @property
    def equal_error_rate(self) -> float:
        """The rate at which as many negatives are accepted as positives are rejected, interpolated."""
        surplus = self.false_positive_rates - (1 - self.true_positive_rates)  # ascending, from -1 to 1
        after = int(np.argmax(surplus >= 0))
        weight = -surplus[after - 1] / (surplus[after] - surplus[after - 1])
        low, high = self.false_positive_rates[after - 1 : after + 1]
        return float(low + weight * (high - low))

    def threshold_at(self, false_positive_rate: float) -> float:
        """The lowest threshold that accepts at most this share of the negative pairs."""
        return float(self.thresholds[self._place(false_positive_rate)])

    def true_positive_rate_at(self, false_positive_rate: float) -> float:
        """Share of the positive pairs accepted at :meth:`threshold_at`."""
        return float(self.true_positive_rates[self._place(false_positive_rate)])

    def __str__(self) -> str:
        lines = [
            f"{self.num_positive} positive and {self.num_negative} negative pairs, "
            f"equal error rate {100 * self.equal_error_rate:.2f} %",
            "    FPR      TPR  threshold",
        ]
        lines += [
            f"{rate:7.0e}  {100 * self.true_positive_rate_at(rate):6.2f} %  {self.threshold_at(rate):9.4f}"
            for rate in (1e-1, 1e-2, 1e-3, 1e-4)
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _place(self, false_positive_rate: float) -> int:
        if not 0 <= false_positive_rate <= 1:
            raise ConfigError(f"false positive rate is {false_positive_rate}; give a share from 0 to 1")
        return int(np.searchsorted(self.false_positive_rates, false_positive_rate, side="right")) - 1


class DistanceCounter:
    """Counts :class:`DistanceDistributions` while the scores of all negatives pass by.

    Raises :class:`DataError` where no positive pair is kept, and when all has been read, no negative one;
    :class:`ConfigError` for less than one bin, or scores that are no cosines.
    """

    def __init__(self, comparison: Comparison, *, num_bins: int = 100) -> None:
        if num_bins < 1:
            raise ConfigError(f"num_bins is {num_bins}; give at least 1")
        self._comparison = comparison
        self._positives = _positives(comparison)
        self._negative = np.zeros(num_bins, np.int64)
        self._total, self._highest, self._hardest = 0.0, -np.inf, (0, 0)

    def read(self, queries: Indices, items: Indices, scores: NDArray[np.float64]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        distances = _distances(scores[np.isfinite(scores)])
        self._negative += _histogram(distances, 0.0, 2.0, len(self._negative))
        self._total += float(distances.sum())
        row, column = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[row, column] > self._highest:
            self._highest, self._hardest = scores[row, column], (queries[row], items[column])

    def result(self) -> DistanceDistributions:
        """The distributions, when all has been read."""
        num_negative, num_bins = int(self._negative.sum()), len(self._negative)
        _check_pairs("negative", num_negative)
        positives = self._positives
        distances, hardest = _distances(positives.scores), np.argmin(positives.scores)
        return DistanceDistributions(
            edges=np.linspace(0.0, 2.0, num_bins + 1),
            positive=_histogram(distances, 0.0, 2.0, num_bins),
            negative=self._negative,
            mean_positive=float(distances.mean()),
            mean_negative=self._total / num_negative,
            hardest_positive=_pair_distance(
                self._comparison, positives.queries[hardest], positives.items[hardest]
            ),
            hardest_negative=_pair_distance(self._comparison, *self._hardest),
            notes=self._comparison.notes,
        )


class RocCounter:
    """Counts a :class:`Roc` while the scores of all negatives pass by; raises as :class:`DistanceCounter`."""

    def __init__(self, comparison: Comparison) -> None:
        self._positive = _histogram(_positives(comparison).scores, -1.0, 1.0, SCORE_BINS)
        self._negative = np.zeros(SCORE_BINS, np.int64)
        self._notes = comparison.notes

    def read(self, queries: Indices, items: Indices, scores: NDArray[np.float64]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        self._negative += _histogram(scores[np.isfinite(scores)], -1.0, 1.0, SCORE_BINS)

    def result(self) -> Roc:
        """The curve, when all has been read."""
        _check_pairs("negative", int(self._negative.sum()))
        edges = -1.0 + 2.0 * np.arange(SCORE_BINS) / SCORE_BINS
        return Roc(
            thresholds=np.concatenate([[np.inf], edges[::-1]]),
            false_positive_rates=_accepted(self._negative),
            true_positive_rates=_accepted(self._positive),
            num_positive=int(self._positive.sum()),
            num_negative=int(self._negative.sum()),
            notes=self._notes,
        )


def distance_distributions(comparison: Comparison, *, num_bins: int = 100) -> DistanceDistributions:
    """How far apart pairs of one identity are, and pairs of two; raises as :class:`DistanceCounter` does."""
    counter = DistanceCounter(comparison, num_bins=num_bins)
    comparison.read_negatives(counter)
    return counter.result()


def roc(comparison: Comparison) -> Roc:
    """True and false positive rates at every threshold that is a multiple of 1e-4.

    Raises as :class:`RocCounter` does.
    """
    counter = RocCounter(comparison)
    comparison.read_negatives(counter)
    return counter.result()


def check_cosine(comparison: Comparison) -> None:
    """Raise :class:`ConfigError` where scores are something else than cosines."""
    if comparison.distance != "cosine":
        raise ConfigError(
            f"scores of distance = {comparison.distance!r} are no cosines, which this is counted by; compare "
            "with distance = 'cosine'"
        )


def _positives(comparison: Comparison) -> Pairs:
    check_cosine(comparison)
    pairs = comparison.same_identity_pairs
    positives = pairs.where(pairs.positive)
    _check_pairs("positive", len(positives.scores))
    return positives


def _distances(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of unit vectors with these cosines."""
    squared = 2 - 2 * scores
    np.maximum(squared, 0, out=squared)
    return np.sqrt(squared, out=squared)


def _pair_distance(comparison: Comparison, query: int, item: int) -> float:
    """One distance from the difference itself: exactly 0 for equal vectors, where 2 - 2s is only near 0."""
    difference = comparison.query.take(np.array([query])) - comparison.gallery.take(np.array([item]))
    return float(np.linalg.norm(difference))


def _histogram(values: NDArray[np.float64], low: float, high: float, num_bins: int) -> NDArray[np.int64]:
    """Counts (num_bins,) of equal bins; rounding may take a value past the ends, it counts in the last."""
    scaled = values - low
    scaled *= num_bins / (high - low)
    bins = scaled.astype(np.int64)
    return np.bincount(np.clip(bins, 0, num_bins - 1, out=bins), minlength=num_bins)


def _accepted(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of pairs at or above each threshold, from infinity down, of counts by ascending score."""
    shares: NDArray[np.float64] = np.concatenate([[0], np.cumsum(counts[::-1])]) / counts.sum()
    return shares


def _check_pairs(kind: str, num_pairs: int) -> None:
    if not num_pairs:
        raise DataError(
            f"the protocol keeps no {kind} pair; a positive pair needs an identity that both sides hold "
            '(under two cameras, unless camera_filter="none"), a negative pair a second identity'
        )
