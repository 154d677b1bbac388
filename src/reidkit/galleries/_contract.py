"""What every engine offers, and what it is asked for once that is checked."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import ConfigError, DataError, did_you_mean, shown
from reidkit.galleries._decisions import Decision, checked_decisions
from reidkit.galleries._given import (
    GroupBy,
    OnDuplicate,
    checked_group,
    checked_ids,
    checked_top,
    embedding_rows,
    unit_embeddings,
)
from reidkit.galleries._items import Group, Hit, Item, Verification
from reidkit.galleries._labels import Labels, changed_labels, checked_column, label_rows
from reidkit.galleries._origin import origin_of
from reidkit.galleries._relative import KnownQuery
from reidkit.galleries._thumbnails import thumbnail_value
from reidkit.galleries._where import Where

if TYPE_CHECKING:
    from reidkit.progress import ProgressCallback


@dataclass(frozen=True, slots=True, eq=False)
class Addition:
    """Checked arguments of :meth:`Gallery.add`: unit embeddings (N, D), N >= 1, and the labels of each.

    ``origin`` says which encoder made them, as far as they tell; ``thumbnails`` (N,) are JPEG files.
    """

    embeddings: NDArray[np.float32]
    labels: list[Labels]
    on_duplicate: OnDuplicate
    origin: dict[str, Any] | None
    thumbnails: list[bytes | None]


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Checked arguments of :meth:`Gallery.search`, but for what only the gallery can check.

    ``queries`` (Q, D) are as they were given; :func:`unit_embeddings` checks them against the gallery's
    dimension. ``where`` and ``known`` go to :func:`conditions_of_queries`, with the gallery's own labels.
    """

    queries: NDArray[Any]
    top: int
    where: Where | None
    known: Sequence[KnownQuery] | None
    group: GroupBy | None
    items: int
    origin: dict[str, Any] | None


