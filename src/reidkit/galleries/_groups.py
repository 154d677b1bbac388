"""The nearest groups of a gallery's rows: people or tracklets instead of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries._nearest import nearest
from reidkit.galleries._storage import Stored

_AT_FIRST = 4  # rows ranked for each group wanted; where one group fills them, it is left out and ranked anew


@dataclass(frozen=True, slots=True, eq=False)
class RankedGroup:
    """Rows (M,) of one group with their scores (M,), nearest first, and how many it has in all."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    num_rows: int


def nearest_groups(
    vectors: Stored | NDArray[np.float32],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    queries: NDArray[np.float32],
    *,
    top: int,
    items: int,
) -> list[list[RankedGroup]]:
    """The ``top`` groups of each query (Q, D) whose nearest row is nearest, each with its ``items`` nearest.

    Shapes: vectors (R, D); ``rows`` (K,) ascending, to search in; ``groups`` (K,) their groups, where a
    negative number is no group, and its row one by itself.
    """
    groups = np.where(groups < 0, -1 - np.arange(len(rows)), groups)
    asked = min(_AT_FIRST * top, len(rows) + 1)
    ranked = nearest(vectors, rows, queries, top=asked)
    return [
        [
            _members(vectors, rows[groups == group], query, items=items)
            for group in _order(vectors, rows, groups, query, found, top=top, asked=asked)
        ]
        for query, (found, _) in zip(queries, ranked, strict=True)
    ]


def _order(
    vectors: Stored | NDArray[np.float32],
    rows: NDArray[np.int64],
    groups: NDArray[np.int64],
    query: NDArray[np.float32],
    found: NDArray[np.int64],
    *,
    top: int,
    asked: int,
) -> list[int]:
    """Groups in the order of their nearest rows, of which the first ``asked`` were ranked already."""
    order: dict[int, None] = {}
    while True:
        order |= dict.fromkeys(groups[np.searchsorted(rows, found)].tolist())
        if len(order) >= top or len(found) < asked:
            return list(order)[:top]
        # Whatever is nearest now is of another group, and no nearer than those found.
        left = rows[np.isin(groups, list(order), invert=True)]
        [(found, _)] = nearest(vectors, left, query[None], top=asked)


def _members(
    vectors: Stored | NDArray[np.float32], rows: NDArray[np.int64], query: NDArray[np.float32], *, items: int
) -> RankedGroup:
    [(found, scores)] = nearest(vectors, rows, query[None], top=min(items, len(rows)))
    return RankedGroup(found, scores, len(rows))
