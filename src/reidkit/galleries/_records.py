"""What the tables of a gallery's SQLite file hold: the state of the gallery and its items, with checksums.

A checksum is the CRC-32 of all other values of its row, written as Python's ``ascii()`` writes them: the same
on every machine, and different for any two rows. It guards against damage, not against forgers, so that types
and limits are checked besides.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reidkit.errors import shown
from reidkit.galleries import _own_labels
from reidkit.galleries._items import Item
from reidkit.galleries._labels import EARLIEST, LATEST, Labels, more
from reidkit.galleries._places import box_of
from reidkit.galleries._vector_file import NAME

FORMAT = 2
FILE = "items.sqlite"
LARGEST_DIMENSION = 2**20

# "revision" counts changes: what a reader holds is fresh while it is the same. "vectors" is the name of the
# file; "num_rows" are its rows that were committed, those of removed items among them.
# "content" is the hash of what was embedded. "more" is JSON: the tracklet, the place, and labels
# of one's own.
TABLES = {
    2: (
        "CREATE TABLE gallery (revision INTEGER NOT NULL, vectors TEXT NOT NULL, num_rows INTEGER NOT NULL, "
        "num_items INTEGER NOT NULL, next_id INTEGER NOT NULL, dimension INTEGER, encoder TEXT, "
        "checksum INTEGER NOT NULL)",
        "CREATE TABLE items (id INTEGER PRIMARY KEY, row INTEGER NOT NULL UNIQUE, source TEXT UNIQUE, "
        "identity TEXT, camera, time REAL, content TEXT, more TEXT, checksum INTEGER NOT NULL)",
        "CREATE INDEX items_by_content ON items (content)",
    ),
    1: (
        """CREATE TABLE gallery (
        revision INTEGER NOT NULL,  -- counts changes: what a reader holds is fresh while this is the same
        vectors TEXT NOT NULL,      -- name of the file
        num_rows INTEGER NOT NULL,  -- rows of it that were committed, those of removed items too
        next_id INTEGER NOT NULL,
        dimension INTEGER,
        encoder TEXT
    )""",
        """CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        row INTEGER NOT NULL UNIQUE,
        source TEXT UNIQUE,
        identity TEXT,
        camera INTEGER,
        time REAL
    )""",
    ),
}
COLUMNS = "id, row, source, identity, camera, time, content, more, checksum"

STATE_COLUMNS = "revision, vectors, num_rows, num_items, next_id, dimension, encoder, checksum"

_NOTHING: type = type(None)
_TEXT: set[type] = {str, _NOTHING}
# id, row, source (bytes where a file's name is not UTF-8), identity, camera, time, content, more
_TYPES: tuple[set[type], ...] = (
    {int}, {int}, {str, bytes, _NOTHING}, _TEXT, {int, str, _NOTHING}, {float, _NOTHING}, _TEXT, _TEXT,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class State:
    """The one row of the table ``gallery``."""

    revision: int
    vectors: str
    num_rows: int
    num_items: int
    next_id: int
    dimension: int | None
    encoder: str | None

    def values(self) -> tuple[Any, ...]:
        """As stored, the checksum last."""
        counts = self.revision, self.vectors, self.num_rows, self.num_items, self.next_id
        values = (*counts, self.dimension, self.encoder)
        return *values, checksum_of(values)

    def fault(self) -> str | None:
        """What is wrong with it, whoever wrote it."""
        counts = (self.revision, self.num_rows, self.num_items, self.next_id)
        if not all(type(count) is int and 0 <= count < 2**62 for count in counts):
            return "its counts are no numbers"
        if not isinstance(self.vectors, str) or not NAME.fullmatch(self.vectors):
            return f"{shown(self.vectors)} is not the name of a file of vectors"
        if self.dimension is None and self.num_rows:
            return "its embeddings have no dimension"
        if self.dimension is not None and not (
            type(self.dimension) is int and 0 < self.dimension <= LARGEST_DIMENSION
        ):
            return f"its dimension is {shown(self.dimension)}"
        if self.num_items > self.num_rows:
            return f"it counts {self.num_items} items, but {self.num_rows} embeddings"
        return _encoder_fault(self.encoder)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table ``items``; ``row`` is that of the item's vector."""

    id: int
    row: int
    source: str | None
    identity: str | None
    camera: int | str | None
    time: float | None
    content: str | None
    more: str | None = None

    @property
    def item(self) -> Item:
        tracklet, kept = _own_labels.read(self.more)
        labels: dict[str, Any] = dict(kept)
        frame, box = labels.pop("frame", None), labels.pop("box", None)
        return Item(
            self.id,
            self.source,
            self.identity,
            self.camera,
            self.time,
            content=self.content,
            tracklet=tracklet,
            frame=frame,
            box=None if box is None else box_of(box),
            labels=labels,
        )

    def changed(self, changes: Mapping[str, Any], index: int) -> Row:
        """With new labels by field; ``labels`` of one's own are added to those it has.

        Raises :class:`DataError` where number so-and-so of a call then has too many.
        """
        fields = dict(changes)
        tracklet, own = _own_labels.read(self.more)
        own = {**own, **fields.pop("labels", {})}
        tracklet = fields.pop("tracklet", tracklet)
        return replace(self, more=more(tracklet, own, index), **fields)

    def values(self) -> tuple[Any, ...]:
        """As stored, the checksum last."""
        labels = self.identity, self.camera, self.time, self.content, self.more
        values = (self.id, self.row, stored(self.source), *labels)
        return *values, checksum_of(values)

    @classmethod
    def labelled(cls, id: int, row: int, labels: Labels) -> Row:
        """A new item. The labels one by one: ``astuple`` copies each of them, and takes most of an add."""
        known = labels.identity, labels.camera, labels.time, labels.content, labels.more
        return cls(id, row, labels.source, *known)

    @classmethod
    def of(cls, values: Sequence[Any]) -> Row:
        """From values as stored, without the checksum."""
        id, row, source, *labels = values
        if isinstance(source, bytes):
            source = source.decode("utf-8", "surrogateescape")
        return cls(id, row, source, *labels)


