"""How embeddings of one person differ, and those of two: moments over all pairs, from sums over items."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import embedding_array
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.row_labels import camera_codes, label_codes
from reidkit.evaluation.unit_rows import first_few
from reidkit.types import JUNK, Features

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Second moments of differences over pairs, of all embeddings about their mean, and that mean (D,).

    The moments are (D, D); or, where there are fewer embeddings than dimensions, (R, R) along the columns of
    ``basis`` (D, R), which span the embeddings: in all other directions nothing varies.
    """

    similar: Matrix
    dissimilar: Matrix
    total: Matrix
    mean: Matrix
    basis: Matrix | None

    def in_embeddings(self, projection: Matrix) -> Matrix:
        """A projection that was found among these moments, as one of embeddings: (D or R, n) -> (D, n)."""
        return projection if self.basis is None else self.basis @ projection


def pair_covariances(features: Features) -> Pairs:
    """Similar and dissimilar pairs are under two cameras where cameras are known, else any."""
    identities = label_codes(features.identities)
    identified = identities != JUNK
    values = checked_embeddings(features.embeddings, "embeddings")[identified]
    if not len(values):
        raise DataError("there is no embedding of a person to learn from")
    mean = values.mean(axis=0)
    values -= mean  # or the sums over items cancel badly
    basis = None
    if len(values) < values.shape[1]:
        basis = np.linalg.qr(values.T)[0]
        values = values @ basis
    identities = identities[identified]
    similar, num_similar = _scatter(values, identities)
    every, num_every = _scatter(values, np.zeros_like(identities))
    if features.cameras is not None:
        cameras = camera_codes(features.cameras[identified])
        same_camera, num_same_camera = _scatter(values, cameras)
        both, num_both = _scatter(values, identities * (cameras.max() + 1) + cameras)
        similar, num_similar = similar - both, num_similar - num_both
        every, num_every = every - same_camera, num_every - num_same_camera
    num_dissimilar = num_every - num_similar
    cameras_too = "" if features.cameras is None else " under two cameras, or features without cameras"
    if not num_similar:
        raise DataError(f"there is no similar pair to learn from; give images of one identity{cameras_too}")
    if not num_dissimilar:
        raise DataError(
            f"there is no dissimilar pair to learn from; give images of two identities{cameras_too}"
        )
    return Pairs(
        similar=similar / num_similar,
        dissimilar=(every - similar) / num_dissimilar,
        total=values.T @ values / len(values),
        mean=mean,
        basis=basis,
    )


def _scatter(values: Matrix, groups: NDArray[np.intp]) -> tuple[Matrix, int]:
    """Sum of (x - z)(x - z)^T over the unordered pairs within each group, (D, D), and their number.

    Over a group of n items it is n * (sum of x x^T) - s s^T, s the sum of x.
    """
    _, groups, count = np.unique(groups, return_inverse=True, return_counts=True)
    sums = np.zeros((len(count), values.shape[1]))
    np.add.at(sums, groups, values)
    scatter = (values * count[groups, None]).T @ values - sums.T @ sums
    return scatter, int((count * (count - 1) // 2).sum())


def rank_of(matrix: Matrix) -> int:
    """Number of eigenvalues that are not rounding errors."""
    eigenvalues = np.linalg.eigvalsh(matrix)
    return int((eigenvalues > 1e-10 * eigenvalues[-1]).sum())


def check_dim(dim: object) -> None:
    if dim is not None and (not isinstance(dim, Integral) or dim < 1):
        raise ConfigError(f"dim is {dim!r}; give a whole number of at least 1, or None to have it chosen")


def checked_embeddings(embeddings: NDArray[np.floating[Any]], name: str) -> Matrix:
    """As float64 (N, D); raises :class:`DataError` where they are of another kind, or not finite."""
    values = embedding_array(embeddings, name).astype(np.float64)
    not_finite = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(not_finite):
        raise DataError(
            f"{name} hold NaN or infinity in {len(not_finite)} of {len(values)} rows "
            f"({first_few(not_finite)}); look at these images or at the model"
        )
    return values
