"""Conditions that filters put on labels, as mappings and as texts of a command line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.galleries._labels import LABELS, SIGNS, as_listed, seconds_of
from reidkit.galleries._own_labels import order, own_value

Where = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Condition:
    """One checked condition of a ``where``. ">=" and "<" have one value; a value ``None`` is "unknown"."""

    key: str
    operator: Literal["in", "not in", ">=", "<"]
    values: tuple[Any, ...]


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
    known = [*LABELS, *sorted(own)]
    if key not in known:
        raise ValueError(f"no such label;{did_you_mean(shown(key), known)} Labels: {', '.join(known)}")
    forms = ("from", "to") if key == "time" else ("not",) if key in LABELS else ("not", "from", "to")
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
    conditions = _own_window(key, wanted) if "from" in wanted or "to" in wanted else []
    if "not" in wanted:
        conditions.append(Condition(key, "not in", _values(key, wanted["not"])))
    return conditions


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


def _time_window(wanted: Any) -> list[Condition]:
    if not isinstance(wanted, Mapping) or not wanted:
        raise ValueError(
            f"{shown(wanted)} is not a window; expected {{'from': ..., 'to': ...}} or one of them"
        )
    ends = {form: seconds_of(value) for form, value in wanted.items()}
    if "from" in ends and "to" in ends and ends["from"] >= ends["to"]:
        raise ValueError(f"from {shown(wanted['from'])} is not before to {shown(wanted['to'])}")
    return [Condition("time", ">=" if form == "from" else "<", (seconds,)) for form, seconds in ends.items()]


def _values(key: str, wanted: Any) -> tuple[Any, ...]:
    single = isinstance(wanted, str | bytes | os.PathLike) or not isinstance(wanted, Iterable)
    try:
        values = [wanted] if single else list(wanted)
    except TypeError as error:  # an array of no dimension
        raise ValueError(f"{error}; expected a value or a list") from None
    convert: Callable[[Any], Any] = LABELS.get(key) or own_value
    return tuple(None if value is None else convert(value) for value in values)


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
        allowed = (">=", "<") if key == "time" else ("=", "!=", ">=", "<") if _is_own(key) else ("=", "!=")
        if operator not in allowed or not value or value[0] in SIGNS:
            raise ConfigError(
                f"where {shown(text)}: expected a key, {' or '.join(allowed)}, and a value; "
                + _spelt_rightly(key, operator, value)
                + "conditions look like camera!=3, identity=12,13, time>=2024-05-01T10:00, time<2024-05-02"
            )
        form = {"=": None, "!=": "not", ">=": "from", "<": "to"}[operator]
        before = where.get(key)
        if key in where and not (form and isinstance(before, dict) and form not in before):
            raise ConfigError(
                f"where {shown(text)}: {key} has a condition already; write a list, such as camera=1,2"
            )
        parsed: Any = value if key == "time" else _listed(key, value)
        if _is_own(key):
            readings = [reading for part in parsed for reading in _readings(part)]
            parsed = readings[0] if form in ("from", "to") else readings
        where[key] = {**where.get(key, {}), form: parsed} if form else parsed
    check_where(where, own=where.keys() - LABELS.keys())  # which there are, the gallery knows
    return where


def _is_own(key: str) -> bool:
    return bool(key) and key not in LABELS


def _readings(text: str) -> list[Any]:
    """What a text of a command line may mean, the likeliest first: an item's label may be any of them."""
    if text.lower() in ("true", "false"):
        return [text.lower() == "true", text]
    readers: tuple[Callable[[str], Any], ...] = (int, float, datetime.fromisoformat)
    for read in readers:
        try:
            return [own_value(read(text)), text]
        except ValueError:
            continue
    return [text]


def _spelt_rightly(key: str, operator: str, value: str) -> str:
    """What a condition written as in a programming language probably means; empty if that is not clear."""
    name = value.lstrip(SIGNS + " ")
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
    if odd := [part for part in values if part and part[0] in SIGNS and f'"{part}' not in text]:
        raise ConfigError(
            f"where {key}: {shown(odd[0])} in a list begins with a sign; {key}!=A,B leaves out a whole list, "
            f"and a {key} of that name stands in quotes: {as_listed(odd[0])}"
        )
    if not all(values):
        raise ConfigError(f"where {key}: {shown(text)} has a value that is empty; remove the comma too many")
    return values
