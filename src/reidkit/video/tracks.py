"""From boxes to tracks: those of the file, or ByteTrack's where it has none.

Tracks are found before any picture is read: they follow from the boxes alone. So it is known from the start
which frames are needed, and work that was interrupted goes on at the right one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra
from reidkit.logs import get_logger
from reidkit.video.boxes import NO_TRACK, UNUSABLE, Boxes, faults_of
from reidkit.video.crops import MOST_BOXES

_logger = get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """Boxes of one person, one after the other. ``rows`` are their places, in the order of frames."""

    number: int
    rows: NDArray[np.intp]
    first: int
    last: int


def usable_boxes(boxes: Boxes, *, width: int, height: int) -> Boxes:
    """Without those that cannot be used; how many these are, and why, is told."""
    faults = faults_of(boxes, width=width, height=height)
    counts = [
        f"{np.count_nonzero(faults == number):,} {fault}"
        for number, fault in enumerate(UNUSABLE, start=1)
        if (faults == number).any()
    ]
    if counts:
        _logger.warning("%s: boxes left out: %s; see `reid check video`", boxes.source, ", ".join(counts))
        boxes = boxes.take(faults == 0)
    twice = _same_as_another(boxes)
    if twice.any():
        _logger.warning("%s: %d boxes left out that are there twice", boxes.source, np.count_nonzero(twice))
        boxes = boxes.take(~twice)
    return boxes


def _same_as_another(boxes: Boxes) -> NDArray[np.bool_]:
    """Boxes without a track that are like an earlier one of their frame: two people are never so; (N,)."""
    _, first = np.unique(np.column_stack([boxes.frames, boxes.corners]), axis=0, return_index=True)
    twice: NDArray[np.bool_] = boxes.tracks == NO_TRACK
    twice[first] = False
    return twice


def find_tracks(
    boxes: Boxes, *, rate: float, confidence: float = 0.5, lost_seconds: float = 1.0, min_boxes: int = 3
) -> list[Track]:
    """The tracks of boxes that can all be used, in the order in which they end.

    Args:
        boxes: with tracks, which are then taken as they are, or without.
        rate: frames a second.
        confidence: of a box with which a track may begin; weaker ones only go on with one.
        lost_seconds: how long a person may be without a box.
        min_boxes: what has fewer is no track.

    Raises:
        DataError: one track has two boxes in a frame.
        MissingExtra: ``trackers`` is not installed, and is needed.
    """
    is_tracked = boxes.has_tracks
    if not is_tracked:
        if len(boxes) and boxes.confidences.max() > 1:
            _logger.warning(
                "%s: confidences go up to %.3g, beyond 1; say with confidence from which on a track may "
                "begin (%g)",
                *(boxes.source, boxes.confidences.max(), confidence),
            )
        boxes = _tracked(boxes, rate=rate, confidence=confidence, lost_seconds=lost_seconds)
    elif (boxes.tracks == NO_TRACK).any():
        num = np.count_nonzero(boxes.tracks == NO_TRACK)
        _logger.warning("%s: %d boxes have no track, while others do, and are left out", boxes.source, num)
    rows = np.flatnonzero(boxes.tracks != NO_TRACK)
    rows = rows[np.lexsort((boxes.frames[rows], boxes.tracks[rows]))]
    numbers = boxes.tracks[rows]
    _check_one_place(boxes, rows)
    parts = np.split(rows, np.flatnonzero(np.diff(numbers)) + 1) if len(rows) else []
    tracks = [
        Track(int(boxes.tracks[part[0]]), part, int(boxes.frames[part[0]]), int(boxes.frames[part[-1]]))
        for part in parts
        if len(part) >= min_boxes
    ]
    if len(boxes) and not tracks:
        _logger.warning(
            "%s: %d boxes, but no track: a track has %d boxes or more%s",
            *(boxes.source, len(boxes), min_boxes),
            f", and begins with a box of confidence {confidence:g} or more; the surest here has "
            f"{boxes.confidences.max():.3g}: give a lower confidence"
            if not is_tracked
            else "",
        )
    return sorted(tracks, key=lambda track: (track.last, track.number))


def _check_one_place(boxes: Boxes, rows: NDArray[np.intp]) -> None:
    same = (np.diff(boxes.frames[rows]) == 0) & (np.diff(boxes.tracks[rows]) == 0)
    if same.any():
        row = rows[int(np.flatnonzero(same)[0])]
        raise DataError(
            f"{boxes.source}: track {boxes.tracks[row]} has two boxes in frame {boxes.frames[row]}"
            f"{f', and {same.sum() - 1:,} more such' if same.sum() > 1 else ''}; a track is one person under "
            "one camera: give each camera's boxes in a file of their own, or make the tracks anew"
        )


def _tracked(boxes: Boxes, *, rate: float, confidence: float, lost_seconds: float) -> Boxes:
    """The boxes with the tracks that ByteTrack finds (Zhang et al., ECCV 2022), by motion alone."""
    tracker = byte_tracker(rate=rate, confidence=confidence, lost_seconds=lost_seconds)
    tracks = np.full(len(boxes), NO_TRACK)
    for frame, rows in boxes.by_frame():
        if len(rows) > MOST_BOXES:
            raise DataError(
                f"{boxes.source}: frame {frame} has {len(rows):,} boxes; at most {MOST_BOXES:,} people are "
                "followed in one picture: let the detector keep only boxes it is sure of"
            )
        tracks[rows] = tracker(boxes.corners[rows], boxes.confidences[rows], frame / rate)
    return Boxes(
        boxes.frames, boxes.corners, tracks, boxes.confidences, boxes.classes, boxes.source, boxes.reading
    )


def byte_tracker(*, rate: float, confidence: float = 0.5, lost_seconds: float = 1.0) -> Any:
    """A function of corners (N, 4), confidences (N,) and a time in seconds to tracks (N,), frame by frame.

    Raises :class:`MissingExtra` where ``trackers`` is not installed.
    """
    try:
        import supervision
        from trackers import ByteTrackTracker
    except ImportError:
        raise MissingExtra("trackers", extra="video", needed_for="following people") from None
    tracker = ByteTrackTracker(
        lost_track_buffer=max(1, round(30 * lost_seconds)),  # in frames at 30 a second, whatever the rate
        frame_rate=rate,
        track_activation_threshold=confidence,
        high_conf_det_threshold=confidence,
        minimum_consecutive_frames=2,
    )

    def follow(corners: Any, confidences: Any, time: float) -> NDArray[np.int64]:
        num = len(corners)
        found = tracker.update(
            supervision.Detections(
                np.asarray(corners, np.float64).reshape(-1, 4),
                confidence=np.asarray(confidences, np.float64),
                class_id=np.arange(num),  # to find each box again: they come back in another order
            ),
            timestamp=time,
        )
        tracks = np.full(num, NO_TRACK, np.int64)
        if found.class_id is not None:
            tracks[found.class_id] = np.asarray(found.tracker_id)
        return tracks

    return follow
