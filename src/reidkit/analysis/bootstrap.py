"""How sure a mean over queries is: intervals and tests that draw identities, with all their queries together.

Queries of one identity are alike: what makes one easy makes the others easy. Drawn one by one they would pass
for more evidence than they are, so identities are drawn, each with all of its queries, and the mean of a draw
is the sum of its values over the number of its queries. `benchmarks/intervals.py` shows by simulation how
often the intervals here hold the true value; docs/results.md has its table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.row_labels import label_codes
from reidkit.evaluation.unit_rows import first_few

Matrix = NDArray[np.float64]

_ELEMENTS_PER_BLOCK = 2**21
_LEAST_ERROR = 1 / 3


class OneIdentity(DataError):
    """There is nothing to draw from: all valid queries show one identity."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The difference between two encoders on the same queries.

    Attributes:
        difference: mean of the second's values less the first's.
        interval: of the difference, lower end first.
        p_value: two-sided: how often so large a difference would come by chance where there is none.
        num_seeds, num_queries, num_identities: what the mean is over.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    num_seeds: int
    num_queries: int
    num_identities: int


def bootstrap_interval(
    values: ArrayLike,
    *,
    identities: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean of ``values`` (Q,), one value a query, by a studentised bootstrap over identities.

    Each resample draws as many identities as there are, with replacement. The interval is the mean plus and
    minus its standard error times the quantile of how far, in standard errors of their own, the resamples'
    means lie from it. Taking quantiles of the resamples' means instead ("percentile") or correcting these for
    bias ("BCa") gives intervals that hold the true mean in 83 to 92 % of cases where there are 10 or 20
    identities (Davison and Hinkley, "Bootstrap Methods and their Application", 1997, sections 5.2 and 3.8). A
    resample in which hardly anything varies would have an error of nearly 0; none is taken to be below a
    third of the sample's.

    Where all values are equal the interval is that value: nothing is known of what was never seen.
    :func:`scipy.stats.bootstrap` draws values one by one and has no studentised interval.

    Args:
        values: NaN marks queries that are not valid; they are left out, as in the mean itself.
        identities: (Q,), of the queries. Without them each query is drawn by itself, which is right only
            where no identity has two.
        confidence: share of such intervals that are to hold the true mean.
        num_resamples: the more, the less the interval depends on ``seed``.
        seed: of the draws.

    Raises:
        DataError: no valid query, or more or fewer identities than values.
        OneIdentity: all valid queries are of one identity.
        ConfigError: confidence outside 0..1, or no resample.
    """
    _check_confidence(confidence)
    if num_resamples < 1:
        raise ConfigError(f"num_resamples is {num_resamples}; give at least 1")
    numbers = np.asarray(values, np.float64)
    valid = ~np.isnan(numbers)
    sums, sizes = _by_identity(numbers[None, valid], _groups(identities, numbers.shape, valid))
    mean = float(sums.sum() / sizes.sum())
    # About the mean, so that the squares below do not cancel.
    residuals = sums[0] - mean * sizes
    error = _standard_error(residuals, sizes)
    if not error:
        return mean, mean
    moments = np.stack([residuals, sizes, residuals**2, residuals * sizes, sizes**2], axis=1)
    generator = np.random.default_rng(seed)
    num = len(sizes)
    distances = []
    per_block = max(1, _ELEMENTS_PER_BLOCK // num)
    for start in range(0, num_resamples, per_block):
        drawn = generator.integers(num, size=(min(per_block, num_resamples - start), num))
        drawn += num * np.arange(len(drawn))[:, None]
        times = np.bincount(drawn.ravel(), minlength=num * len(drawn)).reshape(len(drawn), num)
        total, size, squares, products, size_squares = (times @ moments).T
        shift = total / size
        own = squares - 2 * shift * products + shift**2 * size_squares
        own_error = np.sqrt(np.maximum(own, 0) * num / (num - 1)) / size
        distances.append(np.abs(shift) / np.maximum(own_error, _LEAST_ERROR * error))
    reach = float(np.quantile(np.concatenate(distances), confidence)) * error
    return mean - reach, mean + reach


def share_interval(values: ArrayLike, *, identities: ArrayLike) -> tuple[float, float] | None:
    """:func:`bootstrap_interval` of a mean of shares, cut to 0..1; ``None`` where one identity asks alone."""
    try:
        low, high = bootstrap_interval(values, identities=identities)
    except OneIdentity:
        return None
    return max(low, 0.0), min(high, 1.0)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    identities: ArrayLike | None = None,
    confidence: float = 0.95,
) -> PairedDifference:
    """Compare a value a query, such as average precision, of the same S seeds (S, Q), or of one seed (Q,).

    The difference's variance is estimated from how the identities' differences vary, all queries of one taken
    together ("cluster-robust"), and with several seeds from how the seeds' means vary as well: what both
    hold, the part of a seed with an identity, is taken off once (Cameron, Gelbach and Miller, "Robust
    Inference With Multiway Clustering", 2011), but never below either of the two. Interval and p-value are
    Student's t with Satterthwaite's degrees of freedom. Nothing is drawn at random. With one seed the
    interval says nothing about other seeds; two or three tell little of how much seeds vary, and where these
    vary more than the identities do, a 95 % interval holds the truth in about 88 % (two seeds) or 92 %
    (three).

    Args:
        first, second: NaN marks queries that are not valid, in both alike; they are left out.
        identities: (Q,), of the queries; without them each query stands for itself.
        confidence: share of such intervals that are to hold the true difference.

    Raises:
        DataError: arrays that are not paired, or no valid query.
        OneIdentity: all valid queries are of one identity.
        ConfigError: confidence outside 0..1.
    """
    _check_confidence(confidence)
    differences, valid = _paired_differences(first, second)
    groups = _groups(identities, (len(valid),), valid)
    sums, sizes = _by_identity(differences, groups)
    num_seeds, num_identities = sums.shape
    mean = float(differences.mean())
    of_identities = _standard_error(sums.mean(axis=0) - mean * sizes, sizes) ** 2
    variance, freedom = of_identities, float(num_identities - 1)
    if num_seeds > 1:
        seed_means = differences.mean(axis=1)
        of_seeds = float(seed_means.var(ddof=1)) / num_seeds
        odd = (sums - seed_means[:, None] * sizes) - (sums.mean(axis=0) - mean * sizes)
        of_both = (
            float((odd**2).sum())
            * num_identities
            / ((num_identities - 1) * (num_seeds - 1) * num_seeds * sizes.sum() ** 2)
        )
        variance = max(of_seeds + of_identities - of_both, of_seeds, of_identities)
        parts = of_seeds**2 / (num_seeds - 1) + of_identities**2 / (num_identities - 1)
        freedom = variance**2 / parts if parts else freedom
    error = float(np.sqrt(variance))
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return PairedDifference(
        difference=mean,
        interval=(mean - reach, mean + reach),
        p_value=float(2 * stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0),
        num_seeds=num_seeds,
        num_queries=differences.shape[1],
        num_identities=num_identities,
    )


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")


def _groups(
    identities: ArrayLike | None, shape: tuple[int, ...], valid: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """The place of each valid query's identity among those that ask, (V,)."""
    if not valid.any():
        raise DataError("there is no valid query to draw from: every value is NaN, or there is none")
    labels = np.arange(len(valid)) if identities is None else label_codes(np.asarray(identities))
    if labels.shape != shape:
        raise DataError(f"there are {len(labels)} identities for values {shape}; give one for each query")
    distinct, groups = np.unique(labels[valid], return_inverse=True)
    if len(distinct) < 2:
        raise OneIdentity("one identity asks alone: how others would vary cannot be told from it")
    return groups


def _by_identity(values: Matrix, groups: NDArray[np.intp]) -> tuple[Matrix, Matrix]:
    """Sums (S, I) of values (S, V), and numbers (I,) of queries, by identity."""
    sums = np.stack([np.bincount(groups, row) for row in values])
    return sums.astype(np.float64), np.bincount(groups).astype(np.float64)


def _standard_error(residuals: Matrix, sizes: Matrix) -> float:
    """Of a mean over queries, from each identity's sum (I,) of values less the mean."""
    num = len(sizes)
    error = float(np.sqrt((residuals**2).sum() * num / (num - 1)) / sizes.sum())
    # Rounding alone is no variation.
    return error if error > 1e-12 * (1 + np.abs(residuals).max()) else 0.0


def _paired_differences(first: ArrayLike, second: ArrayLike) -> tuple[Matrix, NDArray[np.bool_]]:
    """(S, V) of the valid queries, and which they are (Q,)."""
    first, second = (np.atleast_2d(np.asarray(values, np.float64)) for values in (first, second))
    if first.shape != second.shape or first.ndim != 2 or not len(first):
        raise DataError(
            f"values are {first.shape} and {second.shape}, (seeds, queries); compare runs on the same queries"
        )
    valid: NDArray[np.bool_] = np.isfinite(first)
    odd = np.flatnonzero(((valid != np.isfinite(second)) | (valid != valid[0])).any(axis=0))
    if len(odd):
        raise DataError(
            f"{len(odd)} queries are valid in some runs only ({first_few(odd)}); "
            "evaluate all runs on the same data with the same protocol and camera filter"
        )
    if not valid.any():
        raise DataError("there is no valid query to compare by: every value is NaN, or there is none")
    return (second - first)[:, valid[0]], valid[0]
