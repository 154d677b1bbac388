"""Exact nearest neighbours among the rows of a matrix that may be larger than memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 262_144  # at most so many vectors, queries and scores in one matrix product
BLOCK_QUERIES = 1024
BLOCK_SCORES = 2**24
COPY_ROWS = 4096


def nearest(
    vectors: NDArray[np.float32], rows: NDArray[np.int64] | None, queries: NDArray[np.float32], *, top: int
) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The ``top`` nearest rows of each query with their scores, nearest first, equal scores by row.

    Shapes: unit vectors (R, D), unit queries (Q, D); ``rows`` (K,) ascending, to search in, ``None`` for
    all. A float32 score is off by at most D * eps / 2, so that rows within D * eps of the last place may
    belong to the top (twice that is used): they are computed again in float64.
    """
    tolerance = 2 * vectors.shape[1] * float(np.finfo(np.float32).eps)
    found = []
    for start in range(0, len(queries), BLOCK_QUERIES):
        block = queries[start : start + BLOCK_QUERIES]
        best = [(np.empty(0, np.int64), np.empty(0, np.float64))] * len(block)
        for numbers, scores, passing in _scored_blocks(vectors, rows, block):
            for index, query in enumerate(block):
                best_rows, best_scores = best[index]
                floor = best_scores[-1] if len(best_scores) == top else -np.inf
                near_enough = scores[index] >= floor - tolerance
                kept = np.flatnonzero(near_enough if passing is None else near_enough & passing)
                if len(kept) > top:
                    near = scores[index, kept]
                    kept = kept[near >= np.partition(near, -top)[-top] - tolerance]
                if len(kept):
                    best_rows = np.concatenate([best_rows, numbers[kept]])
                    best_scores = np.concatenate([best_scores, _exact(vectors, numbers[kept], query)])
                    order = np.lexsort([best_rows, -best_scores])[:top]
                    best[index] = best_rows[order], best_scores[order]
        found += best
    return [(rows, np.clip(scores, -1, 1)) for rows, scores in found]


def _scored_blocks(
    vectors: NDArray[np.float32], rows: NDArray[np.int64] | None, queries: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]]:
    """Row numbers (B,) and scores (Q, B), block by block; which of them count (B,), if not all."""
    size = min(BLOCK_ROWS, BLOCK_SCORES // len(queries))
    for start in range(0, len(vectors), size):
        block = vectors[start : start + size]
        numbers = np.arange(start, start + len(block))
        if rows is not None:
            first, last = np.searchsorted(rows, [start, start + len(block)])
            numbers = rows[first:last]
        if not len(numbers):
            continue
        if len(numbers) == len(block):
            yield numbers, queries @ block.T, None
        elif 4 * len(numbers) < len(block):
            yield numbers, queries @ block[numbers - start].T, None
        else:  # scoring a few rows too many costs less than copying the others, or their scores
            passing = np.zeros(len(block), np.bool_)
            passing[numbers - start] = True
            yield np.arange(start, start + len(block)), queries @ block.T, passing


def _exact(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Dot products (K,) in float64, by a sum that is the same for equal vectors wherever they stand."""
    wide = query.astype(np.float64)
    return np.concatenate([(vectors[some].astype(np.float64) * wide).sum(axis=1) for some in pieces(rows)])


def pieces(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Row numbers in portions that are small enough to copy their vectors."""
    for start in range(0, len(rows), COPY_ROWS):
        yield rows[start : start + COPY_ROWS]
