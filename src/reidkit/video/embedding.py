"""Embeddings of a track's pictures, and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.video.view import Crop

# A picture of people who were always covered has quality 0, and is all that is known of them.
_LEAST_WEIGHT = 1e-3


class Embedded(NamedTuple):
    """Of one track: an embedding a picture (N, D), and their mean by quality (D,), of unit length."""

    pictures: NDArray[np.float32]
    mean: NDArray[np.float32]


def embed_tracks(encoder: Encoder, tracks: Sequence[Sequence[Crop]]) -> list[Embedded | None]:
    """All pictures of several tracks at once; ``None`` for a track without pictures."""
    pictures = [crop.pixels for crops in tracks for crop in crops]
    if not pictures:
        return [None] * len(tracks)
    ends = np.cumsum([len(crops) for crops in tracks])
    parts = np.split(np.asarray(encoder.encode(pictures)), ends[:-1])
    return [_embedded(crops, part) if crops else None for crops, part in zip(tracks, parts, strict=True)]


def _embedded(crops: Sequence[Crop], embeddings: NDArray[np.float32]) -> Embedded:
    weights = np.array([max(crop.quality, _LEAST_WEIGHT) for crop in crops], np.float32)
    mean = (weights[:, None] * embeddings).sum(axis=0)
    return Embedded(embeddings, mean / np.linalg.norm(mean))
