"""Images listed in a table: CSV or Parquet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reidkit.errors import DataError, MissingExtra, did_you_mean
from reidkit.folder_trees import SPLIT_NAMES, Fields, is_integer, labelled_dataset
from reidkit.registry import register
from reidkit.types import Dataset

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
REQUIRED = ("path", "identity")
COLUMNS = (*REQUIRED, "camera", "split", "tracklet", "time", "frame")
NUM_SHOWN = 5

# An optional column under another name would be ignored, and the set would look as if it had none.
OTHER_NAMES = {
    **dict.fromkeys(("file", "filename", "image", "image_path", "filepath"), "path"),
    **dict.fromkeys(("pid", "id", "person", "person_id", "label"), "identity"),
    **dict.fromkeys(("cam", "camid", "cam_id", "camera_id", "cameras"), "camera"),
    **dict.fromkeys(("set", "subset", "part", "partition"), "split"),
    **dict.fromkeys(("track", "track_id", "tracklet_id"), "tracklet"),
    **dict.fromkeys(("timestamp", "seconds"), "time"),
}

Row = dict[str, str]


@register("dataset", "table")
def table(root: Path) -> Dataset:
    """Images listed in a CSV or Parquet file, one a row.

    Columns: ``path`` (relative to the table's folder, or absolute) and ``identity``; optional are
    ``camera``, ``split`` (train, val, query, gallery, or test for gallery; without it all is train),
    ``tracklet`` and ``frame`` (integers), ``time`` (seconds). Column names may be in any case; further
    columns are ignored. CSV is UTF-8, separated by comma, semicolon or tab.

    Identities that are all numbers keep their values; others count from 1 in sorted order, with the text
    in ``Sample.identity_name``. Cameras likewise. Identity "-1" is junk. Without cameras, or with none
    filled in, every camera is 0 and ``has_cameras`` false.

    Args:
        root: the table, or a folder that holds exactly one (.csv, .tsv, .parquet).

    Raises:
        DataError: no table or several; a column is missing; rows are bad: a cell missing or too many, an
            empty path or identity, a file that is not there, an unknown split, a camera that is no number
            among numbers, a number that is none. The first five are told, with the count.
        MissingExtra: the table is Parquet and pyarrow is not installed.
    """
    path = _find_table(Path(root))
    header, rows, problems = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    _check_columns(path, header)
    for number, row in rows.items():
        problems += [(number, problem) for problem in _row_problems(row, path.parent)]
    problems += _camera_problems(rows)
    if problems:
        raise DataError(_bad_rows(path, problems))
    if not rows:
        raise DataError(f"{path} has a header and no rows")
    images = [(SPLIT_NAMES[_split(row)], path.parent / row["path"], _fields(row)) for row in rows.values()]
    return labelled_dataset(images, name="table", root=path.parent)


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        raise DataError(
            f"{root} does not exist; expected a table ({', '.join(TABLE_SUFFIXES)}) or its folder"
        )
    tables = sorted(path for path in root.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(path.name for path in tables[:NUM_SHOWN]) or "none"
    raise DataError(
        f"{root} must hold exactly one table ({', '.join(TABLE_SUFFIXES)}), found {found}; "
        "give the file as root"
    )


def _read_csv(path: Path) -> tuple[list[str], dict[int, Row], list[tuple[int, str]]]:
    """Column names, rows by their line number, and problems with the number of cells."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    first_line = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first_line.count))
    rows: dict[int, Row] = {}
    problems = []
    header: list[str] = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not header:
                header = [cell.casefold() for cell in cells]
            elif len(cells) != len(header) and any(cells):
                problems.append((reader.line_num, f"{len(cells)} cells under {len(header)} columns"))
            elif any(cells):
                rows[reader.line_num] = dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, row {reader.line_num}: {error}") from None
    return header, rows, problems


def _read_parquet(path: Path) -> tuple[list[str], dict[int, Row], list[tuple[int, str]]]:
    """The same for Parquet; rows are numbered as if the header were row 1."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", extra="data", needed_for="reading Parquet tables") from None
    try:
        columns = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    header = [name.strip().casefold() for name in columns.column_names]
    cells = [[_as_text(value) for value in column.to_pylist()] for column in columns.columns]
    rows = {
        number: dict(zip(header, row, strict=True)) for number, row in enumerate(zip(*cells, strict=True), 2)
    }
    return header, rows, []


def _as_text(value: Any) -> str:
    """A Parquet cell as CSV would write it; integers with gaps arrive as floats."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _check_columns(path: Path, header: list[str]) -> None:
    found = ", ".join(header) or "none"
    for name in REQUIRED:
        if name not in header:
            other = next((column for column in header if OTHER_NAMES.get(column) == name), None)
            hint = f" rename {other!r}?" if other else did_you_mean(name, header)
            raise DataError(f"{path} has no column {name!r};{hint} Columns found: {found}")
    for column in header:
        wanted = OTHER_NAMES.get(column)
        if wanted and wanted not in header:
            raise DataError(
                f"{path} has a column {column!r} and none called {wanted!r}; rename it {wanted!r} to use it, "
                "or to something else to have it ignored"
            )
    twice = [name for name in COLUMNS if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice; columns found: {found}")


def _row_problems(row: Row, folder: Path) -> Iterable[str]:
    if not row["path"]:
        yield "path is empty"
    elif not (folder / row["path"]).is_file():
        yield f"there is no file {folder / row['path']}"
    if not row["identity"]:
        yield "identity is empty"
    split = _split(row)
    if split not in SPLIT_NAMES:
        yield f"unknown split {split!r};{did_you_mean(split, SPLIT_NAMES)} Splits: {', '.join(SPLIT_NAMES)}"
    for name in ("tracklet", "frame"):
        if row.get(name) and not is_integer(row[name]):
            yield f"{name} {row[name]!r} is not an integer from 0 on"
    if row.get("time") and not _is_finite(row["time"]):
        yield f"time {row['time']!r} is not a number of seconds"


def _camera_problems(rows: dict[int, Row]) -> list[tuple[int, str]]:
    """Cameras left out, and odd ones among numbers: a slip of the pen would become a camera of its own."""
    cameras = {number: row.get("camera", "") for number, row in rows.items()}
    num_integers = sum(is_integer(camera) for camera in cameras.values())
    problems = []
    for number, camera in cameras.items():
        if not camera and any(cameras.values()):
            problems.append((number, "camera is empty"))
        elif camera and not is_integer(camera) and 2 * num_integers > len(cameras):
            problems.append((number, f"camera {camera!r} is not an integer, as the others are"))
    return problems


def _split(row: Row) -> str:
    return row.get("split", "train").casefold()


def _fields(row: Row) -> Fields:
    return {name: text for name, text in row.items() if name in COLUMNS and text}


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _bad_rows(path: Path, problems: list[tuple[int, str]]) -> str:
    num_bad = len({number for number, _ in problems})
    shown = [f"row {number}: {problem}" for number, problem in sorted(problems)[:NUM_SHOWN]]
    more = f"; and {len(problems) - NUM_SHOWN} more problems" if len(problems) > NUM_SHOWN else ""
    return (
        f"{path} has bad rows, {num_bad} in all (the header is row 1): {'; '.join(shown)}{more}; "
        "mend them or take them out"
    )
