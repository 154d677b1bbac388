"""Galleries: people's embeddings with where and when they were seen, to be searched.

An engine is one file of this folder: a class with the verbs of :class:`Gallery`, registered under the
scheme of its locations and constructed as ``Engine(address, *, create, encoder)``, where the address is
what follows ``scheme://``. What all engines accept (embeddings, labels, filters) is checked here.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit import registry, trust
from reidkit.arrays import fingerprints_of
from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.galleries._decisions import Decision, in_force
from reidkit.galleries._feedback import (
    accept,
    accept_all_proposals,
    accept_proposal,
    item_ids,
    merge,
    proposals,
    reject,
    split,
    undo,
)
from reidkit.galleries._items import Group, Hit, Item, Verification
from reidkit.galleries._removal import erase, expire, forget
from reidkit.galleries._training_table import write_training_table
from reidkit.galleries._where import Where, check_where, parse_where

__all__ = [
    "DamagedGallery",
    "Decision",
    "Gallery",
    "Group",
    "GroupBy",
    "Hit",
    "Item",
    "NoGallery",
    "OnDuplicate",
    "Verification",
    "Where",
    "accept",
    "accept_all_proposals",
    "accept_proposal",
    "check_where",
    "erase",
    "expire",
    "forget",
    "in_force",
    "item_ids",
    "merge",
    "open_gallery",
    "parse_where",
    "proposals",
    "reject",
    "split",
    "undo",
    "write_training_table",
]

_LONGEST_ENCODER = 100_000  # characters

OnDuplicate = Literal["replace", "skip", "error"]
GroupBy = Literal["identity", "tracklet"]


class NoGallery(DataError):
    """There is no gallery at a location, and none was to be made."""


class DamagedGallery(DataError):
    """What a gallery holds is not what was written. ``ids`` are the items it concerns, where known."""

    def __init__(self, message: str, *, ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ids = tuple(ids)


class Gallery(Protocol):
    """What every engine offers.

    Embeddings are stored as unit float32 rows; those of another length are normalised. A ``where`` is a
    mapping; its conditions must all hold::

        {"camera": 3}                      {"camera": [1, "door"]}         {"camera": {"not": 3}}
        {"identity": "12"}                 {"source": {"not": [...]}}      {"identity": None}   (unknown)
        {"time": {"from": "2024-05-01T10:00", "to": datetime(...)}}        from included, to excluded

        {"zone": "hall"}   {"height": {"from": 1.7, "to": 1.9}}           labels of one's own

    "not" keeps items whose label is unknown; a time window does not. Times are Unix seconds, datetimes or
    ISO texts; without an offset they are taken as UTC. Identities and cameras are read as everywhere
    (:mod:`reidkit.labels`): identity 12 and "12" are one, "012" is another, and so are cameras;
    camera -1 is one that is unknown.

    Every verb but :meth:`verify` and :meth:`repair` raises :class:`DamagedGallery` where its answer would
    rest on something that is not what was written.
    """

    @property
    def dimension(self) -> int | None:
        """Length of the embeddings; ``None`` before the first :meth:`add`."""

    @property
    def encoder(self) -> dict[str, Any] | None:
        """Which encoder filled the gallery, as given on opening; ``None`` if never said."""

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
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        on_duplicate: OnDuplicate = "replace",
    ) -> NDArray[np.int64]:
        """Store embeddings (N, D) with their labels: all of them or, where an error is raised, none.

        A source names one item, so crops of one image need names of their own. A source that the gallery
        holds already is replaced with all its labels and keeps its id, or is skipped, or is an error, as
        ``on_duplicate`` says.

        ``labels`` are of one's own: ``{"zone": ["hall", None, "door"], "height": [1.7, 1.8, None]}``, each
        with a text, number, truth value or datetime an embedding, or ``None`` where it is unknown.

        Returns:
            Ids (N,), in the order of the embeddings; ids are never given twice.

        Raises:
            DataError: embeddings that are zero, not finite or of another dimension than the gallery's;
                labels of another length or type; a source twice in one call.
        """

    @overload
    def search(
        self, embeddings: ArrayLike, *, top: int = 10, where: Where | None = None, group: None = None
    ) -> list[list[Hit]]: ...

    @overload
    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        group: GroupBy,
        items: int = 10,
    ) -> list[list[Group]]:
        """The ``top`` nearest items of each query, nearest first, among those that ``where`` lets through.

        Args:
            embeddings: (Q, D), or (D,) for one query.
            top: hits for each query; fewer come back only if fewer items pass ``where``.
            where: conditions as above.
            group: instead of items, the nearest people ("identity") or tracklets ("tracklet"), whose score
                is that of their nearest item. An item that has none is a group by itself.
            items: of each group the nearest so many are told.
        """

    def relabel(
        self,
        ids: Iterable[int],
        *,
        sources: Sequence[str | os.PathLike[str] | None] | None = None,
        identities: Sequence[str | int | None] | NDArray[Any] | None = None,
        cameras: Sequence[int | str | None] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        tracklets: Sequence[str | int | None] | NDArray[Any] | None = None,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    ) -> None:
        """Give the items with these ids other labels, one each; kinds that are left out stay.

        Raises :class:`DataError` and changes nothing where an id is unknown or a source is another item's.
        """

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        """Delete the items with these ids, or those that ``where`` lets through; how many they were.

        Raises :class:`DataError` and deletes nothing where an id is unknown.
        """

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

    def decisions(self) -> list[Decision]:
        """All that was decided, in that order, taken back or not (:func:`in_force` tells which).

        An item that is removed, or whose source is replaced by another content, is removed from them; an
        identity that no item has any more when items of it are removed is ``None`` in them; decisions that
        then say nothing are gone (:func:`reidkit.galleries._decisions.without`).
        """

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        """Labels of the items with these ids, in their order; or of those ``where`` lets through; or all."""

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of the same items, in the same order, as :meth:`items` gives."""

    def verify(self) -> Verification:
        """Check all that is stored. Raises :class:`DamagedGallery` where it cannot even be listed."""

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        """Drop the items that are damaged; their ids. Without ``drop`` they are named in the error only."""

    def info(self) -> dict[str, Any]:
        """``engine``, ``location``, ``num_items``, ``dimension``, ``encoder``, and what an engine adds."""

    def compact(self, *, erase: bool = False) -> int:
        """Give back the room of what was removed or replaced; of how many items.

        With ``erase`` no byte of it is left in the gallery's files, whichever version wrote them.
        """

    def __len__(self) -> int: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def open_gallery(
    location: str | os.PathLike[str], *, create: bool = True, encoder: Mapping[str, Any] | None = None
) -> Gallery:
    """Open a gallery, or make it.

    Args:
        location: a folder, or ``scheme://address`` for the engine registered as ``scheme``.
        create: make the gallery if there is none; otherwise that is a :class:`DataError`.
        encoder: which encoder the embeddings come from: ``fingerprint``, and whatever is needed to load
            it again, such as ``path``; kept as JSON. A gallery that holds embeddings of another encoder,
            or of one that was never recorded, is refused: their scores would mean nothing.
    """
    place = _place(location)
    engine, separator, address = place.partition("://")
    if not separator:
        engine, address = "embedded", place
    options = {"create": create, "encoder": None if encoder is None else _plain_encoder(encoder)}
    with trust.given(engine):
        gallery: Gallery = registry.build("gallery", engine, options, address)
    return gallery


