"""Tracks as files: a table, MOT's text, or the video with a box and a name around everybody."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reidkit.errors import ConfigError, DataError, MissingExtra, shown
from reidkit.files import WriteError, write_atomically
from reidkit.logs import get_logger
from reidkit.video.frames import Picture, av_library
from reidkit.video.tracking import Tracked
from reidkit.video.view import View

_logger = get_logger(__name__)
_CONTAINERS = {".mp4": "mp4", ".mkv": "matroska", ".mov": "mov"}
_ENDINGS = (".csv", ".txt", *_CONTAINERS)
_COLUMNS = (
    "camera",
    "video",
    "frame",
    "time",
    "left",
    "top",
    "right",
    "bottom",
    "confidence",
    "tracklet",
    "identity",
)
_SHORTEST_STEP = 1  # between two pictures of an annotated video, in milliseconds


class _Named(NamedTuple):
    """A box of somebody: its place, and the tracklet."""

    row: int
    tracklet: str


def check_outputs(paths: Sequence[str | Path]) -> None:
    """Raise :class:`ConfigError` for a file whose ending says nothing that can be written."""
    for path in paths:
        if Path(path).suffix.lower() not in _ENDINGS:
            raise ConfigError(f"{shown(str(path))}: give a file that ends in {', '.join(_ENDINGS)}")


def write_outputs(tracked: Tracked, path: str | Path) -> list[Path]:
    """Write tracks, as the ending says; the files.

    ``.csv`` is one table of all cameras, frames counted from 0; ``.txt`` is MOT's text (frames from 1,
    tracklets numbered from 1), ``.mp4``, ``.mkv`` and ``.mov`` the video with boxes and names; both are a
    file for each camera, whose name is added where there are several.

    Raises:
        ConfigError: another ending.
        WriteError: it cannot be written; what was there is left.
        MissingExtra: supervision is not installed, and a video is to be written.
    """
    check_outputs([path])
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return [write_atomically(path, _table(tracked))]
    written = []
    for number, view in enumerate(tracked.views):
        several = len(tracked.views) > 1
        place = path.with_name(f"{path.stem}-{view.origin.camera}{path.suffix}") if several else path
        rows = _named_boxes(view, tracked.names[number])
        if suffix == ".txt":
            write_atomically(place, _mot(view, rows))
        else:
            _write_video(place, view, rows, tracked.identities)
        written.append(place)
    return written


def _named_boxes(view: View, names: dict[int, str]) -> list[_Named]:
    """Boxes of tracks that have a name, by frame."""
    named = [
        _Named(row, names[track.number])
        for track in view.tracks
        if track.number in names
        for row in track.rows.tolist()
    ]
    return sorted(named, key=lambda box: (view.boxes.frames[box.row], box.row))


def _table(tracked: Tracked) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for view, names in zip(tracked.views, tracked.names, strict=True):
        for box in _named_boxes(view, names):
            frame = int(view.boxes.frames[box.row])
            time = frame / view.video.rate
            corners = [f"{value:.2f}" for value in view.boxes.corners[box.row].tolist()]
            moment = view.origin.moment(time)
            when = f"{time if moment is None else moment:.3f}"
            writer.writerow(
                [
                    *(view.origin.camera, view.origin.source, frame, when, *corners),
                    *(f"{view.boxes.confidences[box.row]:.4g}", box.tracklet),
                    tracked.identities.get(box.tracklet, ""),
                ]
            )
    return text.getvalue()


def _mot(view: View, boxes: Sequence[_Named]) -> str:
    numbers: dict[str, int] = {}
    lines = []
    for box in boxes:
        number = numbers.setdefault(box.tracklet, len(numbers) + 1)
        left, top, right, bottom = view.boxes.corners[box.row].tolist()
        place = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
        confidence = view.boxes.confidences[box.row]
        lines.append(f"{view.boxes.frames[box.row] + 1},{number},{place},{confidence:.4g},-1,-1,-1\n")
    return "".join(lines)


def _write_video(path: Path, view: View, boxes: Sequence[_Named], identities: dict[str, str]) -> None:
    annotate = _annotator(view, boxes, identities)
    unfinished = path.with_name(f".{path.name}.unfinished")
    av = av_library()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(unfinished), "w", format=_CONTAINERS[path.suffix.lower()]) as container:
            _encode(container, _annotated(view, annotate), view)
        unfinished.replace(path)
    except (OSError, av.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WriteError(f"cannot write {path}: {reason}; free some space or choose another place") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _annotated(view: View, annotate: Callable[[int, Picture], Picture]) -> Iterator[tuple[float, Picture]]:
    for frame in view.video.frames():
        try:
            picture = frame.image
        except DataError as error:  # one damaged picture of a folder
            _logger.warning("frame %d is left out: %s", frame.number, error)
            continue
        yield frame.time, annotate(frame.number, picture)


def _encode(container: Any, pictures: Iterator[tuple[float, Picture]], view: View) -> None:
    """H.264 at the times of the pictures, whose sizes are made even."""
    av = av_library()
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    rate = Fraction(view.video.rate).limit_denominator(1001)
    stream = container.add_stream(
        codec, rate=rate, options={"preset": "veryfast"} if codec == "libx264" else {}
    )
    stream.width, stream.height = view.video.width // 2 * 2, view.video.height // 2 * 2
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, 1000)
    last = -_SHORTEST_STEP
    for time, picture in pictures:
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture[: stream.height, : stream.width]), format="rgb24"
        )
        last = max(round(1000 * time), last + _SHORTEST_STEP)
        frame.pts, frame.time_base = last, Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _annotator(
    view: View, boxes: Sequence[_Named], identities: dict[str, str]
) -> Callable[[int, Picture], Picture]:
    """Draws the boxes of a frame with supervision: one colour and one name a person."""
    try:
        import supervision
    except ImportError:
        raise MissingExtra("supervision", extra="video", needed_for="drawing boxes") from None
    colours: dict[str, int] = {}
    by_frame: dict[int, list[_Named]] = {}
    for box in boxes:
        colours.setdefault(identities.get(box.tracklet, box.tracklet), len(colours))
        by_frame.setdefault(int(view.boxes.frames[box.row]), []).append(box)
    by_track = supervision.ColorLookup.TRACK
    draw_boxes = supervision.BoxAnnotator(color_lookup=by_track)
    draw_names = supervision.LabelAnnotator(color_lookup=by_track, smart_position=True)

    def annotate(number: int, picture: Picture) -> Picture:
        here = by_frame.get(number)
        if not here:
            return picture
        names = [identities.get(box.tracklet, box.tracklet) for box in here]
        detections = supervision.Detections(
            view.boxes.corners[[box.row for box in here]],
            tracker_id=np.array([colours[name] for name in names]),
            class_id=np.zeros(len(here), int),
        )
        scene = np.ascontiguousarray(picture[:, :, ::-1])  # supervision's colours are blue, green, red
        scene = draw_names.annotate(draw_boxes.annotate(scene, detections), detections, labels=names)
        return np.ascontiguousarray(scene[:, :, ::-1])

    return annotate
