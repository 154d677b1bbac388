"""Better rankings from the embeddings themselves: k-reciprocal re-ranking, query expansion.

Nearest neighbours are found in float32, block by block, and computed again exactly (see
:mod:`reidkit.evaluation.euclidean`), so that the result depends on neither block sizes nor threads. What is
kept of the N x N distances and of the N x N encoding is some dozens of numbers a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from reidkit.errors import ConfigError
from reidkit.evaluation.euclidean import EuclideanItems, block_length, checked_sides, cut
from reidkit.evaluation.ranks import lowest
from reidkit.evaluation.unit_rows import Indices, UnitRows

_ITEMS_PER_PART = 256
_SPARE = 12
"""Items looked at beyond the neighbours wanted: they show whether float32 can have missed one."""


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How k-reciprocal re-ranking works; the defaults are the paper's for Market-1501.

    ``k1`` neighbours make the reciprocal sets; the encodings of ``k2`` are averaged; ``lambda_value`` is the
    weight of the original distance. Raises :class:`ConfigError` for values out of range.
    """

    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self) -> None:
        counts: dict[str, object] = {"k1": self.k1, "k2": self.k2}
        problems = [
            f"{name} is {value!r}; give a whole number of at least 1"
            for name, value in counts.items()
            if not isinstance(value, Integral) or value < 1
        ]
        if not problems and self.k2 > self.k1:
            problems = [f"k2 is {self.k2}, more than k1 = {self.k1}; give at most k1 (the paper's: 6 and 20)"]
        if not 0 <= self.lambda_value <= 1:
            problems.append(
                f"lambda_value is {self.lambda_value}; give a share from 0 (Jaccard distance only) "
                "to 1 (original distance only)"
            )
        if problems:
            raise ConfigError(problems)


def rerank(
    query_embeddings: NDArray[np.floating[Any]],
    gallery_embeddings: NDArray[np.floating[Any]],
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    block_size: int | None = None,
) -> NDArray[np.float32]:
    """Distances after k-reciprocal encoding: low where two items have their near neighbours in common.

    Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. Over all
    N = Q + G items, with d(i, j) the squared Euclidean distance divided by row i's largest:

    - R(i, k) = items j among the k + 1 nearest of i that have i among theirs; i is its own nearest, and
      ties are broken by order, queries first;
    - R*(i) = R(i, k1) and every R(c, k1 / 2) with c in R(i, k1) of which more than 2/3 lies in R(i, k1);
    - V(i, j) = exp(-d(i, j)) on R*(i), rows summing to 1, then averaged over the k2 nearest of i;
    - Jaccard distance J = 1 - s / (2 - s), s(i, j) = sum over l of min(V(i, l), V(j, l));
    - result (1 - lambda) J + lambda d.

    Use with: sets with several true matches for a query. Pitfalls: where a query has one match only (VIPeR,
    CUHK01) metrics fall, for the neighbourhood is of other identities; the gallery is known as a whole, which
    a running system's is not; distances of two queries cannot be compared, nor with a threshold. Embeddings
    are taken as they stand, to 24 bits of the longest: give them at unit length, as models make them.

    Args:
        query_embeddings: (Q, D), any float type.
        gallery_embeddings: (G, D).
        k1: neighbours that make the reciprocal sets.
        k2: neighbours whose encodings are averaged; 1 for none but the item itself.
        lambda_value: weight of the original distance, in [0, 1].
        block_size: rows looked at together; by default 32 MB of distances. The result does not depend on it.

    Returns:
        (Q, G), lower is nearer. :class:`Reranker` gives them a few queries at a time.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite.
        ConfigError: k1, k2, lambda_value or block_size out of range.

    >>> query = np.array([[0.0, 0.0]])
    >>> gallery = np.array([[0.0, 1.0], [1.1, 0.0], [1.2, 0.4], [1.2, -0.4], [0.1, -0.8]])
    >>> rerank(query, gallery, k1=2, k2=1).round(2)
    array([[0.53, 0.93, 1.  , 1.  , 0.4 ]], dtype=float32)
    """
    options = RerankOptions(k1, k2, lambda_value)
    reranker = Reranker(query_embeddings, gallery_embeddings, options, block_size=block_size)
    distances = np.empty((len(query_embeddings), len(gallery_embeddings)), np.float32)
    for start, stop in cut(len(distances), block_size or block_length(len(gallery_embeddings))):
        distances[start:stop] = reranker.rows(slice(start, stop))
    return distances


