"""Labels of a gallery's items as columns of NumPy, by which filters are answered in no time.

Distinct values are kept once; a row holds their codes. A condition is decided for each distinct value, so
that a filter over all rows is one look-up. A label is read when a filter first asks for it, chunk by chunk
(:mod:`reidkit.galleries._columns_table`), and again only the chunks that were written since; the last rows,
which have no chunk yet, are read item by item.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import _column_data, _own_labels
from reidkit.galleries._column_data import (
    ROWS,
    UNKNOWN,
    decoded_codes,
    decoded_rows,
    decoded_times,
    distinct,
    labels_of,
)
from reidkit.galleries._columns_table import Stamp
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._records import State
from reidkit.galleries._where import Condition

_ORDER: dict[str, Callable[[Any, Any], NDArray[np.bool_]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
}


class Columns:
    """Labels of all rows (R,) that a state counts; methods are called within a transaction of that state."""

    def __init__(self, table: ItemsTable) -> None:
        self._table = table
        self.forget()

    def forget(self) -> None:
        """Let go of what was read."""
        self._state: State | None = None
        self._labels: dict[str, _Label] = {}
        self._whole: dict[str, NDArray[Any]] = {}  # of the state
        self._last: dict[int, dict[str, Any]] = {}  # labels of the rows without a chunk
        self._checksums: dict[int, int] = {}  # of their items
        self._start = 0  # the first of those rows

    def rows(self, state: State) -> NDArray[np.int64]:
        """Row numbers (K,) of all items, ascending."""
        return np.flatnonzero(self._column(state, ROWS))

    def passing(self, state: State, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Row numbers (K,) of the items that all conditions let through, ascending."""
        passing: NDArray[np.bool_] = self._column(state, ROWS)
        for condition in conditions:
            passing = passing & self._passes(state, condition)
        return np.flatnonzero(passing)

    def codes(self, state: State, key: str) -> NDArray[np.int32]:
        """Codes (R,) of a label that is not a time; -1 where it is unknown."""
        return self._column(state, key)

    def own_names(self, state: State, standard: Sequence[str]) -> frozenset[str]:
        """Names of the labels that are not those of every gallery."""
        self._bring_up_to_date(state)
        names = {*self._table.columns.keys(), *(key for labels in self._last.values() for key in labels)}
        return frozenset(names - {ROWS, *standard})

    def _passes(self, state: State, condition: Condition) -> NDArray[np.bool_]:
        column = self._column(state, condition.key)
        if condition.key == "time":
            return _ORDER[condition.operator](column, condition.values[0])
        passes: NDArray[np.bool_] = self._labels[condition.key].allowed(condition)[column]
        return passes

    def _column(self, state: State, key: str) -> NDArray[Any]:
        self._bring_up_to_date(state)
        if key not in self._whole:
            label = self._labels.setdefault(key, _Label(key))
            chunks = self._table.columns.stamps(key)
            starts = range(0, self._start, _column_data.CHUNK)
            if key == ROWS and (len(chunks) != len(starts) or list(chunks) != list(starts)):
                raise self._table.columns.damage()
            parts = [label.chunk(self._table, first, chunks.get(first)) for first in starts]
            column = np.concatenate([*parts, label.sparse(self._last, range(self._start, state.num_rows))])
            if key == ROWS:
                self._table.check_count(int(np.count_nonzero(column)), state)
            self._whole[key] = column
        return self._whole[key]

    def _bring_up_to_date(self, state: State) -> None:
        if self._state == state:
            return
        self._start = self._table.columns.num_rows()
        self._table.columns.check_extent(state.num_rows)
        rows, checksums = self._table.checksums(state, since=self._start)
        now = dict(zip(rows.tolist(), checksums.tolist(), strict=True))
        known = {row: labels for row, labels in self._last.items() if self._checksums[row] == now.get(row)}
        missing = np.array([row for row in rows.tolist() if row not in known], np.int64)
        if len(missing):
            known |= {row.row: labels_of(row) for row, _ in self._table.with_checksums(state, missing)}
        self._last, self._checksums, self._whole, self._state = known, now, {}, state


class _Label:
    """What is known of one label: its distinct values, by their codes, and the codes of chunks."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._places: dict[Any, int] = {}
        self._chunks: dict[int, tuple[Stamp, NDArray[Any]]] = {}
        self._in_order: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {}

    def chunk(self, table: ItemsTable, first: int, stamp: Stamp | None) -> NDArray[Any]:
        """The column (C,) of one chunk; it is read if it is another one than before."""
        if stamp is None:
            return np.repeat(self.column([None]), _column_data.CHUNK)
        known = self._chunks.get(first)
        if known is None or known[0] != stamp:
            data = table.columns.data(self._key, first)
            if self._key == ROWS:
                column: NDArray[Any] = table.columns.checked(decoded_rows, data)
            elif self._key == "time":
                column = table.columns.checked(decoded_times, data)
            else:
                values, codes = table.columns.checked(decoded_codes, data)
                column = np.array([*self._codes(values), UNKNOWN], np.int32)[codes]
            known = self._chunks[first] = stamp, column
        return known[1]

    def column(self, values: Sequence[Any]) -> NDArray[Any]:
        """The column (N,) of these values, ``None`` where one is unknown."""
        if self._key == ROWS:
            return np.array([value is not None for value in values], np.bool_)
        if self._key == "time":
            return np.array([np.nan if value is None else value for value in values], np.float64)
        return np.array(self._codes(values), np.int32)

    def sparse(self, labels: Mapping[int, Mapping[str, Any]], rows: range) -> NDArray[Any]:
        """The column of these rows, of which some have labels."""
        column = np.repeat(self.column([None]), len(rows))
        known = [row for row in labels if self._key in labels[row]]
        if known:
            column[np.array(known) - rows.start] = self.column([labels[row][self._key] for row in known])
        return column

    def allowed(self, condition: Condition) -> NDArray[np.bool_]:
        """Which values (V + 1,) a condition lets through, the last for what is unknown, whose code is -1."""
        allowed = np.zeros(len(self._places) + 1, np.bool_)
        if condition.operator in _ORDER:
            kind, bound = _own_labels.order(condition.values[0])
            places, values = self._of_kind(kind)
            allowed[places] = _ORDER[condition.operator](values, bound)
            return allowed
        for value in condition.values:
            place = UNKNOWN if value is None else self._places.get(distinct(value))
            if place is not None:
                allowed[place] = True
        return ~allowed if condition.operator == "not in" else allowed

    def _codes(self, values: Sequence[Any]) -> list[int]:
        only_texts = set(map(type, values)) == {str}  # nearly always; then no value is looked at by itself
        keys = values if only_texts else [None if value is None else distinct(value) for value in values]
        codes: list[Any] = list(map(self._places.get, keys))
        if None in codes:
            places, self._in_order = self._places, {}
            codes = [UNKNOWN if key is None else places.setdefault(key, len(places)) for key in keys]
        return codes

    def _of_kind(self, kind: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        if kind not in self._in_order:
            known = [(code, key) for key, code in self._places.items()]
            found = [
                (code, key if kind == "text" else key[1])
                for code, key in known
                if ("text" if type(key) is str else key[0]) == kind
            ]
            values = np.array([value for _, value in found], object if kind == "text" else np.float64)
            self._in_order[kind] = np.array([code for code, _ in found], np.int64), values
        return self._in_order[kind]
