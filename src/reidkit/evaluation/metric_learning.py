"""Distances learned on top of features: KISSME, XQDA and HER, and all by name.

The first two weigh directions by how differences within an identity vary, and how those between two do. With
x - z over the pairs of one identity (similar) and over those of two (dissimilar),

    S = mean of (x - z)(x - z)^T over similar pairs,    D = the same over dissimilar pairs,

and the distance is the Gaussian log-likelihood ratio (x - z)^T (S^-1 - D^-1) (x - z): small along directions
in which one identity varies, large along those in which identities differ. Where cameras are known, only
pairs under two cameras count, the ones a search has to bridge. Sums over pairs are written as sums over
items, so that the cost does not grow with the number of pairs. HER maps each person's images to one point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.pair_covariances import (
    Matrix,
    check_dim,
    checked_embeddings,
    pair_covariances,
    rank_of,
)
from reidkit.evaluation.protocols import check_choice
from reidkit.evaluation.row_labels import label_codes
from reidkit.evaluation.spatial_similarity import SCS, LearnedSimilarity
from reidkit.types import JUNK, Features

_DEFAULT_DIM = 64


@dataclass(frozen=True, slots=True, eq=False)
class LearnedMetric:
    """A squared distance (x - z)^T L L^T (x - z), and the projection by L^T in which it is Euclidean.

    Attributes:
        name: "KISSME", "XQDA" or "HER".
        mean: (D,), of the embeddings it was fitted on.
        projection: L (D, dim), or (S, dim) with supports.
        supports: (S, D), of embeddings about the mean: an embedding x is then first turned into its S values
            exp(-|x - support|^2 / (2 width^2)).
        width: of these, in units of the embeddings.
    """

    name: str
    mean: Matrix
    projection: Matrix
    supports: Matrix | None = None
    width: float = 1.0

    @property
    def dim(self) -> int:
        return int(self.projection.shape[1])

    def transform(self, embeddings: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """L^T (x - mean): (N, D) to (N, dim). Squared Euclidean distances of the result are the metric's.

        A protocol that scales embeddings to unit length compares their directions as seen from the mean
        instead, which is not the paper's distance.
        Raises :class:`DataError` for another number of dimensions or values that are not finite.
        """
        return self._project(embeddings, "").astype(np.float32)

    def sides(
        self,
        query_embeddings: NDArray[np.floating[Any]],
        gallery_embeddings: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both sides transformed; without a gallery the queries are the gallery."""
        query = self.transform(query_embeddings)
        return query, query if gallery_embeddings is None else self.transform(gallery_embeddings)

    def distances(
        self, query_embeddings: NDArray[np.floating[Any]], gallery_embeddings: NDArray[np.floating[Any]]
    ) -> NDArray[np.float32]:
        """Squared distances (Q, G) of (Q, D) and (G, D), lower is nearer; raises as :meth:`transform`."""
        queries = self._project(query_embeddings, "query ")
        gallery = self._project(gallery_embeddings, "gallery ")
        squared_norms = np.square(queries).sum(axis=1)[:, None] + np.square(gallery).sum(axis=1)
        squared: Matrix = np.maximum(squared_norms - 2 * queries @ gallery.T, 0)
        return squared.astype(np.float32)

    def _project(self, embeddings: NDArray[np.floating[Any]], side: str) -> Matrix:
        values = checked_embeddings(embeddings, f"{side}embeddings")
        if values.shape[1] != len(self.mean):
            raise DataError(
                f"{side}embeddings have {values.shape[1]} dimensions, {self.name} was fitted on "
                f"{len(self.mean)}; encode both with the same model"
            )
        centred = values - self.mean
        if self.supports is not None:
            centred = _gaussian_kernel(centred, self.supports, self.width)
        return centred @ self.projection


