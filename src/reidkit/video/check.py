"""What is wrong with a video and its boxes, before people are looked for in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.checks.findings import NUM_EXAMPLES, SEVERITIES, Finding, Severity
from reidkit.errors import DataError
from reidkit.video.boxes import (
    NO_TRACK,
    UNUSABLE,
    Boxes,
    BoxesOptions,
    faults_of,
    load_boxes,
)
from reidkit.video.frames import Video, open_video


@dataclass(frozen=True, slots=True)
class VideoCheck:
    """The result of :func:`check_video`; ``findings`` come worst first."""

    name: str
    width: int
    height: int
    rate: float
    num_frames: int
    seconds: float
    num_boxes: int
    num_tracks: int
    findings: tuple[Finding, ...]
    reading: tuple[str, ...] = ()

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def row(self) -> tuple[str, ...]:
        """The counts as text, under :data:`COLUMNS`."""
        counts = (f"{self.num_frames:,}", f"{self.num_boxes:,}", f"{self.num_tracks:,}")
        return (
            self.name,
            f"{self.width} x {self.height}",
            f"{self.rate:.4g}",
            f"{self.seconds:.1f}",
            *counts,
        )


COLUMNS = ("video", "pixels", "frames/s", "seconds", "frames", "boxes", "tracks")


def check_video(
    source: str | Path,
    boxes: str | Path | None = None,
    *,
    options: BoxesOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VideoCheck:
    """Look at every picture's time, and at every box.

    Args:
        source, boxes, options: as :func:`reidkit.video.frames.open_video` and
            :func:`reidkit.video.boxes.load_boxes` take them.
        progress: called with (pictures, 0) as they are read.

    Raises:
        DataError: the video or the boxes cannot be read at all; a stream, which has no end.
    """
    video = open_video(source)
    if video.is_endless:
        raise DataError(f"{video.name} is a stream, which has no end; check a recording of it")
    found = None if boxes is None else load_boxes(boxes, video, options=options)
    numbers, times = _clock(video, progress)
    findings = [*_clock_findings(numbers, times)]
    if found is not None:
        findings += _box_findings(found, video, numbers)
    return VideoCheck(
        name=str(source),
        width=video.width,
        height=video.height,
        rate=video.rate,
        num_frames=len(numbers),
        seconds=float(times.max()) if len(times) else 0.0,
        num_boxes=0 if found is None else len(found),
        num_tracks=0 if found is None else len(np.unique(found.tracks[found.tracks != NO_TRACK])),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        reading=() if found is None else found.reading,
    )


def _clock(
    video: Video, progress: Callable[[int, int], None] | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Numbers and times of all pictures."""
    numbers, times = [], []
    for frame in video.frames():
        numbers.append(frame.number)
        times.append(frame.time)
        if progress is not None:
            progress(len(numbers), 0)
    return np.array(numbers, np.int64), np.array(times)


def _clock_findings(numbers: NDArray[np.int64], times: NDArray[np.float64]) -> Iterator[Finding]:
    if not len(numbers):
        yield Finding("error", "a video without pictures", 1, (), "Nothing can be decoded; copy it again.")
    back = np.flatnonzero(np.diff(times) <= 0) + 1
    yield from _finding(
        *("error", "frames whose clock does not go forward"),
        [f"frame {numbers[i]}: {times[i]:.3f} s after {times[i - 1]:.3f} s" for i in back[:NUM_EXAMPLES]],
        len(back),
        "Times of sightings would be wrong; write the video anew, such as by `ffmpeg -i IN -c copy OUT`.",
    )
    gaps = np.flatnonzero(np.diff(numbers) > 1) + 1
    yield from _finding(
        *("note", "gaps in the numbers of the pictures"),
        [f"{numbers[i - 1]} is followed by {numbers[i]}" for i in gaps[:NUM_EXAMPLES]],
        len(gaps),
        "Boxes in the gaps have no picture and are left out.",
    )


def _box_findings(boxes: Boxes, video: Video, numbers: NDArray[np.int64]) -> Iterator[Finding]:
    faults = faults_of(boxes, width=video.width, height=video.height)
    for number, fault in enumerate(UNUSABLE, start=1):
        outside = " Were they made on pictures of another size?" if fault == "outside the picture" else ""
        advice = f"They are left out; look at how they were made.{outside}"
        yield from _of_rows("error", f"boxes: {fault}", boxes, faults == number, advice)
    usable = faults == 0
    left, top, right, bottom = boxes.corners.T
    with np.errstate(invalid="ignore"):
        cut = usable & ((left < 0) | (top < 0) | (right > video.width) | (bottom > video.height))
    yield from _of_rows("note", "boxes partly outside the picture", boxes, cut, "They are cut at its border.")
    end = int(numbers.max(initial=-1))
    beyond = boxes.frames > end
    yield from _of_rows(
        *("error", f"boxes of frames beyond the end, which is frame {end}", boxes, beyond),
        "Is it the same video, and are frames counted from 1 or from 0 (first_frame=0)?",
    )
    absent = ~beyond & ~np.isin(boxes.frames, numbers)
    yield from _of_rows(
        "warning", "boxes of frames that have no picture", boxes, absent, "They are left out."
    )
    yield from _track_findings(boxes, usable & ~beyond & ~absent)
    if not len(boxes):
        yield Finding("error", "no boxes", 1, (), "There is nobody to look for; check how they were made.")


def _track_findings(boxes: Boxes, usable: NDArray[np.bool_]) -> Iterator[Finding]:
    tracked = boxes.tracks != NO_TRACK
    empty = np.setdiff1d(boxes.tracks[tracked], boxes.tracks[tracked & usable])
    yield from _finding(
        *("error", "tracks without a box that can be used"),
        [f"track {track}" for track in empty[:NUM_EXAMPLES].tolist()],
        len(empty),
        "Nothing can be embedded for them.",
    )
    rows = np.flatnonzero(tracked)
    order = rows[np.lexsort((boxes.tracks[rows], boxes.frames[rows]))]
    same = (np.diff(boxes.frames[order]) == 0) & (np.diff(boxes.tracks[order]) == 0)
    twice = np.zeros(len(boxes), bool)
    twice[order[1:][same]] = True
    yield from _of_rows(
        *("error", "tracks that are at two places in one frame", boxes, twice),
        "Two people have one number, or two cameras are in one file; make tracks anew, or split the file.",
    )


def _of_rows(
    severity: Severity, title: str, boxes: Boxes, rows: NDArray[np.bool_], advice: str
) -> Iterator[Finding]:
    places = np.flatnonzero(rows)
    examples = [_described(boxes, place) for place in places[:NUM_EXAMPLES].tolist()]
    yield from _finding(severity, title, examples, len(places), advice)


def _finding(
    severity: Severity, title: str, examples: list[str], count: int, advice: str
) -> Iterator[Finding]:
    if count:
        yield Finding(severity, title, count, tuple(examples), advice)


def _described(boxes: Boxes, row: int) -> str:
    corners = ", ".join(f"{value:g}" for value in boxes.corners[row].tolist())
    track = "" if boxes.tracks[row] == NO_TRACK else f", track {boxes.tracks[row]}"
    return f"frame {boxes.frames[row]}{track}: {corners}"