class Reranker:
    """Re-ranked distances a few queries at a time; see :func:`rerank` for what they are.

    All items are encoded here, once; memory is the embeddings in float32, a sparse (N, N) encoding of some
    dozens of numbers a row, and a block. Arguments and errors are those of :func:`rerank`; without a gallery
    the queries are the gallery, each an item once.

    >>> items = np.random.default_rng(0).normal(size=(50, 8))
    >>> reranker = Reranker(items[:10], items[10:], RerankOptions(k1=5, k2=2))
    >>> reranker.rows(slice(4, 7)).shape
    (3, 40)
    """

    def __init__(
        self,
        query_embeddings: NDArray[np.floating[Any]],
        gallery_embeddings: NDArray[np.floating[Any]] | None,
        options: RerankOptions | None = None,
        *,
        block_size: int | None = None,
    ) -> None:
        if block_size is not None and block_size < 1:
            raise ConfigError(f"block_size is {block_size}; give at least 1, or None to have it chosen")
        options = options or RerankOptions()
        self._items = EuclideanItems(query_embeddings, gallery_embeddings)
        self._lambda = options.lambda_value
        neighbours, self._farthest = _neighbours(
            self._items, min(options.k1 + 1, len(self._items)), block_size=block_size
        )
        encoding = _encode(self._items, neighbours, self._farthest, options)
        self._query_encoding = encoding[: self._items.num_queries]
        self._gallery_encoding = encoding[self._items.item_rows[0] :].tocsc()

    def rows(self, queries: slice) -> NDArray[np.float32]:
        """Distances (b, G) of the queries of a slice."""
        rows = np.arange(*queries.indices(self._items.num_queries))
        distances = self._items.distances(rows, self._items.item_rows)
        distances *= self._lambda / self._farthest[rows, None]
        for query, row in zip(rows, distances, strict=True):
            overlap = self._overlap(query)
            row += (1 - self._lambda) * (1 - overlap / (2 - overlap))
        return distances.astype(np.float32)

    def _overlap(self, query: np.intp) -> NDArray[np.float64]:
        """Sum of minima s (G,) of a query's encoding and each gallery item's.

        The columns of the gallery's encoding are an inverted index: only items that share a neighbour
        with the query are met.
        """
        ours, theirs = self._query_encoding, self._gallery_encoding
        span = slice(ours.indptr[query], ours.indptr[query + 1])
        shared, shares = ours.indices[span], ours.data[span]
        first, count = theirs.indptr[shared], theirs.indptr[shared + 1] - theirs.indptr[shared]
        places = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        minima = np.minimum(np.repeat(shares, count), theirs.data[places])
        overlap = np.bincount(theirs.indices[places], minima, minlength=theirs.shape[0])
        return overlap.astype(np.float64, copy=False)


