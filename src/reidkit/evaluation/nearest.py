"""The nearest gallery items of a query: what a ranked list shows, and what a query is taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError
from reidkit.evaluation.comparison import Comparison, compare
from reidkit.evaluation.ranks import lowest
from reidkit.evaluation.unit_rows import Indices
from reidkit.types import Features, Ranking


def rank_features(
    query: Features,
    gallery: Features | None = None,
    *,
    top: int = 10,
    camera_filter: str = "same_identity",
    galleries: Sequence[Sequence[int]] | None = None,
    rows: Indices | None = None,
) -> Ranking:
    """The nearest kept gallery items of each query, best first, ties by gallery order.

    ``galleries`` gives each query the gallery rows it meets; ``rows``, where given, are the queries to rank,
    in the order of the result. Without a gallery every item queries all others; without camera labels no
    camera filter is used. Raises as :func:`reidkit.evaluation.evaluation.evaluate_features` does, but a query
    without a positive is ranked like any other.
    """
    comparison = compare(query, gallery, camera_filter=camera_filter, gallery_rows=galleries)
    return nearest_items(comparison, top=top, rows=rows)


def nearest_items(comparison: Comparison, *, top: int, rows: Indices | None = None) -> Ranking:
    """:func:`rank_features` of sides that are compared already."""
    if top < 1:
        raise ConfigError(f"top is {top}; give at least 1")
    rows = np.arange(len(comparison.query)) if rows is None else rows
    asking, place = np.unique(rows, return_inverse=True)
    best_scores = np.full((len(asking), top), -np.inf)
    best_items = np.full((len(asking), top), -1, np.int64)
    pairs = comparison.same_identity_pairs
    for tile_rows, items, scores in comparison.tiles(asking, pairs.where(~pairs.positive), exact=True):
        for row, row_scores in zip(np.searchsorted(asking, tile_rows), scores, strict=True):
            best = lowest(-row_scores, min(top, len(row_scores)))
            seen_scores = np.concatenate([best_scores[row], row_scores[best]])
            seen_items = np.concatenate([best_items[row], items[best]])
            order = np.argsort(-seen_scores, kind="stable")[:top]
            best_scores[row], best_items[row] = seen_scores[order], seen_items[order]
    best_scores, best_items = best_scores[place], best_items[place]
    kept = np.isfinite(best_scores)
    best_items[~kept] = -1
    same_identity = comparison.query_identities[rows, None] == comparison.gallery_identities[best_items]
    return Ranking(
        indices=best_items,
        scores=np.where(kept, best_scores, np.nan).astype(np.float32),
        matches=kept & same_identity,
    )


class NearestNegatives:
    """The nearest negative of each query, found from tiles of scores.

    Attributes:
        items: (Q,), gallery rows, the first of those that tie; -1 where a query has no negative.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.items = np.full(len(comparison.query), -1, np.int64)
        self._scores = np.full(len(comparison.query), -np.inf)

    def read(self, queries: Indices, items: Indices, scores: NDArray[Any]) -> None:
        """As :meth:`reidkit.evaluation.comparison.TileReader.read`."""
        place = scores.argmax(axis=1)
        found = scores[np.arange(len(queries)), place]
        nearer = found > self._scores[queries]
        self._scores[queries[nearer]] = found[nearer]
        self.items[queries[nearer]] = items[place[nearer]]
