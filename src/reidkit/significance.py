"""Is one encoder better than another? A paired bootstrap over queries and seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.protocols import first_few

Matrix = NDArray[np.float64]

_RESAMPLES_PER_BLOCK = 500


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """How far apart two encoders are on the same queries.

    Attributes:
        difference: mean of the second's values less the first's.
        interval: of the difference, lower end first.
        p_value: two-sided: how often resampling turns the sign of the difference round, times two.
        num_seeds, num_queries: what the mean is over.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float
    num_seeds: int
    num_queries: int


def paired_bootstrap(
    first: Matrix,
    second: Matrix,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compare a value a query, such as average precision, of the same S seeds (S, Q), or of one seed (Q,).

    Each resample draws S seeds and, independently, Q queries, both with replacement, and takes the mean of
    the differences where they cross (Owen 2007, "The pigeonhole bootstrap"). With one seed only the queries
    are drawn, so that the interval says nothing about other seeds; with two or three it says little. Queries
    of one person are drawn as if they were independent.

    NaN marks queries that are not valid, in both alike; they are left out.

    Raises:
        DataError: arrays that are not paired, or no valid query.
        ConfigError: confidence outside 0..1, or no resample.
    """
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ConfigError(
            f"confidence is {confidence} and num_resamples {num_resamples}; give a share between 0 and 1, "
            "and at least 1"
        )
    differences = _paired_differences(first, second)
    generator = np.random.default_rng(seed)
    blocks = _resample_counts(differences.shape, num_resamples, generator)
    means = np.concatenate([_resampled_means(differences, *counts) for counts in blocks])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    # One more than counted: a p-value of 0 would claim more than the resamples can show.
    less, more = (np.count_nonzero(means <= 0) + 1, np.count_nonzero(means >= 0) + 1)
    return PairedDifference(
        difference=float(differences.mean()),
        interval=(float(low), float(high)),
        p_value=min(1.0, 2 * min(less, more) / (num_resamples + 1)),
        num_seeds=differences.shape[0],
        num_queries=differences.shape[1],
    )


def _paired_differences(first: Matrix, second: Matrix) -> Matrix:
    """(S, Q) of the valid queries."""
    first, second = (np.atleast_2d(np.asarray(values, np.float64)) for values in (first, second))
    if first.shape != second.shape or first.ndim != 2 or not len(first):
        raise DataError(
            f"values are {first.shape} and {second.shape}, (seeds, queries); compare runs on the same queries"
        )
    valid = np.isfinite(first)
    odd = np.flatnonzero(((valid != np.isfinite(second)) | (valid != valid[0])).any(axis=0))
    if len(odd):
        raise DataError(
            f"{len(odd)} queries are valid in some runs only ({first_few(odd)}); "
            "evaluate all runs on the same data with the same protocol and camera filter"
        )
    if not valid.any():
        raise DataError("there is no valid query to compare by: every value is NaN, or there is none")
    differences: Matrix = (second - first)[:, valid[0]]
    return differences


def _resample_counts(
    shape: tuple[int, ...], num_resamples: int, generator: np.random.Generator
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """How often each seed (R, S) and each query (R, Q) is drawn, some resamples at a time."""
    num_seeds, num_queries = shape
    for start in range(0, num_resamples, _RESAMPLES_PER_BLOCK):
        size = min(_RESAMPLES_PER_BLOCK, num_resamples - start)
        yield (
            generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=size),
            generator.multinomial(num_queries, np.full(num_queries, 1 / num_queries), size=size),
        )


def _resampled_means(
    differences: Matrix, seed_counts: NDArray[np.int64], query_counts: NDArray[np.int64]
) -> Matrix:
    """Mean difference (R,) of each resample."""
    sums: Matrix = ((seed_counts @ differences) * query_counts).sum(axis=1)
    return sums / differences.size
