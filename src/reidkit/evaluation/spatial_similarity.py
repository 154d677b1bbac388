"""SCS, a similarity learned for each stripe of the body and for the whole of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.pair_covariances import Matrix, check_dim, checked_embeddings, pair_covariances
from reidkit.evaluation.row_labels import camera_codes, label_codes
from reidkit.types import JUNK, Features

_SPREAD = 0.003
"""Added to the variances within a person, of unit vectors, before directions are weighted by them."""

_MAX_STEPS = 100
_BLOCK = 2**22  # scores held at a time


class Form(NamedTuple):
    """What is learned of a part: ``-(x - z)^T distance (x - z) + 2 x^T product z``, (d, d), symmetric."""

    distance: Matrix
    product: Matrix


class Part(NamedTuple):
    """Coordinates of a stripe or of the whole: ``(x - mean) @ projection``, (D,) and (D, d)."""

    mean: Matrix
    projection: Matrix


@dataclass(frozen=True, slots=True, eq=False)
class LearnedSimilarity:
    """A sum of quadratic similarities, one of each part of an embedding.

    Attributes:
        name: "SCS".
        num_stripes: of equal length, into which an embedding is cut.
        parts: of each stripe, then of the whole embedding.
        forms: of each part.
    """

    name: str
    num_stripes: int
    parts: tuple[Part, ...]
    forms: tuple[Form, ...]

    def distances(
        self, query_embeddings: NDArray[np.floating[Any]], gallery_embeddings: NDArray[np.floating[Any]]
    ) -> NDArray[np.float32]:
        """The similarities' negatives (Q, G) of (Q, D) and (G, D): lower is nearer, and any sign.

        Raises :class:`DataError` for another number of dimensions or values that are not finite.
        """
        query = self._coordinates(query_embeddings, "query ")
        gallery = self._coordinates(gallery_embeddings, "gallery ")
        return np.asarray(-_scores(self.forms, query, gallery), np.float32)

    def sides(
        self,
        query_embeddings: NDArray[np.floating[Any]],
        gallery_embeddings: NDArray[np.floating[Any]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Vectors of queries and of gallery items, (Q, n) and (G, n); without a gallery, of queries twice.

        For each query, the squared Euclidean distances to the gallery's are :meth:`distances` plus a number:
        they order the gallery as these do. The two sides are not one space. Raises as :meth:`distances`.
        """
        query = self._coordinates(query_embeddings, "query ")
        gallery = query
        if gallery_embeddings is not None:
            gallery = self._coordinates(gallery_embeddings, "gallery ")
        query_values, gallery_values = [], []
        rest = _own_terms(self.forms, gallery)
        for form, asking, searched in zip(self.forms, query, gallery, strict=True):
            values, vectors = np.linalg.eigh(form.distance + form.product)
            scaled = vectors * np.sqrt(np.abs(values))
            query_values.append(asking @ scaled)
            gallery_values.append(searched @ (scaled * np.sign(values)))
            rest -= np.square(gallery_values[-1]).sum(axis=1)
        query_values.append(np.zeros((len(query[0]), 1)))
        gallery_values.append(np.sqrt(rest - rest.min())[:, None])
        return np.hstack(query_values).astype(np.float32), np.hstack(gallery_values).astype(np.float32)

    def _coordinates(self, embeddings: NDArray[np.floating[Any]], side: str) -> list[Matrix]:
        values = checked_embeddings(embeddings, f"{side}embeddings")
        dim = len(self.parts[-1].mean)
        if values.shape[1] != dim:
            raise DataError(
                f"{side}embeddings have {values.shape[1]} dimensions, {self.name} was fitted on "
                f"{dim}; encode both with the same model"
            )
        return [
            (of_part - part.mean) @ part.projection
            for of_part, part in zip(_parts(values, self.num_stripes), self.parts, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class SCS:
    """Spatially constrained similarity: stripes are compared with stripes, and the whole with the whole.

    Chen, Yuan, Chen, Zheng, "Similarity Learning with Spatial Constraints for Person Re-identification", CVPR
    2016, on the polynomial feature map of Chen, Yuan, Hua, Zheng, Wang, CVPR 2015. Of each part, a stripe of
    the body or all of it, the similarity is linear in all products of two values, within an image and across
    two; what is symmetric among these is a distance and a product::

        s(x, z) = sum over parts of  -(x - z)^T M (x - z) + 2 x^T B z

    M and B of all parts are learned together, so that parts that tell more weigh more. The abstract of the
    paper says as much. The rest was chosen here: each part is reduced to its ``dim`` principal components,
    in which the variances within a person are made equal; with p the positives of anchor a under
    other cameras and n its negatives there, ::

        loss = mean over a, p of log(1 + sum over n of exp(s(a, n) - s(a, p)))
               + regularization / 2 * sum over parts of |M|^2 + |B|^2

    which is convex and is minimised by L-BFGS. M is not kept positive.

    Use with: embeddings made of equal stripes from top to bottom, as ``lomo`` with its feature "stripes", and
    few images. Pitfalls: each step compares all pairs of training images, so that thousands of them take
    minutes; it is no distance in a space, and cannot be re-ranked. See also: :class:`XQDA`.

    ``num_stripes`` are the equal parts of an embedding; each is scaled to unit length. The defaults were
    chosen on halves of four training parts of VIPeR, with LOMO.

    >>> rng = np.random.default_rng(0)
    >>> identities = np.repeat(np.arange(20), 4)
    >>> embeddings = rng.normal(size=(20, 8))[identities] + 0.1 * rng.normal(size=(80, 8))
    >>> metric = SCS(num_stripes=2, dim=4).fit(Features(embeddings, identities))
    >>> metric.distances(embeddings[:1], embeddings[[1, 4]])[0].argmin()
    np.int64(0)
    """

    regularization: float = 0.1
    dim: int | None = 100
    num_stripes: int = 4

    def __post_init__(self) -> None:
        check_dim(self.dim)
        if not 0 < self.regularization < np.inf:
            raise ConfigError(
                f"regularization is {self.regularization}; give a number above 0 (0.1 is usual)"
            )
        num_stripes: object = self.num_stripes
        if not isinstance(num_stripes, Integral) or num_stripes < 1:
            raise ConfigError(f"num_stripes is {self.num_stripes!r}; give a whole number of at least 1")

    def fit(self, features: Features) -> LearnedSimilarity:
        """Learn from embeddings (N, D) with identities and, where known, cameras; identity -1 is left out.

        Raises :class:`DataError` for values that are not finite, no similar or no dissimilar pair, or
        embeddings that cannot be cut into equal stripes.
        """
        values = checked_embeddings(features.embeddings, "embeddings")
        identities = label_codes(features.identities)
        cameras = None if features.cameras is None else camera_codes(features.cameras)
        if values.shape[1] % self.num_stripes:
            raise DataError(
                f"embeddings have {values.shape[1]} dimensions, which are not {self.num_stripes} equal "
                "stripes; give the num_stripes that they are made of, or use XQDA"
            )
        parts, coordinates = [], []
        for part_values in _parts(values, self.num_stripes):
            part = self._part(Features(part_values, features.identities, features.cameras))
            parts.append(part)
            coordinates.append((part_values - part.mean)[identities != JUNK] @ part.projection)
        pairs = _Comparable(identities, cameras)
        forms = _learn(coordinates, pairs, self.regularization)
        return LearnedSimilarity("SCS", self.num_stripes, tuple(parts), tuple(forms))

    def _part(self, features: Features) -> Part:
        pairs = pair_covariances(features)
        components = np.linalg.eigh(pairs.total)[1][:, ::-1][:, : self.dim]
        similar = components.T @ pairs.similar @ components
        variances, directions = np.linalg.eigh(similar + _SPREAD * np.eye(len(similar)))
        return Part(pairs.mean, pairs.in_embeddings(components @ (directions / np.sqrt(variances))))


class _Comparable:
    """Which pairs of images count: positives and negatives of some anchors, under other cameras if known."""

    def __init__(self, identities: NDArray[np.intp], cameras: NDArray[np.intp] | None) -> None:
        kept = identities != JUNK
        self.identities = identities[kept]
        # Without cameras an image meets all images but itself.
        self.cameras = np.arange(kept.sum()) if cameras is None else cameras[kept]

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.bool_], NDArray[np.bool_]]]:
        """Rows, and masks (b, N) of their positives and negatives."""
        num = len(self.identities)
        step = max(1, _BLOCK // num)
        for rows in (slice(start, start + step) for start in range(0, num, step)):
            same = self.identities[rows, None] == self.identities
            met = self.cameras[rows, None] != self.cameras
            yield rows, same & met, ~same & met


def _learn(coordinates: Sequence[Matrix], pairs: _Comparable, regularization: float) -> list[Form]:
    from scipy.optimize import minimize  # slow to import, and needed by few

    dims = [values.shape[1] for values in coordinates]

    def objective(numbers: Matrix) -> tuple[float, Matrix]:
        loss, gradients = loss_and_gradients(_unpacked(numbers, dims), coordinates, pairs)
        gradient = np.concatenate([matrix.ravel() for form in gradients for matrix in form])
        return (
            loss + regularization / 2 * float(numbers @ numbers),
            gradient + regularization * numbers,
        )

    start = np.zeros(sum(2 * dim**2 for dim in dims))
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS})
    return _unpacked(found.x, dims)


