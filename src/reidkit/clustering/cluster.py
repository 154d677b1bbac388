"""From embeddings to people, by k-reciprocal neighbourhoods and within constraints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, csr_matrix

from reidkit.arrays import embedding_array
from reidkit.clustering.agglomerate import agglomerate
from reidkit.clustering.constraints import Constraints, Units, numbered
from reidkit.errors import ConfigError, DataError, MissingExtra, did_you_mean, shown
from reidkit.evaluation.euclidean import cut
from reidkit.reranking import RerankOptions, jaccard_nearness

Method = Literal["agglomerative", "dbscan"]
METHODS: tuple[str, ...] = get_args(Method)
MOST_ITEMS = 100_000
"""All pairs are compared, so that time grows with the square."""

Weights = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating[Any]]]
"""Of pairs of items, by their places (P,) and (P,): what their nearness is multiplied by."""

_ROWS_AT_ONCE = 64
_LEAST = 0.05
"""Nearness below which a pair counts as 0."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """How embeddings are clustered; the defaults were chosen on Market-1501's training people.

    Args:
        method: "agglomerative", average linkage; or "dbscan", which needs scikit-learn and depends more on
            ``farthest``.
        farthest: Jaccard distance, from 0 to below 1, up to which two are one person: the mean over all
            pairs of two clusters, or for "dbscan" that of single pairs.
        k1, k2: as :func:`reidkit.reranking.rerank` takes them; a ``k2`` above ``k1`` is cut to it. Where
            people have few pictures, a smaller ``k1`` is better: about twice as many.
        lowest: pairs with a smaller cosine similarity are never neighbours; a calibration tells one for a
            false-match rate.

    Raises :class:`ConfigError` for values out of range.
    """

    method: Method = "agglomerative"
    farthest: float = 0.75
    k1: int = 30
    k2: int = 6
    lowest: float | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.method not in METHODS:
            close = did_you_mean(shown(self.method), METHODS)
            problems.append(f"method is {shown(self.method)};{close} Allowed: {', '.join(METHODS)}")
        if not _is_number(self.farthest) or not 0 <= self.farthest < 1:
            problems.append(f"farthest is {shown(self.farthest)}; give a distance from 0 to below 1")
        if self.lowest is not None and not (_is_number(self.lowest) and math.isfinite(self.lowest)):
            problems.append(f"lowest is {shown(self.lowest)}; give a cosine similarity")
        if problems:
            raise ConfigError(problems)
        # Fewer neighbours than k2 are averaged over where there are fewer.
        RerankOptions(self.k1, min(self.k1, self.k2) if _is_number(self.k1) else self.k2)


def cluster(
    embeddings: ArrayLike,
    options: ClusterOptions | None = None,
    *,
    constraints: Constraints | None = None,
    weights: Weights | None = None,
) -> NDArray[np.int64]:
    """Which items show one person: the same number for the same person, from 0 in the order of the items.

    Two items are near where they have their near neighbours in common
    (:func:`reidkit.reranking.jaccard_nearness`). Constraints are held by every cluster, whatever the method.

    Args:
        embeddings: (N, D), at unit length.
        options: see :class:`ClusterOptions`.
        constraints: who is known to be one person, and who not.
        weights: from 0 to 1, of pairs of items, such as how possible it is to walk from one to the other.

    Returns:
        (N,).

    Raises:
        DataError: embeddings that are none, too many items, constraints that contradict each other.
        MissingExtra: "dbscan" without scikit-learn.

    >>> cluster([[1.0, 0.0], [0.0, 1.0], [0.98, 0.2]], ClusterOptions(k1=1, k2=1)).tolist()
    [0, 1, 0]
    """
    options = options or ClusterOptions()
    rows = embedding_array(embeddings, "embeddings")
    if len(rows) > MOST_ITEMS:
        raise DataError(
            f"there are {len(rows):,} items, and clustering compares all pairs of them; at most "
            f"{MOST_ITEMS:,} are clustered at once: take a part, such as one day (where)"
        )
    units = (constraints or Constraints()).units(len(rows))
    if len(rows) < 2:
        return units.unit_of
    nearness = jaccard_nearness(rows, k1=options.k1, k2=min(options.k1, options.k2), least=_LEAST)
    nearness = _weighted(nearness, rows, options.lowest, weights)
    sums = _between_units(nearness, units)
    if options.method == "dbscan":
        clusters = _split_where_needed(_dbscan(sums, units, options.farthest), sums, units)
    else:
        clusters = agglomerate(sums, units, least=_least(options.farthest))
    return numbered(clusters[units.unit_of])


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _least(farthest: float) -> float:
    """Nearness at a distance; float32 nearness of identical neighbourhoods is 1 up to rounding."""
    return max(_LEAST, 1 - farthest - 1e-6)


def _weighted(
    nearness: csr_array, rows: NDArray[np.floating[Any]], lowest: float | None, weights: Weights | None
) -> csr_array:
    """Nearness with what is known of each pair besides."""
    if lowest is None and weights is None:
        return nearness
    for start, stop in cut(len(rows), _ROWS_AT_ONCE):
        span = slice(nearness.indptr[start], nearness.indptr[stop])
        ones = np.repeat(np.arange(start, stop), np.diff(nearness.indptr[start : stop + 1]))
        others = nearness.indices[span].astype(np.int64)
        if lowest is not None:
            nearness.data[span] *= np.einsum("pd,pd->p", rows[ones], rows[others]) >= lowest
        if weights is not None:
            nearness.data[span] *= weights(ones, others)
    nearness.eliminate_zeros()
    return nearness


def _between_units(nearness: csr_array, units: Units) -> csr_array:
    """Sums of nearness (U, U) over all pairs of two units' items."""
    num = len(units.identities)
    if num == nearness.shape[0]:
        return nearness
    members = csr_array(
        (np.ones(len(units.unit_of), np.float32), (units.unit_of, np.arange(len(units.unit_of)))),
        shape=(num, len(units.unit_of)),
    )
    sums = (members @ nearness @ members.T).tocsr()
    sums.setdiag(0)
    sums.eliminate_zeros()
    sums.sort_indices()
    return sums


