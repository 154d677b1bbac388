"""Boxes as text: MOT's file for a whole video, and a file for each frame as Ultralytics writes them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, shown
from reidkit.files import open_regular
from reidkit.texts.foreign import decoded, read_text
from reidkit.video.boxes import (
    LARGEST_SHARE,
    NO_CLASS,
    NO_TRACK,
    Boxes,
    BoxesOptions,
    PictureSize,
    make_boxes,
    whole_numbers,
)

_MOT_COLUMNS = "frame, track, left, top, width, height, confidence[, class, visibility]"
_HEAD = 65_536  # bytes
_GT_COLUMNS = (8, 9)  # with a class; detections have 7, or 10 of which the last are -1
_ULTRALYTICS_COLUMNS = (
    "class, centre x, centre y, width, height[, confidence][, track], as shares of the picture"
)


def read_mot(path: Path, options: BoxesOptions, size: PictureSize) -> Boxes:
    """MOT text: ``frame, track, left, top, width, height, confidence``, frames from 1, track -1 for none.

    With 8 or 9 columns it is a ground truth: the seventh is 0 for what is to be ignored, which is left out,
    and the class and how much is visible follow. (MOTChallenge, Milan et al. 2016, section 3.3.)
    """
    rows = _numbers(path, separators=";,")
    if not len(rows):
        return make_boxes([], [], source=str(path), reading=["no boxes"])
    num_columns = rows.shape[1]
    if not 6 <= num_columns <= 10:
        raise DataError(f"{path} has {num_columns} columns; expected MOT's {_MOT_COLUMNS}")
    first = 1 if options.first_frame is None else options.first_frame
    reading = [f"MOT text, frames counted from {first}"]
    kept = np.ones(len(rows), bool)
    if num_columns in _GT_COLUMNS:
        kept = rows[:, 6] != 0
        if not kept.all():
            reading.append(f"{np.count_nonzero(~kept):,} boxes marked as to be ignored left out")
    rows = rows[kept]
    left, top, width, height = rows[:, 2:6].T
    return make_boxes(
        whole_numbers(rows[:, 0], f"{path}: frame") - first,
        np.stack([left, top, left + width, top + height], axis=1),
        tracks=np.maximum(whole_numbers(rows[:, 1], f"{path}: track"), NO_TRACK),
        confidences=rows[:, 6] if num_columns > 6 and num_columns not in _GT_COLUMNS else None,
        classes=whole_numbers(rows[:, 7], f"{path}: class") if num_columns in _GT_COLUMNS else None,
        source=str(path),
        reading=reading,
    )


def read_folder(folder: Path, options: BoxesOptions, size: PictureSize) -> Boxes:
    """Ultralytics' text: a file for each frame that has boxes, ``NAME_12.txt``, frames from 1."""
    files = sorted(folder.glob("*.txt"))
    if not files:
        raise DataError(f"{folder} holds no .txt; expected one for each frame, as Ultralytics writes them")
    first = 1 if options.first_frame is None else options.first_frame
    frames: list[int] = []
    file_of: dict[int, Path] = {}
    parts: list[NDArray[np.float64]] = []
    for file in files:
        digits = re.findall(r"[0-9]+", file.stem)
        if not digits:
            raise DataError(f"{file} has no number in its name that would tell its frame")
        other = file_of.setdefault(int(digits[-1]), file)
        if other != file:
            raise DataError(
                f"{folder} has two files of frame {int(digits[-1])}, {other.name} and {file.name}; give each "
                "video's files in a folder of their own"
            )
        rows = _numbers(file, separators=";,")
        if not len(rows):
            continue
        if not 5 <= rows.shape[1] <= 7:
            raise DataError(
                f"{file} has {rows.shape[1]} columns; expected {_ULTRALYTICS_COLUMNS}"
                + ("; outlines cannot be used, write boxes" if rows.shape[1] > 7 else "")
            )
        frames += [int(digits[-1]) - first] * len(rows)
        parts.append(np.pad(rows, ((0, 0), (0, 7 - rows.shape[1])), constant_values=np.nan))
    rows = np.concatenate(parts) if parts else np.empty((0, 7))
    if len(rows) and np.nanmax(np.abs(rows[:, 1:5]), initial=0) > LARGEST_SHARE:
        raise DataError(
            f"{folder}: {shown(float(np.nanmax(np.abs(rows[:, 1:5]))))} is no share of the picture; expected "
            f"{_ULTRALYTICS_COLUMNS}"
        )
    tracks, confidences = _sixth_and_seventh(rows, folder)
    found = (
        f"{'no' if tracks is None else 'with'} tracks, {'no' if confidences is None else 'with'} confidences"
    )
    x, y, width, height = (rows[:, 1:5] * np.tile(size, 2)).T
    return make_boxes(
        frames,
        np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1),
        tracks=tracks,
        confidences=confidences,
        classes=whole_numbers(rows[:, 0], f"{folder}: class") if len(rows) else np.full(0, NO_CLASS),
        source=str(folder),
        reading=[f"Ultralytics text, {len(files):,} files, frames counted from {first}, {found}"],
    )


