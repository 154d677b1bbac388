"""Variance of embeddings within identities and between them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reidkit.errors import DataError
from reidkit.evaluation.row_labels import label_codes
from reidkit.types import JUNK, Features


class Variances(NamedTuple):
    """Of unit embeddings; ``intra + inter`` is their whole variance, at most 1.

    ``intra`` is the mean squared distance of an image from the mean of its identity, ``inter`` the mean, over
    images, of the squared distance of that mean from the mean of all: as in
    :class:`reidkit.ops.BatchStatistics`.
    """

    intra: float
    inter: float


def identity_variances(*parts: Features) -> Variances:
    """Variances within and between the identities of all parts together; items with identity -1 are left out.

    Raises :class:`DataError` where nothing is left.
    """
    embeddings = np.concatenate([np.asarray(part.embeddings, np.float64) for part in parts])
    identities = np.concatenate([part.identities for part in parts])
    codes = label_codes(identities)
    kept = codes != JUNK
    if not kept.any():
        raise DataError(
            "there are no identities to take variances over: every item is junk, or there is none"
        )
    embeddings, codes = embeddings[kept], codes[kept]
    embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    _, identity_of, counts = np.unique(codes, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), embeddings.shape[1]))
    np.add.at(sums, identity_of, embeddings)
    means = (sums / counts[:, None])[identity_of]  # (N, D): the mean of each image's identity
    return Variances(
        intra=float(np.square(embeddings - means).sum(axis=1).mean()),
        inter=float(np.square(means - embeddings.mean(axis=0)).sum(axis=1).mean()),
    )