def jaccard_nearness(
    embeddings: NDArray[np.floating[Any]],
    *,
    k1: int = 20,
    k2: int = 6,
    least: float = 0.0,
    block_size: int | None = None,
) -> csr_array:
    """1 - Jaccard distance of all pairs of items whose k-reciprocal neighbourhoods meet, sparse.

    The distance is that of :func:`rerank`, without the original one; pairs that are not stored have nearness
    0. Memory is the embeddings in float32 and some dozens of numbers an item.

    Args:
        embeddings: (N, D), any float type, at unit length.
        k1, k2, block_size: as :func:`rerank` takes them.
        least: pairs that are less near are not stored.

    Returns:
        (N, N), symmetric, float32, without the diagonal.

    Raises :class:`DataError` and :class:`ConfigError` as :func:`rerank` does.
    """
    reranker = Reranker(embeddings, None, RerankOptions(k1, k2), block_size=block_size)
    counts, columns, values = [0], [], []
    for item in range(len(embeddings)):
        overlap = reranker._overlap(np.intp(item))
        overlap[item] = 0
        near = np.flatnonzero(overlap)
        nearness = overlap[near] / (2 - overlap[near])
        kept = nearness >= least
        counts.append(int(kept.sum()))
        columns.append(near[kept].astype(np.int32))
        values.append(nearness[kept].astype(np.float32))
    return csr_array(
        (np.concatenate(values), np.concatenate(columns), np.cumsum(counts)),
        shape=(len(embeddings), len(embeddings)),
    )


def query_expansion(
    query_embeddings: NDArray[np.floating[Any]],
    gallery_embeddings: NDArray[np.floating[Any]],
    *,
    top: int = 10,
    alpha: float = 0.0,
) -> NDArray[np.float32]:
    """Each query moved towards its nearest gallery items: a better query, to search with once more.

    q' = unit(q + sum over the ``top`` nearest g of max(q.g, 0)^alpha g), all of unit length. ``alpha`` 0 is
    average query expansion (Chum et al., "Total Recall", ICCV 2007); above 0 nearer items count more
    (alpha query expansion, Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation",
    TPAMI 2018, who take 3).

    Use with: sets with several true matches for a query; much cheaper than :func:`rerank`. Pitfall: ``top``
    above the number of true matches mixes in other identities; a larger ``alpha`` forgives that.

    Args:
        query_embeddings: (Q, D), any float type; scaled to unit length.
        gallery_embeddings: (G, D), likewise.
        top: items to add, all where the gallery is shorter; ties by gallery order.
        alpha: exponent of the cosine similarity, at least 0.

    Returns:
        (Q, D), of unit length.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite.
        ConfigError: ``top`` below 1, ``alpha`` below 0.

    >>> query, gallery = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8], [-1.0, 0.0]])
    >>> query_expansion(query, gallery, top=1).round(3)
    array([[0.894, 0.447]], dtype=float32)
    """
    if top < 1:
        raise ConfigError(f"top is {top}; give at least 1, the number of gallery items to add")
    if not 0 <= alpha < math.inf:
        raise ConfigError(f"alpha is {alpha}; give 0 (all count alike) or more (3 is the paper's)")
    sides = checked_sides(query_embeddings, gallery_embeddings)
    queries, gallery = UnitRows(sides[0], "query"), UnitRows(sides[1], "gallery")
    expanded = np.empty((len(queries), queries.num_dimensions), np.float32)
    for start, stop in cut(len(queries), block_length(len(gallery))):
        block = queries.take(np.arange(start, stop))
        scores = np.empty((len(block), len(gallery)))
        for first, last in cut(len(gallery), _ITEMS_PER_PART):
            scores[:, first:last] = block @ gallery.take(np.arange(first, last)).T
        for vector, row_scores, out in zip(block, scores, expanded[start:stop], strict=True):
            nearest = lowest(-row_scores, min(top, len(gallery)))
            weights = np.maximum(row_scores[nearest], 0) ** alpha
            vector += weights @ gallery.take(nearest)
            out[:] = vector / (np.linalg.norm(vector) or 1)
    return expanded


