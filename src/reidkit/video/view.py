"""One camera's video and its boxes, and the best pictures of each track in it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Set
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.logs import get_logger
from reidkit.video.boxes import Boxes
from reidkit.video.crops import cut, difference, lie_of, look, sharpness
from reidkit.video.frames import Frame, Picture, Video
from reidkit.video.joining import Stay
from reidkit.video.options import TrackOptions
from reidkit.video.tracks import Track, find_tracks, usable_boxes

_logger = get_logger(__name__)
_CANDIDATES = 3  # for each picture that is embedded, so many are looked at
_LEAST_DIFFERENCE = 3.0  # of 255 levels: a picture that differs less from a better one tells nothing more


@dataclass(frozen=True, slots=True)
class Origin:
    """Where tracks come from: one camera's video.

    ``start`` is the time of the first picture in Unix seconds, if known; ``plan`` names all that decides
    which tracks there are and which pictures are taken.
    """

    source: str
    camera: int | str
    start: float | None
    plan: str

    def moment(self, time: float) -> float | None:
        """Unix seconds of a time in the video, where its start is known."""
        return None if self.start is None else self.start + time

    def tracklet(self, number: int, began: float, *, name: str) -> str:
        """The name of a track, unlike that of any other: camera, when it began, number.

        ``name`` stands for the time where that is not known.
        """
        moment = self.moment(began)
        began_at = name if moment is None else f"{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%S}"
        return f"{self.camera}_{began_at}_{number}"


@dataclass(slots=True, eq=False)
class Crop:
    """A picture of a person within ``box`` (left, top, right, bottom); ``quality`` is from 0 to 1."""

    frame: int
    time: float
    box: tuple[float, ...]
    quality: float
    pixels: Picture


@dataclass(slots=True, eq=False)
class SeenTrack:
    """A track that has ended, with its best pictures."""

    view: View
    track: Track
    crops: list[Crop]

    @property
    def ended(self) -> float:
        """When the track ended, in seconds: Unix's where the video's start is known, else the video's."""
        return (self.view.origin.start or 0.0) + self.track.last / self.view.video.rate


class _Candidate(NamedTuple):
    """A box whose picture may be taken: of which track, for which of its places, how well it lies."""

    track: int
    place: int
    row: int
    lie: float


@dataclass(slots=True, eq=False)
class View:
    """What one camera saw: a video, the boxes in it that can be used, and the tracks that they make."""

    origin: Origin
    video: Video
    boxes: Boxes
    tracks: list[Track]
    options: TrackOptions
    num_given: int
    num_frames: int = 0
    _candidates: dict[int, list[_Candidate]] = field(default_factory=dict)

    @property
    def num_planned(self) -> int:
        """Frames up to the end of the last track."""
        return max((track.last for track in self.tracks), default=-1) + 1

    def tracklet(self, track: Track) -> str:
        """The name of a track that continues no other."""
        return self.origin.tracklet(track.number, track.first / self.video.rate, name=self.video.name)

    def stay(self, track: Track, embedding: NDArray[np.float32]) -> Stay:
        """When and where a track was in the video."""
        rate, corners = self.video.rate, self.boxes.corners
        ends = corners[track.rows[0]], corners[track.rows[-1]]
        return Stay(track.first / rate, track.last / rate, *ends, embedding)

    def seen_tracks(self, done: Set[int], *, read: Callable[[Frame], None]) -> Iterator[SeenTrack]:
        """The tracks that are not done yet, with their best pictures, in the order in which they end.

        Only frames between the first and the last of these are decoded; of people in sight a few pictures
        are held. ``read`` is told each frame.
        """
        waiting = [track for track in self.tracks if track.number not in done]
        held: dict[int, dict[int, list[Crop]]] = {track.number: defaultdict(list) for track in waiting}
        place = 0
        for frame in self.video.frames(min(track.first for track in waiting)) if waiting else ():
            read(frame)
            self.num_frames += 1
            for candidate in self._candidates.get(frame.number, ()):
                crop = self._crop(frame, candidate) if candidate.track in held else None
                if crop is not None:
                    held[candidate.track][candidate.place].append(crop)
            while place < len(waiting) and waiting[place].last <= frame.number:
                yield SeenTrack(self, waiting[place], best_of(held.pop(waiting[place].number)))
                place += 1
            if place == len(waiting):
                return
        for track in waiting[place:]:  # the video ended before they did
            yield SeenTrack(self, track, best_of(held.pop(track.number)))

    def _crop(self, frame: Frame, candidate: _Candidate) -> Crop | None:
        corners = self.boxes.corners[candidate.row].tolist()
        try:
            pixels = cut(frame.image, corners, context=self.options.context)
        except DataError as error:  # one damaged picture of a folder
            _logger.warning("frame %d gives no picture: %s", frame.number, error)
            return None
        if pixels is None:
            return None
        quality = candidate.lie * sharpness(pixels)
        return Crop(frame.number, frame.time, tuple(corners), quality, pixels)