def _place(location: str | os.PathLike[str]) -> str:
    try:
        place = os.fspath(location)
    except TypeError:
        raise ConfigError(
            f"location is of type {type(location).__name__}; expected a folder, or scheme://address"
        ) from None
    place = os.fsdecode(place)
    if not place or "\0" in place:
        raise ConfigError(f"location is {shown(place)}; expected a folder, or scheme://address")
    return place


def _plain_encoder(encoder: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(encoder, Mapping):
        raise ConfigError(
            f"encoder is of type {type(encoder).__name__}; expected a mapping with a fingerprint"
        )
    try:
        text = json.dumps(dict(encoder), default=os.fspath)
        plain: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"encoder cannot be kept as JSON: {error}") from error
    if len(text) > _LONGEST_ENCODER:
        raise ConfigError(
            f"encoder takes {len(text):,} characters as JSON; at most {_LONGEST_ENCODER:,} are "
            "kept: a fingerprint and a path are enough"
        )
    if not isinstance(plain.get("fingerprint"), str):
        raise ConfigError(
            f"encoder has no text under 'fingerprint': {shown(plain)}; without it embeddings of "
            "different encoders cannot be told apart"
        )
    return plain


def check_encoder(
    recorded: Mapping[str, Any] | None, given: Mapping[str, Any], *, num_items: int, location: str
) -> None:
    """Raise :class:`DataError` where a gallery's items do not come from the given encoder."""
    if recorded is None and num_items:
        raise DataError(
            f"{location} holds {num_items} items, but not which encoder made them, so that "
            f"{_described(given)} cannot be checked; open it without encoder=, or fill a new gallery"
        )
    if recorded is not None and recorded["fingerprint"] not in _known_as(given, recorded):
        raise DataError(
            f"{location} was filled by another encoder: {_described(recorded)}, not {_described(given)}; "
            "scores between the two mean nothing: use that encoder, or fill a new gallery"
        )