def _unpacked(numbers: Matrix, dims: Sequence[int]) -> list[Form]:
    matrices = np.split(numbers, np.cumsum([dim**2 for dim in dims for _ in range(2)])[:-1])
    forms = zip(matrices[::2], matrices[1::2], dims, strict=True)
    return [Form(first.reshape(dim, dim), second.reshape(dim, dim)) for first, second, dim in forms]


def loss_and_gradients(
    forms: Sequence[Form], coordinates: Sequence[Matrix], pairs: _Comparable
) -> tuple[float, list[Form]]:
    """The loss over all anchors that have both partners, and its gradient by each form; see :class:`SCS`."""
    own = _own_terms(forms, coordinates)
    loss, num_anchors = 0.0, 0
    pulls = [np.zeros((len(values), values.shape[1])) for values in coordinates]
    at_rows, at_columns = np.zeros(len(own)), np.zeros(len(own))  # of the gradient by scores, its sums
    for rows, positive, negative in pairs.blocks():
        usable = np.asarray(positive.any(axis=1) & negative.any(axis=1))
        num_anchors += int(usable.sum())
        scores = _scores(forms, [values[rows] for values in coordinates], coordinates)
        of_block, by_scores = _anchor_losses(scores, positive, negative, usable)
        loss += float(of_block.sum())
        at_rows[rows] = by_scores.sum(axis=1)
        at_columns += by_scores.sum(axis=0)
        for pull, values in zip(pulls, coordinates, strict=True):
            pull += by_scores.T @ values[rows]
    num_anchors = max(1, num_anchors)
    gradients = []
    for pull, values in zip(pulls, coordinates, strict=True):
        across = values.T @ pull / num_anchors
        across = across + across.T
        within = (values * ((at_rows + at_columns) / num_anchors)[:, None]).T @ values
        gradients.append(Form(across - within, across))
    return loss / num_anchors, gradients