def is_whole(values: Sequence[Any], checksum: object, *, num_rows: int) -> bool:
    """Whether an item's values, as stored, have their types and limits, fit the checksum, and name a row."""
    return (
        all(type(value) in types for value, types in zip(values, _TYPES, strict=True))
        and 0 <= values[1] < num_rows
        and (values[5] is None or EARLIEST <= values[5] < LATEST)
        and checksum_of(tuple(values)) == checksum
        and _own_labels.is_readable(values[7])
    )


def are_whole(rows: Sequence[Sequence[Any]], *, num_rows: int) -> bool:
    """Whether :func:`is_whole` holds for all items, as stored with their checksums; much faster than each."""
    if not rows:
        return True
    *columns, checksums = zip(*rows, strict=True)
    if not all(set(map(type, column)) <= types for column, types in zip(columns, _TYPES, strict=True)):
        return False
    times = [time for time in columns[5] if time is not None]
    return (
        0 <= min(columns[1]) <= max(columns[1]) < num_rows
        and (not times or EARLIEST <= min(times) <= max(times) < LATEST)
        and tuple(map(checksum_of, zip(*columns, strict=True))) == checksums
        and all(map(_own_labels.is_readable, set(columns[7])))
    )


def stored(value: Any) -> Any:
    """A value as SQLite takes it. A file name that is not UTF-8 is stored as its bytes."""
    if isinstance(value, str) and not value.isascii():
        encoded = value.encode("utf-8", "surrogateescape")
        try:
            encoded.decode()
        except UnicodeDecodeError:
            return encoded
    return value


def checksum_of(values: tuple[Any, ...]) -> int:
    return zlib.crc32(ascii(values).encode())


def _encoder_fault(encoder: str | None) -> str | None:
    if encoder is None:
        return None
    try:
        described = json.loads(encoder)
    except (TypeError, ValueError, RecursionError):
        described = None
    if not isinstance(described, dict) or not isinstance(described.get("fingerprint"), str):
        return "what it says of its encoder has no fingerprint"
    return None
