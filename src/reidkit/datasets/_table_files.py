"""Tables as people have them: CSV with any usual separator and encoding, or Parquet; rows as text."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from reidkit.errors import DataError, MissingExtra
from reidkit.labels import label_text
from reidkit.texts.foreign import PARQUET_MARK, decoded, read_text

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
SEPARATORS = ",;\t|"

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """Column names in lower case; rows by their line (the header is 1); rows that are none, with the reason.

    ``decimal_comma`` says that numbers may be written "1,5".
    """

    header: list[str]
    rows: dict[int, Row]
    problems: list[tuple[int, str]] = field(default_factory=list)
    decimal_comma: bool = False


def is_table(path: Path) -> bool:
    """Whether the name is that of a table."""
    return path.suffix.lower() in TABLE_SUFFIXES


def read_table(path: Path, roles: Mapping[str, str]) -> Table:
    """A table of either kind, which is told from its content where the name does not say it.

    Args:
        path: the file.
        roles: by the names of columns what they are: "path", "identity", "camera" or something else. Of a
            Parquet file no others are read, whatever they hold.

    Raises:
        DataError: it cannot be read as what it is.
        MissingExtra: it is Parquet and pyarrow is not installed.
    """
    if path.suffix.lower() == ".parquet" or _starts_with(path, PARQUET_MARK):
        return _read_parquet(path, roles)
    return _read_csv(path)


def _starts_with(path: Path, mark: bytes) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:
        return False  # reading the whole says why


def _read_csv(path: Path) -> Table:
    text = read_text(path)
    separator, text = _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    table = Table(header, {}, decimal_comma=separator == ";")
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not header:
                header += map(column_name, cells)
                while header[-1] == "":  # a separator at the end of each line
                    header.pop()
                continue
            while len(cells) > len(header) and not cells[-1]:
                cells.pop()
            if len(cells) == len(header):
                table.rows[reader.line_num] = dict(zip(header, cells, strict=True))
            else:
                problem = f"{len(cells)} cells under {len(header)} columns"
                table.problems.append((reader.line_num, problem))
    except csv.Error as error:
        raise DataError(
            f'{path}, row {reader.line_num}: {error}; a cell in quotes ends with one ("), and a quote inside '
            "it is written twice"
        ) from None
    return table


def _separator(text: str) -> tuple[str, str]:
    """The separator, and the text without the line by which Excel names it."""
    named = re.match(r"sep=([^\w\s\"]|\t)\r?\n", text, re.IGNORECASE)
    if named is not None:
        return named[1], text[named.end() :]
    first_line = re.sub(r'"[^"]*"', "", text.lstrip().partition("\n")[0])
    return max(SEPARATORS, key=first_line.count), text


def column_name(name: str) -> str:
    """A column's name as it is compared: in lower case, its accents in one form."""
    return unicodedata.normalize("NFC", name).strip().casefold()


def _read_parquet(path: Path, roles: Mapping[str, str]) -> Table:
    """Rows are numbered as if the header were row 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", extra="data", needed_for="reading Parquet tables") from None
    try:
        columns = pyarrow.parquet.read_table(path)
        header = list(map(column_name, columns.column_names))
        values = {name: columns[at].to_pylist() for at, name in enumerate(header) if name in roles}
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {_first_line(error)}") from None
    table = Table(header, {number: {} for number in range(2, columns.num_rows + 2)})
    for name, column in values.items():
        read = _READ.get(roles[name], _cell)
        for number, value in enumerate(column, start=2):
            try:
                table.rows[number][name] = read(value)
            except DataError as error:
                table.problems.append((number, f"{name}: {error}"))
                table.rows[number][name] = ""
    return table


def _label(value: Any) -> str:
    return label_text(value) or ""


def _path(value: Any) -> str:
    """Bytes are a file name as the system has it, in UTF-8 or not."""
    return os.fsdecode(value) if isinstance(value, bytes) else _cell(value)


def _cell(value: Any) -> str:
    """A cell as CSV would write it; integers with gaps arrive as floats."""
    if isinstance(value, bytes):
        return decoded(value, source="the cell").strip()
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise DataError(f"a value of type {type(value).__name__}; expected a text or a number")
    whole = isinstance(value, float | Decimal) and value % 1 == 0
    return str(int(value) if whole else value).strip()


_READ: dict[str, Callable[[Any], str]] = {"path": _path, "identity": _label, "camera": _label}


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
