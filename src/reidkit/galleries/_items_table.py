"""The table of a gallery's items: what is checked before it is told, and changes of it.

An item is told only if its values have the right types and fit the checksum written with them. Whoever reads
more than single items (filters, all items, sources to replace) needs all of them to be there: then the whole
file is checked, once in a process.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import shortened
from reidkit.galleries import _column_data, _decisions_table, _thumbnails_table
from reidkit.galleries._columns_table import ColumnsTable
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._records import COLUMNS, FILE, Row, State, are_whole, is_whole, stored
from reidkit.galleries._storage import Storage
from reidkit.galleries._table_file import DAMAGED, TableFile
from reidkit.galleries._vector_file import check_only_name

ROWS_AT_ONCE = 10_000


class ItemsTable(TableFile):
    """The items of a gallery; methods are called within a transaction."""

    def __init__(self, folder: Path, *, create: bool, storage: Storage = "float32") -> None:
        self._checked: State | None = None  # all items were checked as of this state
        self._changed: dict[int, Row | None] = {}  # by row, which items the transaction wrote and took away
        self.columns = ColumnsTable(lambda: self.db, str(folder))
        super().__init__(folder, create=create, storage=storage)

    @contextlib.contextmanager
    def writing(self) -> Iterator[State]:
        """Others read meanwhile, but none writes. What is changed ends with :meth:`set_state`."""
        with self._lock:
            try:
                with self.transaction("BEGIN IMMEDIATE"):
                    check_only_name(self.folder / FILE)
                    before = self.state()
                    yield before
                    after = self.state()
            except BaseException:
                self._checked = None  # what was found to be whole may just have been taken back
                self._changed = {}
                raise
            if self._checked == before:  # what is new was written just now
                self._checked = after

    def set_state(self, state: State, **changes: Any) -> None:
        """Record what was changed, in the next revision, and bring the columns up to date with it."""
        after = replace(state, revision=state.revision + 1, **changes)
        if "vectors" in changes:
            self.columns.clear()
        self.seal(after)
        self.record(after)

    def seal(self, state: State) -> None:
        """Bring the columns up to date; rows have them as soon as they fill a chunk."""
        self.columns.check_extent(state.num_rows)
        start, size = self.columns.num_rows(), _column_data.CHUNK
        self.columns.change({row: item for row, item in self._changed.items() if row < start}, state.revision)
        for first in range(start, state.num_rows // size * size, size):
            numbers = range(first, first + size)
            written = {row: item for row in numbers if (item := self._changed.get(row)) is not None}
            if len(written) < size:
                written = {item.row: item for item in self._between(state, first, first + size)}
            self.columns.write(first, [written.get(row) for row in numbers], state.revision)
        self._changed = {}

    def check_all(self, state: State) -> None:
        """Raise :class:`DamagedGallery` unless every item is there and whole; once, but for what is new."""
        checked = self._checked
        if checked == state:
            return
        since = checked.num_rows if checked is not None and checked.vectors == state.vectors else 0
        if since == 0:
            self.check_structure()
        # More rows than this are found only in a file that was made to keep us busy.
        query = f"SELECT {COLUMNS} FROM items WHERE row >= ? LIMIT ?"
        wrong = _wrong(self.db.execute(query, (since, state.num_rows + 1)), state.num_rows)
        if wrong:
            raise self.damage(f"the labels of {len(wrong)} of {state.num_items} items", wrong)
        self.check_count(self.count(), state)
        self._checked = state

    def check_count(self, count: int, state: State) -> None:
        """Raise :class:`DamagedGallery` where there are not as many items as were counted."""
        if count != state.num_items:
            raise DamagedGallery(
                f"{self.folder}: {FILE} is damaged: it holds {count} items where {state.num_items} were "
                "written; put a copy in its place, or fill a new gallery"
            )

    def check_structure(self) -> None:
        """Raise :class:`DamagedGallery` where SQLite finds its tables and indexes at odds."""
        try:
            answer = self.db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            answer = str(error)
        if answer != "ok":
            raise DamagedGallery(f"{self.folder}: {DAMAGED}")

    def mend_indexes(self) -> None:
        """Make the indexes anew if that mends the file; :class:`DamagedGallery` where it does not."""
        try:
            self.check_structure()
        except DamagedGallery:
            with contextlib.suppress(sqlite3.Error):
                self.db.execute("REINDEX")
            self.check_structure()

    def count(self) -> int:
        """Items that are there, whatever was counted when they were written."""
        return int(self.db.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def damage(self, what: str, rows: Sequence[Row]) -> DamagedGallery:
        """An error that names a few of the damaged items."""
        some = ", ".join(shortened(f"#{row.id} {row.source or ''}".strip(), 100) for row in rows[:3])
        return DamagedGallery(
            f"{self.folder} is damaged: {what} ({some}{', ...' if rows[3:] else ''}); drop them with `reid "
            f"gallery repair {self.folder} --drop`, and index their images again",
            ids=[row.id for row in rows if type(row.id) is int],
        )

    def refuse(self, rows: NDArray[np.int64], state: State) -> None:
        """Raise :class:`DamagedGallery` where items have these rows (K,), whose vectors are damaged."""
        items = self.among(state, "row", rows.tolist())
        if items:
            raise self.damage(f"the embeddings of {len(items)} of {state.num_items} items", items)

    def all(self, state: State) -> list[Row]:
        """All items, in the order in which their vectors were written."""
        self.check_all(state)
        return self._whole(f"SELECT {COLUMNS} FROM items ORDER BY row", state.num_rows)

    def checksums(self, state: State, since: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row numbers (K,) of the items from this row on, ascending, and their checksums (K,)."""
        query = "SELECT row, checksum FROM items WHERE row >= ? LIMIT ?"
        found = self.db.execute(query, (since, state.num_rows + 1)).fetchall()
        try:
            numbers = np.array(found, np.int64).reshape(-1, 2)
        except (ValueError, TypeError, OverflowError):
            raise DamagedGallery(f"{self.folder}: {DAMAGED}") from None
        numbers = numbers[np.argsort(numbers[:, 0])]
        return numbers[:, 0], numbers[:, 1]

    def with_checksums(self, state: State, rows: NDArray[np.int64]) -> Iterator[tuple[Row, int]]:
        """The items of these rows (K,), ascending, in any order, each with its checksum."""
        query, among = (
            f"SELECT {COLUMNS} FROM items",
            " WHERE row IN (SELECT value FROM wanted WHERE list = 0)",
        )
        few = 4 * len(rows) < state.num_items
        if few:
            self._want(0, rows.tolist())
        left = set(rows.tolist())
        for some in _portions(self.db.execute(query + (among if few else " NOT INDEXED"))):
            wrong = _wrong(some, state.num_rows)
            if wrong:
                raise self.damage(f"the labels of {len(wrong)} of {state.num_items} items", wrong)
            for *values, checksum in some:
                if values[1] in left:
                    left.discard(values[1])
                    yield Row.of(values), checksum
        if left:
            raise DamagedGallery(f"{self.folder}: {DAMAGED}")

    def at(self, state: State, rows: NDArray[np.int64]) -> list[Row]:
        """The items of these rows (K,), ascending."""
        return sorted((row for row, _ in self.with_checksums(state, rows)), key=lambda row: row.row)

    def among(self, state: State, column: str, values: Iterable[Any]) -> list[Row]:
        """Items whose id, row, source or content is one of these values."""
        self._want(0, values)
        where = f"{column} IN (SELECT value FROM wanted WHERE list = 0)"
        return self._whole(f"SELECT {COLUMNS} FROM items WHERE {where}", state.num_rows)

    def rows_with(self, state: State, column: str, values: Sequence[Any]) -> list[int]:
        """Row numbers of the items whose source or content is one of these, or unknown for ``None``."""
        self.check_all(state)
        self._want(0, [value for value in values if value is not None])
        unknown = f" OR {column} IS NULL" if None in values else ""
        where = f"{column} IN (SELECT value FROM wanted WHERE list = 0){unknown}"
        return [row for (row,) in self.db.execute(f"SELECT row FROM items WHERE {where}")]

    def damaged(self, state: State) -> list[Row]:
        """All items that are not whole."""
        query = f"SELECT {COLUMNS} FROM items LIMIT ?"
        return _wrong(self.db.execute(query, (state.num_rows + 1,)), state.num_rows)

    def put(self, rows: Iterable[Row]) -> None:
        """Write items, in place of those with the same id."""
        rows = list(rows)
        [(last,)] = self.db.execute("SELECT MAX(id) FROM items")
        self._gone(row.id for row in rows if last is not None and row.id <= last)
        self._changed |= {row.row: row for row in rows}
        self.db.executemany(
            "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (row.values() for row in rows)
        )

    def delete(self, ids: Iterable[int]) -> None:
        """Take items out, and their thumbnails."""
        ids = list(ids)
        self._gone(ids)
        self.db.executemany("DELETE FROM items WHERE id = ?", ((id,) for id in ids))
        _thumbnails_table.delete(self.db, ids)

    def forget_decisions(self, ids: Iterable[int], identities: Iterable[str | None] = ()) -> None:
        """Take items that are gone out of all decisions, and names of these that no item has any more."""
        gone = set(ids)
        if gone and _decisions_table.exists(self.db):
            self._want(0, {name for name in identities if name is not None})
            named = "SELECT identity FROM items WHERE identity IS NOT NULL"
            unused = self.db.execute(f"SELECT value FROM wanted WHERE list = 0 AND value NOT IN ({named})")
            _decisions_table.forget(self.db, gone, {name for (name,) in unused})

    def _gone(self, ids: Iterable[int]) -> None:
        """Note that the items with these ids leave their rows."""
        self._want(0, ids)
        query = "SELECT row FROM items WHERE id IN (SELECT value FROM wanted WHERE list = 0)"
        self._changed |= {row: None for (row,) in self.db.execute(query) if type(row) is int and row >= 0}

    def _between(self, state: State, first: int, last: int) -> list[Row]:
        """Items from the first row to before the last."""
        query = f"SELECT {COLUMNS} FROM items WHERE row >= ? AND row < ?"
        return self._whole(query, state.num_rows, (first, last))

    def _whole(self, query: str, num_rows: int, values: Sequence[Any] = ()) -> list[Row]:
        rows = self.db.execute(query, values).fetchall()
        wrong = _wrong(rows, num_rows)
        if wrong:
            raise self.damage(f"the labels of {len(wrong)} items", wrong)
        return [Row.of(row[:-1]) for row in rows]

    def _want(self, number: int, values: Iterable[Any]) -> None:
        """Make a list of values, which SQL then knows by its number; any length, and bytes among them."""
        self.db.execute("DELETE FROM wanted WHERE list = ?", (number,))
        self.db.executemany("INSERT INTO wanted VALUES (?, ?)", ((number, stored(value)) for value in values))


def _wrong(rows: Iterable[Sequence[Any]], num_rows: int) -> list[Row]:
    """Items, as stored with their checksums, that are not whole."""
    return [
        Row.of(row[:-1])
        for some in _portions(rows)
        if not are_whole(some, num_rows=num_rows)
        for row in some
        if not is_whole(row[:-1], row[-1], num_rows=num_rows)
    ]


def _portions(rows: Iterable[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    """Rows, so many at once that their number costs little and they take little memory."""
    left = iter(rows)
    while some := list(itertools.islice(left, ROWS_AT_ONCE)):
        yield some
