"""Ranks of the true matches, counted: the gallery passes by in blocks and no row is ever sorted.

A rank is 1 + the kept items before the match. Each float32 block is counted against the scores of every
query's positives, and what comes too close to one of them to be told apart in float32 is scored again
exactly. The result is that of a full sort in exact arithmetic.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.protocols import Comparison, Indices, Pairs
from reidkit.types import JUNK


def match_ranks(
    comparison: Comparison, pairs: Pairs, *, block_size: int | None = None
) -> tuple[Pairs, NDArray[np.int64]]:
    """The positives among ``pairs`` and their ranks (M,), both by query, best first.

    A match's rank is 1 + the better matches of its query + the negatives before it.
    """
    matches = pairs.where(pairs.positive)
    first, count = spans(matches, len(comparison.query))
    valid = np.flatnonzero(count)
    before = np.zeros(len(matches.queries), np.int64)
    if comparison.distance == "cosine":
        crowded = _count_in_float32(comparison, pairs, matches, valid, before, block_size)
    else:
        crowded = valid
    _count_exactly(comparison, pairs, matches, crowded, before, block_size)
    better_matches = np.arange(len(before)) - first[matches.queries]
    return matches, 1 + better_matches + before


def shot_ranks(
    comparison: Comparison, pairs: Pairs, *, draw: int, block_size: int | None = None
) -> tuple[Pairs, NDArray[np.int64]]:
    """As :func:`match_ranks`, where a query meets one image of each identity, drawn from those it may meet.

    Gallery items are put in a random order, the same for all queries, and of each identity a query meets the
    first that the camera filter leaves it. ``draw`` is the seed of that order.
    """
    priorities = _random_numbers(len(comparison.gallery), seed=draw)
    positives = pairs.where(pairs.positive)
    order = np.lexsort((priorities[positives.items], positives.queries))
    valid, first = np.unique(positives.queries[order], return_index=True)
    drawn = order[first]
    matches = Pairs(valid, positives.items[drawn], positives.scores[drawn], positives.positive[drawn])
    before = np.zeros(len(matches.queries), np.int64)
    for queries, items in _shot_groups(comparison, valid):
        met = _first_of_each(items, comparison.gallery_identities, priorities)
        _count_exactly(comparison, pairs, matches, queries, before, block_size, items=met)
    return matches, 1 + before


def has_choice(comparison: Comparison) -> bool:
    """Whether any query can meet two images of one identity, so that draws differ."""
    everybody = np.arange(len(comparison.query))
    return any(
        len(items) > len(np.unique(comparison.gallery_identities[items]))
        for _, items in _shot_groups(comparison, everybody)
    )


def _shot_groups(comparison: Comparison, queries: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Queries that may meet the same items of other identities, with these items, both ascending."""
    items = np.flatnonzero(comparison.gallery_identities != JUNK)
    if comparison.camera_filter != "other_cameras":
        yield queries, items
        return
    for camera in np.unique(comparison.query_cameras[queries]):
        asking = queries[comparison.query_cameras[queries] == camera]
        yield asking, items[comparison.gallery_cameras[items] != camera]


def _first_of_each(items: Indices, labels: NDArray[np.int64], priorities: NDArray[np.float64]) -> Indices:
    """Of each label the item of lowest priority number; ascending."""
    ordered = items[np.argsort(priorities[items])]
    return np.sort(ordered[np.unique(labels[ordered], return_index=True)[1]])


def _random_numbers(num: int, *, seed: int) -> NDArray[np.float64]:
    # Python promises that random() gives the same numbers in every version; NumPy's generators do not.
    generator = random.Random(seed)
    return np.array([generator.random() for _ in range(num)])


def spans(matches: Pairs, num_queries: int) -> tuple[Indices, Indices]:
    """Where each query's matches begin, and how many they are, both (Q,)."""
    ends = np.searchsorted(matches.queries, np.arange(num_queries + 1))
    return ends[:-1], np.diff(ends)