def _neighbours(
    items: EuclideanItems, num: int, *, block_size: int | None
) -> tuple[Indices, NDArray[np.float64]]:
    """The ``num`` nearest of every item (N, num), itself first, ties by order; the largest distance (N,)."""
    import torch

    total, num_dimensions = items.values.shape
    # Bound of a float32 dot product's error, D roundings of numbers below 1.42, and of what follows it.
    tolerance = 1.42 * (num_dimensions + 4) * 2.0**-24
    half_norms = (items.squared_norms / 2).astype(np.float32)
    neighbours = np.empty((total, num), np.intp)
    farthest = np.empty(total)
    for start, stop in cut(total, block_size or block_length(total)):
        rows = np.arange(start, stop)
        nearness = items.values[rows] @ items.values.T  # (b, N): q.g - |g|^2 / 2, falling with distance
        nearness -= half_norms
        nearness[rows - start, rows] = np.inf
        first_look = torch.from_numpy(nearness)
        high, near = (found.numpy() for found in first_look.topk(min(num + _SPARE, total)))
        low, far = (found.numpy() for found in first_look.topk(min(_SPARE, total), largest=False))
        distances = items.distances_to_each(rows, near)
        distances[near == rows[:, None]] = -1
        order = np.lexsort((near, distances))[:, :num]
        neighbours[rows] = np.take_along_axis(near, order, axis=1)
        farthest[rows] = items.distances_to_each(rows, far).max(axis=1)
        last = np.take_along_axis(distances, order[:, -1:], axis=1)[:, 0]
        unseen_least = items.squared_norms[rows] - 2 * (high[:, -1] + tolerance)
        unseen_most = items.squared_norms[rows] - 2 * (low[:, -1] - tolerance)
        unsure = rows[(last >= unseen_least) | (farthest[rows] < unseen_most)]
        neighbours[unsure], farthest[unsure] = _neighbours_of(unsure, items, num)
    return neighbours, np.where(farthest > 0, farthest, 1)


def _neighbours_of(rows: Indices, items: EuclideanItems, num: int) -> tuple[Indices, NDArray[np.float64]]:
    """The same for these rows, from the exact distances to every item."""
    distances = items.distances(rows, np.arange(len(items)))
    distances[np.arange(len(rows)), rows] = -1
    neighbours = np.array([lowest(row, num) for row in distances], np.intp).reshape(len(rows), num)
    return neighbours, distances.max(axis=1)


def _encode(
    items: EuclideanItems, neighbours: Indices, farthest: NDArray[np.float64], options: RerankOptions
) -> csr_array:
    """The encoding V (N, N) after local query expansion."""
    near = _reciprocal(neighbours)
    half = _reciprocal(neighbours[:, : round(options.k1 / 2) + 1])  # Python rounds half to even
    # (i, c): how many of R(c, k1 / 2) lie in R(i, k1); never 0, for c lies in both.
    common = near.multiply(near @ half.T).tocsr()
    sizes = np.diff(half.indptr)[common.indices]
    common.data = np.where(3 * common.data > 2 * sizes, 1, 0)
    common.eliminate_zeros()
    expanded = (near + common @ half).tocoo()
    distances = items.distances_to_each(expanded.row, expanded.col[:, None])[:, 0]
    weights = np.exp(-distances / farthest[expanded.row])
    weights /= np.bincount(expanded.row, weights)[expanded.row]
    encoding = csr_array((weights, (expanded.row, expanded.col)), shape=near.shape)
    mean = _rows_of_ones(neighbours[:, : options.k2])
    return (mean @ encoding) / neighbours[:, : options.k2].shape[1]


def _reciprocal(neighbours: Indices) -> csr_array:
    """R(i, k) as ones in a sparse (N, N) matrix, from the k + 1 nearest of every item (N, k + 1)."""
    among_first = _rows_of_ones(neighbours)
    return among_first.multiply(among_first.T).tocsr()


def _rows_of_ones(columns: Indices) -> csr_array:
    """Sparse (N, N) with a one at each of the columns (N, k) of its row."""
    num_rows, per_row = columns.shape
    ends = np.arange(0, columns.size + 1, per_row)
    return csr_array((np.ones(columns.size, np.int32), columns.ravel(), ends), shape=(num_rows, num_rows))
