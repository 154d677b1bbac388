"""The table of decisions in the SQLite file of an embedded gallery; it is made with the first decision.

Like items, decisions have checksums, and are told only where they fit them and their types.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable
from typing import Any

from reidkit.errors import ConfigError, ReidError
from reidkit.galleries._decisions import Decision, checked, without
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._records import FILE, checksum_of

TABLE = (
    "CREATE TABLE decisions (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, items TEXT NOT NULL, "
    "who TEXT NOT NULL, time REAL NOT NULL, undoes INTEGER, checksum INTEGER NOT NULL)"
)
_LONGEST = 1_000_000  # characters of one decision's items


def exists(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE sql = ?", (TABLE,)).fetchone() is not None


def next_id(db: sqlite3.Connection) -> int:
    if not exists(db):
        return 1
    return int(db.execute("SELECT COALESCE(MAX(id), 0) + 1 FROM decisions").fetchone()[0])


def read(db: sqlite3.Connection) -> list[Decision]:
    """All decisions, in their order; :class:`DamagedGallery` where one is not what was written."""
    decisions, damaged = _read(db)
    if damaged:
        raise DamagedGallery(
            f"{FILE} is damaged: {len(damaged)} decisions are not what was written, number {damaged[0]} "
            "first; `reid gallery repair --drop` drops them, or put a copy in the gallery's place"
        )
    return decisions


def damaged(db: sqlite3.Connection) -> list[int]:
    """Ids of the decisions that are not what was written."""
    return _read(db)[1]


def drop(db: sqlite3.Connection, ids: Iterable[int]) -> None:
    if exists(db):
        db.executemany("DELETE FROM decisions WHERE id = ?", ((id,) for id in ids))


def put(db: sqlite3.Connection, decisions: Iterable[Decision]) -> None:
    """Write decisions, in place of those with the same ids."""
    rows = [as_row(decision) for decision in decisions]
    if not rows:
        return
    if not exists(db):
        db.execute(TABLE)
    db.executemany("INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def forget(db: sqlite3.Connection, removed: Collection[int], forgotten: Collection[str]) -> None:
    """Take removed items, and names that no item has any more, out of all decisions."""
    changed = list(without(read(db), removed, forgotten))
    put(db, [left for _, left in changed if left is not None])
    drop(db, [decision.id or 0 for decision, left in changed if left is None])


def as_row(decision: Decision) -> tuple[Any, ...]:
    """A decision as it is stored, the checksum last."""
    items = json.dumps([decision.items, decision.before, decision.after], separators=(",", ":"))
    if len(items) > _LONGEST:
        raise ConfigError(
            f"a decision of {len(decision.items):,} items takes {len(items):,} characters; at most "
            f"{_LONGEST:,} are kept: decide of fewer items at once"
        )
    values = (decision.id, decision.kind, items, decision.who, decision.time, decision.undoes)
    return *values, checksum_of(values)


def _read(db: sqlite3.Connection) -> tuple[list[Decision], list[int]]:
    """Decisions, in their order, and the ids of those that are not what was written."""
    whole: list[Decision] = []
    damaged: list[int] = []
    for row in db.execute("SELECT * FROM decisions ORDER BY id") if exists(db) else ():
        try:
            whole.append(from_row(row))
        except (ReidError, ValueError, TypeError, RecursionError):
            damaged.append(row[0])
    return whole, damaged


def from_row(row: tuple[Any, ...]) -> Decision:
    """A decision as it was stored; :class:`ValueError` and others where it is not what was written."""
    id, kind, items, who, time, undoes, written = row
    if checksum_of((id, kind, items, who, time, undoes)) != written:
        raise ValueError
    ids, before, after = json.loads(items)
    return checked(Decision(kind, tuple(ids), tuple(before), tuple(after), who, time, undoes=undoes, id=id))
