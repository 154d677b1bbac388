"""Several views of each picture at test time: their embeddings are added up, and brought to unit length.

Embeddings of views are another space than those of whole pictures, with a fingerprint and a calibration of
its own. What views gain and cost is told in docs/models.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.encoders.network import FINGERPRINT_LENGTH, Network, WrappedNetwork
from reidkit.errors import UnknownName
from reidkit.images.transforms import resized

WHOLE = "whole"
_SHARE = 0.9  # of height and width that a crop shows

Pictures = NDArray[np.uint8]


def _flipped(images: Pictures) -> Iterator[Pictures]:
    yield images
    yield np.ascontiguousarray(images[:, :, ::-1])


def _cropped(images: Pictures) -> Iterator[Pictures]:
    """The whole picture, and what is left without a tenth at each corner, as it is and mirrored."""
    yield from _flipped(images)
    height, width = images.shape[1:3]
    high, wide = max(1, round(_SHARE * height)), max(1, round(_SHARE * width))
    for top in (0, height - high):
        for left in (0, width - wide):
            parts = images[:, top : top + high, left : left + wide]
            yield from _flipped(
                np.stack([resized(Image.fromarray(part), height=height, width=width) for part in parts])
            )


VIEWS: Mapping[str, Callable[[Pictures], Iterator[Pictures]]] = {
    WHOLE: lambda images: iter((images,)),
    "flip": _flipped,
    "crops": _cropped,
}
"""What is looked at: the picture (B, H, W, 3) alone; and mirrored; and both with four corners' crops."""


def check_views(views: str) -> None:
    """Raise :class:`UnknownName` where there are no such views."""
    if views not in VIEWS:
        raise UnknownName("views", views, VIEWS)


class ViewsNetwork(WrappedNetwork):
    """A network that embeds several views of each picture.

    Args:
        own: embeds each view.
        views: one of :data:`VIEWS`.
    """

    def __init__(self, own: Network, views: str) -> None:
        check_views(views)
        super().__init__(own)
        self.views = views
        self._num_views = sum(1 for _ in VIEWS[views](np.zeros((1, 16, 16, 3), np.uint8)))

    def expect(self, num_images: int) -> None:
        self.own.expect(self._num_views * num_images)

    def embed(self, images: Pictures) -> NDArray[np.float32]:
        return _unit(self._summed(images, self.own.embed))

    def embed_features(self, images: Pictures) -> NDArray[np.float32]:
        summed = self._summed(images, self.own.embed_features)
        parts = np.split(summed, np.cumsum(list(self.features.values()))[:-1], axis=1)
        return np.concatenate([_unit(part) for part in parts], axis=1)

    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        found = self.own.fingerprints(height=height, width=width)
        return (hashlib.sha256(f"{found[0]} {self.views}".encode()).hexdigest()[:FINGERPRINT_LENGTH],)

    def _summed(
        self, images: Pictures, embed: Callable[[Pictures], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        first, *others = (embed(view) for view in VIEWS[self.views](images))
        for embeddings in others:
            first = first + embeddings
        return first


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return np.asarray(unit, np.float32)