def _count_in_float32(
    comparison: Comparison,
    pairs: Pairs,
    matches: Pairs,
    queries: Indices,
    before: NDArray[np.int64],
    block_size: int | None,
) -> Indices:
    """Add to ``before`` the negatives before each match; scores too close to call are computed again.

    Returns the queries with so many of these (collapsed embeddings) that they are better counted exactly
    as a whole; their entries of ``before`` are zero.
    """
    tolerance = _float32_tolerance(comparison.query.num_dimensions)
    lower = (matches.scores - tolerance).astype(np.float32)
    upper = (matches.scores + tolerance).astype(np.float32)
    first, count = spans(matches, len(comparison.query))
    crowded = np.zeros(len(comparison.query), np.bool_)
    for rows, items, scores in comparison.tiles(queries, pairs, block_size=block_size):
        near_matches, near_items = [], []
        for query, row in zip(rows, scores, strict=True):
            if crowded[query]:
                continue
            span = slice(first[query], first[query] + count[query])
            columns, values, above, near = _count_row(row, lower[span], upper[span])
            # A pair scored again costs as much as some hundred of a row that is scored as a whole.
            if near.sum() > max(32, len(row) // 64):
                crowded[query] = True
                continue
            before[span] += above
            for match in span.start + np.flatnonzero(near):
                found = columns[(values >= lower[match]) & (values <= upper[match])]
                near_matches.append(np.full(len(found), match))
                near_items.append(items[found])
        if near_matches:
            _count_pairs(
                comparison, matches, np.concatenate(near_matches), np.concatenate(near_items), before
            )
    before[crowded[matches.queries]] = 0
    return np.flatnonzero(crowded)


def _count_pairs(
    comparison: Comparison, matches: Pairs, chosen: Indices, items: Indices, before: NDArray[np.int64]
) -> None:
    """Add 1 to ``before[chosen[n]]`` where ``items[n]`` comes before that match in exact arithmetic."""
    scores = comparison.exact_scores(matches.queries[chosen], items)
    ties = scores == matches.scores[chosen]
    is_before = (scores > matches.scores[chosen]) | (ties & (items < matches.items[chosen]))
    before += np.bincount(chosen[is_before], minlength=len(before))


def _count_exactly(
    comparison: Comparison,
    pairs: Pairs,
    matches: Pairs,
    queries: Indices,
    before: NDArray[np.int64],
    block_size: int | None,
    items: Indices | None = None,
) -> None:
    """Add to ``before`` the negatives before each match of ``queries``, from exact scores throughout."""
    first, count = spans(matches, len(comparison.query))
    tiles = comparison.tiles(queries, pairs, items=items, block_size=block_size, exact=True)
    for rows, block, scores in tiles:
        for query, row in zip(rows, scores, strict=True):
            span = slice(first[query], first[query] + count[query])
            match_scores = matches.scores[span]
            columns, values, above, tied = _count_row(row, match_scores, match_scores)
            for score in np.unique(match_scores[tied > 0]):
                equal = match_scores == score
                tied_items = block[columns[values == score]]
                above[equal] += np.searchsorted(tied_items, matches.items[span][equal])
            before[span] += above


def _count_row(
    row: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]
) -> tuple[Indices, NDArray[Any], Indices, Indices]:
    """Place a row of scores among a query's matches, best first, each an interval [lower, upper].

    Returns columns and values of the scores that reach the lowest interval, how many scores lie above
    each interval, and how many inside. All others are before no match and are not looked at again.
    """
    columns = np.flatnonzero(row >= lower[-1])
    values = row[columns]
    ascending = np.sort(values)
    above = len(ascending) - np.searchsorted(ascending, upper, side="right")
    inside = len(ascending) - np.searchsorted(ascending, lower, side="left") - above
    return columns, values, above, inside


def _float32_tolerance(num_dimensions: int) -> float:
    """How far a float32 product of unit vectors may lie from the exact score, bounds' rounding included.

    Summing D terms to at most 1 errs by sqrt(D) roundings of at most 2^-25 each, 2^-25/sqrt(3) in the
    mean square: this is seven of those standard deviations. A fixed 1e-6 would not do: products of features
    without negative values were seen to be 1.4e-6 off at D = 512 (MKL), 7e-7 with OpenBLAS.
    """
    return float(max(2e-6, 2.0 * np.sqrt(num_dimensions) * 2.0**-24))
