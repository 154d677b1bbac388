"""What is known of an embedding besides its values: labels, checked."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np

from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries import _own_labels
from reidkit.galleries._places import PLACES
from reidkit.labels import camera_value, is_duration, is_missing, label_text

T = TypeVar("T")

SIGNS = "=!<>"
_UNLIKE_NAMES = ('"', *SIGNS)  # what names do not begin with, outside of quotes
OF_QUERY = re.compile(r"query(?:\s*(?:\+-|\u00b1)(.+))?", re.DOTALL)
"""How the query's own label is referred to, and how far off it may be."""

LONGEST = 10_000  # characters of one label
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
EARLIEST, LATEST = -62135596800.0, 253402300800.0  # the years 1 to 9999, in Unix seconds


@dataclass(frozen=True, slots=True)
class Labels:
    """Checked labels of one embedding."""

    source: str | None
    identity: str | None
    camera: int | str | None
    time: float | None
    content: str | None
    more: str | None = None  # tracklet, place and labels of one's own, as JSON


def label_rows(
    num_embeddings: int,
    *,
    sources: Iterable[Any] | None,
    identities: Iterable[Any] | None,
    cameras: Iterable[Any] | None,
    times: Iterable[Any] | None,
    contents: Iterable[Any] | None = None,
    tracklets: Iterable[Any] | None = None,
    places: Mapping[str, Iterable[Any] | None] | None = None,
    own: Mapping[str, Iterable[Any]] | None = None,
) -> list[Labels]:
    """The labels of each embedding; :class:`DataError` as ``add`` says. ``places`` are frames and boxes."""
    columns = [
        label_column("sources", sources, num_embeddings),
        label_column("identities", identities, num_embeddings),
        label_column("cameras", cameras, num_embeddings),
        label_column("times", times, num_embeddings),
        label_column("contents", contents, num_embeddings),
        more_column(num_embeddings, tracklets=tracklets, places=places or {}, own=own),
    ]
    first: dict[str, int] = {}
    for index, source in enumerate(columns[0]):
        if source is not None and first.setdefault(source, index) != index:
            raise DataError(
                f"sources[{first[source]}] and sources[{index}] are both {shown(source)}; a source names one "
                "item: give crops of one image names of their own, such as 'frame.jpg#2'"
            )
    return [Labels(*values) for values in zip(*columns, strict=True)]


def own_columns(own: Any, num: int) -> dict[str, list[_own_labels.Value | None]]:
    """Checked labels of one's own, by name, each ``num`` of them."""
    if not isinstance(own, Mapping | None):
        raise DataError(
            f"labels is of type {type(own).__name__}; expected a mapping such as {{'zone': [...]}}"
        )
    columns = {}
    for name, values in (own or {}).items():
        try:
            _own_labels.check_name(name, {**LABELS, **PLACES})
        except ValueError as error:
            raise DataError(f"labels: {error}") from None
        columns[name] = checked_column(f"labels[{name!r}]", values, num, _own_labels.own_value)
    return columns


def changed_labels(given: Mapping[str, Any], own: Any, num: int) -> list[dict[str, Any]]:
    """Checked new labels of ``num`` items, by field; ``labels`` are those of one's own, and their places."""
    columns = {
        _SINGULAR[name]: label_column(name, values, num)
        for name, values in given.items()
        if values is not None
    }
    of_own = own_columns(own, num) | {name: columns.pop(name) for name in PLACES if name in columns}
    return [
        {field: values[index] for field, values in columns.items()}
        | {"labels": {name: values[index] for name, values in of_own.items()}}
        for index in range(num)
    ]


def more_column(
    num: int,
    *,
    tracklets: Iterable[Any] | None,
    places: Mapping[str, Iterable[Any] | None],
    own: Mapping[str, Iterable[Any]] | None,
) -> list[str | None]:
    """Tracklets, places and labels of one's own as they are kept, ``num`` of them."""
    columns = own_columns(own, num)
    for name, values in places.items():
        if values is not None:
            columns[_SINGULAR[name]] = label_column(name, values, num)
    if tracklets is None and not columns:
        return [None] * num
    return [
        more(tracklet, {name: values[index] for name, values in columns.items()}, index)
        for index, tracklet in enumerate(label_column("tracklets", tracklets, num))
    ]


def more(tracklet: str | None, labels: Mapping[str, Any], index: int) -> str | None:
    """Labels as JSON; :class:`DataError` where item number so-and-so has too many."""
    try:
        return _own_labels.written(tracklet, labels)
    except ValueError as error:
        raise DataError(f"labels, item {index}: {error}") from None


def label_column(name: str, values: Iterable[Any] | None, num: int) -> list[Any]:
    """Checked labels of one kind, such as "cameras", ``num`` of them; ``None`` where nothing is given."""
    return checked_column(name, values, num, (LABELS | PLACES)[_SINGULAR[name]])


def checked_column(name: str, values: Any, num: int, convert: Callable[[Any], Any]) -> list[Any]:
    """Checked values of ``num`` embeddings, ``None`` where one is unknown."""
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
    if not isinstance(value, str | int | np.integer) or isinstance(value, bool) or is_duration(value):
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


def seconds_of(value: Any) -> float:
    """Unix seconds from seconds, a datetime or an ISO text; UTC where no offset is given."""
    if is_missing(value):
        raise ValueError(f"{shown(value)} is not a time; None means unknown")
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{shown(value)} is not an ISO time such as 2024-05-01T10:00") from None
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    is_real = isinstance(value, int | float | np.integer | np.floating) and not is_duration(value)
    if not is_real or isinstance(value, bool):
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
    return seconds + 0.0  # SQLite keeps -0.0 as 0.0, whose checksum is another


LABELS: dict[str, Callable[[Any], Any]] = {
    "source": _source,
    "identity": _identity,
    "camera": _camera,
    "time": seconds_of,
    "content": _content,
    "tracklet": _identity,
}
_SINGULAR = {
    "sources": "source",
    "identities": "identity",
    "cameras": "camera",
    "times": "time",
    "contents": "content",
    "tracklets": "tracklet",
    "frames": "frame",
    "boxes": "box",
}


def as_listed(value: int | str) -> str:
    """A label as :func:`parse_where` reads it within a list.

    >>> as_listed('the "new" hall, north')
    '"the ""new"" hall, north"'
    """
    text = str(value)
    odd = "," in text or text.startswith(_UNLIKE_NAMES) or OF_QUERY.fullmatch(text)
    return '"' + text.replace('"', '""') + '"' if odd else text


def age(text: str) -> float:
    """Seconds from a number and a unit.

    >>> age("30d"), age("1.5h")
    (2592000.0, 5400.0)
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smhdw])\s*", str(text), re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else math.inf
    if not math.isfinite(seconds):
        raise ConfigError(f"{shown(text)} is no age; expected a number and one of s, m, h, d, w, such as 30d")
    return seconds


def utc(seconds: float) -> str:
    """A time to be read by people, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