class Gallery(ABC):
    """What every engine offers.

    Embeddings are stored as unit float32 rows; those of another length are normalised. A ``where`` is a
    mapping; its conditions must all hold::

        {"camera": 3}                      {"camera": [1, "door"]}         {"camera": {"not": 3}}
        {"identity": "12"}                 {"source": {"not": [...]}}      {"identity": None}   (unknown)
        {"time": {"from": "2024-05-01T10:00", "to": datetime(...)}}        from included, to excluded

        {"zone": "hall"}   {"height": {"from": 1.7, "to": 1.9}}           labels of one's own

    In a search, conditions may refer to the query::

        {"camera": {"query": "other"}}     another camera than the query's
        {"flank": {"query": "same"}}       the same flank as the query's
        {"time": {"within": "10m"}}        at most 10 minutes before or after it, both included; or seconds
        {"height": {"within": 0.1}}        a number of one's own, at most 0.1 off

    "not" and "other" keep items whose label is unknown; windows and "same" do not. Where a query's own label
    is unknown, nothing is known to be the same or near, and all of it may be other. Times are Unix seconds,
    datetimes or ISO texts; without an offset they are taken as UTC. Identities and cameras are read as
    everywhere (:mod:`reidkit.labels`): identity 12 and "12" are one, "012" is another, and so are cameras;
    camera -1 is one that is unknown.

    Every verb but :meth:`verify` and :meth:`repair` raises :class:`DamagedGallery` where its answer would
    rest on something that is not what was written.

    An engine implements what is abstract here; arguments that all engines check alike are checked before
    ``_add``, ``_search``, ``_relabel`` and ``_decide`` are called.
    """

    @property
    @abstractmethod
    def dimension(self) -> int | None:
        """Length of the embeddings; ``None`` before the first :meth:`add`."""

    @property
    @abstractmethod
    def encoder(self) -> dict[str, Any] | None:
        """Which encoder filled the gallery, as given on opening; ``None`` if never said."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it is, as messages name it."""

    def add(
        self,
        embeddings: ArrayLike,
        *,
        sources: Sequence[str | os.PathLike[str] | None] | None = None,
        identities: Sequence[str | int | None] | NDArray[Any] | None = None,
        cameras: Sequence[int | str | None] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        contents: Sequence[str | None] | None = None,
        tracklets: Sequence[str | int | None] | NDArray[Any] | None = None,
        frames: Sequence[int | None] | NDArray[Any] | None = None,
        boxes: Sequence[Sequence[float] | str | None] | NDArray[Any] | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        on_duplicate: OnDuplicate = "replace",
    ) -> NDArray[np.int64]:
        """Store embeddings (N, D) with their labels: all of them or, where an error is raised, none.

        A source names one item, so crops of one image need names of their own. A source that the gallery
        holds already is replaced with all its labels and keeps its id, or is skipped, or is an error, as
        ``on_duplicate`` says.

        ``frames`` are numbers of pictures in their video or sequence, from 0; ``boxes`` are left, top, right
        and bottom in pixels, kept to a hundredth; ``thumbnails`` are JPEG files of at most 64 KiB, which
        :meth:`thumbnails` gives back. ``labels`` are of one's own: ``{"zone": ["hall", None, "door"],
        "height": [1.7, 1.8, None]}``, each with a text, number, truth value or datetime an embedding. All
        of them are ``None`` where they are unknown.

        Returns:
            Ids (N,), in the order of the embeddings; ids are never given twice.

        Raises:
            DataError: embeddings that are zero, not finite or of another dimension than the gallery's;
                labels of another length or type; a source twice in one call.
        """
        if on_duplicate not in (choices := ("replace", "skip", "error")):
            raise ConfigError(
                f"on_duplicate is {shown(on_duplicate)};{did_you_mean(shown(on_duplicate), choices)} "
                f"Allowed: {', '.join(choices)}"
            )
        units = unit_embeddings(embeddings, location=self.location)
        described = label_rows(
            len(units),
            sources=sources,
            identities=identities,
            cameras=cameras,
            times=times,
            contents=contents,
            tracklets=tracklets,
            places={"frames": frames, "boxes": boxes},
            own=labels,
        )
        small = checked_column("thumbnails", thumbnails, len(units), thumbnail_value)
        if not described:
            return np.empty(0, np.int64)
        return self._add(Addition(units, described, on_duplicate, origin_of(embeddings), small))

    @overload
    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        queries: Sequence[KnownQuery] | None = None,
        group: None = None,
    ) -> list[list[Hit]]: ...

    @overload
    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        queries: Sequence[KnownQuery] | None = None,
        group: GroupBy,
        items: int = 10,
    ) -> list[list[Group]]: ...

    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        queries: Sequence[KnownQuery] | None = None,
        group: GroupBy | None = None,
        items: int = 10,
    ) -> list[list[Hit]] | list[list[Group]]:
        """The ``top`` nearest items of each query, nearest first, among those that ``where`` lets through.

        Args:
            embeddings: (Q, D), or (D,) for one query.
            top: hits for each query; fewer come back only if fewer items pass ``where``.
            where: conditions as above.
            queries: what is known of each query, for conditions that refer to it: a mapping such as
                ``{"camera": 3, "time": "2024-05-01T10:00"}``, where a list is of readings one of which is
                meant; or, for queries that are items, what :meth:`items` tells of them.
            group: instead of items, the nearest people ("identity") or tracklets ("tracklet"), whose score
                is that of their nearest item. An item that has none is a group by itself.
            items: of each group the nearest so many are told.
        """
        wanted = Search(
            embedding_rows(embeddings),
            checked_top(top),
            where,
            queries,
            checked_group(group),
            checked_top(items, "items"),
            origin_of(embeddings),
        )
        return self._search(wanted)

    def relabel(
        self,
        ids: Iterable[int],
        *,
        sources: Sequence[str | os.PathLike[str] | None] | None = None,
        identities: Sequence[str | int | None] | NDArray[Any] | None = None,
        cameras: Sequence[int | str | None] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        tracklets: Sequence[str | int | None] | NDArray[Any] | None = None,
        frames: Sequence[int | None] | NDArray[Any] | None = None,
        boxes: Sequence[Sequence[float] | str | None] | NDArray[Any] | None = None,
        thumbnails: Sequence[bytes | None] | None = None,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    ) -> None:
        """Give the items with these ids other labels, one each; kinds that are left out stay.

        Raises :class:`DataError` and changes nothing where an id is unknown or a source is another item's.
        """
        wanted = checked_ids(ids)
        if len(set(wanted)) < len(wanted):
            raise DataError("ids holds one twice; give each item its labels once")
        given = {
            "sources": sources,
            "identities": identities,
            "cameras": cameras,
            "times": times,
            "tracklets": tracklets,
            "frames": frames,
            "boxes": boxes,
        }
        changes = changed_labels(given, labels, len(wanted))
        small = checked_column("thumbnails", thumbnails, len(wanted), thumbnail_value)
        self._relabel(wanted, changes, {} if thumbnails is None else dict(zip(wanted, small, strict=True)))

    def thumbnails(self, *, ids: Iterable[int]) -> dict[int, bytes]:
        """The JPEG files of those items, by their ids, that have a thumbnail."""
        return self._thumbnails(checked_ids(ids))

    def decide(self, decisions: Iterable[Decision]) -> list[Decision]:
        """Keep what somebody decided, and give the items the identities that follow: all of it or nothing.

        ``before`` of each must be what its items are called now, after the decisions before it in the list,
        so that nobody decides on what has changed since it was looked at.

        Returns:
            The decisions as they are kept, with ids, in ascending order, and times.

        Raises:
            ConfigError: a decision that makes no sense.
            DataError: an item is unknown, or its identity is not what ``before`` says.
        """
        return self._decide(checked_decisions(decisions))

    @abstractmethod
    def decisions(self) -> list[Decision]:
        """All that was decided, in that order, taken back or not (:func:`in_force` tells which).

        An item that is removed, or whose source is replaced by another content, is removed from them; an
        identity that no item has any more when items of it are removed is ``None`` in them; decisions that
        then say nothing are gone (:func:`reidkit.galleries._decisions.without`).
        """

    @abstractmethod
    def _decide(self, decisions: list[Decision]) -> list[Decision]:
        """As :func:`~reidkit.galleries._decisions.carried_out` says, in one transaction."""

    @abstractmethod
    def _add(self, addition: Addition) -> NDArray[np.int64]: ...

    @abstractmethod
    def _search(self, search: Search) -> list[list[Hit]] | list[list[Group]]: ...

    @abstractmethod
    def _relabel(
        self, ids: list[int], changes: list[dict[str, Any]], thumbnails: dict[int, bytes | None]
    ) -> None:
        """Change each item as :meth:`reidkit.galleries._records.Row.changed` does, and the thumbnails of
        these items, by their ids; ``None`` is none."""

    @abstractmethod
    def _thumbnails(self, ids: list[int]) -> dict[int, bytes]:
        """Thumbnails by id, of the items that have one. They go with their item, and when it is replaced."""

    @abstractmethod
    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        """Delete the items with these ids, or those that ``where`` lets through; how many they were.

        Raises :class:`DataError` and deletes nothing where an id is unknown.
        """

    @abstractmethod
    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        """Labels of the items with these ids, in their order; or of those ``where`` lets through; or all."""

    @abstractmethod
    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of the same items, in the same order, as :meth:`items` gives."""

    @abstractmethod
    def verify(self) -> Verification:
        """Check all that is stored. Raises :class:`DamagedGallery` where it cannot even be listed."""

    @abstractmethod
    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        """Drop the items that are damaged; their ids. Without ``drop`` they are named in the error only."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """``engine``, ``location``, ``num_items``, ``dimension``, ``encoder``, ``num_thumbnails``, and
        what an engine adds."""

    @abstractmethod
    def compact(self, *, erase: bool = False) -> int:
        """Give back the room of what was removed or replaced; of how many items.

        With ``erase`` no byte of it is left in the gallery's files, whichever version wrote them.
        """

    def build_index(
        self, *, min_recall: float = 0.0, sample: int = 100, progress: ProgressCallback | None = None
    ) -> float:
        """Make the approximate index over what the gallery holds; the recall measured with it.

        That is the share of the 10 nearest items that it finds, so many stored ones being the queries.

        Raises:
            DataError: the gallery is empty; or the index finds less than ``min_recall``, and is not kept.
            ConfigError: an engine has no such index that could be built or left out.
        """
        raise ConfigError(f"{self.location} is of an engine without an approximate index to be built")

    def drop_index(self) -> None:
        """Delete the approximate index, if there is one: all is searched exactly."""
        raise ConfigError(f"{self.location} is of an engine without an approximate index to be built")

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
