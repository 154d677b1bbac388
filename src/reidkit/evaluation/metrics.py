"""What ranks are worth: CMC, average precision of three kinds, inverse negative penalty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.evaluation.comparison import Pairs
from reidkit.evaluation.ranks import spans
from reidkit.evaluation.unit_rows import Indices


class Metrics(NamedTuple):
    """Of one ranking of all queries: (Q,) each, and the CMC (max_rank,)."""

    average_precisions: NDArray[np.float64]
    first_match_ranks: NDArray[np.int64]
    inverse_negative_penalties: NDArray[np.float64]
    cmc: NDArray[np.float64]

    @property
    def mean_average_precision(self) -> float:
        """Over queries that have a match."""
        return float(self.average_precisions[np.isfinite(self.average_precisions)].mean())


def metrics_of_ranks(
    matches: Pairs, ranks: NDArray[np.int64], *, num_queries: int, average_precision: str, max_rank: int
) -> Metrics:
    """From the matches and their ranks (M,), by query, best first.

    ``average_precision`` is "step", "trapezoid" or "at R"; it and the inverse negative penalty are NaN, and
    the rank of the first match is 0, where a query has no match.
    """
    first, count = spans(matches, num_queries)
    valid = count > 0
    first_match_ranks = np.where(valid, ranks[np.minimum(first, len(ranks) - 1)], 0)
    inverse_negative_penalties = np.full(num_queries, np.nan)
    inverse_negative_penalties[valid] = count[valid] / ranks[first + count - 1][valid]
    return Metrics(
        average_precisions(matches.queries, ranks, first, count, average_precision),
        first_match_ranks,
        inverse_negative_penalties,
        _cmc(first_match_ranks[valid], max_rank),
    )


def mean_metrics(draws: Sequence[Metrics]) -> Metrics:
    """Means over draws; of the ranks of the first match medians, the lower of two."""
    first_match_ranks = np.sort([draw.first_match_ranks for draw in draws], axis=0)
    return Metrics(
        np.mean([draw.average_precisions for draw in draws], axis=0),
        first_match_ranks[(len(draws) - 1) // 2],
        np.mean([draw.inverse_negative_penalties for draw in draws], axis=0),
        np.mean([draw.cmc for draw in draws], axis=0),
    )


def average_precisions(
    queries: Indices, ranks: NDArray[np.int64], first: Indices, count: Indices, kind: str
) -> NDArray[np.float64]:
    """AP (Q,), NaN without matches, from ``queries`` and ``ranks`` (M,) of the matches, best first."""
    num_found = np.arange(len(ranks)) - first[queries] + 1
    precision = num_found / ranks
    if kind == "at R":
        # Only as deep as the query has matches (R): what comes later counts as not found.
        precision = np.where(ranks <= count[queries], precision, 0)
    if kind == "trapezoid":
        # Precision just before the match; before rank 1 it is 1 (Market-1501's compute_AP.m).
        precision_before = np.where(ranks == 1, 1.0, (num_found - 1) / np.maximum(ranks - 1, 1))
        precision = (precision_before + precision) / 2
    sums = np.bincount(queries, precision, minlength=len(count))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _cmc(first_match_ranks: NDArray[np.int64], max_rank: int) -> NDArray[np.float64]:
    within = first_match_ranks[first_match_ranks <= max_rank]
    return np.cumsum(np.bincount(within - 1, minlength=max_rank)) / len(first_match_ranks)
