"""Images listed in a table: CSV or Parquet."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reidkit.datasets._layouts import first_few, labelled_dataset
from reidkit.datasets._part_names import PARTS, part_of
from reidkit.datasets._table_files import TABLE_SUFFIXES, Row, Table, column_name, is_table, read_table
from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.labels import is_junk, is_number, label_text
from reidkit.logs import get_logger
from reidkit.registry import register
from reidkit.texts.files import is_file
from reidkit.types import Dataset

logger = get_logger(__name__)

REQUIRED = ("path", "identity")
COLUMNS = (*REQUIRED, "camera", "split", "tracklet", "time", "frame")
NUM_SHOWN = 5
_NAMING = "columns of other names are told by column.KEY=NAME (`reid index ... --column KEY=NAME`)"
UNREAD = "columns that are not read"
LAST_SECOND = 253402300800  # the year 10000, where datetime ends

# An optional column under another name would be ignored, and the set would look as if it had none. Letters
# and digits count alone: "camera_id" is "Camera ID".
OTHER_NAMES = {
    **dict.fromkeys(("file", "filename", "image", "imagepath", "filepath", "imagefile"), "path"),
    **dict.fromkeys(("pid", "id", "person", "personid", "label", "identityid", "personname"), "identity"),
    **dict.fromkeys(("camid", "cameraid", "cameras", "cameraname", "camname", "cameranumber"), "camera"),
    **dict.fromkeys(("cam", "camno", "camnr", "camnumber", "camerano", "cameranr", "cams"), "camera"),
    **dict.fromkeys(("set", "subset", "part", "partition", "splits"), "split"),
    **dict.fromkeys(("track", "trackid", "trackletid", "tracklets"), "tracklet"),
    **dict.fromkeys(("timestamp", "seconds", "datetime"), "time"),
    **dict.fromkeys(("frameid", "frameno", "framenr", "framenumber"), "frame"),
}


@register("dataset", "table")
def table(root: Path, *, column: Mapping[str, str] | None = None) -> Dataset:
    """Images listed in a CSV or Parquet file, one a row.

    Columns: ``path`` (relative to the table's folder, or absolute) and ``identity``; optional are
    ``camera``, ``split`` (train, val, query, gallery, or test for gallery; without it all is train),
    ``tracklet`` and ``frame`` (integers), ``time`` (seconds, or ISO as 2024-05-01T10:00, UTC where no
    offset is given). Column names may be in any case; ``Dataset.reading`` tells which are not read. CSV is
    UTF-8 or UTF-16, separated by comma, semicolon, tab or bar.

    Labels are read as :mod:`reidkit.labels` says; ``Dataset.reading`` tells how. Identity "-1" is junk.
    Without cameras, or with none filled in, ``has_cameras`` is false; where only some are empty they are
    refused: a camera that is not known is -1.

    Args:
        root: the table, or a folder that holds exactly one (.csv, .tsv, .parquet).
        column: what the columns are called where not as above, ``{"path": "file", "camera": "cam_name"}``;
            on the command line ``column.path=file column.camera=cam_name``.

    Raises:
        ConfigError: ``column`` has another key, or names what the table lacks.
        DataError: no table or several; a column is missing; rows are bad: a cell missing or too many, an
            empty path or identity, a file that is not there, an unknown split, a camera that is no number
            among numbers, a number that is none. The first five are told, with the count.
        MissingExtra: the table is Parquet and pyarrow is not installed.
    """
    return read_images(root, column=column)


def read_images(
    root: Path, *, column: Mapping[str, str] | None = None, needs_identity: bool = True
) -> Dataset:
    """As :func:`table`, also of images without an identity where none is needed."""
    path = _find_table(Path(root))
    found = read_table(path, _roles(column))
    names = _column_names(path, found.header, column, REQUIRED if needs_identity else REQUIRED[:1])
    problems = list(found.problems)
    unreadable = {number for number, _ in problems}
    rows = {number: _known(row, names) for number, row in found.rows.items() if number not in unreadable}
    for row in rows.values():
        row["path"] = _as_on_disk(path.parent, row["path"])
    for number, row in rows.items():
        problems += [(number, problem) for problem in _row_problems(row, path.parent, found)]
        if needs_identity and not row["identity"]:
            problems.append((number, "identity is empty"))
    problems += _camera_problems(rows)
    if problems:
        raise DataError(_bad_rows(path, problems))
    if not rows:
        raise DataError(f"{path} has a header and no rows")
    images = [
        (_part(row) or "", path.parent / row["path"], _fields(row, found.decimal_comma))
        for row in rows.values()
    ]
    unread = [name for name in found.header if name and name not in names.values()]
    reading = [f"{UNREAD}: {first_few(unread)}"] if unread else []
    reading += _without_offset(path, found, rows.values())
    try:
        data = labelled_dataset(
            images, name="table", root=path.parent, reading=reading, needs_identity=needs_identity
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    return replace(data, file=path)


def _find_table(root: Path) -> Path:
    if root.is_file():
        return root
    if not root.is_dir():
        state = "is neither a file nor a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {state}; expected a table ({', '.join(TABLE_SUFFIXES)}) or its folder")
    tables = sorted(path for path in root.iterdir() if is_table(path))
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(path.name for path in tables[:NUM_SHOWN]) or "none"
    raise DataError(
        f"{root} must hold exactly one table ({', '.join(TABLE_SUFFIXES)}), found {found}; "
        "give the file as root"
    )


def _roles(column: Any) -> dict[str, str]:
    """What each column is, by its name, as far as that was given rightly."""
    given = column if isinstance(column, Mapping) else {}
    roles = {name: name for name in COLUMNS if name not in given}
    return roles | {column_name(name): key for key, name in given.items() if isinstance(name, str)}


def _column_names(
    path: Path, header: list[str], column: Mapping[str, str] | None, required: Sequence[str]
) -> dict[str, str]:
    """How the table calls each column that it has and that is read."""
    given = _given_names(path, header, {} if column is None else column)
    _check_columns(path, header, given, required)
    return {name: given.get(name, name) for name in COLUMNS if given.get(name, name) in header}


def _given_names(path: Path, header: list[str], column: Any) -> dict[str, str]:
    if not isinstance(column, Mapping) or not all(isinstance(name, str) for name in column.values()):
        raise ConfigError(
            f"column = {shown(column)} is no table of names; write for example column.path=file"
        )
    given = {key: column_name(name) for key, name in column.items()}
    problems = [
        f"column has no key {key!r};{did_you_mean(str(key), COLUMNS)} Keys: {', '.join(COLUMNS)}"
        for key in given.keys() - set(COLUMNS)
    ]
    problems += [
        f"{path} has no column {name!r}, given as column.{key};{did_you_mean(name, header)} Columns found: "
        f"{_listed(header)}"
        for key, name in given.items()
        if key in COLUMNS and name not in header
    ]
    problems += [
        f"{' and '.join(keys)} are both {name!r}, by column.KEY=NAME; a column is one of them"
        for name in dict.fromkeys(given.values())
        if len(keys := [key for key in COLUMNS if given.get(key, key) == name]) > 1
    ]
    if problems:
        raise ConfigError(problems)
    return given


def _check_columns(path: Path, header: list[str], given: Mapping[str, str], required: Sequence[str]) -> None:
    found = _listed(header)
    names = {name: given.get(name, name) for name in COLUMNS}
    for name in required:
        if names[name] not in header:
            other = next((column for column in header if _usual_name(column) == name), None)
            hint = (
                f" rename {other!r}, or give {_option(name, other)}?" if other else did_you_mean(name, header)
            )
            raise DataError(f"{path} has no column {name!r};{hint} Columns found: {found}; {_NAMING}")
    for column in header:
        wanted = _usual_name(column)
        if wanted and names[wanted] not in header and column not in given.values():
            raise DataError(
                f"{path} has a column {column!r} and none called {wanted!r}; rename it {wanted!r} or give "
                f"{_option(wanted, column)} to use it, or rename it to something else to have it ignored; "
                f"{_NAMING}"
            )
    twice = [name for name in names.values() if header.count(name) > 1]
    if twice:
        raise DataError(f"{path} has the column {twice[0]!r} twice; columns found: {found}")


def _option(name: str, column: str) -> str:
    """As it is typed on a command line."""
    return shlex.quote(f"column.{name}={column}")


def _usual_name(column: str) -> str | None:
    return OTHER_NAMES.get(re.sub(r"[\W_]", "", column))


def _known(row: Row, names: Mapping[str, str]) -> Row:
    return {name: row.get(column, "") for name, column in names.items()}


def _row_problems(row: Row, folder: Path, found: Table) -> Iterable[str]:
    if not row["path"]:
        yield "path is empty"
    elif not is_file(folder / row["path"]):
        yield f"there is no file {shown(str(folder / row['path']))}"
    for name in ("identity", "camera"):
        try:
            label_text(row.get(name))
        except DataError as error:
            yield f"{name} {error}"
    if _part(row) is None:
        split = row["split"].casefold()
        yield (f"unknown split {shown(split)};{did_you_mean(split, PARTS)} Splits: {', '.join(PARTS)}, test")
    for name in ("tracklet", "frame"):
        if row.get(name) and _integer(row[name]) is None:
            yield f"{name} {shown(row[name])} is not an integer from 0 on"
    if row.get("time") and _seconds(row["time"], found.decimal_comma) is None:
        yield f"time {shown(row['time'])} is not a number of seconds, nor a time such as 2024-05-01T10:00"


def _as_on_disk(folder: Path, name: str) -> str:
    """A path as the file system has it: a list made on a Mac has accents in another form than its files
    elsewhere, and one made on Windows has backslashes."""
    forms = [name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]
    forms += [form.replace("\\", "/") for form in forms]
    return next((form for form in dict.fromkeys(forms) if is_file(folder / form)), name)


def _camera_problems(rows: dict[int, Row]) -> list[tuple[int, str]]:
    """Cameras left out, and odd ones among numbers: a slip of the pen would become a camera of its own."""
    cameras = {number: row.get("camera", "") for number, row in rows.items()}
    known = [camera for camera in cameras.values() if not is_junk(camera)]
    num_numbers = sum(map(_is_integer, known))
    problems = []
    for number, camera in cameras.items():
        if not camera and any(cameras.values()):
            problems.append((number, "camera is empty; write -1 where it is not known"))
        elif camera and not _is_integer(camera) and 2 * num_numbers > len(known):
            problems.append((number, f"camera {shown(camera)} is not an integer, as the others are"))
    return problems


def _is_integer(camera: str) -> bool:
    """Whether it is a number, with leading zeros or without."""
    return is_number(camera, as_float=True) or camera.isdecimal()


def _part(row: Row) -> str | None:
    return part_of(row["split"]) if "split" in row else "train"


def _fields(row: Row, decimal_comma: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {name: row[name] for name in ("identity", "camera") if row.get(name)}
    fields |= {name: _integer(row[name]) for name in ("tracklet", "frame") if row.get(name)}
    if row.get("time"):
        fields["time"] = _seconds(row["time"], decimal_comma)
    return fields


def _integer(text: str) -> int | None:
    """A number from 0 on; programs that met an empty cell write 3.0."""
    number = re.fullmatch(r"([0-9]{1,18})(?:\.0+|,0)?", text)
    return int(number[1]) if number else None


def _seconds(text: str, decimal_comma: bool) -> float | None:
    time = _time(text, decimal_comma)
    if isinstance(time, datetime):
        time = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    return time if time is not None and math.isfinite(time) and abs(time) < LAST_SECOND else None


def _time(text: str, decimal_comma: bool) -> float | datetime | None:
    """A number of seconds, or a time of the calendar."""
    try:
        return float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            return None


def _without_offset(path: Path, found: Table, rows: Iterable[Row]) -> list[str]:
    """A sentence on times that do not say in which zone they are; a warning where others do."""
    times = [_time(row["time"], found.decimal_comma) for row in rows if row.get("time")]
    dates = [time for time in times if isinstance(time, datetime)]
    num_naive = sum(time.tzinfo is None for time in dates)
    if num_naive in (0, len(dates)):
        return ["times: as UTC, since they have no offset such as +02:00"] if num_naive else []
    sentence = (
        f"times: {num_naive:,} of {len(dates):,} have no offset, unlike the others, and are read as UTC"
    )
    logger.warning("%s: %s; give each one, such as +02:00", path, sentence)
    return [sentence]


def _bad_rows(path: Path, problems: list[tuple[int, str]]) -> str:
    num_bad = len({number for number, _ in problems})
    shown = [f"row {number}: {problem}" for number, problem in sorted(problems)[:NUM_SHOWN]]
    more = f"; and {len(problems) - NUM_SHOWN} more problems" if len(problems) > NUM_SHOWN else ""
    return (
        f"{path} has bad rows, {num_bad} in all (the header is row 1): {'; '.join(shown)}{more}; "
        "mend them or take them out"
    )


def _listed(header: list[str]) -> str:
    return shortened(", ".join(header), 200) or "none"
