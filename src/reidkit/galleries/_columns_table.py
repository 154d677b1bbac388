"""The table of columns in a gallery's SQLite file: labels of all items, by which filters are fast.

What the items say is told a second time, label by label, in chunks of rows
(:mod:`reidkit.galleries._column_data`). Whoever changes items changes their chunks in the same transaction;
rows behind the last whole chunk have none yet. The table is made with the first chunk.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reidkit.galleries import _column_data
from reidkit.galleries._column_data import ROWS, decoded, encoded, labels_of
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._records import FILE, Row

TABLE = (
    "CREATE TABLE columns (label TEXT NOT NULL, first INTEGER NOT NULL, part INTEGER NOT NULL, "
    "revision INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL, "
    "PRIMARY KEY (label, first, part)) WITHOUT ROWID"
)
_MOST_WITHOUT = 2**24  # rows that have no chunk; there are more only if a file is made to keep us busy
_PART = 2**19  # bytes of one row of the table

Stamp = tuple[int, int]
"""The revision that wrote a chunk, and the checksum of its first part: another one is another chunk."""


class ColumnsTable:
    """The columns of one gallery; methods are called within a transaction.

    Args:
        database: gives the open connection.
        location: of the gallery, for messages.
    """

    def __init__(self, database: Callable[[], sqlite3.Connection], location: str) -> None:
        self._database, self._location = database, location

    def exists(self) -> bool:
        """Whether any chunk was ever written."""
        masters = ("sqlite_master", "sqlite_temp_master")
        query = " UNION ALL ".join(f"SELECT 1 FROM {master} WHERE name = 'columns'" for master in masters)
        return self._database().execute(query).fetchone() is not None

    # --- reading ------------------------------------------------------------------------------------------

    def num_rows(self) -> int:
        """Rows from the first on that have chunks."""
        if not self.exists():
            return 0
        [(last,)] = self._database().execute("SELECT MAX(first) FROM columns WHERE label = ?", (ROWS,))
        if last is None:
            return 0
        if type(last) is not int or not 0 <= last < 2**62:
            raise self.damage()
        return last + _column_data.CHUNK

    def check_extent(self, num_rows: int) -> None:
        """Raise :class:`DamagedGallery` unless so many rows are more than have chunks, and not far more."""
        if not 0 <= num_rows - self.num_rows() <= _MOST_WITHOUT:
            raise self.damage()

    def keys(self) -> list[str]:
        """Labels that any of these rows has."""
        if not self.exists():
            return []
        found = self._database().execute("SELECT DISTINCT label FROM columns WHERE label != ?", (ROWS,))
        return [key for (key,) in found]

    def stamps(self, key: str) -> dict[int, Stamp]:
        """The first rows of the chunks in which an item has this label."""
        if not self.exists():
            return {}
        query = "SELECT first, revision, checksum FROM columns WHERE label = ? AND part = 0"
        return {first: stamp for first, *stamp in self._database().execute(query, (key,))}

    def data(self, key: str, first: int) -> bytes | None:
        """The bytes of one chunk; :class:`DamagedGallery` where they are not what was written."""
        columns = "part, revision, CAST(data AS BLOB), checksum"
        query = f"SELECT {columns} FROM columns WHERE label = ? AND first = ? ORDER BY part"
        parts = self._database().execute(query, (key, first)).fetchall()
        for number, (part, revision, data, checksum) in enumerate(parts):
            is_whole = part == number
            if not is_whole or checksum != _checksum(key, first, part, revision, data):
                raise self.damage()
        return b"".join(data for _, _, data, _ in parts) if parts else None

    def checked(self, decode: Callable[..., Any], *arguments: Any) -> Any:
        """What is decoded; :class:`DamagedGallery` where that is not possible."""
        try:
            return decode(*arguments)
        except (ValueError, TypeError, KeyError, OverflowError, OSError) as error:
            raise self.damage() from error

    def damage(self) -> DamagedGallery:
        return DamagedGallery(
            f"{self._location}: the columns of labels in {FILE} are damaged; `reid gallery repair "
            f"{self._location}` makes them anew, and no item is lost"
        )

    # --- writing ------------------------------------------------------------------------------------------

    def write(self, first: int, rows: Sequence[Row | None], revision: int) -> None:
        """Write a chunk's columns, of the items of its rows (C,)."""
        if not self.exists():
            self._database().execute(TABLE)
        labels = [labels_of(row) for row in rows]
        for key in {ROWS, *(key for of_row in labels for key in of_row)}:
            self._put(key, first, [of_row.get(key) for of_row in labels], revision)

    def change(self, changes: Mapping[int, Row | None], revision: int) -> None:
        """Give rows that have chunks the labels of other items, or of none."""
        known = [ROWS, *self.keys()] if changes else []
        chunks: dict[int, dict[int, dict[str, Any]]] = {}
        for row, item in changes.items():
            place = row % _column_data.CHUNK
            chunks.setdefault(row - place, {})[place] = labels_of(item)
        for first, new in sorted(chunks.items()):
            for key in {*known, *(key for labels in new.values() for key in labels)}:
                before = self.data(key, first)
                values = self.checked(decoded, key, before) if before else [None] * _column_data.CHUNK
                for place, labels in new.items():
                    values[place] = labels.get(key)
                if encoded(key, values) != (before or b""):
                    self._put(key, first, values, revision)

    def clear(self) -> None:
        """Delete all chunks."""
        if self.exists():
            self._database().execute("DELETE FROM columns")

    def verify(self, rows: Mapping[int, Row]) -> None:
        """Raise :class:`DamagedGallery` unless all chunks say what the items, by their rows, do."""
        known = [ROWS, *self.keys()]
        for first in range(0, self.num_rows(), _column_data.CHUNK):
            labels = [labels_of(rows.get(number)) for number in range(first, first + _column_data.CHUNK)]
            for key in {*known, *(key for of_row in labels for key in of_row)}:
                values = [of_row.get(key) for of_row in labels]
                if (self.data(key, first) or b"") != encoded(key, values):
                    raise self.damage()

    def _put(self, key: str, first: int, values: Sequence[Any], revision: int) -> None:
        db = self._database()
        db.execute("DELETE FROM columns WHERE label = ? AND first = ?", (key, first))
        data = encoded(key, values)
        for part, start in enumerate(range(0, len(data), _PART)):
            some = data[start : start + _PART]
            stamp = revision, _checksum(key, first, part, revision, some)
            db.execute("INSERT INTO columns VALUES (?, ?, ?, ?, ?, ?)", (key, first, part, *stamp, some))


def _checksum(key: str, first: int, part: int, revision: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(ascii((key, first, part, revision)).encode()))
