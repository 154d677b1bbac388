"""Conditions of a filter as expressions of Milvus, in which nothing that a user wrote can stand.

What labels an item has it carries as *tags*: a hash of each label's name and value, and one of its name
alone. So whether a label is one of some values, or unknown, is a question of which hashes are there. Windows
compare numbers; texts do it as hexadecimal digits, which are in the order of the texts. Names are hashes too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from reidkit.galleries import _own_labels
from reidkit.galleries._labels import LABELS
from reidkit.galleries._places import NO_CONDITIONS
from reidkit.galleries._records import Row
from reidkit.galleries._where import Condition

NOTHING = "version < 0"
LONGEST_COMPARED = 200  # characters of a text that windows compare
_COMPARED = {"text": "t", "number": "n", "time": "s"}


def tag(key: str, value: Any = None) -> str:
    """That of a label with this value; without a value, of a label that is known."""
    return _hashed(key if value is None else [key, *_kind_and_value(key, value)])


def tags(row: Row) -> list[str]:
    """All that an item carries."""
    return [each for key, value in _labels(row).items() for each in (tag(key), tag(key, value))]


def compared(row: Row) -> dict[str, str | float]:
    """Labels of one's own as windows compare them, by name and kind."""
    return {
        _place(key, kind): _comparable(kind, value)
        for key, label in _labels(row).items()
        if key not in LABELS
        for kind, value in [_kind_and_value(key, label)]
        if kind in _COMPARED
    }


def source_key(source: str | None) -> str:
    """By which the item of a source is found; empty where there is none."""
    return "" if source is None else tag("source", source)


def expression(conditions: Sequence[Condition]) -> str:
    """What all conditions let through; empty where that is everything."""
    return " and ".join(
        _window(condition) if condition.operator in (">=", "<", "<=") else _list(condition)
        for condition in conditions
    )


def of_numbers(field: str, numbers: Iterable[int]) -> str:
    """The rows whose field is one of these numbers."""
    listed = ", ".join(map(str, numbers))
    return f"{field} in [{listed}]" if listed else NOTHING


def of_sources(sources: Iterable[str]) -> str:
    """The items of these sources."""
    listed = ", ".join(f'"{source_key(source)}"' for source in sources)
    return f"source in [{listed}]" if listed else NOTHING


def carrying(wanted: Iterable[str]) -> str:
    """The items that carry at least one of these tags."""
    listed = ", ".join(f'"{each}"' for each in wanted)
    return f"array_contains_any(tags, [{listed}])" if listed else NOTHING


def _list(condition: Condition) -> str:
    known = [value for value in condition.values if value is not None]
    may_be_unknown = len(known) < len(condition.values)
    if condition.key == "source":
        passes = of_sources(known)
    else:
        passes = carrying(tag(condition.key, value) for value in known)
    is_known = carrying([tag(condition.key)])
    if condition.operator == "not in":
        return f"(not ({passes}){f' and {is_known}' if may_be_unknown else ''})"
    return f"({passes}{f' or not {is_known}' if may_be_unknown else ''})"


def _window(condition: Condition) -> str:
    [bound] = condition.values
    if condition.key == "time":
        return f"({carrying([tag('time')])} and time {condition.operator} {_number(bound)})"
    kind, value = _kind_and_value(condition.key, bound)
    wanted = _comparable(kind, value)
    literal = f'"{wanted}"' if isinstance(wanted, str) else _number(wanted)
    return f'(own["{_place(condition.key, kind)}"] {condition.operator} {literal})'


def _number(value: float) -> str:
    """A number as it stands in an expression; beyond all labels for one that is infinite."""
    return repr(float(max(-1e308, min(1e308, value))))


def _comparable(kind: str, value: Any) -> str | float:
    if kind == "text":
        return str(value)[:LONGEST_COMPARED].encode("utf-8", "surrogatepass").hex()
    return float(value)


def _place(key: str, kind: str) -> str:
    return f"{_COMPARED[kind]}{_hashed(key)}"


def _labels(row: Row) -> dict[str, Any]:
    """Those that are known and that filters ask for, by name."""
    tracklet, own = _own_labels.read(row.more)
    labels = {name: getattr(row, name) for name in LABELS if name != "tracklet"} | {"tracklet": tracklet}
    known = {**labels, **{name: value for name, value in own.items() if name not in NO_CONDITIONS}}
    return {name: value for name, value in known.items() if value is not None}


def _kind_and_value(key: str, value: Any) -> tuple[str, Any]:
    if key in LABELS:
        return ("time", float(value)) if key == "time" else ("text", str(value))
    kind, known = _own_labels.order(value)
    return kind, float(known) if kind == "number" else known


def _hashed(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]
