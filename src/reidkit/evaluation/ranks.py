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

from reidkit.evaluation.comparison import Comparison, Pairs
from reidkit.evaluation.unit_rows import Indices
from reidkit.types import JUNK


class RankCounter:
    """Counts the negatives before each match from tiles of exact scores.

    ``before`` (M,) are the counts; the items of all tiles together are those that come before a match.
    """

    def __init__(self, matches: Pairs, num_queries: int) -> None:
        self.before = np.zeros(len(matches.queries), np.int64)
        self._matches = matches
        self._first, self._count = spans(matches, num_queries)

    def read(self, queries: Indices, items: Indices, scores: NDArray[np.float64]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        for place in np.flatnonzero(self._count[queries]):
            query, row = queries[place], scores[place]
            span = slice(self._first[query], self._first[query] + self._count[query])
            match_scores = self._matches.scores[span]
            above, tied = _count_row(row, match_scores, match_scores)
            for score in {*match_scores[tied > 0].tolist()}:
                equal = match_scores == score
                tied_items = items[row == score]
                above[equal] += np.searchsorted(tied_items, self._matches.items[span][equal])
            self.before[span] += above


def match_ranks(
    comparison: Comparison, *, rows: Indices | None = None, block_size: int | None = None
) -> tuple[Pairs, NDArray[np.int64]]:
    """The matches and their ranks (M,), by query, best first; with ``rows``, of these queries only.

    A match's rank is 1 + the better matches of its query + the negatives before it.
    """
    pairs = comparison.same_identity_pairs
    matches = pairs.where(pairs.positive if rows is None else pairs.positive & np.isin(pairs.queries, rows))
    first, count = spans(matches, len(comparison.query))
    valid = np.flatnonzero(count)
    before = np.zeros(len(matches.queries), np.int64)
    if comparison.distance == "cosine":
        crowded = _count_in_float32(comparison, matches, valid, before, block_size)
    else:
        crowded = valid
    before += _count_exactly(comparison, matches, crowded, block_size)
    return matches, ranks_of(matches, before, first)


def ranks_of(matches: Pairs, before: NDArray[np.int64], first: Indices) -> NDArray[np.int64]:
    """Ranks (M,) of matches with ``before`` (M,) negatives before them; a query's begin at ``first`` (Q,)."""
    better_matches = np.arange(len(before)) - first[matches.queries]
    ranks: NDArray[np.int64] = 1 + better_matches + before
    return ranks


def shot_ranks(
    comparison: Comparison, *, draw: int, block_size: int | None = None
) -> tuple[Pairs, NDArray[np.int64]]:
    """As :func:`match_ranks`, where a query meets one image of each identity, drawn from those it may meet.

    Gallery items are put in a random order, the same for all queries, and of each identity a query meets the
    first that the camera filter leaves it. ``draw`` is the seed of that order.
    """
    priorities = random_numbers(len(comparison.gallery), seed=draw)
    positives = comparison.same_identity_pairs.where(comparison.same_identity_pairs.positive)
    order = np.lexsort((priorities[positives.items], positives.queries))
    valid, first = np.unique(positives.queries[order], return_index=True)
    drawn = order[first]
    matches = Pairs(valid, positives.items[drawn], positives.scores[drawn], positives.positive[drawn])
    ranks = np.ones(len(valid), np.int64)
    for queries, items in shot_groups(comparison, valid):
        met = first_of_each(items, comparison.gallery_identities, priorities)
        ranks += _count_exactly(comparison, matches, queries, block_size, items=met)
    return matches, ranks


def has_choice(comparison: Comparison) -> bool:
    """Whether any query can meet two images of one identity, so that draws differ."""
    queries = np.arange(len(comparison.query))
    return any(
        len(items) > len(np.unique(comparison.gallery_identities[items]))
        for _, items in shot_groups(comparison, queries)
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
    hidden = comparison.same_identity_pairs
    for rows, items, scores in comparison.tiles(queries, hidden, block_size=block_size):
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
    matches: Pairs,
    queries: Indices,
    block_size: int | None,
    items: Indices | None = None,
) -> NDArray[np.int64]:
    """The negatives among ``items`` before each match of ``queries`` (M,), from exact scores throughout."""
    counter = RankCounter(matches, len(comparison.query))
    hidden = comparison.same_identity_pairs
    for tile in comparison.tiles(queries, hidden, items=items, block_size=block_size, exact=True):
        counter.read(*tile)
    return counter.before


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
