"""What is known of an embedding besides its values: labels, and the conditions that filters put on them."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import numpy as np

from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.labels import camera_value, label_text

Where = Mapping[str, Any]

T = TypeVar("T")

_SIGNS = "=!<>"
_UNLIKE_NAMES = ('"', *_SIGNS)  # what names do not begin with, outside of quotes
LONGEST = 10_000  # characters of one label
EARLIEST, LATEST = -62135596800.0, 253402300800.0  # the years 1 to 9999, in Unix seconds


@dataclass(frozen=True, slots=True)
class Labels:
    """Checked labels of one embedding."""

    source: str | None
    identity: str | None
    camera: int | str | None
    time: float | None
    content: str | None


def label_rows(
    num_embeddings: int,
    *,
    sources: Iterable[Any] | None,
    identities: Iterable[Any] | None,
    cameras: Iterable[Any] | None,
    times: Iterable[Any] | None,
    contents: Iterable[Any] | None = None,
) -> list[Labels]:
    """The labels of each embedding; :class:`DataError` as ``add`` says."""
    columns = [
        label_column("sources", sources, num_embeddings),
        label_column("identities", identities, num_embeddings),
        label_column("cameras", cameras, num_embeddings),
        label_column("times", times, num_embeddings),
        label_column("contents", contents, num_embeddings),
    ]
    first: dict[str, int] = {}
    for index, source in enumerate(columns[0]):
        if source is not None and first.setdefault(source, index) != index:
            raise DataError(
                f"sources[{first[source]}] and sources[{index}] are both {shown(source)}; a source names one "
                "item: give crops of one image names of their own, such as 'frame.jpg#2'"
            )
    return [Labels(*values) for values in zip(*columns, strict=True)]


def label_column(name: str, values: Iterable[Any] | None, num: int) -> list[Any]:
    """Checked labels of one kind, such as "cameras", ``num`` of them; ``None`` where nothing is given."""
    if values is None:
        return [None] * num
    if isinstance(values, str | bytes):
        raise DataError(f"{name} is the text {shown(values)}; expected a list with one value an embedding")
    if hasattr(values, "detach"):  # a tensor, whose elements would be tensors
        values = values.detach().cpu().tolist()
    if isinstance(values, Mapping | Set) or not isinstance(values, Iterable):
        raise DataError(
            f"{name} is of type {type(values).__name__}; expected a list with one value an embedding"
        )
    try:
        listed = list(values)
    except TypeError as error:  # an array of no dimension
        raise DataError(f"{name}: {error}; expected a list with one value an embedding") from None
    if len(listed) != num:
        raise DataError(f"{name} has {len(listed)} values for {num} embeddings")
    convert = LABELS[_SINGULAR[name]]
    for index, value in enumerate(listed):
        try:
            listed[index] = None if value is None else convert(value)
        except (ValueError, DataError) as error:
            raise DataError(f"{name}[{index}]: {error}") from None
    return listed


def _source(value: Any) -> str:
    """A path as it is, and not only its characters: two forms of an accent are two files."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not isinstance(value, str | int | np.integer) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is neither a text nor an integer")
    text = str(value)
    try:
        text.encode("utf-8", "surrogateescape")  # names of files that are not UTF-8 are kept
    except UnicodeEncodeError:
        raise ValueError(f"{shown(value)} is not valid Unicode; rename the file") from None
    return _not_too_long(text)


def _identity(value: Any) -> str | None:
    return _not_too_long(label_text(value))


def _camera(value: Any) -> int | str | None:
    return _not_too_long(camera_value(value))


def _content(value: Any) -> str:
    if not isinstance(value, str) or not value.isascii():
        raise ValueError(f"{shown(value)} is not the hash of a content, as text")
    return _not_too_long(value)


def _not_too_long(value: T) -> T:
    if isinstance(value, str) and len(value) > LONGEST:
        raise ValueError(f"{shown(value)} has {len(value):,} characters; at most {LONGEST:,} are kept")
    return value


