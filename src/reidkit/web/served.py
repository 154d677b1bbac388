"""A gallery that is served: opened with its encoder, whose pictures are embedded in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import ConfigError, DataError, ReidError
from reidkit.galleries import DamagedGallery, Gallery, Item, NoGallery
from reidkit.galleries._relative import keys_of_query
from reidkit.images.reading import TooManyPixels, load_image, pixel_limit
from reidkit.search.found import Found
from reidkit.search.own_picture import Query
from reidkit.search.people import FoundPeople
from reidkit.search.pictures import HASH_LENGTH
from reidkit.search.searcher import Searcher
from reidkit.web.batching import BatchingNetwork
from reidkit.web.searches import Asked, Searches
from reidkit.web.settings import Limits, ServedGallery, Settings
from reidkit.web.wanted import Box, SearchRequest

_DECODING = threading.BoundedSemaphore(4)


@dataclass(frozen=True, slots=True)
class _Opened:
    searcher: Searcher
    batching: BatchingNetwork
    searches: Searches


class Served:
    """One gallery of the service, which another thread opens: that takes seconds, and others can be answered.

    Args:
        name: what addresses call it.
        given: where it is.
        settings: of the service.
        opener: opens it. What :class:`reidkit.search.searcher.Searcher` raises, every verb does then.
    """

    def __init__(self, name: str, given: ServedGallery, settings: Settings, opener: Executor) -> None:
        self.name, self.address, self.limits = name, given.address, settings.limits
        self.making = threading.Lock()
        self._opening = opener.submit(self._open, given, settings.backend)

    def _open(self, given: ServedGallery, backend: str) -> _Opened:
        searcher = Searcher(given.address, encoder=given.encoder, backend=backend)
        waiting, pause = self.limits.waiting, self.limits.batch_milliseconds / 1000
        batching = BatchingNetwork(searcher.encoder.network, waiting=waiting, pause=pause)
        batching.keep_nobody_waiting()
        searcher.encoder.network = batching
        return _Opened(searcher, batching, Searches(searcher, waiting=waiting, pause=pause))

    @property
    def _opened(self) -> _Opened:
        return self._opening.result()

    @property
    def is_open(self) -> bool:
        """Whether it is open, or could not be opened."""
        return self._opening.done()

    @property
    def searcher(self) -> Searcher:
        """The gallery and its encoder, once they are open."""
        return self._opened.searcher

    def is_readable(self) -> bool:
        """Whether it could be opened, and is still where it was."""
        try:
            len(self.searcher)
        except ReidError:
            return False
        return True

    @property
    def num_waiting(self) -> int:
        """Pictures that wait to be embedded."""
        return self._opened.batching.num_waiting

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
        return (mean / length).astype(np.float32), query

    def search(self, request: SearchRequest) -> Found:
        """The items that look most like who is searched for."""
        return self._opened.searches.items(Asked(*self.query(request), request))

    def search_people(self, request: SearchRequest) -> tuple[FoundPeople, Query]:
        """The people, or tracklets, that look most like who is searched for."""
        asked = Asked(*self.query(request), request)
        return self._opened.searches.people(asked), asked.query

    def warm(self) -> None:
        """Do once what would make the first search slow."""
        grey = np.full((self.searcher.encoder.height, self.searcher.encoder.width, 3), 127, np.uint8)
        embedding = self.searcher.encoder.encode([grey])
        if self.searcher.gallery is not None and len(self.gallery):
            self.searcher.search_for(
                embedding, [Query()], top=1, prior=self._opened.searches.prior(None, None)
            )

    def close(self) -> None:
        if self._opening.exception() is None:
            self._opened.batching.close()
            self._opened.searches.close()
            self._opened.searcher.close()

    def _of_pictures(self, request: SearchRequest) -> NDArray[np.float32]:
        limit = self.limits.pictures
        if len(request.pictures) > limit:
            raise ConfigError(f"the query has {len(request.pictures)} pictures; give {limit} at most")
        if request.boxes and len(request.boxes) != len(request.pictures):
            raise ConfigError(f"there are {len(request.boxes)} boxes for {len(request.pictures)} pictures")
        boxes = request.boxes or (None,) * len(request.pictures)
        if not request.pictures:
            return np.empty((0, self.searcher.encoder.dim), np.float32)
        images = [self._prepared(*one) for one in zip(request.pictures, boxes, strict=True)]
        rows = self._opened.batching.embed(np.stack(images))
        if not np.isfinite(rows).all():
            raise DataError("the encoder gave embeddings that are not finite; its weights are unusable")
        return rows

    def _prepared(self, picture: bytes, box: Box | None) -> NDArray[np.uint8]:
        """A picture of the size that is embedded. Large ones are in memory a few at a time."""
        with _DECODING:
            return self.searcher.encoder.prepare(read_picture(picture, box, self.limits))

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


def read_picture(picture: bytes, box: Box | None, limits: Limits) -> Image.Image:
    """A picture that was sent. Raises :class:`DataError`, in words for whoever sent it."""
    limit = min(limits.pixels, pixel_limit())  # what is kept is read again, as files are everywhere
    try:
        return load_image(picture, box=box, max_pixels=limit)
    except TooManyPixels as error:
        raise DataError(
            f"the picture has {error.pixels} pixels, and this service takes {limit:,} at most; send a "
            "smaller one"
        ) from None


def content_of(picture: bytes) -> str:
    """How galleries know a picture by its content."""
    return hashlib.sha256(picture).hexdigest()[:HASH_LENGTH]
