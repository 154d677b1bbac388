"""Boxes in a table: CSV or Parquet with columns of one's own, or as supervision's CSV sink writes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets._table_files import TABLE_SUFFIXES, Table, column_name, read_table
from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.labels import read_labels
from reidkit.video.boxes import (
    NO_CLASS,
    NO_TRACK,
    Boxes,
    BoxesOptions,
    PictureSize,
    make_boxes,
    whole_numbers,
)

__all__ = ["TABLE_SUFFIXES", "boxes_of_table", "read_box_table"]

KEYS = ("frame", "left", "top", "right", "bottom", "width", "height", "track", "confidence", "class")
_OTHER_NAMES = {
    **dict.fromkeys(("frame", "frameindex", "frameidx", "framenumber", "frameid", "imageindex"), "frame"),
    **dict.fromkeys(("left", "x", "x1", "xmin", "bbleft", "xtopleft"), "left"),
    **dict.fromkeys(("top", "y", "y1", "ymin", "bbtop", "ytopleft"), "top"),
    **dict.fromkeys(("right", "x2", "xmax"), "right"),
    **dict.fromkeys(("bottom", "y2", "ymax"), "bottom"),
    **dict.fromkeys(("width", "w", "bbwidth"), "width"),
    **dict.fromkeys(("height", "h", "bbheight"), "height"),
    **dict.fromkeys(("track", "trackid", "trackerid", "tracklet", "objectid", "id"), "track"),
    **dict.fromkeys(("confidence", "conf", "score"), "confidence"),
    **dict.fromkeys(("class", "classid", "category", "categoryid"), "class"),
}
_KEY_OF = {"x": "left", "y": "top"}  # as people write column.x=...
_NUM_SHOWN = 5


def read_box_table(path: Path, options: BoxesOptions, size: PictureSize) -> Boxes:
    """A table, a box a row; columns by their usual names, or as ``options.column`` says."""
    given = {_KEY_OF.get(key, key): column_name(str(name)) for key, name in (options.column or {}).items()}
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        close = did_you_mean(str(unknown[0]), KEYS)
        raise ConfigError(f"column has no key {shown(unknown[0])};{close} Keys: {', '.join(KEYS)}")
    table = read_table(path, _all_roles(path, given))
    return boxes_of_table(table, options, given=given, source=str(path))


def boxes_of_table(table: Table, options: BoxesOptions, *, given: Mapping[str, str], source: str) -> Boxes:
    """Boxes of rows of text; ``given`` are columns by key where they have names of their own."""
    names = _columns(table.header, given, source)
    if table.problems:
        number, problem = table.problems[0]
        raise DataError(f"{source} has {len(table.problems):,} bad rows; row {number}: {problem}")
    columns = {key: [row.get(name, "") for row in table.rows.values()] for key, name in names.items()}
    rows = list(table.rows)
    numbers = {
        key: _floats(texts, f"{source}, column {names[key]}", rows, decimal_comma=table.decimal_comma)
        for key, texts in columns.items()
        if key != "track"
    }
    left, top = numbers["left"], numbers["top"]
    right = numbers["right"] if "right" in numbers else left + numbers["width"]
    bottom = numbers["bottom"] if "bottom" in numbers else top + numbers["height"]
    first = options.first_frame or 0
    frames = whole_numbers(numbers["frame"], f"{source}, column {names['frame']}:")
    unread = [name for name in table.header if name and name not in names.values()]
    return make_boxes(
        frames - first,
        np.stack([left, top, right, bottom], axis=1),
        tracks=_tracks(columns["track"], source) if "track" in columns else None,
        confidences=np.nan_to_num(numbers["confidence"], nan=1) if "confidence" in numbers else None,
        classes=_classes(numbers["class"], source) if "class" in numbers else None,
        source=source,
        reading=[
            f"a table, frames counted from {first}; columns {', '.join(names.values())}",
            *([f"columns that are not read: {shortened(', '.join(unread), 200)}"] if unread else []),
        ],
    )


def _all_roles(path: Path, given: Mapping[str, str]) -> dict[str, str]:
    """What Parquet columns are to be read: those named, and all usual names."""
    if path.suffix.lower() != ".parquet":
        return {}
    from pyarrow.parquet import read_schema

    try:
        header = [column_name(name) for name in read_schema(path).names]
    except (OSError, ValueError):
        return {}  # reading the whole says what is wrong
    return {name: "number" for name in header if _usual(name) or name in given.values()}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name)


def _usual(name: str) -> str | None:
    return _OTHER_NAMES.get(_plain(name))


def _columns(header: list[str], given: Mapping[str, str], source: str) -> dict[str, str]:
    found = shortened(", ".join(header), 200) or "none"
    if header and all(re.fullmatch(r"-?[0-9.]+", name) for name in header):
        raise DataError(
            f"{source} has no names of columns in its first row; if it is MOT's text, call it .txt"
        )
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{source} has two columns {shown(twice)}; rename the one that is not meant")
    for key, name in given.items():
        if name not in header:
            close = did_you_mean(name, header)
            raise ConfigError(
                f"{source} has no column {shown(name)}, given as column.{key};{close} Found: {found}"
            )
    names = dict(given)
    order = list(_OTHER_NAMES)
    free = [name for name in header if _usual(name) and name not in given.values()]
    for name in sorted(free, key=lambda name: order.index(_plain(name))):  # "track_id" before "id"
        names.setdefault(str(_usual(name)), name)
    for key, other in (("frame", ""), ("left", ""), ("top", ""), ("right", "width"), ("bottom", "height")):
        if key not in names and other not in names:
            raise DataError(
                f"{source} has no column {key!r}{f' or {other!r}' if other else ''}; name it by "
                f"--column {key}=NAME, in Python column={{{key!r}: NAME}}. Columns found: {found}"
            )
    return names


def _floats(texts: list[str], what: str, rows: list[int], *, decimal_comma: bool) -> NDArray[np.float64]:
    cells = [text.replace(",", ".") for text in texts] if decimal_comma else texts
    values = np.full(len(cells), np.nan)
    problems = []
    for place, cell in enumerate(cells):
        try:
            values[place] = float(cell) if cell else np.nan
        except ValueError:
            problems.append(f"row {rows[place]}: {shown(texts[place])}")
    if problems:
        more = f"; and {len(problems) - _NUM_SHOWN:,} more" if len(problems) > _NUM_SHOWN else ""
        raise DataError(f"{what}: no numbers: {'; '.join(problems[:_NUM_SHOWN])}{more}")
    return values


def _classes(values: NDArray[np.float64], source: str) -> NDArray[np.int64]:
    return whole_numbers(np.where(np.isnan(values), NO_CLASS, values), f"{source}: class")


def _tracks(texts: list[str], source: str) -> NDArray[np.int64]:
    codes = read_labels(texts, what=f"tracks of {source}", junk=True).codes
    return np.array([NO_TRACK if code is None else code for code in codes], np.int64)
