"""A gallery that is served: opened with its encoder, whose pictures are embedded in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import Embeddings
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import DamagedGallery, Gallery, Item, NoGallery
from reidkit.galleries._relative import keys_of_query
from reidkit.images.reading import load_image
from reidkit.search.own_picture import Query
from reidkit.search.pictures import HASH_LENGTH
from reidkit.search.searcher import Searcher
from reidkit.web.batching import BatchingNetwork
from reidkit.web.settings import Limits, ServedGallery
from reidkit.web.wanted import SearchRequest


class Served:
    """One gallery of the service.

    Raises as :class:`reidkit.search.searcher.Searcher` does.
    """

    def __init__(self, name: str, given: ServedGallery, *, limits: Limits, backend: str = "auto") -> None:
        self.name, self.limits = name, limits
        self.searcher = Searcher(given.address, encoder=given.encoder, backend=backend)
        self.making = threading.Lock()
        self.batching = BatchingNetwork(
            self.searcher.encoder.network, waiting=limits.waiting, seconds=limits.batch_milliseconds / 1000
        )
        self.searcher.encoder.network = self.batching

    @property
    def gallery(self) -> Gallery:
        """The gallery; :class:`NoGallery` before the first pictures are added to a new one."""
        if self.searcher.gallery is None:
            raise NoGallery(f"the gallery {self.name} holds nothing yet; add pictures first")
        return self.searcher.gallery

    def item(self, number: int) -> Item:
        """An item. Raises :class:`NoSuchItem`."""
        try:
            [found] = self.gallery.items(ids=[number])
        except DamagedGallery:
            raise
        except DataError:
            raise NoSuchItem(f"the gallery {self.name} has no item {number}") from None
        return found

    def query(self, request: SearchRequest) -> tuple[NDArray[np.float32], Query]:
        """The embedding (1, D) of what is searched for, and what is known of it.

        Raises :class:`DataError` and :class:`ConfigError` for what cannot be searched for.
        """
        items = self.gallery.items(ids=request.items) if request.items else []
        rows = [self._of_pictures(request), *([self.gallery.embeddings(ids=request.items)] if items else [])]
        if request.embeddings:
            rows.append(self._given(request.embeddings))
        found = np.concatenate(rows)
        if not len(found):
            raise ConfigError("nothing to search for; give a picture, an item or an embedding")
        mean = found.mean(axis=0, keepdims=True)
        length = float(np.linalg.norm(mean))
        if length < 1e-6:
            raise DataError("the embeddings of this query cancel each other out; give fewer, or others")
        files = tuple((None, content_of(picture)) for picture in request.pictures)
        query = Query(files, tuple(items), self._labels(request, items))
        mean = (mean / length).astype(np.float32)
        own = bool(request.pictures) and not items and not request.embeddings
        return (Embeddings(mean, self.searcher.encoder.fingerprints) if own else mean), query

    def close(self) -> None:
        self.batching.close()
        self.searcher.close()

    def _of_pictures(self, request: SearchRequest) -> NDArray[np.float32]:
        limit = self.limits.pictures
        if len(request.pictures) > limit:
            raise ConfigError(f"the query has {len(request.pictures)} pictures; give {limit} at most")
        if request.boxes and len(request.boxes) != len(request.pictures):
            raise ConfigError(f"there are {len(request.boxes)} boxes for {len(request.pictures)} pictures")
        boxes = request.boxes or (None,) * len(request.pictures)
        images = [
            load_image(picture, box=box, max_pixels=self.limits.pixels)
            for picture, box in zip(request.pictures, boxes, strict=True)
        ]
        if not images:
            return np.empty((0, self.searcher.encoder.dim), np.float32)
        return np.asarray(self.searcher.encoder.encode(images))

    def _given(self, embeddings: Sequence[Sequence[float]]) -> NDArray[np.float32]:
        dim = self.searcher.encoder.dim
        for given in embeddings:
            if len(given) != dim:
                raise DataError(f"an embedding has {len(given)} numbers; those of this gallery have {dim}")
        rows = np.asarray(embeddings, np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or (lengths < 1e-12).any():
            raise DataError("an embedding is zero, or too large to have a direction; give unit vectors")
        units: NDArray[np.float32] = (rows / lengths).astype(np.float32)
        return units

    @staticmethod
    def _labels(request: SearchRequest, items: Sequence[Item]) -> Mapping[str, Any]:
        """What is said, and that the labels of a single item are unknown where they are."""
        said: dict[str, Any] = {}
        if len(items) == 1 and not request.pictures:
            said = {key: items[0].label(key) for key in keys_of_query(request.where)}
        return said | request.labels


class NoSuchItem(DataError):
    """There is no such item, or none any more."""


def content_of(picture: bytes) -> str:
    """How galleries know a picture by its content."""
    return hashlib.sha256(picture).hexdigest()[:HASH_LENGTH]