def _dbscan(sums: csr_array, units: Units, farthest: float) -> NDArray[np.int64]:
    """Clusters (U,) by density: two items within reach make one; what is alone stays alone."""
    try:
        sklearn = import_module("sklearn.cluster")
    except ImportError:
        raise MissingExtra("scikit-learn", extra="analysis", needed_for="clustering by DBSCAN") from None
    sizes = units.sizes
    first = np.repeat(np.arange(len(sizes)), np.diff(sums.indptr))
    distances = csr_matrix(
        (np.clip(1 - sums.data / (sizes[first] * sizes[sums.indices]), 0, 1), sums.indices, sums.indptr),
        shape=sums.shape,
    )
    found = sklearn.DBSCAN(eps=max(farthest, 1e-6), min_samples=2, metric="precomputed").fit(
        distances, sample_weight=sizes
    )
    labels: NDArray[np.int64] = found.labels_.astype(np.int64)
    alone = labels < 0
    labels[alone] = labels.max(initial=-1) + 1 + np.arange(int(alone.sum()))
    return labels


def _split_where_needed(clusters: NDArray[np.int64], sums: csr_array, units: Units) -> NDArray[np.int64]:
    """Clusters in which nobody meets who must not: those where that is so are put together anew."""
    order = np.argsort(clusters, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
    result = np.empty(len(clusters), np.int64)
    for members in parts:
        if units.conflict(members):
            part = units.among(members)
            result[members] = members[agglomerate(sums[members][:, members].tocsr(), part, least=_LEAST)]
        else:
            result[members] = members[0]
    return result
