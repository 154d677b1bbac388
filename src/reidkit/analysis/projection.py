"""Project embeddings to two dimensions so that near neighbours stay near."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra

_PERPLEXITY = 30.0  # t-SNE's usual number of near neighbours; the pictures change little with it


def project(embeddings: NDArray[np.floating[Any]], *, seed: int = 0) -> NDArray[np.float64]:
    """t-SNE (van der Maaten and Hinton 2008) of unit embeddings (N, D) -> points (N, 2), by scikit-learn.

    Raises:
        DataError: fewer than three embeddings, or values that are not finite.
        MissingExtra: scikit-learn is not installed.
    """
    if len(embeddings) < 3:
        raise DataError(f"there are {len(embeddings)} embeddings to lay out on a plane; give at least 3")
    if not np.isfinite(embeddings).all():
        raise DataError("embeddings to lay out on a plane hold NaN or infinity; look at these images")
    try:
        manifold = import_module("sklearn.manifold")
    except ImportError:
        raise MissingExtra("scikit-learn", extra="analysis", needed_for="laying out embeddings") from None
    if embeddings.shape[1] == 1:  # the layout starts from two principal components
        embeddings = np.pad(embeddings, ((0, 0), (0, 1)))
    perplexity = min(_PERPLEXITY, (len(embeddings) - 1) / 3)
    tsne = manifold.TSNE(perplexity=perplexity, init="pca", random_state=seed)
    points: NDArray[np.float64] = tsne.fit_transform(np.asarray(embeddings, np.float32)).astype(np.float64)
    return points
