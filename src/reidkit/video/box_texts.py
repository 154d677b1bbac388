"""Boxes as text: MOT's file for a whole video, and a file for each frame as Ultralytics writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, shown
from reidkit.texts.foreign import read_text
from reidkit.video.boxes import (
    NO_CLASS,
    NO_TRACK,
    Boxes,
    BoxesOptions,
    PictureSize,
    make_boxes,
    whole_numbers,
)

_MOT_COLUMNS = "frame, track, left, top, width, height, confidence[, class, visibility]"
_GT_COLUMNS = (8, 9)  # with a class; detections have 7, or 10 of which the last are -1
_ULTRALYTICS_COLUMNS = (
    "class, centre x, centre y, width, height[, confidence][, track], as shares of the picture"
)


def read_mot(path: Path, options: BoxesOptions, size: PictureSize) -> Boxes:
    """MOT text: ``frame, track, left, top, width, height, confidence``, frames from 1, track -1 for none.

    With 8 or 9 columns it is a ground truth: the seventh is 0 for what is to be ignored, which is left out,
    and the class and how much is visible follow. (MOTChallenge, Milan et al. 2016, section 3.3.)
    """
    rows = _numbers(path, separator=",")
    if not len(rows):
        return make_boxes([], [], source=str(path), reading=["no boxes"])
    num_columns = rows.shape[1]
    if num_columns < 6:
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
    parts: list[NDArray[np.float64]] = []
    for file in files:
        digits = re.findall(r"[0-9]+", file.stem)
        if not digits:
            raise DataError(f"{file} has no number in its name that would tell its frame")
        rows = _numbers(file, separator=None)
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
    tracks, confidences = _sixth_and_seventh(rows, folder)
    x, y, width, height = (rows[:, 1:5] * np.tile(size, 2)).T
    return make_boxes(
        frames,
        np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1),
        tracks=tracks,
        confidences=confidences,
        classes=whole_numbers(rows[:, 0], f"{folder}: class") if len(rows) else np.full(0, NO_CLASS),
        source=str(folder),
        reading=[f"Ultralytics text, {len(files):,} files, frames counted from {first}"],
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


def _numbers(path: Path, *, separator: str | None) -> NDArray[np.float64]:
    """All numbers of a text (lines, columns); (0, 0) of an empty one."""
    lines = [line for line in read_text(path).splitlines() if line.strip()]
    if not lines:
        return np.empty((0, 0))
    if separator is not None and separator not in lines[0]:
        separator = None  # white space, as some tools write
    try:
        return np.loadtxt(lines, delimiter=separator, ndmin=2, comments=None)
    except ValueError:
        _tell_bad_line(path, lines, separator)


def _tell_bad_line(path: Path, lines: Sequence[str], separator: str | None) -> NoReturn:
    num_columns = len(lines[0].split(separator))
    for number, line in enumerate(lines, start=1):
        cells = line.split(separator)
        if len(cells) != num_columns:
            raise DataError(f"{path}, row {number}: {len(cells)} numbers, but {num_columns} in the first row")
        for cell in cells:
            try:
                float(cell)
            except ValueError:
                raise DataError(f"{path}, row {number}: {shown(cell.strip())} is no number") from None
    raise DataError(f"{path} cannot be read as a text of numbers")
