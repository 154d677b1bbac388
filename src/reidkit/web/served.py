"""A gallery that is served: opened with its encoder, whose pictures are embedded in batches."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.arrays import Embeddings
from reidkit.errors import ConfigError, DataError, ReidError
from reidkit.galleries import DamagedGallery, Gallery, Item, NoGallery, Where
from reidkit.galleries._group_commit import GroupCommit
from reidkit.galleries._relative import keys_of_query
from reidkit.images.reading import TooManyPixels, load_image, pixel_limit
from reidkit.search.found import Found
from reidkit.search.own_picture import Query
from reidkit.search.people import FoundPeople, PeopleSearch
from reidkit.search.pictures import HASH_LENGTH
from reidkit.search.probabilities import Prior
from reidkit.search.searcher import Searcher
from reidkit.web.batching import BatchingNetwork
from reidkit.web.settings import Limits, ServedGallery, Settings
from reidkit.web.wanted import Box, SearchRequest

_DECODING = threading.BoundedSemaphore(4)
_PRIOR_SECONDS = 600.0
_MOST_PRIORS = 100


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
        self._together = GroupCommit(self._search_all)
        self._priors: dict[str, tuple[float, int, Prior]] = {}
        self._opening = opener.submit(self._open, given, settings.backend)

    def _open(self, given: ServedGallery, backend: str) -> tuple[Searcher, BatchingNetwork]:
        searcher = Searcher(given.address, encoder=given.encoder, backend=backend)
        seconds = self.limits.batch_milliseconds / 1000
        batching = BatchingNetwork(searcher.encoder.network, waiting=self.limits.waiting, seconds=seconds)
        searcher.encoder.network = batching
        return searcher, batching

    @property
    def is_open(self) -> bool:
        """Whether it is open, or could not be opened."""
        return self._opening.done()

    @property
    def searcher(self) -> Searcher:
        """The gallery and its encoder, once they are open."""
        return self._opening.result()[0]

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
        return self._opening.result()[1].num_waiting

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

    def search(self, request: SearchRequest) -> Found:
        """The items that look most like who is searched for.

        Searches that come in while others are made are made at once, where they ask for the same: one pass
        over the gallery then serves them all.
        """
        embedding, query = self.query(request)
        return self._together.do(_Asked(embedding, query, request, _options(request)))

    def search_people(self, request: SearchRequest) -> tuple[FoundPeople, Query]:
        """The people, or tracklets, that look most like who is searched for."""
        assert request.group is not None
        embedding, query = self.query(request)
        where = request.where or None
        options = PeopleSearch(request.group, request.pool, request.top, request.items_each, where)
        [found] = self.searcher.search_people_for(
            embedding, [query], options, include_self=request.include_self
        )
        return found, query

    def warm(self) -> None:
        """Do once what would make the first search slow."""
        grey = np.full((self.searcher.encoder.height, self.searcher.encoder.width, 3), 127, np.uint8)
        embedding = self.searcher.encoder.encode([grey])
        if self.searcher.gallery is not None and len(self.gallery):
            self.searcher.search_for(embedding, [Query()], top=1, prior=self._prior(None, None))

    def _search_all(self, asked: list[_Asked]) -> list[Found | Exception]:
        """What each asked for, those of equal options at once."""
        groups: dict[str | int, list[int]] = {}
        for place, one in enumerate(asked):
            groups.setdefault(place if one.options is None else one.options, []).append(place)
        found: dict[int, Found | Exception] = {}
        for places in groups.values():
            try:
                answers: Sequence[Found | Exception] = self._search_equal([asked[place] for place in places])
            except Exception as error:  # they asked for the same, and so for the same mistake
                answers = [error] * len(places)
            found |= zip(places, answers, strict=True)
        return [found[place] for place in range(len(asked))]

    def _search_equal(self, asked: Sequence[_Asked]) -> list[Found]:
        request = asked[0].request
        rate, where = request.false_match_rate, request.where or None
        rows = np.concatenate([one.embedding for one in asked])
        return self.searcher.search_for(
            rows,
            [one.query for one in asked],
            top=request.top,
            where=where,
            include_self=request.include_self,
            lowest=None if rate is None else self.searcher.lowest_score(rate),
            prior=self._prior(where, request.prior),
        )

    def _prior(self, where: Where | None, given: float | None) -> float | None:
        """The gallery's prior, which takes a look at every item, kept while the gallery is about as large."""
        if given is not None or self.searcher.calibration is None:
            return given
        key, now, num = json.dumps(where, sort_keys=True, default=str), time.monotonic(), len(self.searcher)
        kept = self._priors.get(key)
        if kept is None or now > kept[0] or abs(num - kept[1]) > kept[1] / 100:
            if len(self._priors) >= _MOST_PRIORS:
                self._priors.clear()
            kept = self._priors[key] = now + _PRIOR_SECONDS, num, self.searcher.prior(where=where)
        return kept[2].value

    def close(self) -> None:
        if self._opening.exception() is None:
            searcher, batching = self._opening.result()
            batching.close()
            searcher.close()

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
        return np.asarray(self.searcher.encoder.encode(images))

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


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A search for one embedding (1, D); ``options`` are equal where two ask for the same, or ``None``."""

    embedding: NDArray[np.float32]
    query: Query
    request: SearchRequest
    options: str | None


def _options(request: SearchRequest) -> str | None:
    if keys_of_query(request.where):
        return None  # its conditions are of this query alone
    told = request.model_dump(include={"top", "where", "include_self", "false_match_rate", "prior"})
    return json.dumps(told, sort_keys=True, default=str)


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
