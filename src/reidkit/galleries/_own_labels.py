"""Labels of one's own: any name, with texts, numbers, truth values and times as values; kept as JSON.

A tracklet is kept with them, and so is where an item is (:mod:`reidkit.galleries._places`). Values of
different kinds are never equal, and only those of one kind are in an order: 3 is before 12, "12" before "3".
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from reidkit.errors import shown
from reidkit.galleries._places import PLACES
from reidkit.labels import is_duration, is_missing, label_text

Value = str | int | float | bool | datetime

NAME = re.compile(r"[^\W\d]\w{0,63}")
LONGEST = 10_000  # characters of one text
LARGEST = 2**53  # of whole numbers that a float tells apart
MOST = 200_000  # characters of one item's labels as JSON; bytes are at most four times as many


def own_value(value: Any) -> Value | None:
    """A value as it is kept; ``None`` where it is missing. A time without an offset is in UTC.

    Raises :class:`ValueError` or :class:`DataError` for what is no value.
    """
    if is_missing(value):
        return None
    if isinstance(value, np.generic) and not is_duration(value):
        value = value.astype("datetime64[us]").item() if isinstance(value, np.datetime64) else value.item()
    if isinstance(value, bool):
        return value
    if isinstance(value, datetime):
        return _kept_time(value)
    if isinstance(value, int | float):
        if not abs(value) <= (LARGEST if isinstance(value, int) else 1e300):
            raise ValueError(f"{shown(value)} is too large a number; write it as text")
        return value + 0  # without the sign of -0.0
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"{shown(value)} is of type {kind}; expected a text, number, truth value or time")
    text = label_text(value)
    if text is not None and len(text) > LONGEST:
        raise ValueError(f"{shown(text)} has {len(text):,} characters; at most {LONGEST:,} are kept")
    return text


def _kept_time(value: datetime) -> datetime:
    """A time as its seconds are read again, in UTC: a float tells microseconds apart until the year 2242."""
    try:
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return datetime.fromtimestamp(aware.timestamp(), UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{shown(value)} is not within the years 1 to 9999 in UTC") from None


def check_name(name: Any, taken: Mapping[str, Any]) -> str:
    """The name of a label of one's own; :class:`ValueError` for what is none, or is a label already."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is no name of a label; letters, digits and _ are, at most 64")
    if name in taken:
        raise ValueError(f"{shown(name)} has an argument of its own; give it by that")
    return name


def order(value: Value) -> tuple[str, Any]:
    """Of which kind a value is, and where it stands among those: equal for equal values only."""
    if isinstance(value, bool):
        return "truth", value
    if isinstance(value, str):
        return "text", value
    if isinstance(value, datetime):
        return "time", value.timestamp()
    return "number", value


def written(tracklet: str | None, labels: Mapping[str, Value | None]) -> str | None:
    """Tracklet and labels as JSON; ``None`` where nothing is known. :class:`ValueError` if it is too much."""
    known: dict[str, Any] = {} if tracklet is None else {"tracklet": tracklet}
    values = {
        name: {"time": value.timestamp()} if isinstance(value, datetime) else value
        for name, value in sorted(labels.items())
        if value is not None
    }
    if values:
        known["labels"] = values
    text = json.dumps(known, separators=(",", ":"))
    if len(text) > MOST:
        raise ValueError(f"the labels of one item take {len(text):,} characters; at most {MOST:,} are kept")
    return text if known else None


@functools.lru_cache(maxsize=4096)
def read(text: str | None) -> tuple[str | None, dict[str, Value]]:
    """Tracklet and labels from JSON; :class:`ValueError` for what :func:`written` does not write.

    The dictionary is shared: copy it before it is given away.
    """
    if text is None:
        return None, {}
    try:
        known = json.loads(text)
        tracklet, kept = known.pop("tracklet", None), known.pop("labels", {})
        labels = {
            check_name(name, {}): datetime.fromtimestamp(value["time"], UTC) if type(value) is dict else value
            for name, value in kept.items()
        }
        if known or not isinstance(tracklet, str | None) or written(tracklet, labels) != text:
            raise ValueError
        if any(own_value(value) != value for value in labels.values()):
            raise ValueError
        if any(repr(PLACES[name](labels[name])) != repr(labels[name]) for name in PLACES.keys() & labels):
            raise ValueError
    except Exception as error:  # whatever a crafted text makes JSON and dates raise
        raise ValueError(f"{shown(text)} is not how labels are written") from error
    return tracklet, labels


def is_readable(text: str | None) -> bool:
    """Whether :func:`read` can read it."""
    try:
        read(text)
    except ValueError:
        return False
    return True
