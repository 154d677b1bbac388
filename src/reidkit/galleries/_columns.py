"""Labels of a gallery's items as columns of NumPy, by which filters are answered in no time.

Distinct values are kept once; a row holds their codes. A condition is decided for each distinct value, so
that a filter over all rows is one look-up. Each row stands with the checksum of its item: columns read
earlier, in this process or from the file of columns, are taken only where row and checksum are those of the
table. That file is a copy of what the table says, no authority: one that is damaged, or of other rows, is
passed over and made anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import operator
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.galleries import _own_labels
from reidkit.galleries._records import Row
from reidkit.galleries._vector_file import open_regular
from reidkit.galleries._where import Condition

FILE = "labels.columns"
WORTH_KEEPING = 10_000
"""Rows that must be new before the file of columns is written; fewer are as soon read from the table."""

_ORDER: dict[str, Callable[[Any, Any], NDArray[np.bool_]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
}
_UNKNOWN = -1
_DIGEST = 16  # bytes
_CODED: dict[str, set[type]] = {"identity": {str}, "camera": {int, str}, "more": {str}}
_RECORD = np.dtype(
    [("row", "<i8"), ("checksum", "<i8"), ("time", "<f8"), *((name, "<i4") for name in _CODED)], align=True
)


@dataclass(frozen=True, eq=False)
class Columns:
    """Labels of all items (K,), by row, ascending; ``values`` are those that the codes stand for."""

    records: NDArray[np.void]
    values: dict[str, list[Any]]
    _known: dict[str, _Known] = field(default_factory=dict)  # what was asked for, by label

    @property
    def rows(self) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = self.records["row"]
        return rows

    def pass_(self, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
        """Which items (K,) all conditions let through."""
        passing = np.ones(len(self.records), np.bool_)
        for condition in conditions:
            passing &= self._passes(condition)
        return passing

    def _passes(self, condition: Condition) -> NDArray[np.bool_]:
        if condition.key == "time":
            return _ORDER[condition.operator](self.records["time"], condition.values[0])
        passes: NDArray[np.bool_] = self._label(condition.key).allowed(condition)[self.codes(condition.key)]
        return passes

    def codes(self, key: str) -> NDArray[np.int32]:
        """Codes (K,) of a label that is not a time; -1 where it is unknown."""
        if key in ("identity", "camera"):
            codes: NDArray[np.int32] = self.records[key]
        else:
            codes = self._label(key).of_more[self.records["more"]]
        return codes

    @functools.cached_property
    def own_names(self) -> frozenset[str]:
        """Names of the labels that are not those of every gallery."""
        return frozenset(name for text in self.values["more"] for name in _own_labels.read(text)[1])

    def _label(self, key: str) -> _Known:
        if key not in self._known:
            if key in ("identity", "camera"):
                self._known[key] = _Known(self.values[key])
            else:
                self._known[key] = _Known.in_more(key, self.values["more"])
        return self._known[key]


class _Known:
    """Distinct values of a label, by their codes; ``of_more`` (M + 1,) are the codes of texts of ``more``."""

    def __init__(self, values: Sequence[Any], of_more: NDArray[np.int32] | None = None) -> None:
        self._places = {_own_labels.order(value): code for code, value in enumerate(values)}
        self.of_more = np.empty(0, np.int32) if of_more is None else of_more
        self._in_order: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {}

    @classmethod
    def in_more(cls, key: str, texts: Sequence[str]) -> _Known:
        codes: dict[tuple[str, Any], int] = {}
        values: list[_own_labels.Value] = []
        of_more = np.full(len(texts) + 1, _UNKNOWN, np.int32)
        for place, text in enumerate(texts):
            tracklet, labels = _own_labels.read(text)
            value = tracklet if key == "tracklet" else labels.get(key)
            if value is not None:
                of_more[place] = codes.setdefault(_own_labels.order(value), len(codes))
                if len(codes) > len(values):
                    values.append(value)
        return cls(values, of_more)

    def allowed(self, condition: Condition) -> NDArray[np.bool_]:
        """Which values (V + 1,) a condition lets through, the last for what is unknown, whose code is -1."""
        allowed = np.zeros(len(self._places) + 1, np.bool_)
        if condition.operator in _ORDER:
            kind, bound = _own_labels.order(condition.values[0])
            places, values = self._of_kind(kind)
            allowed[places] = _ORDER[condition.operator](values, bound)
            return allowed
        for value in condition.values:
            place = _UNKNOWN if value is None else self._places.get(_own_labels.order(value))
            if place is not None:
                allowed[place] = True
        return ~allowed if condition.operator == "not in" else allowed

    def _of_kind(self, kind: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        if kind not in self._in_order:
            found = [(code, value) for (of, value), code in self._places.items() if of == kind]
            values = np.array([value for _, value in found], object if kind == "text" else np.float64)
            self._in_order[kind] = np.array([code for code, _ in found], np.int64), values
        return self._in_order[kind]


EMPTY = Columns(np.empty(0, _RECORD), {name: [] for name in _CODED})


def brought_up_to_date(
    known: Columns,
    rows: NDArray[np.int64],
    checksums: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], Iterable[tuple[Row, int]]],
) -> tuple[Columns, int]:
    """The columns of items with these rows (K,), ascending, and checksums (K,); how many had to be read.

    ``read`` gives the items of some rows with their checksums, in any order.
    """
    places = np.searchsorted(known.rows, rows)
    there = places < len(known.rows)
    there[there] = known.rows[places[there]] == rows[there]
    there[there] = known.records["checksum"][places[there]] == checksums[there]
    records = np.empty(len(rows), _RECORD)
    records[there] = known.records[places[there]]
    missing = rows[~there]
    values = known.values
    if len(missing):
        values = {name: list(of_one) for name, of_one in known.values.items()}
        fresh = _records(read(missing), values, len(missing))
        records[~there] = fresh[np.argsort(fresh["row"])]
    return Columns(records, values), len(missing)


def _records(items: Iterable[tuple[Row, int]], values: dict[str, list[Any]], num: int) -> NDArray[np.void]:
    """Items as records (num,), whose new values are appended to those known."""
    codes = {name: {value: code for code, value in enumerate(values[name])} for name in _CODED}

    def code(name: str, value: Any) -> int:
        return _UNKNOWN if value is None else codes[name].setdefault(value, len(codes[name]))

    records = np.fromiter(
        (
            (
                row.row,
                checksum,
                np.nan if row.time is None else row.time,
                code("identity", row.identity),
                code("camera", row.camera),
                code("more", row.more),
            )
            for row, checksum in items
        ),
        _RECORD,
        num,
    )
    for name in _CODED:
        values[name] = list(codes[name])
    return records


def read_file(folder: Path, vectors: str) -> Columns:
    """Columns as they were kept for this file of vectors; empty where there are none that are whole."""
    try:
        with open_regular(folder / FILE, os.O_RDONLY) as file:
            content = file.readall()
    except (OSError, DataError):
        return EMPTY
    digest, body = content[:_DIGEST], memoryview(content)[_DIGEST:]
    if len(body) < 8 or _digest(vectors, body) != digest:
        return EMPTY
    # Whole, but whoever can write a digest can write other nonsense: codes are looked at as well.
    try:
        num = int.from_bytes(body[:8], "little")
        records = np.frombuffer(body, _RECORD, num, 8)
        values = json.loads(bytes(body[8 + records.nbytes :]))
        columns = Columns(records, {name: values[name] for name in _CODED})
    except (ValueError, KeyError, TypeError, RecursionError):
        return EMPTY
    return columns if _is_sound(columns) else EMPTY


def _is_sound(columns: Columns) -> bool:
    records = columns.records
    if not len(records) or np.any(np.diff(records["row"]) <= 0):
        return False
    for name, types in _CODED.items():
        known = columns.values[name]
        if not isinstance(known, list) or not set(map(type, known)) <= types or len(set(known)) < len(known):
            return False
        if records[name].min() < _UNKNOWN or records[name].max() >= len(known):
            return False
    return all(map(_own_labels.is_readable, columns.values["more"]))


def write_file(folder: Path, vectors: str, columns: Columns) -> None:
    """Keep columns for later processes, whole or not at all; without a word where that is not possible."""
    records = columns.records.tobytes()
    body = len(columns.records).to_bytes(8, "little") + records + json.dumps(columns.values).encode()
    new = folder / f"{FILE}.{os.getpid()}.new"
    with contextlib.suppress(OSError, DataError):  # a disk that is full, a folder that may only be read
        try:
            with open_regular(new, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
                left = memoryview(_digest(vectors, body) + body)
                while left:
                    left = left[file.write(left) :]
            new.replace(folder / FILE)
        finally:
            new.unlink(missing_ok=True)


def remove_file(folder: Path) -> None:
    """Delete the columns that are kept, and what writers of them left when they were killed."""
    for path in folder.glob(f"{FILE}*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _digest(vectors: str, body: bytes | memoryview) -> bytes:
    return hashlib.blake2b(body, digest_size=_DIGEST, key=vectors.encode()).digest()
