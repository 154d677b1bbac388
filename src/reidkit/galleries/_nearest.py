"""Exact nearest neighbours among the rows of a matrix that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries._storage import Stored

BLOCK_ROWS = 262_144  # at most so many vectors, queries and scores in one matrix product
BLOCK_QUERIES = 1024
BLOCK_SCORES = 2**24
COPY_ROWS = 4096

_Block = tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32] | float, NDArray[np.bool_] | None]


def nearest(
    vectors: Stored | NDArray[np.float32],
    rows: NDArray[np.int64] | None,
    queries: NDArray[np.float32],
    *,
    top: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The ``top`` nearest rows of each query with their scores, nearest first, equal scores by row.

    Shapes: unit vectors (R, D), unit queries (Q, D); ``rows`` (K,) ascending, to search in, ``None`` for
    all. Rows whose score may be that of the last place, or more, are scored again in float64.
    """
    stored = vectors if isinstance(vectors, Stored) else Stored(vectors)
    found = []
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = queries[start : start + BLOCK_QUERIES]
        best = [(np.empty(0, np.int64), np.empty(0, np.float64))] * len(block)
        for numbers, scores, slack, passing in _scored_blocks(stored, rows, block):
            for index, query in enumerate(block):
                best_rows, best_scores = best[index]
                floor = best_scores[-1] if len(best_scores) == top else -np.inf
                near_enough = scores[index] + slack >= floor
                kept = np.flatnonzero(near_enough if passing is None else near_enough & passing)
                if len(kept) > top:
                    near = scores[index, kept]
                    off = slack if isinstance(slack, float) else slack[kept]
                    kept = kept[near + off >= np.partition(near - off, -top)[-top]]
                if len(kept):
                    best_rows = np.concatenate([best_rows, numbers[kept]])
                    best_scores = np.concatenate([best_scores, _exact(stored, numbers[kept], query)])
                    order = np.lexsort([best_rows, -best_scores])[:top]
                    best[index] = best_rows[order], best_scores[order]
        found += best
    return [(rows, np.clip(scores, -1, 1)) for rows, scores in found]


def _scored_blocks(
    stored: Stored, rows: NDArray[np.int64] | None, queries: NDArray[np.float32]
) -> Iterator[_Block]:
    """Row numbers (B,), scores (Q, B) and how far off they may be, block by block; which of them count (B,),
    if not all."""
    size = min(BLOCK_ROWS, BLOCK_SCORES // len(queries))
    for start in range(0, len(stored), size):
        stop = min(start + size, len(stored))
        numbers = np.arange(start, stop)
        if rows is not None:
            first, last = np.searchsorted(rows, [start, stop])
            numbers = rows[first:last]
        if not len(numbers):
            continue
        if len(numbers) == stop - start:
            yield numbers, *stored.scores(queries, slice(start, stop)), None
        elif 4 * len(numbers) < stop - start:
            yield numbers, *stored.scores(queries, numbers), None
        else:  # scoring a few rows too many costs less than copying the others, or their scores
            passing = np.zeros(stop - start, np.bool_)
            passing[numbers - start] = True
            yield np.arange(start, stop), *stored.scores(queries, slice(start, stop)), passing


def _exact(stored: Stored, rows: NDArray[np.int64], query: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores (K,) in float64."""
    wide = query.astype(np.float64)
    return np.concatenate([stored.exact(some, wide) for some in pieces(rows)])


def pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Row numbers in portions that are small enough to copy their vectors."""
    for start in range(0, len(rows), COPY_ROWS):
        yield rows[start : start + COPY_ROWS]