def origin_of(embeddings: Any) -> dict[str, Any] | None:
    """What a gallery records of the encoder that embeddings come from; None where they do not say."""
    fingerprint, *former = fingerprints_of(embeddings) or (None,)
    return None if fingerprint is None else {"fingerprint": fingerprint, "former_fingerprints": former}


def _known_as(given: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """Fingerprints of an encoder; those of version 0.1.0 only in what that version recorded."""
    former = [] if "former_fingerprints" in recorded else given.get("former_fingerprints", [])
    return [given["fingerprint"], *former]


def _described(encoder: Mapping[str, Any]) -> str:
    fingerprint, path = shortened(str(encoder["fingerprint"])), shortened(str(encoder.get("path", "")), 200)
    return f"{path} (fingerprint {fingerprint})" if path else f"the encoder of fingerprint {fingerprint}"


def checked_top(top: Any, name: str = "top") -> int:
    """How many hits are asked for; :class:`ConfigError` unless it is a whole number above 0."""
    try:
        number = 0 if isinstance(top, bool) else operator.index(top)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} is {shown(top)}; ask for 1 hit or more, a whole number")
    return number


def checked_group(group: Any) -> GroupBy | None:
    """What hits are grouped by; :class:`ConfigError` unless it is a label of one person or track."""
    if group is not None and group not in ("identity", "tracklet"):
        close = did_you_mean(shown(group), ["identity", "tracklet"])
        raise ConfigError(f"group is {shown(group)};{close} Allowed: identity, tracklet, or None")
    return group  # type: ignore[no-any-return]


def checked_ids(ids: Any) -> list[int]:
    """Ids as integers; :class:`DataError` unless they are whole numbers."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise DataError(f"ids are of type {type(ids).__name__}; expected a list of whole numbers")
    numbers = []
    for id in ids:
        try:
            number = None if isinstance(id, bool) else operator.index(id)
        except TypeError:
            number = None
        if number is None or abs(number) >= 2**63:
            raise DataError(f"{shown(id)} is no id; ids are whole numbers, as add() returns them")
        numbers.append(number)
    return numbers


def unit_embeddings(
    embeddings: ArrayLike, *, dimension: int | None = None, location: str
) -> NDArray[np.float32]:
    """Rows (N, D) at unit length, as given where they have it already (to 1e-6); tensors of torch, too.

    Raises :class:`DataError` for other shapes and types, rows that are zero or not finite, and a
    dimension other than the gallery's.
    """
    array = _array(embeddings)
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise DataError(
            f"embeddings have shape {array.shape} and type {array.dtype}; expected floating-point (N, D)"
        )
    if dimension is not None and array.shape[1] != dimension:
        raise DataError(
            f"embeddings have {array.shape[1]} numbers each, but those in {location} have {dimension}: "
            "another encoder?"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64, casting="same_kind"))
    wrong = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(wrong):
        raise DataError(
            f"embedding {wrong[0]} has length {norms[wrong[0]]} ({len(wrong)} such of {len(array)}); "
            "embeddings must be finite and not zero"
        )
    norms[np.abs(norms - 1) < 1e-6] = 1
    unit = np.empty(array.shape, np.float32)
    # Divides in float64 without a copy of all rows: float16 and large values keep their direction.
    np.divide(array, norms[:, None], out=unit, casting="same_kind")
    return unit


def embedding_rows(embeddings: ArrayLike) -> NDArray[Any]:
    """Embeddings as an array (N, D), where a single one (D,) may be given."""
    array = _array(embeddings)
    return array[None] if array.ndim == 1 else array


def _array(embeddings: Any) -> NDArray[Any]:
    if hasattr(embeddings, "detach"):  # a tensor: NumPy knows neither gradients nor bfloat16
        tensor = embeddings.detach().cpu()
        embeddings = (tensor.float() if "bfloat16" in str(tensor.dtype) else tensor).numpy()
    try:
        return np.asarray(embeddings)
    except Exception as error:  # rows of several lengths, objects that raise what they like
        reason = shortened((str(error).splitlines() or [type(error).__name__])[0], 200)
        raise DataError(f"embeddings are no array ({reason}); expected floating-point (N, D)") from None
