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

from reidkit.comparison import Comparison, Pairs
from reidkit.types import JUNK
from reidkit.unit_rows import Indices


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
    priorities = random_numbers(len(comparison.gallery), seed=draw)
    positives = pairs.where(pairs.positive)
    order = np.lexsort((priorities[positives.items], positives.queries))
    valid, first = np.unique(positives.queries[order], return_index=True)
    drawn = order[first]
    matches = Pairs(valid, positives.items[drawn], positives.scores[drawn], positives.positive[drawn])
    before = np.zeros(len(matches.queries), np.int64)
    for queries, items in shot_groups(comparison, valid):
        met = first_of_each(items, comparison.gallery_identities, priorities)
        _count_exactly(comparison, pairs, matches, queries, before, block_size, items=met)
    return matches, 1 + before


def has_choice(comparison: Comparison) -> bool:
    """Whether any query can meet two images of one identity, so that draws differ."""
    everybody = np.arange(len(comparison.query))
    return any(
        len(items) > len(np.unique(comparison.gallery_identities[items]))
        for _, items in shot_groups(comparison, everybody)
    )


def shot_groups(comparison: Comparison, queries: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Queries that may meet the same items of other identities, with these items, both ascending."""
    items = np.flatnonzero(comparison.gallery_identities != JUNK)
    if comparison.camera_filter != "other_cameras":
        yield queries, items
        return
    for camera in np.unique(comparison.query_cameras[queries]):
        asking = queries[comparison.query_cameras[queries] == camera]
        yield asking, items[comparison.gallery_cameras[items] != camera]


def first_of_each(items: Indices, labels: NDArray[np.int64], priorities: NDArray[np.float64]) -> Indices:
    """Of each label the item of lowest priority number; ascending."""
    ordered = items[np.argsort(priorities[items])]
    return np.sort(ordered[np.unique(labels[ordered], return_index=True)[1]])


def random_numbers(num: int, *, seed: int) -> NDArray[np.float64]:
    # Python promises that random() gives the same numbers in every version; NumPy's generators do not.
    generator = random.Random(seed)
    return np.array([generator.random() for _ in range(num)])


def lowest(values: NDArray[np.float64], num: int) -> Indices:
    """Places of the ``num`` lowest values, lowest first, ties by place."""
    places = np.flatnonzero(values <= np.partition(values, num - 1)[num - 1])
    return places[np.argsort(values[places], kind="stable")[:num]]


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
    look = comparison.first_look
    scores = matches.scores - look.query_products[matches.queries]
    lower, upper = (scores - look.error).astype(np.float32), (scores + look.error).astype(np.float32)
    first, count = spans(matches, len(comparison.query))
    crowded = np.zeros(len(comparison.query), np.bool_)
    for rows, items, scores in comparison.tiles(queries, pairs, block_size=block_size):
        near_matches, near_items = [], []
        for query, row in zip(rows, scores, strict=True):
            if crowded[query]:
                continue
            span = slice(first[query], first[query] + count[query])
            above, near = _count_row(row, lower[span], upper[span])
            # A pair scored again costs as much as some hundred of a row that is scored as a whole.
            if near.sum() > max(32, len(row) // 64):
                crowded[query] = True
                continue
            before[span] += above
            for match in span.start + np.flatnonzero(near):
                near_matches.append(match)
                near_items.append(items[(row >= lower[match]) & (row <= upper[match])])
        if near_matches:
            chosen = np.repeat(near_matches, [len(found) for found in near_items])
            _count_pairs(comparison, matches, chosen, np.concatenate(near_items), before)
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
            above, tied = _count_row(row, match_scores, match_scores)
            for score in np.unique(match_scores[tied > 0]):
                equal = match_scores == score
                tied_items = block[row == score]
                above[equal] += np.searchsorted(tied_items, matches.items[span][equal])
            before[span] += above


def _count_row(
    row: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many scores of a row lie above each match's interval [lower, upper], and how many inside.

    Matches come best first. What scores below the last of them is before no match and is not sorted.
    """
    ascending = np.sort(row[row >= lower[-1]])
    above = len(ascending) - np.searchsorted(ascending, upper, side="right")
    inside = len(ascending) - np.searchsorted(ascending, lower, side="left") - above
    return above, inside
