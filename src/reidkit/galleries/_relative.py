"""Conditions that refer to the query: another camera than its own, the same flank, within minutes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reidkit.errors import ConfigError, DataError, shortened, shown
from reidkit.galleries._items import Item
from reidkit.galleries._labels import EARLIEST, LABELS, LATEST
from reidkit.galleries._own_labels import own_value
from reidkit.galleries._where import Condition, Where

_FORMS = ("query", "within")

KnownQuery = Mapping[str, Any] | Item
"""What is known of a query: its labels by name, or the item that it is."""


def conditions_of_queries(
    conditions: Sequence[Condition], known: Sequence[KnownQuery] | None, *, num_queries: int
) -> list[tuple[Condition, ...]]:
    """The conditions of each query (Q), with what is known of it in the place of references to it.

    Raises :class:`ConfigError` where a condition refers to what is not said of the queries; what is said to
    be unknown, by ``None``, is an answer.
    """
    if not any(condition.is_relative for condition in conditions):
        return [tuple(conditions)] * num_queries
    if isinstance(known, Mapping | Item | str | bytes) or not isinstance(known, Sequence | None):
        raise ConfigError(
            f"queries is of type {type(known).__name__}; expected a list with a mapping of labels, or an "
            "item, a query"
        )
    if known is None or len(known) != num_queries:
        num = "nothing is" if known is None else f"the labels of {len(known)} are"
        raise ConfigError(
            f"where refers to the labels of {num_queries} queries, but {num} given; say them by "
            "queries=[{'camera': 3}, ...], one mapping a query"
        )
    return [
        tuple(
            resolved
            for condition in conditions
            for resolved in (_resolved(condition, query, index) if condition.is_relative else [condition])
        )
        for index, query in enumerate(known)
    ]


def keys_of_query(where: Where | None) -> list[str]:
    """The labels of the query that conditions refer to."""
    return [key for key, wanted in (where or {}).items() if _refers(wanted)]


def apart_from_query(where: Where | None) -> Where | None:
    """The conditions that hold for every query."""
    if not keys_of_query(where):
        return where
    left = {
        key: {form: value for form, value in wanted.items() if form not in _FORMS}
        if _refers(wanted)
        else wanted
        for key, wanted in (where or {}).items()
    }
    return {key: wanted for key, wanted in left.items() if wanted != {}}


def _refers(wanted: Any) -> bool:
    return isinstance(wanted, Mapping) and any(form in wanted for form in _FORMS)


def _resolved(condition: Condition, query: KnownQuery, index: int) -> list[Condition]:
    key = condition.key
    try:
        values = tuple(value for value in _label(key, query, index) if value is not None)
    except (ValueError, DataError) as error:
        raise ConfigError(f"queries[{index}], {key}: {error}") from None
    if condition.operator == "other":
        return [Condition(key, "not in", values)]
    if condition.operator == "same":
        return [Condition(key, "in", values)]
    numbers = [value for value in values if not isinstance(value, str | bool)]
    if len(numbers) != len(values) and not numbers:
        raise ConfigError(f"queries[{index}], {key}: {shown(values[0])} is neither a number nor a time")
    if not numbers:
        return [Condition(key, ">=", (math.inf,))]  # nothing is near to what is unknown
    return _window(key, numbers[0], condition.values[0])


def _label(key: str, query: KnownQuery, index: int) -> list[Any]:
    """Checked readings of a query's label; none where it is unknown."""
    if isinstance(query, Item):
        return [query.label(key)]
    if not isinstance(query, Mapping):
        raise ConfigError(
            f"queries[{index}] is {shown(query)}; expected a mapping such as {{'camera': 3}}, or an item"
        )
    if key not in query:
        raise ConfigError(
            f"where refers to the {key} of the query, but queries[{index}] does not say it; it says "
            f"{shortened(', '.join(map(str, query))) or 'nothing'}; give {key!r}, or None where it is unknown"
        )
    value = query[key]
    readings = value if isinstance(value, list | tuple) else [value]
    convert = LABELS.get(key) or own_value
    return [None if reading is None else convert(reading) for reading in readings]


def _window(key: str, middle: Any, width: float) -> list[Condition]:
    """All from so much before to so much after, both included; in the terms of "from" and "to"."""
    if isinstance(middle, datetime):
        first, last = _ends(middle.timestamp(), width)
        return [
            Condition(key, ">=", (datetime.fromtimestamp(first, UTC),)),
            Condition(key, "<=", (datetime.fromtimestamp(last, UTC),)),
        ]
    if key == "time":
        first, last = _ends(middle, width)
    else:
        first, last = middle - width, middle + width
    return [Condition(key, ">=", (first,)), Condition(key, "<=", (last,))]


def _ends(seconds: float, width: float) -> tuple[float, float]:
    return max(EARLIEST, seconds - width), min(math.nextafter(LATEST, 0), seconds + width)
