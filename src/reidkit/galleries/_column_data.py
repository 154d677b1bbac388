"""Labels of many rows as bytes: distinct values once, as JSON, and a code for each row.

Rows are taken in chunks. A chunk's bytes follow from its labels alone, so that they can be compared with what
they should be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import _own_labels
from reidkit.galleries._places import NO_CONDITIONS
from reidkit.galleries._records import Row

CHUNK = 2048  # rows
ROWS = ""  # in the place of a label: which rows are items
UNKNOWN = -1  # code of what is not known

_PREFIX = 4  # bytes that hold the length of the JSON


def labels_of(row: Row | None) -> dict[str, Any]:
    """The labels of a row that filters read, by name; none where it is no item."""
    if row is None:
        return {}
    tracklet, own = _own_labels.read(row.more)
    labels = {"identity": row.identity, "camera": row.camera, "time": row.time, "tracklet": tracklet, **own}
    return {ROWS: True} | {
        key: value for key, value in labels.items() if value is not None and key not in NO_CONDITIONS
    }


def encoded(key: str, values: Sequence[Any]) -> bytes:
    """The values of one chunk, ``None`` where one is unknown; nothing where all are."""
    if key == ROWS:  # a chunk is there even if all of its items went
        return np.packbits([value is not None for value in values]).tobytes()
    if all(value is None for value in values):
        return b""
    if key == "time":
        return np.array([np.nan if value is None else value for value in values], "<f8").tobytes()
    places: dict[Any, int] = {}
    codes = np.array(
        [UNKNOWN if value is None else places.setdefault(distinct(value), len(places)) for value in values],
        "<i4",
    )
    first: dict[int, Any] = {}
    for code, value in zip(codes.tolist(), values, strict=True):
        first.setdefault(code, value)
    text = json.dumps([_plain(first[code]) for code in range(len(places))], separators=(",", ":")).encode()
    return len(text).to_bytes(_PREFIX, "little") + text + codes.tobytes()


def decoded(key: str, data: bytes) -> list[Any]:
    """The values of one chunk, as they were; :class:`ValueError` for what :func:`encoded` does not write."""
    if key == ROWS:
        return [True if item else None for item in decoded_rows(data)]
    if key == "time":
        return [None if time != time else time for time in decoded_times(data).tolist()]
    values, codes = decoded_codes(data)
    return [None if code < 0 else values[code] for code in codes.tolist()]


def decoded_rows(data: bytes) -> NDArray[np.bool_]:
    """Which rows (C,) are items."""
    if len(data) != CHUNK // 8:
        raise ValueError(f"{len(data)} bytes")
    return np.unpackbits(np.frombuffer(data, np.uint8)).astype(np.bool_)


def decoded_times(data: bytes) -> NDArray[np.float64]:
    """Times (C,), NaN where one is unknown."""
    times = np.frombuffer(data, "<f8")
    if len(times) != CHUNK:
        raise ValueError(f"{len(data)} bytes")
    return times


def decoded_codes(data: bytes) -> tuple[list[Any], NDArray[np.int32]]:
    """Distinct values, and the code (C,) of each row; -1 where it is unknown."""
    length = int.from_bytes(data[:_PREFIX], "little")
    codes = np.frombuffer(data[_PREFIX + length :], "<i4")
    try:
        plain = json.loads(data[_PREFIX : _PREFIX + length])
    except RecursionError as error:
        raise ValueError("nested without end") from error
    if not isinstance(plain, list) or len(codes) != CHUNK:
        raise ValueError(f"{len(codes)} codes")
    if codes.min() < UNKNOWN or codes.max() >= len(plain):
        raise ValueError("codes of no value")
    return _values(plain), codes


def distinct(value: Any) -> Any:
    """A key that is equal for equal values only: 1, True and "1" are three."""
    return value if type(value) is str else _own_labels.order(value)


def _plain(value: Any) -> Any:
    return {"time": value.timestamp()} if isinstance(value, datetime) else value


def _values(plain: Iterable[Any]) -> list[Any]:
    values = [
        datetime.fromtimestamp(value["time"], UTC) if type(value) is dict and len(value) == 1 else value
        for value in plain
    ]
    if not set(map(type, values)) <= {str, int, float, bool, datetime}:
        raise ValueError("values of other types")
    if any(type(value) is int and abs(value) >= 2**63 for value in values):
        raise ValueError("values beyond all numbers")
    return values