def _sixth_and_seventh(
    rows: NDArray[np.float64], folder: Path
) -> tuple[NDArray[np.int64] | None, NDArray[np.float64] | None]:
    """Tracks and confidences; a single one of them is a track if all its numbers are whole."""
    sixth, seventh = rows[:, 5], rows[:, 6]
    if np.isnan(sixth).all():
        return None, None
    if not np.isnan(seventh).all():
        return whole_numbers(
            np.where(np.isnan(seventh), NO_TRACK, seventh), f"{folder}: track"
        ), np.nan_to_num(sixth, nan=1)
    known = sixth[~np.isnan(sixth)]
    if (known == np.round(known)).all():
        return whole_numbers(np.where(np.isnan(sixth), NO_TRACK, sixth), f"{folder}: track"), None
    return None, np.nan_to_num(sixth, nan=1)


def _numbers(path: Path, *, separators: str) -> NDArray[np.float64]:
    """All numbers of a text (lines, columns); (0, 0) of an empty one.

    Numbers stand apart by one of ``separators``, or by white space. Between semicolons they may have decimal
    commas, as spreadsheets write them.
    """
    _parsed(_beginning(path), path, separators)
    return _parsed(read_text(path).splitlines(), path, separators)


def _beginning(path: Path) -> list[str]:
    """The first whole lines of a long file: whether it is a text of numbers is known before it is read."""
    try:
        with open_regular(path) as file:
            content = file.read(_HEAD)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) < _HEAD or content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return []
    return decoded(content[: content.rfind(b"\n") + 1] or content, source=str(path)).splitlines()


def _parsed(lines: Sequence[str], path: Path, separators: str) -> NDArray[np.float64]:
    rows = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not rows:
        return np.empty((0, 0))
    first = next(iter(rows.values()))
    separator = next((sign for sign in separators if sign in first), None)
    if separator is not None:
        rows = {number: line.removesuffix(separator) for number, line in rows.items()}
    if separator == ";":
        rows = {number: line.replace(",", ".") for number, line in rows.items()}
    try:
        return np.loadtxt(list(rows.values()), delimiter=separator, ndmin=2, comments=None)
    except ValueError:
        _tell_bad_line(path, rows, separator)


def _tell_bad_line(path: Path, rows: Mapping[int, str], separator: str | None) -> NoReturn:
    header, *_ = ([cell.strip() for cell in line.split(separator)] for line in rows.values())
    if not any(map(_is_number, header)) and len(rows) > 1:
        raise DataError(
            f"{path} begins with {shown(', '.join(header))}, no numbers; if these are the names of columns, "
            "call the file .csv: there columns are found by their names"
        )
    for number, line in rows.items():
        cells = line.split(separator)
        if len(cells) != len(header):
            raise DataError(f"{path}, row {number}: {len(cells)} numbers, but {len(header)} in the first row")
        wrong = next((cell.strip() for cell in cells if not _is_number(cell)), None)
        if wrong is not None:
            raise DataError(f"{path}, row {number}: {shown(wrong)} is no number")
    raise DataError(f"{path} cannot be read as a text of numbers")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
