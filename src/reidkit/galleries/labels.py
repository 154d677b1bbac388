"""What is known of an embedding besides its values: labels, and the conditions that filters put on them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reidkit.errors import ConfigError, DataError, did_you_mean

Where = Mapping[str, Any]


def label_rows(
    num_embeddings: int,
    *,
    sources: Iterable[Any] | None,
    identities: Iterable[Any] | None,
    cameras: Iterable[Any] | None,
    times: Iterable[Any] | None,
) -> list[tuple[str | None, str | None, int | None, float | None]]:
    """Checked (source, identity, camera, time) of each embedding; :class:`DataError` as ``add`` says."""
    checked = [
        _column("sources", sources, _text, num_embeddings),
        _column("identities", identities, _text, num_embeddings),
        _column("cameras", cameras, _integer, num_embeddings),
        _column("times", times, _seconds, num_embeddings),
    ]
    first: dict[str, int] = {}
    for index, source in enumerate(checked[0]):
        if source is not None and first.setdefault(source, index) != index:
            raise DataError(
                f"sources[{first[source]}] and sources[{index}] are both {source!r}; a source names one "
                "item: give crops of one image names of their own, such as 'frame.jpg#2'"
            )
    return list(zip(*checked, strict=True))


def _column(
    name: str, values: Iterable[Any] | None, convert: Callable[[Any], Any], num_embeddings: int
) -> list[Any]:
    if values is None:
        return [None] * num_embeddings
    if isinstance(values, str):
        raise DataError(f"{name} is the text {values!r}; expected a list with one value an embedding")
    listed = list(values)
    if len(listed) != num_embeddings:
        raise DataError(f"{name} has {len(listed)} values for {num_embeddings} embeddings")
    for index, value in enumerate(listed):
        try:
            listed[index] = None if value is None else convert(value)
        except ValueError as error:
            raise DataError(f"{name}[{index}]: {error}") from None
    return listed


def _text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str | int | np.integer) or isinstance(value, bool):
        raise ValueError(f"{value!r} is neither a text nor an integer")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise ValueError(f"{value!r} is not valid Unicode; rename the file") from None
    return str(value)


def _integer(value: Any) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or abs(int(value)) >= 2**63:
        raise ValueError(f"{value!r} is not an integer")
    return int(value)


def _seconds(value: Any) -> float:
    """Unix seconds from seconds, a datetime or an ISO text; UTC where no offset is given."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{value!r} is not an ISO time such as 2024-05-01T10:00") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise ValueError(f"{value!r} is not a time; expected Unix seconds, a datetime or an ISO text")
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is not a time; None means unknown")
    if not -62135596800 <= seconds < 253402300800:
        raise ValueError(f"{seconds:.0f} is not within the years 1 to 9999; seconds expected, milliseconds?")
    return seconds


LABELS: dict[str, Callable[[Any], Any]] = {
    "source": _text,
    "identity": _text,
    "camera": _integer,
    "time": _seconds,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One checked condition of a ``where``. ">=" and "<" have one value; a value ``None`` is "unknown"."""

    key: str
    operator: Literal["in", "not in", ">=", "<"]
    values: tuple[Any, ...]


def check_where(where: Where | None) -> tuple[Condition, ...]:
    """The conditions of a ``where`` (see :class:`Gallery`); :class:`ConfigError` names every fault."""
    if not isinstance(where, Mapping | None):
        raise ConfigError(f"where is {where!r}; expected a mapping such as {{'camera': 3}}")
    conditions: list[Condition] = []
    problems: list[str] = []
    for key, wanted in (where or {}).items():
        try:
            conditions += _conditions(key, wanted)
        except ValueError as error:
            problems.append(f"where {key!r}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(conditions)


def _conditions(key: str, wanted: Any) -> list[Condition]:
    if key not in LABELS:
        raise ValueError(f"no such label;{did_you_mean(str(key), LABELS)} Labels: {', '.join(LABELS)}")
    forms = ("from", "to") if key == "time" else ("not",)
    if isinstance(wanted, Mapping):
        for form in wanted:
            if form not in forms:
                raise ValueError(
                    f"unknown {form!r};{did_you_mean(str(form), forms)} Known: {', '.join(forms)}"
                )
    if key == "time":
        return _time_window(wanted)
    if not isinstance(wanted, Mapping):
        return [Condition(key, "in", _values(key, wanted))]
    if not wanted:
        raise ValueError("{} says nothing; expected a value, a list or {'not': ...}")
    return [Condition(key, "not in", _values(key, wanted["not"]))]


def _time_window(wanted: Any) -> list[Condition]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise ValueError(f"{wanted!r} is not a window; expected {{'from': ..., 'to': ...}} or one of them")
    ends = {form: _seconds(value) for form, value in wanted.items()}
    if "from" in ends and "to" in ends and ends["from"] >= ends["to"]:
        raise ValueError(f"from {wanted['from']} is not before to {wanted['to']}")
    return [Condition("time", ">=" if form == "from" else "<", (seconds,)) for form, seconds in ends.items()]


def _values(key: str, wanted: Any) -> tuple[Any, ...]:
    single = wanted is None or isinstance(wanted, str | Path) or not isinstance(wanted, Iterable)
    values = [wanted] if single else list(wanted)
    return tuple(None if value is None else LABELS[key](value) for value in values)


def parse_where(texts: Sequence[str]) -> dict[str, Any]:
    """A ``where`` from texts of a command line, of which all must hold.

    Lists are separated by commas, except in ``source``, whose names may hold them.

    >>> parse_where(["camera!=3", "identity=12,13", "time>=2024-05-01T10:00"])
    {'camera': {'not': [3]}, 'identity': ['12', '13'], 'time': {'from': '2024-05-01T10:00'}}
    """
    where: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|=|<|>)\s*(.+?)\s*", text)
        key, operator, value = match.groups() if match else ("", "", "")
        allowed = (">=", "<") if key == "time" else ("=", "!=")
        if operator not in allowed:
            raise ConfigError(
                f"where {text!r}: expected a key, {' or '.join(allowed)}, and a value; conditions "
                "look like camera!=3, identity=12,13, time>=2024-05-01T10:00, time<2024-05-02"
            )
        form = {"=": None, "!=": "not", ">=": "from", "<": "to"}[operator]
        if key in where and (key != "time" or form in where[key]):
            raise ConfigError(
                f"where {text!r}: {key} has a condition already; write a list, such as camera=1,2"
            )
        parsed = value if key == "time" else _listed(key, value)
        where[key] = {**where.get(key, {}), form: parsed} if form else parsed
    check_where(where)
    return where


def _listed(key: str, text: str) -> list[Any]:
    values = [text] if key == "source" else [part.strip() for part in text.split(",")]
    if key == "camera":
        return [int(value) if re.fullmatch(r"-?\d+", value) else value for value in values]
    return list(values)
