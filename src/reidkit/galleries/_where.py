"""Conditions that filters put on labels, as mappings."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reidkit.errors import ConfigError, DataError, did_you_mean, shown
from reidkit.galleries._labels import LABELS, age, seconds_of
from reidkit.galleries._own_labels import order, own_value
from reidkit.galleries._places import NO_CONDITIONS, PLACES

Where = Mapping[str, Any]
Operator = Literal["in", "not in", ">=", "<", "<=", "same", "other", "within"]

_OF_QUERY = ("same", "other")


@dataclass(frozen=True, slots=True)
class Condition:
    """One checked condition of a ``where``; a value ``None`` is "unknown".

    Those of order have one value. "same", "other" and "within" refer to the query, the last with how far off
    an item may be; they become others once something is known of it (:mod:`reidkit.galleries._relative`).
    """

    key: str
    operator: Operator
    values: tuple[Any, ...]

    @property
    def is_relative(self) -> bool:
        """Whether it refers to the query."""
        return self.operator in ("same", "other", "within")


def check_where(where: Where | None, own: Collection[str] = ()) -> tuple[Condition, ...]:
    """The conditions of a ``where`` (see :class:`Gallery`); :class:`ConfigError` names every fault.

    ``own`` are the labels that a gallery has besides those that all have.
    """
    if not isinstance(where, Mapping | None):
        raise ConfigError(f"where is {shown(where)}; expected a mapping such as {{'camera': 3}}")
    conditions: list[Condition] = []
    problems: list[str] = []
    for key, wanted in (where or {}).items():
        try:
            conditions += _conditions(key, wanted, own)
        except (ValueError, DataError) as error:
            problems.append(f"where {shown(key)}: {error}")
    if problems:
        raise ConfigError(problems)
    return tuple(conditions)


def _conditions(key: str, wanted: Any, own: Collection[str]) -> list[Condition]:
    known = [*LABELS, *sorted({*PLACES, *own} - NO_CONDITIONS)]
    if key not in known:
        raise ValueError(f"no such label;{did_you_mean(shown(key), known)} Labels: {', '.join(known)}")
    forms = _forms(key)
    if isinstance(wanted, Mapping):
        for form in wanted:
            if form not in forms:
                raise ValueError(
                    f"unknown {shown(form)};{did_you_mean(shown(form), forms)} Known: {', '.join(forms)}"
                )
    if key == "time" and (not isinstance(wanted, Mapping) or not wanted):
        raise ValueError(
            f"{shown(wanted)} is not a window; expected {{'from': ..., 'to': ...}} or one of them, or "
            "{'within': ...} of the query's"
        )
    if not isinstance(wanted, Mapping):
        return [Condition(key, "in", _values(key, wanted))]
    if not wanted:
        raise ValueError("{} says nothing; expected a value, a list or {'not': ...}")
    conditions = []
    if "from" in wanted or "to" in wanted:
        conditions += _time_window(wanted) if key == "time" else _own_window(key, wanted)
    if "not" in wanted:
        conditions.append(Condition(key, "not in", _values(key, wanted["not"])))
    if "query" in wanted:
        conditions.append(Condition(key, _of_query(wanted["query"]), ()))
    if "within" in wanted:
        conditions.append(Condition(key, "within", (_width(key, wanted["within"]),)))
    return conditions


def _forms(key: str) -> tuple[str, ...]:
    if key == "time":
        return "from", "to", "within"
    return ("not", "query") if key in LABELS else ("not", "from", "to", "query", "within")


def _of_query(wanted: Any) -> Literal["same", "other"]:
    if wanted not in _OF_QUERY:
        near = did_you_mean(shown(wanted), _OF_QUERY)
        raise ValueError(f"query is {shown(wanted)};{near} Allowed: same, other (than the query's own)")
    return wanted  # type: ignore[no-any-return]


def _width(key: str, wanted: Any) -> float:
    """How far off a label may be: seconds, an age such as "10m", or a number for labels that are numbers."""
    try:
        width = age(wanted) if isinstance(wanted, str) else wanted
    except ConfigError as error:
        raise ValueError(f"within: {error}") from None
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 <= width < math.inf:
        raise ValueError(f"within is {shown(wanted)}; expected a number from 0 on, or an age such as '10m'")
    return float(width)


def _own_window(key: str, wanted: Mapping[str, Any]) -> list[Condition]:
    """A window of texts, numbers or times; what is of another kind is not in it."""
    ends = {form: own_value(wanted[form]) for form in ("from", "to") if form in wanted}
    for form, value in ends.items():
        if value is None or isinstance(value, bool):
            raise ValueError(f"{form} is {shown(wanted[form])}; expected a text, a number or a time")
    first, last = ends.get("from"), ends.get("to")
    if first is not None and last is not None and order(first)[0] != order(last)[0]:
        raise ValueError(f"from {shown(wanted['from'])} and to {shown(wanted['to'])} are of different kinds")
    if first is not None and last is not None and not order(first) < order(last):
        raise ValueError(f"from {shown(wanted['from'])} is not before to {shown(wanted['to'])}")
    return [Condition(key, ">=" if form == "from" else "<", (value,)) for form, value in ends.items()]


def _time_window(wanted: Mapping[str, Any]) -> list[Condition]:
    ends = {form: seconds_of(wanted[form]) for form in ("from", "to") if form in wanted}
    if "from" in ends and "to" in ends and ends["from"] >= ends["to"]:
        raise ValueError(f"from {shown(wanted['from'])} is not before to {shown(wanted['to'])}")
    return [Condition("time", ">=" if form == "from" else "<", (seconds,)) for form, seconds in ends.items()]


def _values(key: str, wanted: Any) -> tuple[Any, ...]:
    # A mapping is iterable, too, but nobody means its keys.
    single = isinstance(wanted, str | bytes | os.PathLike | Mapping) or not isinstance(wanted, Iterable)
    try:
        values = [wanted] if single else list(wanted)
    except TypeError as error:  # an array of no dimension
        raise ValueError(f"{error}; expected a value or a list") from None
    convert: Callable[[Any], Any] = LABELS.get(key) or own_value
    return tuple(None if value is None else convert(value) for value in values)
