"""Exact squared Euclidean distances between embeddings of any length.

Embeddings are scaled by a power of two to lengths of at most 1.19 and rounded to multiples of 2^-26, which
float32 holds as well; every partial sum of a product is then a multiple of 2^-52 below 2, so that float64
holds it whatever the order of summation (as in :mod:`reidkit.evaluation.unit_rows`). Distances depend on
neither block sizes nor threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import embedding_array
from reidkit.errors import DataError
from reidkit.evaluation.unit_rows import Indices, row_lengths

_GRID = 2.0**26
_BLOCK_BYTES = 32 * 2**20
_ELEMENTS_PER_PART = 2**17


class EuclideanItems:
    """Queries and gallery items one after the other, and the squared distances between them.

    Without a gallery the queries are the gallery. Distances are in the unit that ``values`` have, the
    embeddings times a power of two: only comparisons and ratios of them mean something.

    Attributes:
        values: (N, D), N = Q + G, or Q without a gallery.
        squared_norms: (N,), exact.
        num_queries: Q.
        item_rows: of the gallery's items among the N.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite.
    """

    def __init__(
        self, query: NDArray[np.floating[Any]], gallery: NDArray[np.floating[Any]] | None = None
    ) -> None:
        sides = checked_sides(query, gallery)
        longest = max(
            row_lengths(side, name).max() for side, name in zip(sides, ("query", "gallery"), strict=False)
        )
        scale = _GRID / 2.0 ** math.ceil(math.log2(longest) - 0.25) if longest else 1.0
        self.values = np.empty((sum(map(len, sides)), sides[0].shape[1]), np.float32)
        self.squared_norms = np.empty(len(self.values))
        self.num_queries = len(sides[0])
        self.item_rows = np.arange(0 if gallery is None else self.num_queries, len(self.values))
        end = 0
        for side in sides:
            for start, stop in cut(len(side), _part_length(side.shape[1])):
                exact = np.rint(side[start:stop].astype(np.float64) * scale) / _GRID
                begin, end = end, end + len(exact)
                self.values[begin:end] = exact
                exact = self.values[begin:end].astype(np.float64)
                self.squared_norms[begin:end] = np.einsum("nd,nd->n", exact, exact)

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, queries: slice) -> NDArray[np.float64]:
        """Squared distances (b, G) of the queries of a slice to all gallery items."""
        return self.distances(np.arange(*queries.indices(self.num_queries)), self.item_rows)

    def distances(self, left: Indices, right: Indices) -> NDArray[np.float64]:
        """Squared distances (m, n) of all pairs of these rows."""
        left_values, left_norms = self.values[left].astype(np.float64), self.squared_norms[left, None]
        distances = np.empty((len(left), len(right)))
        for start, stop in cut(len(right), _part_length(self.values.shape[1])):
            part = right[start:stop]
            products = left_values @ self.values[part].astype(np.float64).T
            distances[:, start:stop] = (left_norms - products) + (self.squared_norms[part] - products)
        return distances

    def distances_to_each(self, left: Indices, right: Indices) -> NDArray[np.float64]:
        """Squared distances (m, n) of row ``left[i]`` and each of the rows ``right[i]`` (n,)."""
        distances = np.empty(right.shape)
        for start, stop in cut(len(left), _part_length(right.shape[1] * self.values.shape[1])):
            rows, others = left[start:stop], right[start:stop]
            products = np.einsum(
                "md,mnd->mn",
                self.values[rows].astype(np.float64),
                self.values[others].astype(np.float64),
            )
            distances[start:stop] = (self.squared_norms[rows, None] - products) + (
                self.squared_norms[others] - products
            )
        return distances


def checked_sides(
    query: NDArray[np.floating[Any]], gallery: NDArray[np.floating[Any]] | None
) -> list[NDArray[np.floating[Any]]]:
    """Both, or the query alone, as arrays (N, D); :class:`DataError` where they are not, or differ in D."""
    sides = [embedding_array(query, "query embeddings")]
    if gallery is not None:
        sides.append(embedding_array(gallery, "gallery embeddings"))
    if sides[0].shape[1] != sides[-1].shape[1]:
        raise DataError(
            f"query embeddings have {sides[0].shape[1]} dimensions, gallery embeddings {sides[1].shape[1]}; "
            "encode both with the same model"
        )
    return sides


def block_length(num_columns: int) -> int:
    """Rows of a block of float32 distances that is not too large."""
    return max(1, _BLOCK_BYTES // (4 * max(1, num_columns)))


def cut(total: int, length: int) -> Iterator[tuple[int, int]]:
    """Starts and stops of parts of at most ``length``."""
    for start in range(0, total, length):
        yield start, min(start + length, total)


def _part_length(elements_per_row: int) -> int:
    """Rows whose float64 copies stay in the processor's cache."""
    return max(1, _ELEMENTS_PER_PART // max(1, elements_per_row))
