"""Conditions of a filter as SQL: values are never part of its text, names of own labels are as literals."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from reidkit.errors import ConfigError, shown
from reidkit.galleries import _own_labels
from reidkit.galleries._labels import LABELS
from reidkit.galleries._postgres.tables import LONGEST_INDEXED
from reidkit.galleries._where import Condition

_KINDS = {"text": "string", "number": "number", "time": "object"}  # ours, and what JSON calls them


@dataclass(frozen=True, slots=True)
class Clause:
    """What stands behind WHERE, and the values of its placeholders."""

    text: sql.Composable
    values: tuple[Any, ...] = ()

    def __and__(self, other: Clause) -> Clause:
        return Clause(sql.SQL("{} AND {}").format(self.text, other.text), self.values + other.values)


EVERYTHING = Clause(sql.SQL("true"))


def clause(conditions: Sequence[Condition]) -> Clause:
    """What all conditions let through."""
    whole = EVERYTHING
    for condition in conditions:
        whole &= _window(condition) if condition.operator in (">=", "<", "<=") else _list(condition)
    return whole


def either(one: Clause, other: Clause) -> Clause:
    """What at least one of them lets through."""
    return Clause(sql.SQL("({} OR {})").format(one.text, other.text), one.values + other.values)


def of_ids(ids: Collection[int]) -> Clause:
    """The items that have these ids."""
    return Clause(sql.SQL("id = ANY(%s::bigint[])"), (list(ids),))


def source_hash(source: str) -> bytes:
    """By which a source is found, as the server computes it."""
    return hashlib.sha256(source.encode("utf-8", "surrogateescape")).digest()


def _list(condition: Condition) -> Clause:
    known = [value for value in condition.values if value is not None]
    passes = _among(condition.key, known)
    if len(known) < len(condition.values):
        passes = Clause(
            sql.SQL("({} OR {} IS NULL)").format(passes.text, _column(condition.key)), passes.values
        )
    if condition.operator == "not in":  # true, too, where the label is unknown
        return Clause(sql.SQL("({}) IS NOT TRUE").format(passes.text), passes.values)
    return passes


def _among(key: str, values: Sequence[Any]) -> Clause:
    if key == "source":
        return Clause(
            sql.SQL("sha256(source) = ANY(%s::bytea[])"), ([source_hash(value) for value in values],)
        )
    kept = [
        value for value in values if not (isinstance(value, str) and "\0" in value)
    ]  # the others are nobody's
    if key not in LABELS:
        return Clause(
            sql.SQL("({} = ANY(%s::jsonb[]))").format(_column(key)), ([_json(value) for value in kept],)
        )
    texts = [str(value) for value in kept]
    text = sql.SQL("{} = ANY(%s::text[])")
    if all(len(value.encode()) <= LONGEST_INDEXED for value in texts):
        text = sql.SQL("({0} = ANY(%s::text[]) AND octet_length({0}) <= {1})")  # so that the index serves
    return Clause(text.format(_column(key), sql.Literal(LONGEST_INDEXED)), (texts,))


def _window(condition: Condition) -> Clause:
    [bound] = condition.values
    comparison = sql.SQL(condition.operator)
    if condition.key == "time":
        return Clause(sql.SQL("time {} %s::float8").format(comparison), (bound,))
    kind, value = _own_labels.order(bound)
    if isinstance(value, str) and "\0" in value:
        raise ConfigError(
            f"where {condition.key!r}: {shown(value)} holds a NUL character, which no label here has"
        )
    values = {
        "text": sql.SQL("({} #>> '{{}}') COLLATE \"C\" {} %s::text"),
        "number": sql.SQL("({} #>> '{{}}')::float8 {} %s::float8"),
        "time": sql.SQL("({} ->> 'time')::float8 {} %s::float8"),
    }
    column = _column(condition.key)
    compared = values[kind].format(column, comparison)
    whole = sql.SQL("CASE WHEN jsonb_typeof({}) = {} THEN {} ELSE false END")  # in this order, or casts fail
    return Clause(whole.format(column, sql.Literal(_KINDS[kind]), compared), (value,))


def _column(key: str) -> sql.Composable:
    return sql.Identifier(key) if key in LABELS else sql.SQL("(labels -> {})").format(sql.Literal(key))


def _json(value: Any) -> Jsonb:
    return Jsonb({"time": value.timestamp()} if isinstance(value, datetime) else value)