@dataclass(frozen=True, slots=True)
class KISSME:
    """S^-1 - D^-1 after PCA, made positive semi-definite by dropping its negative eigenvalues.

    Koestinger et al., "Large Scale Metric Learning from Equivalence Constraints", CVPR 2012.

    Use with: features that know nothing of the task, or of these cameras, and some thousand images of it.
    Pitfalls: the inverse of S is all noise where pairs are few for the dimensions, so that ``dim`` is the one
    option that matters; try 32 to 256 on a validation part. On top of a network trained on the same data it
    lowered the metrics (JLML, Table 17, Market-1501: mAP 65.5 to 61.4). See also: :class:`XQDA`.

    ``dim`` is the number of principal components kept, at most that of the embeddings. ``None`` keeps 64, or
    half of the rank of S where that is less, so that every variance rests on two independent pairs or more.

    >>> rng = np.random.default_rng(0)
    >>> identities = np.repeat(np.arange(20), 10)
    >>> centres = rng.normal(size=(20, 2))[identities]
    >>> light = 10 * rng.normal(size=(200, 1))  # a direction that says nothing of the identity
    >>> embeddings = np.hstack([centres + 0.3 * rng.normal(size=(200, 2)), light])
    >>> projection = KISSME(dim=3).fit(Features(embeddings, identities)).projection
    >>> (projection @ projection.T).diagonal().round(2)  # the weight of each direction
    array([4.92, 4.83, 0.  ])
    """

    dim: int | None = None

    def __post_init__(self) -> None:
        check_dim(self.dim)

    def fit(self, features: Features) -> LearnedMetric:
        """Learn from embeddings (N, D) with identities and, where known, cameras; identity -1 is left out.

        Raises :class:`DataError` for values that are not finite, no similar or no dissimilar pair, or
        pairs too few for ``dim``.
        """
        pairs = pair_covariances(features)
        dim = self.dim or max(1, min(_DEFAULT_DIM, rank_of(pairs.similar) // 2))
        components = np.linalg.eigh(pairs.total)[1][:, ::-1][:, :dim]  # (D, dim), largest variance first
        values, vectors = np.linalg.eigh(
            _inverse(components.T @ pairs.similar @ components, "similar", dim)
            - _inverse(components.T @ pairs.dissimilar @ components, "dissimilar", dim)
        )
        kept = values > 0
        if not kept.any():
            raise DataError(_NOTHING_LEARNED.format(name="KISSME"))
        projection = components @ (vectors[:, kept] * np.sqrt(values[kept]))
        return LearnedMetric("KISSME", pairs.mean, pairs.in_embeddings(projection))


@dataclass(frozen=True, slots=True)
class XQDA:
    """Cross-view quadratic discriminant analysis: directions where D outweighs S, then S^-1 - D^-1 there.

    Liao et al., "Person Re-identification by Local Maximal Occurrence Representation and Metric Learning",
    CVPR 2015. The directions w maximise w^T D w / w^T (S + regularization I) w; those where the ratio r is
    above 1 are kept. Scaled to w^T S w = 1 they make both matrices diagonal, so that the learned matrix is
    the sum of (1 - 1 / r) w w^T: positive semi-definite by itself, without an inverse.

    Use with: features of many dimensions and few images; it chooses directions by itself. Pitfalls: as for
    :class:`KISSME` (JLML, Table 17, Market-1501: mAP 65.5 to 63.2); a regularization small beside the
    variances of S does nothing, a large one makes S spherical; a few (D, D) matrices must fit into memory,
    (N, N) ones where images are fewer than dimensions.

    ``regularization`` is added to the diagonal of S, and makes S invertible however few the pairs. The
    default goes with embeddings of unit length: it is a third of the paper's 0.001, whose LOMO vectors are
    three of unit length side by side. ``dim`` is the largest number of directions kept,
    ``None`` for all above 1.

    >>> rng = np.random.default_rng(0)
    >>> identities = np.repeat(np.arange(20), 10)
    >>> centres = rng.normal(size=(20, 2))[identities]
    >>> light = 10 * rng.normal(size=(200, 1))
    >>> embeddings = np.hstack([centres + 0.3 * rng.normal(size=(200, 2)), light])
    >>> projection = XQDA().fit(Features(embeddings, identities)).projection
    >>> (projection @ projection.T).diagonal().round(2)
    array([4.91, 4.82, 0.  ])
    """

    regularization: float = 0.0003
    dim: int | None = None

    def __post_init__(self) -> None:
        check_dim(self.dim)
        if not 0 <= self.regularization < np.inf:
            raise ConfigError(
                f"regularization is {self.regularization}; give 0 or more (0.0003 for unit embeddings)"
            )

    def fit(self, features: Features) -> LearnedMetric:
        """Learn from embeddings (N, D) with identities and, where known, cameras; identity -1 is left out.

        Raises :class:`DataError` for values that are not finite, no similar or no dissimilar pair, a
        singular S without regularization, or no direction in which identities differ.
        """
        pairs = pair_covariances(features)
        similar = pairs.similar + self.regularization * np.eye(len(pairs.similar))
        if rank_of(similar) < len(similar):
            raise DataError(
                f"similar pairs vary in {rank_of(similar)} of {len(pairs.mean)} dimensions and "
                f"regularization is {self.regularization:g}; give a larger one (0.0003 for unit embeddings) "
                "or more images"
            )
        ratios, directions = scipy.linalg.eigh(pairs.dissimilar, similar)
        ratios, directions = ratios[::-1][: self.dim], directions[:, ::-1][:, : self.dim]
        kept = ratios > 1
        if not kept.any():
            raise DataError(_NOTHING_LEARNED.format(name="XQDA"))
        projection = directions[:, kept] * np.sqrt(1 - 1 / ratios[kept])
        return LearnedMetric("XQDA", pairs.mean, pairs.in_embeddings(projection))


@dataclass(frozen=True, slots=True)
class HER:
    """Highly efficient regression: all images of a person are mapped to one point, by kernel regression.

    Wang, Gong, Xiang, "Highly Efficient Regression for Scalable Person Re-Identification", BMVC 2016. The
    points are the columns of an identity matrix, divided by the root of the person's number of images: with
    these, least squares finds Fisher's discriminants. In closed form, K being the kernel matrix of the
    training images and Y (N, C) their points::

        (K + regularization I)^-1 Y

    Distances are Euclidean between what the regression gives for two images. The kernel is the Gaussian one
    with the mean squared distance of two training images as twice its squared width.

    Use with: features of many dimensions and few images, as :class:`XQDA`; it looks at no camera labels.
    Pitfalls: an (N, N) matrix must fit into memory, and embedding an image takes a distance to all N.
    The paper chooses the regularization by cross-validation; the default was chosen here, on LOMO features of
    half of a training part of VIPeR.

    ``regularization`` is in units of the kernel's diagonal, which is 1.

    >>> rng = np.random.default_rng(0)
    >>> identities = np.repeat(np.arange(20), 10)
    >>> embeddings = rng.normal(size=(20, 8))[identities] + 0.1 * rng.normal(size=(200, 8))
    >>> metric = HER().fit(Features(embeddings, identities))
    >>> metric.distances(embeddings[:1], embeddings[[1, 10]]).round(3)
    array([[0.001, 0.171]], dtype=float32)
    """

    regularization: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.regularization < np.inf:
            raise ConfigError(
                f"regularization is {self.regularization}; give a number above 0 (0.1 is usual)"
            )

    def fit(self, features: Features) -> LearnedMetric:
        """Learn from embeddings (N, D) with identities; identity -1 is left out.

        Raises :class:`DataError` for values that are not finite, less than two persons, or embeddings that
        are all the same.
        """
        identities = label_codes(features.identities)
        values = checked_embeddings(features.embeddings, "embeddings")[identities != JUNK]
        persons, codes, counts = np.unique(
            identities[identities != JUNK], return_inverse=True, return_counts=True
        )
        if len(persons) < 2:
            raise DataError(f"HER learns to tell persons apart, and here is {len(persons)}; give more images")
        mean = values.mean(axis=0)
        values -= mean
        # The mean over pairs of two images, from sums over images.
        mean_squared = 2 * np.square(values).sum() / (len(values) - 1)
        if not mean_squared > 0:
            raise DataError("all embeddings are the same; look at the images or at the model")
        width = float(np.sqrt(mean_squared / 2))
        points = np.zeros((len(values), len(persons)))
        points[np.arange(len(values)), codes] = 1 / np.sqrt(counts[codes])
        kernel = _gaussian_kernel(values, values, width)
        kernel[np.diag_indices_from(kernel)] += self.regularization
        weights = scipy.linalg.solve(kernel, points, assume_a="pos")
        return LearnedMetric("HER", mean, weights, values, width)


METRICS: dict[str, type[KISSME] | type[XQDA] | type[HER] | type[SCS]] = {
    "kissme": KISSME,
    "xqda": XQDA,
    "her": HER,
    "scs": SCS,
}


FittedMetric = LearnedMetric | LearnedSimilarity


def fit_metric(name: str, features: Features) -> FittedMetric:
    """The metric "kissme", "xqda", "her" or "scs" with its usual options, fitted on training features.

    Raises :class:`reidkit.errors.UnknownName` for another name, and what its ``fit`` raises.
    """
    check_choice("metric", name, tuple(METRICS))
    return METRICS[name]().fit(features)


_NOTHING_LEARNED = (
    "{name} found no direction in which two persons differ more than one person's images do; "
    "look at the identity labels, or give more images"
)


def _inverse(matrix: Matrix, kind: str, dim: int) -> Matrix:
    rank = rank_of(matrix)
    if rank < len(matrix):
        raise DataError(
            f"{kind} pairs vary in {rank} of the {dim} dimensions that KISSME was to keep; "
            "give a smaller dim (about half of that is usual) or more images, or use XQDA"
        )
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _gaussian_kernel(values: Matrix, supports: Matrix, width: float) -> Matrix:
    """exp(-|x - s|^2 / (2 width^2)) of rows (N, D) and (S, D): (N, S)."""
    squared = np.square(values).sum(axis=1)[:, None] + np.square(supports).sum(axis=1)
    squared -= 2 * values @ supports.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * width**2)))
