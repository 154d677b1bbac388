"""Conditions and labels from the texts of a command line."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from reidkit.errors import ConfigError, shortened, shown
from reidkit.galleries._labels import LABELS, OF_QUERY, SIGNS, as_listed
from reidkit.galleries._own_labels import own_value
from reidkit.galleries._where import check_where


def parse_where(texts: Sequence[str]) -> dict[str, Any]:
    """A ``where`` from texts of a command line, of which all must hold.

    Lists are separated by commas, except in ``source``, whose names may hold them; another name with a comma
    stands in quotes, as in CSV (:func:`as_listed`). So does the name "query", which is the query's own label
    otherwise.

    >>> parse_where(["camera!=3", "identity=12,13", "time>=2024-05-01T10:00"])
    {'camera': {'not': ['3']}, 'identity': ['12', '13'], 'time': {'from': '2024-05-01T10:00'}}
    >>> parse_where(["camera!=query", "flank=query", "time=query+-10m"])
    {'camera': {'query': 'other'}, 'flank': {'query': 'same'}, 'time': {'within': '10m'}}
    """
    where: dict[str, Any] = {}
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|!=|=|<|>)(.*)", text, re.DOTALL)
        key, operator, value = match.groups() if match else ("", "", "")
        value = value.strip()
        allowed = (">=", "<") if key == "time" else ("=", "!=", ">=", "<") if _is_own(key) else ("=", "!=")
        of_query = _of_query(text, key, operator, value)
        if of_query is None and (operator not in allowed or not value or value[0] in SIGNS):
            raise ConfigError(
                f"where {shown(text)}: expected a key, {' or '.join(allowed)}, and a value; "
                + _spelt_rightly(key, operator, value)
                + "conditions look like camera!=3, identity=12,13, time>=2024-05-01T10:00, time<2024-05-02"
            )
        form, parsed = of_query or _condition(key, operator, value)
        before = where.get(key)
        if key in where and not (form and isinstance(before, dict) and form not in before):
            raise ConfigError(
                f"where {shown(text)}: {key} has a condition already; write a list, such as camera=1,2"
            )
        where[key] = {**where.get(key, {}), form: parsed} if form else parsed
    check_where(where, own=where.keys() - LABELS.keys())  # which there are, the gallery knows
    return where


def parse_labels(texts: Sequence[str]) -> dict[str, Any]:
    """What is known of a query from texts of a command line; own labels with all that a text may mean.

    >>> parse_labels(["camera=3", "flank=left", "time=2024-05-01T10:00"])
    {'camera': '3', 'flank': ['left'], 'time': '2024-05-01T10:00'}
    """
    labels: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not re.fullmatch(r"\w+", key) or not value or value[0] in SIGNS:
            raise ConfigError(f"{shown(text)} is no label; labels look like camera=3, time=2024-05-01T10:00")
        if key in labels:
            raise ConfigError(f"{shown(text)}: {key} was given before; a query has one of each")
        names = [value] if key == "time" else _listed(key, value)
        if len(names) > 1:
            raise ConfigError(
                f"{shown(text)} has {len(names)} values; a query has one {key}, in quotes if needed"
            )
        labels[key] = _readings(names[0]) if _is_own(key) else names[0]
    return labels


def _of_query(text: str, key: str, operator: str, value: str) -> tuple[str, Any] | None:
    """A condition that refers to the query; ``None`` where it does not."""
    match = OF_QUERY.fullmatch(value)
    if match is None or not key or key == "source":
        return None
    if match[1] is None and key != "time" and operator in ("=", "!="):
        return "query", "same" if operator == "=" else "other"
    if match[1] is None or operator != "=":
        raise ConfigError(
            f"where {shown(text)}: conditions on the query's own labels look like camera!=query, "
            "flank=query, time=query+-10m; a label of the name query stands in quotes"
        )
    try:
        return "within", float(match[1])
    except ValueError:
        return "within", match[1].strip()


def _condition(key: str, operator: str, value: str) -> tuple[str | None, Any]:
    """The form of a condition and its values."""
    form = {"=": None, "!=": "not", ">=": "from", "<": "to"}[operator]
    if key == "time":
        return form, value
    parts: list[Any] = _listed(key, value)
    if not _is_own(key):
        return form, parts
    readings = [reading for part in parts for reading in _readings(part)]
    return form, readings[0] if form in ("from", "to") else readings


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
