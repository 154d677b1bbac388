"""Reading small files of plain values: TOML and JSON, from anywhere.

What is read is bounded in size and depth before anybody works on it, and whatever is wrong is one sentence
that names the file.
"""

from __future__ import annotations

import codecs
import json
import stat
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from reidkit.errors import ConfigError, ReidError, shortened, shown

MOST_BYTES = 64 * 2**20
MOST_LEVELS = 32
"""Tables and lists in each other: more than anybody writes, and far from Python's own limit."""

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | Path, *, error: type[ReidError] = ConfigError) -> str:
    """The text of a file in UTF-8, with or without a byte-order mark.

    Raises ``error`` where there is no such file, or none that can be read, or it is no text in UTF-8.
    """
    path = Path(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if path.is_dir() else "no regular file"
            raise error(f"{path} is {what}; expected a text file")
        if status.st_size > MOST_BYTES:
            raise error(f"{path} has {status.st_size:,} bytes, and {MOST_BYTES:,} are the most that is read")
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as cause:
        raise error(f"{shortened(str(path), 200)} cannot be read: {cause.strerror or cause}") from cause
    except ValueError as cause:  # a NUL in the name
        raise error(f"{shown(str(path))} cannot be the name of a file: {cause}") from cause
    if content.startswith(_UTF_16):
        raise error(f'{path} is text in UTF-16, Notepad\'s "Unicode"; save it again as UTF-8')
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise error(
            f"{path} is no text in UTF-8 (byte {content[cause.start]:#04x} at {cause.start:,}); if it is "
            "text, save it again as UTF-8"
        ) from cause


def parse_toml(text: str, source: object) -> dict[str, Any]:
    """A TOML text as a table. ``source`` is named in errors.

    Raises:
        ConfigError: not TOML, nested too deeply, or a number of thousands of digits.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{source}: not valid TOML: {shortened(str(cause), 200)}") from None
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"{source}: not usable as TOML: {_too_much(cause)}") from None
    if is_too_deep(table):
        raise ConfigError(f"{source}: nested more than {MOST_LEVELS} levels deep")
    return table


def parse_json(text: str, source: object, *, error: type[ReidError]) -> Any:
    """A JSON text as a value. ``source`` is named in errors.

    Raises ``error`` where it is not JSON, has a key twice in one object, is nested too deeply or holds a
    number of thousands of digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as cause:
        raise error(f"{source}: not JSON: {shortened(str(cause), 200)}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{source}: not usable as JSON: {_too_much(cause)}") from cause
    if is_too_deep(value):
        raise error(f"{source}: nested more than {MOST_LEVELS} levels deep")
    return value


def read_json(path: str | Path, *, error: type[ReidError]) -> Any:
    """The value in a JSON file; raises ``error`` as :func:`read_text` and :func:`parse_json` do."""
    return parse_json(read_text(path, error=error), path, error=error)


def is_too_deep(value: Any) -> bool:
    """Whether tables and lists lie in each other more than :data:`MOST_LEVELS` deep."""
    level = [value]
    for _ in range(MOST_LEVELS):
        level = [below for item in level for below in _below(item)]
        if not level:
            return False
    return True


def odd_values(value: Any, path: Sequence[str] = ()) -> Iterator[str]:
    """Sentences on values that a configuration cannot hold, each with its key; most often none.

    TOML knows dates, which no key takes. File names that are not UTF-8 reach us on the command line.
    """
    if isinstance(value, dict):
        for key, below in value.items():
            yield from odd_values(below, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from odd_values(item, path)
    elif isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield f"{'.'.join(path)}: {shown(value)} is not UTF-8, as a configuration is; use another name"
    elif not isinstance(value, int | float | None):
        kind = type(value).__name__
        yield f"{'.'.join(path)}: {value} is a {kind}, which no key takes; write it in quotes, as a text"


def _below(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(item.values())
    return item if isinstance(item, list) else []


def _too_much(cause: Exception) -> str:
    if isinstance(cause, RecursionError):
        return f"it is nested more than {MOST_LEVELS} levels deep"
    return shortened(str(cause).partition(";")[0], 200)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {shown(twice)} is there twice")
    return table


def is_there(file: Path) -> bool:
    """Whether there is something; where that cannot be told, reading it says what is wrong with it."""
    try:
        return file.exists()
    except OSError:
        return True


def is_file(file: Path) -> bool:
    """Whether it is a file; false where that cannot be told: a name too long, a closed folder."""
    try:
        return file.is_file()
    except OSError:
        return False


def is_bare_name(file: Path) -> bool:
    """Whether a path may name something that is shipped: a word without an ending that is no file here."""
    is_word = file.suffix == "" and len(file.parts) == 1
    return is_word and (not is_there(file) or _is_folder(file))


def _is_folder(file: Path) -> bool:
    try:
        return file.is_dir()
    except OSError:
        return False
