"""The table of thumbnails in the SQLite file of an embedded gallery; it is made with the first of them.

Each has a checksum, and is told only where it fits. They stand in a table of their own, so that whoever reads
all items does not read their pictures.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping

from reidkit.galleries import _thumbnails

TABLE = "CREATE TABLE thumbnails (id INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, data BLOB NOT NULL)"
_AT_ONCE = 500  # values of one statement


def exists(db: sqlite3.Connection) -> bool:
    masters = ("sqlite_master", "sqlite_temp_master")
    query = " UNION ALL ".join(f"SELECT 1 FROM {master} WHERE name = 'thumbnails'" for master in masters)
    return db.execute(query).fetchone() is not None


def put(db: sqlite3.Connection, thumbnails: Mapping[int, bytes | None]) -> None:
    """Keep the thumbnails of items, by their ids, in place of those they had; ``None`` is none."""
    delete(db, thumbnails)
    rows = [(id, checksum_of(id, data), data) for id, data in thumbnails.items() if data is not None]
    if rows and not exists(db):
        db.execute(TABLE)
    db.executemany("INSERT INTO thumbnails VALUES (?, ?, ?)", rows) if rows else None


def delete(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    """Take out those of these items."""
    if exists(db):
        db.executemany("DELETE FROM thumbnails WHERE id = ?", ((id,) for id in ids))


def count(db: sqlite3.Connection) -> int:
    """How many there are."""
    return int(db.execute("SELECT COUNT(*) FROM thumbnails").fetchone()[0]) if exists(db) else 0


def read(db: sqlite3.Connection, ids: Iterable[int]) -> tuple[dict[int, bytes], list[int]]:
    """Those of these items that have one, and the ids of those whose thumbnail is not what was written."""
    return told(_of(db, list(ids))) if exists(db) else ({}, [])


def damaged(db: sqlite3.Connection) -> list[int]:
    """Ids of all thumbnails that are not what was written."""
    if not exists(db):
        return []
    rows = db.execute("SELECT id, checksum, CAST(data AS BLOB) FROM thumbnails")
    return sorted(id for id, checksum, data in rows if not _is_whole(id, checksum, data))


def _of(db: sqlite3.Connection, ids: list[int]) -> Iterator[tuple[int, object, object]]:
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        places = ", ".join("?" * len(some))
        yield from db.execute(
            f"SELECT id, checksum, CAST(data AS BLOB) FROM thumbnails WHERE id IN ({places})", some
        )


def told(rows: Iterable[tuple[int, object, object]]) -> tuple[dict[int, bytes], list[int]]:
    """Thumbnails by id, of rows of id, checksum and data; and the ids of what is not what was written."""
    whole: dict[int, bytes] = {}
    wrong: list[int] = []
    for id, checksum, data in rows:
        if isinstance(data, bytes) and _is_whole(id, checksum, data):
            whole[id] = data
        else:
            wrong.append(id)
    return whole, wrong


def _is_whole(id: int, checksum: object, data: object) -> bool:
    return isinstance(data, bytes) and checksum == checksum_of(id, data) and _thumbnails.is_whole(data)


def checksum_of(id: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(str(id).encode()))