def _seconds(value: Any) -> float:
    """Unix seconds from seconds, a datetime or an ISO text; UTC where no offset is given."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is not an ISO time such as 2024-05-01T10:00") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise ValueError(f"{shown(value)} is not a time; expected Unix seconds, a datetime or an ISO text")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is not a time; None means unknown")
    if not EARLIEST <= seconds < LATEST:
        number = f"{seconds:.0f}" if abs(seconds) < 1e18 else f"{seconds:g}"
        raise ValueError(f"{number} is not within the years 1 to 9999; seconds expected, milliseconds?")
    return seconds


LABELS: dict[str, Callable[[Any], Any]] = {
    "source": _source,
    "identity": _identity,
    "camera": _camera,
    "time": _seconds,
    "content": _content,
}
_SINGULAR = {
    "sources": "source",
    "identities": "identity",
    "cameras": "camera",
    "times": "time",
    "contents": "content",
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
        raise ConfigError(f"where is {shown(where)}; expected a mapping such as {{'camera': 3}}")
    conditions: list[Condition] = []
    problems: list[str] = []
    for key, wanted in (where or {}).items():
        try:
            conditions += _conditions(key, wanted)
        except (ValueError, DataError) as error:
            problems.append(f"where {shown(key)}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(conditions)


def _conditions(key: str, wanted: Any) -> list[Condition]:
    if key not in LABELS:
        raise ValueError(f"no such label;{did_you_mean(shown(key), LABELS)} Labels: {', '.join(LABELS)}")
    forms = ("from", "to") if key == "time" else ("not",)
    if isinstance(wanted, Mapping):
        for form in wanted:
            if form not in forms:
                raise ValueError(
                    f"unknown {shown(form)};{did_you_mean(shown(form), forms)} Known: {', '.join(forms)}"
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
        raise ValueError(
            f"{shown(wanted)} is not a window; expected {{'from': ..., 'to': ...}} or one of them"
        )
    ends = {form: _seconds(value) for form, value in wanted.items()}
    if "from" in ends and "to" in ends and ends["from"] >= ends["to"]:
        raise ValueError(f"from {shown(wanted['from'])} is not before to {shown(wanted['to'])}")
    return [Condition("time", ">=" if form == "from" else "<", (seconds,)) for form, seconds in ends.items()]


def _values(key: str, wanted: Any) -> tuple[Any, ...]:
    single = isinstance(wanted, str | bytes | os.PathLike) or not isinstance(wanted, Iterable)
    try:
        values = [wanted] if single else list(wanted)
    except TypeError as error:  # an array of no dimension
        raise ValueError(f"{error}; expected a value or a list") from None
    return tuple(None if value is None else LABELS[key](value) for value in values)


def parse_where(texts: Sequence[str]) -> dict[str, Any]:
    """A ``where`` from texts of a command line, of which all must hold.

    Lists are separated by commas, except in ``source``, whose names may hold them; another name with a comma
    stands in quotes, as in CSV (:func:`as_listed`).

    >>> parse_where(["camera!=3", "identity=12,13", "time>=2024-05-01T10:00"])
    {'camera': {'not': ['3']}, 'identity': ['12', '13'], 'time': {'from': '2024-05-01T10:00'}}
    """
    where: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|=|<|>)(.*)", text, re.DOTALL)
        key, operator, value = match.groups() if match else ("", "", "")
        value = value.strip()
        allowed = (">=", "<") if key == "time" else ("=", "!=")
        if operator not in allowed or not value or value[0] in _SIGNS:
            raise ConfigError(
                f"where {shown(text)}: expected a key, {' or '.join(allowed)}, and a value; "
                + _spelt_rightly(key, operator, value)
                + "conditions look like camera!=3, identity=12,13, time>=2024-05-01T10:00, time<2024-05-02"
            )
        form = {"=": None, "!=": "not", ">=": "from", "<": "to"}[operator]
        if key in where and (key != "time" or form in where[key]):
            raise ConfigError(
                f"where {shown(text)}: {key} has a condition already; write a list, such as camera=1,2"
            )
        parsed = value if key == "time" else _listed(key, value)
        where[key] = {**where.get(key, {}), form: parsed} if form else parsed
    check_where(where)
    return where


def _spelt_rightly(key: str, operator: str, value: str) -> str:
    """What a condition written as in a programming language probably means; empty if that is not clear."""
    name = value.lstrip(_SIGNS + " ")
    signs = operator + value.removesuffix(name).replace(" ", "")
    if key == "time":
        meant = {">": ">=", "=>": ">=", "<=": "<", "=<": "<"}.get(signs)
    elif "!" in signs or signs == "<>":
        meant = "!="
    else:
        meant = "=" if signs.strip("=") == "" else None
    if key not in LABELS or not name or meant is None:
        return ""
    way = {"time": "", "source": f", or source{operator}./{value} for a file of that name"}
    quoted = f", or {key}{operator}{as_listed(value)} for a {key} of that name"
    return f"write {key}{meant}{shortened(name)}{way.get(key, quoted) if signs != operator else ''}; "


def _listed(key: str, text: str) -> list[str]:
    if key == "source":
        return [text]
    try:
        [parts] = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise ConfigError(f"where {key}: {shown(text)} cannot be read as a list: {error}") from None
    values = [part.strip() for part in parts]
    if odd := [part for part in values if part and part[0] in _SIGNS and f'"{part}' not in text]:
        raise ConfigError(
            f"where {key}: {shown(odd[0])} in a list begins with a sign; {key}!=A,B leaves out a whole list, "
            f"and a {key} of that name stands in quotes: {as_listed(odd[0])}"
        )
    if not all(values):
        raise ConfigError(f"where {key}: {shown(text)} has a value that is empty; remove the comma too many")
    return values


def as_listed(value: int | str) -> str:
    """A label as :func:`parse_where` reads it within a list.

    >>> as_listed('the "new" hall, north')
    '"the ""new"" hall, north"'
    """
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if "," in text or text.startswith(_UNLIKE_NAMES) else text


def utc(seconds: float) -> str:
    """A time to be read by people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
