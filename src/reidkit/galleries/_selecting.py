"""Which of a gallery's items conditions let through: by their columns, or by SQLite's indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.galleries._columns import Columns
from reidkit.galleries._given import GroupBy, checked_ids
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._labels import LABELS
from reidkit.galleries._records import Row, State
from reidkit.galleries._vectors import Snapshot, Vectors
from reidkit.galleries._where import Condition, Where, check_where

INDEXED = ("source", "content")  # labels that SQLite finds; nearly all of them differ


class Selecting:
    """Items by id or condition, of a table and its vectors. Call within a transaction."""

    def __init__(self, table: ItemsTable, vectors: Vectors) -> None:
        self._table, self._vectors = table, vectors
        self._columns = Columns(table)

    def forget(self) -> None:
        """Let go of what was read."""
        self._columns.forget()

    def conditions(self, where: Where | None) -> tuple[Condition, ...]:
        """Checked conditions; only where one is on a label of one's own is it looked up which there are.

        Needs no transaction.
        """
        own: frozenset[str] = frozenset()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            with self._table.reading() as state:
                own = self._columns.own_names(state, list(LABELS))
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
        return self._vectors.snapshot(state, self._columns.rows)

    def matching(self, state: State, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Row numbers (K,) of the items that all conditions let through, ascending."""
        coded = [condition for condition in conditions if condition.key not in INDEXED]
        if coded:
            rows = self._columns.passing(state, coded)
        else:
            rows = self._vectors.item_rows(state, self._columns.rows)
        for condition in conditions:
            if condition.key in INDEXED:
                found = self._table.rows_with(state, condition.key, condition.values)
                rows = rows[np.isin(rows, found, invert=condition.operator == "not in")]
        return rows

    def groups(self, state: State, kind: GroupBy, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number (K,) for the identity or tracklet of each of these rows (K,); -1 where it is unknown."""
        return self._columns.codes(state, kind)[rows].astype(np.int64)
