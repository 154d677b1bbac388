"""A gallery that is served: opened with its encoder, whose pictures are embedded in batches."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import ConfigError, DataError, ReidError
from reidkit.galleries import DamagedGallery, Gallery, Item, NoGallery, UnavailableGallery, open_gallery
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
from reidkit.web.together import ENDING, NotReady
from reidkit.web.wanted import Box, SearchRequest

T = TypeVar("T")

_DECODING = threading.BoundedSemaphore(4)


@dataclass(frozen=True, slots=True)
class _Loaded:
    searcher: Searcher
    batching: BatchingNetwork
    searches: Searches


class Served:
    """One gallery of the service, to be opened in another thread, and its encoder to be loaded then.

    Without the encoder, which takes seconds to load, items and people can be looked at; whoever searches, or
    adds, waits for it. What :class:`reidkit.search.searcher.Searcher` raises, every verb does then.

    Args:
        name: what addresses call it.
        given: where it is.
        settings: of the service.
        needs_encoder: called where somebody waits for the encoder.
    """

    def __init__(
        self, name: str, given: ServedGallery, settings: Settings, needs_encoder: Callable[[], None]
    ) -> None:
        self.name, self.address, self.limits = name, given.address, settings.limits
        self.making = threading.Lock()
        self._encoder, self._backend, self._needs_encoder = given.encoder, settings.backend, needs_encoder
        self._opening: Future[Gallery | None] = Future()
        self._loading: Future[_Loaded] = Future()

    def open(self) -> None:
        """Open the gallery, once."""
        _settle(self._opening, self._opened)

    def load(self) -> None:
        """Load the encoder of the gallery, once that is open."""
        _settle(self._loading, self._with_encoder)

    def wait(self) -> None:
        """Wait until both are there. Raises what either raised."""
        _result(self._loading)

    def _opened(self) -> Gallery | None:
        """The gallery, to look at until its encoder is there; ``None`` where there is none yet."""
        try:
            return open_gallery(self.address, create=False)
        except NoGallery:
            return None

    def _with_encoder(self) -> _Loaded:
        _result(self._opening)
        searcher = Searcher(self.address, encoder=self._encoder, backend=self._backend)
        waiting, pause = self.limits.waiting, self.limits.batch_milliseconds / 1000
        batching = BatchingNetwork(searcher.encoder.network, waiting=waiting, pause=pause)
        batching.keep_nobody_waiting()
        searcher.encoder.network = batching
        return _Loaded(searcher, batching, Searches(searcher, waiting=waiting, pause=pause))

    @property
    def is_open(self) -> bool:
        """Whether it can be looked at, or could not be opened."""
        if self._loading.done():
            return True
        if not self._opening.done() or self._opening.cancelled() or self._opening.exception() is not None:
            return False
        return self._early() is not None

    def _early(self) -> Gallery | None:
        """The gallery to look at while its encoder is being loaded."""
        return None if self._loading.done() else _result(self._opening)

    @property
    def _loaded(self) -> _Loaded:
        self._needs_encoder()
        return _result(self._loading)

    @property
    def searcher(self) -> Searcher:
        """The gallery and its encoder, once they are there."""
        return self._loaded.searcher

    @property
    def is_to_be_made(self) -> bool:
        """Whether there is no gallery before the first pictures are added."""
        return self._early() is None and self.searcher.gallery is None

    @property
    def num_items(self) -> int:
        """Items in it."""
        early = self._early()
        return len(self.searcher if early is None else early)

    def is_readable(self) -> bool:
        """Whether it could be opened, and is still where it was."""
        try:
            _ = self.num_items
        except ReidError:
            return False
        return True

    @property
    def num_waiting(self) -> int:
        """Pictures that wait to be embedded."""
        is_loaded = self._loading.done() and not self._loading.cancelled()
        return self._loaded.batching.num_waiting if is_loaded else 0

    @property
    def gallery(self) -> Gallery:
        """The gallery; :class:`NoGallery` before the first pictures are added to a new one."""
        early = self._early()
        found = self.searcher.gallery if early is None else early
        if found is None:
            raise NoGallery(f"the gallery {self.name} holds nothing yet; add pictures first")
        return found

    def item(self, number: int) -> Item:
        """An item. Raises :class:`NoSuchItem`."""
        try:
            [found] = self.gallery.items(ids=[number])
        except (DamagedGallery, UnavailableGallery):
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
        return self._loaded.searches.items(self._asked(request))

    def search_people(self, request: SearchRequest) -> tuple[FoundPeople, Query]:
        """The people, or tracklets, that look most like who is searched for."""
        asked = self._asked(request)
        return self._loaded.searches.people(asked), asked.query

    def _asked(self, request: SearchRequest) -> Asked:
        with self._loaded.searches.coming():
            return Asked(*self.query(request), request)

    def warm(self) -> None:
        """Do once what would make the first search slow."""
        grey = np.full((self.searcher.encoder.height, self.searcher.encoder.width, 3), 127, np.uint8)
        embedding = self.searcher.encoder.encode([grey])
        if self.searcher.gallery is not None and len(self.gallery):
            self.searcher.search_for(
                embedding, [Query()], top=1, prior=self._loaded.searches.prior(None, None)
            )

    def close(self) -> None:
        """Do what waits, and close the gallery."""
        if not self._loading.cancel() and self._loading.exception() is None:
            self._loaded.batching.close()
            self._loaded.searches.close()
            self._loaded.searcher.close()
        if not self._opening.cancel() and self._opening.exception() is None:
            early = self._opening.result()
            if early is not None:
                early.close()

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
        rows = self._loaded.batching.embed(np.stack(images))
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


def _settle(future: Future[T], work: Callable[[], T]) -> None:
    """Let a future hold what the work returns, or raises, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)


def _result(future: Future[T]) -> T:
    """What the work returned, or raised. Raises :class:`NotReady` where it was never begun."""
    try:
        return future.result()
    except CancelledError:
        raise NotReady(ENDING) from None


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
