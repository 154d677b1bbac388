"""Ranks of the true matches where distances come as whole rows: after re-ranking, or by a learned metric."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.evaluation.comparison import Comparison, Pairs
from reidkit.evaluation.euclidean import block_length, cut
from reidkit.evaluation.ranks import first_of_each, random_numbers, shot_groups
from reidkit.evaluation.unit_rows import Indices
from reidkit.types import JUNK


class DistanceRows(Protocol):
    """Distances of Q queries to G items, some queries at a time."""

    def rows(self, queries: slice, /) -> NDArray[np.floating[Any]]:
        """(b, G) of the queries of a slice; lower is nearer."""


DistancesOf = Callable[[Indices, Indices], DistanceRows]
"""Distances of the queries and gallery items of these rows of the two splits."""


def distance_ranks(
    comparison: Comparison,
    distances_of: DistancesOf,
    *,
    draw: int | None = None,
    block_size: int | None = None,
) -> tuple[Pairs, NDArray[np.int64]]:
    """Matches and their ranks (M,), both by query, nearest first, ties by gallery order.

    ``distances_of`` is asked once for each group of queries that search the same items, and is given all of
    these queries and items, those that a camera filter hides from some query included; items with identity
    -1 are not among them, nor such queries. Groups are: all queries; each query, where they have galleries
    of their own; with a ``draw``, as :func:`reidkit.evaluation.ranks.shot_ranks` takes it, queries that may
    meet the same items, which are then those drawn.

    Args:
        comparison: says which items a query meets.
        distances_of: the distances to rank by.
        draw: the seed of a draw of one image an identity; all images where left out.
        block_size: queries ranked together. The result does not depend on it.
    """
    priorities = None if draw is None else random_numbers(len(comparison.gallery), seed=draw)
    queries, items, distances, ranks = [], [], [], []
    for group, pool in _groups(comparison, priorities):
        source = distances_of(group, pool)
        for start, stop in cut(len(group), block_size or block_length(len(pool))):
            for query, row in zip(group[start:stop], source.rows(slice(start, stop)), strict=True):
                met = _met(comparison, query, pool, priorities)
                matches, match_ranks = _ranked_matches(
                    row[met], comparison.gallery_identities[pool[met]] == comparison.query_identities[query]
                )
                queries.append(np.full(len(matches), query))
                items.append(pool[met][matches])
                distances.append(row[met][matches])
                ranks.append(match_ranks)
    order = np.argsort(np.concatenate(queries), kind="stable")
    found = Pairs(
        np.concatenate(queries)[order],
        np.concatenate(items)[order],
        -np.concatenate(distances)[order].astype(np.float64),
        np.ones(len(order), np.bool_),
    )
    return found, np.concatenate(ranks)[order]


def _ranked_matches(
    distances: NDArray[np.floating[Any]], is_match: NDArray[np.bool_]
) -> tuple[Indices, NDArray[np.int64]]:
    """Places of the matches among the items that a query meets, nearest first, and their ranks."""
    if not is_match.any():
        return np.empty(0, np.intp), np.empty(0, np.int64)
    # What is farther than the last match is not sorted.
    near = np.flatnonzero(distances <= distances[is_match].max())
    order = near[np.argsort(distances[near], kind="stable")]
    found = np.flatnonzero(is_match[order])
    return order[found], found + 1


def _groups(
    comparison: Comparison, priorities: NDArray[np.float64] | None
) -> Iterator[tuple[Indices, Indices]]:
    """Queries with the items they search, rows of both splits, ascending."""
    if priorities is not None:
        for queries, items in shot_groups(comparison, comparison.identified_queries):
            drawn = [items[_met(comparison, query, items, priorities)] for query in queries]
            pool = np.unique(np.concatenate(drawn))
            if len(pool):
                yield queries, pool
    elif comparison.listed is not None:
        identified = comparison.gallery_identities != JUNK
        for query in comparison.identified_queries:
            pool = np.flatnonzero(comparison.listed[query] & identified)
            if (comparison.gallery_identities[pool] == comparison.query_identities[query]).any():
                yield np.array([query]), pool
    else:
        yield comparison.identified_queries, np.flatnonzero(comparison.gallery_identities != JUNK)


def _met(
    comparison: Comparison, query: np.intp, pool: Indices, priorities: NDArray[np.float64] | None
) -> Indices:
    """Places in ``pool`` of the items that a query meets; with priorities, of each identity the first."""
    met = np.flatnonzero(comparison.keeps(np.full(1, query), pool))
    if priorities is None:
        return met
    return np.searchsorted(pool, first_of_each(pool[met], comparison.gallery_identities, priorities))