def _anchor_losses(
    scores: Matrix, positive: NDArray[np.bool_], negative: NDArray[np.bool_], usable: NDArray[np.bool_]
) -> tuple[Matrix, Matrix]:
    """Of each anchor the mean loss over its positives, (b,), and its gradient by the scores, (b, N)."""
    nearest = np.where(negative, scores, -np.inf).max(axis=1, keepdims=True)
    nearest = np.where(usable[:, None], nearest, 0)
    weights = np.where(negative, np.exp(np.where(negative, scores - nearest, 0)), 0)
    total = weights.sum(axis=1, keepdims=True)
    total = np.where(usable[:, None], total, 1)
    excess = np.where(positive, nearest + np.log(total) - scores, -np.inf)
    shares = usable[:, None] / np.maximum(positive.sum(axis=1, keepdims=True), 1)
    losses = (np.logaddexp(0, excess) * shares).sum(axis=1)
    pushed = np.exp(-np.logaddexp(0, -excess)) * shares  # the logistic function
    return losses, weights * (pushed.sum(axis=1, keepdims=True) / total) - pushed


def _scores(forms: Sequence[Form], query: Sequence[Matrix], gallery: Sequence[Matrix]) -> Matrix:
    """Similarities (Q, G) from the coordinates of each part."""
    scores = -_own_terms(forms, query)[:, None] - _own_terms(forms, gallery)
    for form, asking, searched in zip(forms, query, gallery, strict=True):
        scores += 2 * asking @ (form.distance + form.product) @ searched.T
    return scores


def _own_terms(forms: Sequence[Form], coordinates: Sequence[Matrix]) -> Matrix:
    """What an image loses by its own products, x^T M x summed over parts: (N,)."""
    terms = [((x @ form.distance) * x).sum(axis=1) for form, x in zip(forms, coordinates, strict=True)]
    return np.asarray(np.sum(terms, axis=0))


def _parts(values: Matrix, num_stripes: int) -> list[Matrix]:
    """The stripes of each row and the whole row, all of unit length."""
    return [_unit(part) for part in (*np.split(values, num_stripes, axis=1), values)]


def _unit(values: Matrix) -> Matrix:
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(lengths == 0, 1, lengths))