def best_of(places: dict[int, list[Crop]]) -> list[Crop]:
    """The best picture of each stretch of a track, without those that look like a better one; by time."""
    best = [max(crops, key=lambda crop: (crop.quality, -crop.frame)) for crops in places.values()]
    chosen: list[Crop] = []
    looks: list[NDArray[np.float32]] = []
    for crop in sorted(best, key=lambda crop: (-crop.quality, crop.frame)):
        seen = look(crop.pixels)
        if all(difference(seen, other) >= _LEAST_DIFFERENCE for other in looks):
            chosen.append(crop)
            looks.append(seen)
    return sorted(chosen, key=lambda crop: crop.frame)


def plan_view(
    source: str | Path,
    video: Video,
    boxes: Boxes,
    *,
    camera: int | str,
    start: float | None = None,
    options: TrackOptions,
) -> View:
    """Find the tracks of boxes, and the frames whose pictures are worth a look; no picture is read.

    Raises as :func:`reidkit.video.tracks.find_tracks` and :func:`reidkit.video.crops.lie_of` do.
    """
    usable = usable_boxes(boxes, width=video.width, height=video.height)
    _tell_beyond_the_end(usable, video)
    tracks = find_tracks(
        usable,
        rate=video.rate,
        confidence=options.confidence,
        lost_seconds=options.lost_seconds,
        min_boxes=options.min_boxes,
    )
    lie = lie_of(usable, width=video.width, height=video.height)
    candidates: dict[int, list[_Candidate]] = defaultdict(list)
    for track in tracks:
        stretches = np.array_split(track.rows, min(options.best, len(track.rows)))
        for place, rows in enumerate(stretches):
            for row in rows[np.argsort(-lie[rows], kind="stable")[:_CANDIDATES]].tolist():
                candidates[int(usable.frames[row])].append(
                    _Candidate(track.number, place, row, float(lie[row]))
                )
    plan = _plan_name(video, usable, options, camera, start)
    return View(
        origin=Origin(str(Path(source).resolve()), camera, start, plan),
        video=video,
        boxes=usable,
        tracks=tracks,
        options=options,
        num_given=len(boxes),
        _candidates=dict(candidates),
    )


def _tell_beyond_the_end(boxes: Boxes, video: Video) -> None:
    if video.end is None or not (boxes.frames >= video.end).any():
        return
    _logger.warning(
        "%s: %d boxes are of frames beyond the end of %s, which has %s: is it the same video, and are frames "
        "counted from 0 or from 1 (first_frame)?",
        *(boxes.source, np.count_nonzero(boxes.frames >= video.end), video.name, f"{video.end:,}"),
    )


def _plan_name(
    video: Video, boxes: Boxes, options: TrackOptions, camera: int | str, start: float | None
) -> str:
    """The same for the same boxes and options, whatever was done of them."""
    digest = hashlib.sha256()
    for array in (boxes.frames, boxes.corners, boxes.tracks, boxes.confidences):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(repr((video.width, video.height, video.rate, asdict(options), camera, start)).encode())
    return digest.hexdigest()[:16]
