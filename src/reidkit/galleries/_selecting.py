"""Which of a gallery's items conditions let through: by their columns, or by SQLite's indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import _columns
from reidkit.galleries._given import checked_ids
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._labels import LABELS
from reidkit.galleries._records import Row, State
from reidkit.galleries._vectors import Snapshot, Vectors
from reidkit.galleries._where import Condition, Where, check_where

INDEXED = ("source", "content")  # labels that SQLite finds; nearly all of them differ


class Selecting:
    """Items by id or condition, of a table and its vectors. Call within a transaction.

    Args:
        keep: whether the columns read may be kept in the gallery's folder for later processes.
    """

    def __init__(self, table: ItemsTable, vectors: Vectors, *, keep: bool) -> None:
        self._table, self._vectors, self._keep = table, vectors, keep
        self._columns: tuple[State | None, _columns.Columns] = None, _columns.EMPTY

    def forget(self) -> None:
        """Let go of what was read."""
        self._columns = None, _columns.EMPTY

    def conditions(self, where: Where | None) -> tuple[Condition, ...]:
        """Checked conditions; only where one is on a label of one's own is it looked up which there are.

        Needs no transaction.
        """
        own: frozenset[str] = frozenset()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            with self._table.reading() as state:
                own = self.columns(state).own_names
        return check_where(where, own)

    def items(self, state: State, ids: Iterable[int] | None, where: Where | None) -> list[Row]:
        """Items in the order of the ids given, or as they were written."""
        if ids is None:
            conditions = self.conditions(where)
            if any(condition.is_relative for condition in conditions):
                raise ConfigError(
                    "where refers to the query, and only a search has one; name a value instead"
                )
            if not conditions:
                return self._table.all(state)
            return self._table.at(state, self.matching(state, conditions))
        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        return self.by_id(state, checked_ids(ids))

    def by_id(self, state: State, ids: list[int]) -> list[Row]:
        """The items with these ids, in their order."""
        found = {row.id: row for row in self._table.among(state, "id", set(ids))}
        unknown = [id for id in ids if id not in found]
        if unknown:
            raise DataError(
                f"{self._table.folder} has no item {unknown[0]} ({len(unknown)} such of {len(ids)} ids)"
            )
        return [found[id] for id in ids]

    def snapshot(self, state: State) -> Snapshot:
        """All vectors."""
        return self._vectors.snapshot(state, self._read_rows)

    def matching(self, state: State, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Row numbers (K,) of the items that all conditions let through, ascending."""
        coded = [condition for condition in conditions if condition.key not in INDEXED]
        if coded:
            columns = self.columns(state)
            rows = columns.rows[columns.pass_(coded)]
        else:
            rows = self._vectors.item_rows(state, self._read_rows)
        for condition in conditions:
            if condition.key in INDEXED:
                found = self._table.rows_with(state, condition.key, condition.values)
                rows = rows[np.isin(rows, found, invert=condition.operator == "not in")]
        return rows

    def columns(self, state: State) -> _columns.Columns:
        """Labels of all items; what this process knows already, or was kept, is not read again."""
        known_for, columns = self._columns
        if known_for == state:
            return columns
        if known_for is None or known_for.vectors != state.vectors:
            columns = _columns.read_file(self._table.folder, state.vectors)
        rows, checksums = self._table.checksums(state)
        columns, num_read = _columns.brought_up_to_date(
            columns, rows, checksums, lambda missing: self._table.with_checksums(state, missing)
        )
        # Within the transaction: whoever removes an item waits, and then removes the file.
        if num_read >= _columns.WORTH_KEEPING and self._keep:
            _columns.write_file(self._table.folder, state.vectors, columns)
        self._columns = state, columns
        return columns

    def _read_rows(self, state: State) -> NDArray[np.int64]:
        return self.columns(state).rows
