"""``key=value`` texts of the command line: parsed as TOML, set in a tree of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from reidkit.errors import ConfigError, shown
from reidkit.texts.files import parse_toml

Table = dict[str, Any]


def parse_options(overrides: Sequence[str]) -> Table:
    """``key=value`` texts as a table, values parsed as TOML.

    Raises:
        ConfigError: with every text that is not of that form, and every key that is given twice.
    """
    values: dict[str, set[str]] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        values.setdefault(key.strip(), set()).add(text.strip())
    problems = [
        f"{shown(key)} is given more than once, as {' and '.join(map(shown, sorted(texts)))}; leave one"
        for key, texts in values.items()
        if len(texts) > 1
    ]
    if problems:
        raise ConfigError(problems)
    tree: Table = {}
    apply_overrides(tree, overrides)
    return tree


def texts_of(overrides: Sequence[str]) -> list[str]:
    """All texts among the values of ``key=value`` texts, those in lists and tables as well."""
    found, values = [], [_value(override.partition("=")[2]) for override in overrides]
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, dict | list):
            values += value.values() if isinstance(value, dict) else value
    return found


def apply_overrides(tree: Table, overrides: Sequence[str]) -> None:
    """Set ``key=value`` texts in a tree, in place.

    Raises:
        ConfigError: with every text that is not of that form or fits nowhere.
    """
    problems = [problem for override in overrides if (problem := _apply(tree, override))]
    if problems:
        raise ConfigError(problems)


def is_given(path: Sequence[object], overrides: Sequence[str]) -> bool:
    """Whether overrides set the key at a path, or a table that it is in."""
    for override in overrides:
        parts = [part.strip() for part in override.partition("=")[0].split(".")]
        if len(parts) <= len(path) and all(
            fnmatchcase(str(at), part) for at, part in zip(path, parts, strict=False)
        ):
            return True
    return False


def _apply(tree: Table, override: str) -> str | None:
    """Set one ``a.b.c=value`` in the tree; returns a sentence where that cannot be done."""
    key, equals, text = override.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        return f"override {shown(override)} is not of the form key=value, {_meant(override)}"
    value = _value(text)
    tables = [tree]
    for part in parts[:-1]:
        tables = [below for table in tables for below in _below(table, part)]
        if not tables:
            return f"override {shown(override)}: no table fits {shown(part)}"
        if not all(isinstance(table, dict) for table in tables):
            return f"override {shown(override)}: {shown(part)} is a value, not a table"
    for table in tables:
        table[parts[-1]] = value
    return None


def _meant(override: str) -> str:
    """What was likely meant by a text that is no override, or an example."""
    if "{" in override and "}" in override:
        return f"but looks like a pattern of names; write pattern={shown(override)}"
    return "for example optim.lr=3e-4 of a recipe, or pattern='{identity}_c{camera}.*' of a folder"


def _value(text: str) -> Any:
    """A TOML value; the text itself where it is none."""
    try:
        table = parse_toml(f"value = {text}", "override")
    except ConfigError:
        return text.strip()
    return table["value"] if len(table) == 1 else text.strip()


def _below(table: Table, part: str) -> list[Any]:
    """The table of that name, made where there is none; with a ``*`` in it, all whose names fit."""
    if "*" in part:
        return [table[name] for name in table if fnmatchcase(name, part)]
    return [table.setdefault(part, {})]
