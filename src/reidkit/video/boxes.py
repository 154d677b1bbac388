"""Boxes around people in a video, as plain arrays, from whatever detector or tracker made them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, shown
from reidkit.logs import get_logger
from reidkit.registry import option_problems
from reidkit.video.frames import Video

NO_TRACK = -1
NO_CLASS = -1
_NUM_LISTED = 10
_LARGEST = 2**53  # whole numbers of float64 are exact up to it
LARGEST_SHARE = 2.0
"""Of boxes as shares of the picture: they may reach beyond it, but not far."""
_NOT_KNOWN = -1.0  # a confidence, as trackers write it
_logger = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """N boxes, in the order of their frames.

    Attributes:
        frames: int64 (N,), the picture that each is of, from 0.
        corners: float64 (N, 4), left, top, right, bottom in pixels.
        tracks: int64 (N,), equal for boxes of one track; -1 where none is known.
        confidences: float64 (N,), 1 where none is known.
        classes: int64 (N,), as the detector numbers them; -1 where none is known.
        source: the file they come from, for messages.
        reading: sentences on how it was read.
    """

    frames: NDArray[np.int64]
    corners: NDArray[np.float64]
    tracks: NDArray[np.int64]
    confidences: NDArray[np.float64]
    classes: NDArray[np.int64]
    source: str = ""
    reading: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def has_tracks(self) -> bool:
        """Whether any box is of a known track."""
        return bool((self.tracks != NO_TRACK).any())

    def take(self, rows: NDArray[Any], *, reading: Sequence[str] = ()) -> Boxes:
        """Some of the boxes, by their places or by a mask; ``reading`` is said besides."""
        return Boxes(
            self.frames[rows],
            self.corners[rows],
            self.tracks[rows],
            self.confidences[rows],
            self.classes[rows],
            self.source,
            (*self.reading, *reading),
        )

    def by_frame(self) -> Iterator[tuple[int, NDArray[np.intp]]]:
        """Each frame that has boxes, with the places of these."""
        starts = np.flatnonzero(np.diff(self.frames, prepend=-1))
        for start, end in itertools.pairwise([*starts.tolist(), len(self)]):
            yield int(self.frames[start]), np.arange(start, end)


def make_boxes(
    frames: Any,
    corners: Any,
    *,
    tracks: Any = None,
    confidences: Any = None,
    classes: Any = None,
    source: str = "",
    reading: Sequence[str] = (),
) -> Boxes:
    """Boxes of arrays, brought into the order of frames; what is left out is not known.

    Raises :class:`DataError` for other lengths, and for frames below 0.
    """
    numbers = np.asarray(frames, np.int64).reshape(-1)
    places = np.asarray(corners, np.float64).reshape(-1, 4)
    num = len(numbers)
    numbered = np.full(num, NO_TRACK) if tracks is None else np.asarray(tracks, np.int64)
    sure = np.ones(num) if confidences is None else np.asarray(confidences, np.float64)
    kinds = np.full(num, NO_CLASS) if classes is None else np.asarray(classes, np.int64)
    named = {"corners": places, "tracks": numbered, "confidences": sure, "classes": kinds}
    for name, values in named.items():
        if len(values) != num:
            raise DataError(f"{source or 'boxes'}: {len(values)} {name} for {num} boxes")
    if num and numbers.min() < 0:
        raise DataError(
            f"{source or 'boxes'}: a frame is {-numbers.min():,} before the first one; say from which number "
            "they are counted there: --first-frame 0 (in Python first_frame=0), or 1"
        )
    boxes = Boxes(numbers, places, numbered, sure, kinds, source, tuple(reading))
    return boxes.take(np.argsort(numbers, kind="stable"))


def whole_numbers(values: NDArray[np.float64], what: str) -> NDArray[np.int64]:
    """Numbers that are to be whole, and small enough to be exact; :class:`DataError` says which is not."""
    with np.errstate(invalid="ignore"):
        wrong = ~((values == np.round(values)) & (np.abs(values) < _LARGEST))
    if wrong.any():
        more = np.count_nonzero(wrong) - 1
        others = f", as are {more:,} more" if more else ""
        raise DataError(f"{what} {values[wrong][0]:g} is not a whole number{others}")
    return values.astype(np.int64)


def boxes_from_detections(frames: Iterable[Any]) -> Boxes:
    """Boxes of ``supervision.Detections``, one a frame, from the first frame on."""
    found = list(frames)
    counts = [len(detections) for detections in found]

    def joined(name: str, missing: float) -> NDArray[Any]:
        parts = [getattr(detections, name) for detections in found]
        filled = [np.full(n, missing) if p is None else p for p, n in zip(parts, counts, strict=True)]
        return np.concatenate(filled) if filled else np.empty(0)

    corners = [np.asarray(detections.xyxy, np.float64).reshape(-1, 4) for detections in found]
    return make_boxes(
        np.repeat(np.arange(len(found)), counts),
        np.concatenate(corners) if corners else np.empty((0, 4)),
        tracks=joined("tracker_id", NO_TRACK),
        confidences=joined("confidence", 1.0),
        classes=joined("class_id", NO_CLASS),
        source="detections",
    )


@dataclass(frozen=True, slots=True)
class BoxesOptions:
    """How a file of boxes is to be read.

    Attributes:
        first_frame: the number of a video's first picture; ``None`` takes what is usual for the kind of file
            (MOT and Ultralytics: 1; tables and supervision's files: 0).
        column: what a table calls its columns, ``{"left": "xmin"}``.
        classes: the classes to keep; all, if left out, or people where the file says which these are.
        video: which of several videos in a COCO file, by its name; left out, the one called as the video is.
    """

    first_frame: int | None = None
    column: Mapping[str, str] | None = None
    classes: tuple[int, ...] = ()
    video: str | None = None


def given_options(given: Mapping[str, Any]) -> BoxesOptions:
    """:class:`BoxesOptions` of what one typed; :class:`ConfigError` for an unknown name or a wrong value."""
    problems = option_problems(BoxesOptions, given, where="boxes")
    if problems:
        raise ConfigError(problems)
    classes = given.get("classes", ())
    return BoxesOptions(**{**given, "classes": tuple(classes)})


PictureSize: TypeAlias = tuple[int, int]
_Reader: TypeAlias = Callable[[Path, BoxesOptions, PictureSize], Boxes]


def load_boxes(path: str | Path, video: Video, *, options: BoxesOptions | None = None) -> Boxes:
    """Read boxes: MOT text, COCO JSON, supervision's CSV or JSON, a folder of Ultralytics text, or a table.

    Args:
        path: a file, told by its ending and content; or a folder with a text file a frame.
        video: that they are of; boxes may be shares of its pictures.
        options: see :class:`BoxesOptions`.

    Raises:
        DataError: nothing there, or it cannot be read as what it is; the first bad line is told.
        ConfigError: options that do not go with the file.
    """
    place, given = Path(path), options or BoxesOptions()
    if given.video is None:
        given = replace(given, video=video.name)
    boxes = _reader_of(place)(place, given, (video.width, video.height))
    _check_pixels(boxes, str(place))
    if (boxes.confidences == _NOT_KNOWN).all() and len(boxes):
        boxes = replace(boxes, confidences=np.ones(len(boxes)))
    if not given.classes and len(np.unique(boxes.classes)) > 1:
        _logger.warning(
            "%s: boxes of all classes are taken, %s; --class NUMBER, in Python classes=[NUMBER], keeps one",
            *(place, _listed(np.unique(boxes.classes)[:_NUM_LISTED].tolist())),
        )
    if given.classes:
        kept = np.isin(boxes.classes, given.classes)
        if len(boxes) and not kept.any():
            found = ", ".join(map(str, np.unique(boxes.classes)[:_NUM_LISTED].tolist()))
            raise ConfigError(f"no box of {place} is of class {_listed(given.classes)}; there are {found}")
        left_out = f"{np.count_nonzero(~kept):,} boxes of other classes left out"
        boxes = boxes.take(kept, reading=[left_out] if not kept.all() else [])
    return replace(boxes, source=str(place))


def _check_pixels(boxes: Boxes, source: str) -> None:
    """Raise :class:`DataError` where boxes are shares of the picture."""
    finite = boxes.corners[np.isfinite(boxes.corners).all(axis=1)]
    if len(finite) and np.abs(finite).max() <= LARGEST_SHARE:
        raise DataError(
            f"{source}: all boxes lie within {LARGEST_SHARE:g} pixels of the corner, and seem to be shares "
            "of the picture; multiply them by its width and height"
        )


def _reader_of(path: Path) -> _Reader:
    from reidkit.video import box_tables, box_texts, coco_boxes

    if path.is_dir():
        return box_texts.read_folder
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return box_texts.read_mot
    if suffix == ".json":
        return coco_boxes.read_json_boxes
    if suffix in box_tables.TABLE_SUFFIXES:
        return box_tables.read_box_table
    raise DataError(
        f"{shown(str(path))} is no file of boxes; expected .txt (MOT), .json (COCO, supervision), a table "
        f"({', '.join(box_tables.TABLE_SUFFIXES)}), or a folder with a .txt a frame (Ultralytics)"
    )


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, values))


UNUSABLE = ("not a number", "no width or height", "outside the picture", "smaller than a pixel")
"""Why a box cannot be used, by the numbers of :func:`faults_of`, from 1."""


def faults_of(boxes: Boxes, *, width: int, height: int) -> NDArray[np.int8]:
    """For each box 0, or the number of its fault in :data:`UNUSABLE`, counted from 1; (N,)."""
    left, top, right, bottom = boxes.corners.T
    faults = np.zeros(len(boxes), np.int8)
    with np.errstate(invalid="ignore"):
        faults[(right - left < 1) | (bottom - top < 1)] = 4
        faults[(right <= 0) | (bottom <= 0) | (left >= width) | (top >= height)] = 3
        faults[(right <= left) | (bottom <= top)] = 2
    faults[~(np.isfinite(boxes.corners).all(axis=1) & np.isfinite(boxes.confidences))] = 1
    return faults
