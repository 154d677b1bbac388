"""One camera's people while its stream goes on: tracks that begin, go on and end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from reidkit.video.best_pictures import BestPictures
from reidkit.video.boxes import NO_TRACK, make_boxes
from reidkit.video.crops import MOST_BOXES, cut, lie_of, sharpness
from reidkit.video.detector import Found
from reidkit.video.frames import Frame
from reidkit.video.joining import Stay
from reidkit.video.options import TrackOptions
from reidkit.video.tracks import byte_tracker
from reidkit.video.view import Crop

_NO_PICTURES = 10.0  # seconds, in which none came or was looked at, after which everybody may have left


@dataclass(slots=True, eq=False)
class _Open:
    """A track in sight, since it began or was stored last."""

    number: int
    began: float
    first_box: NDArray[np.float64]
    pictures: BestPictures
    ended: float = 0.0
    looked: float = 0.0
    last_box: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    tracklet: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A track that has ended, or a part of one that goes on; times in seconds of the run.

    Each part has a ``number``; ``tracklet`` is the name that earlier parts of the track have, which
    ``track`` tells from others in sight.
    """

    track: int
    number: int
    began: float
    ended: float
    first_box: NDArray[np.float64]
    last_box: NDArray[np.float64]
    crops: list[Crop]
    tracklet: str | None

    def stay(self, embedding: NDArray[np.float32]) -> Stay:
        """When and where it was."""
        return Stay(self.began, self.ended, self.first_box, self.last_box, embedding)


class Sighting:
    """Follows the people under one camera, from one picture to the next, by ByteTrack.

    Args:
        rate: pictures a second that the camera sends.
        options: how people are looked for.

    Raises :class:`MissingExtra` where ``trackers`` is not installed.
    """

    def __init__(self, *, rate: float, options: TrackOptions) -> None:
        self.options = options
        self._tracker = byte_tracker(
            rate=rate, confidence=options.confidence, lost_seconds=options.lost_seconds
        )
        self._open: dict[int, _Open] = {}
        self._num = 0
        self._looked = self._before = 0.0

    @property
    def num_in_sight(self) -> int:
        return len(self._open)

    @property
    def earliest(self) -> float | None:
        """When the oldest open track began."""
        return min((track.began for track in self._open.values()), default=None)

    def look(self, frame: Frame, found: Found, time: float, *, gap: float = 0.0) -> None:
        """Take in the people of one picture; at most the 1,000 surest. ``gap`` is :class:`Arrival`'s."""
        corners, confidences = found.corners[:MOST_BOXES], found.confidences[:MOST_BOXES]
        # Who could not be looked at for a while has not left: a pause counts for half of what ends a track,
        # unless it was the camera's.
        lost, pause = self.options.lost_seconds, time - self._before
        self._looked += pause if gap > lost else min(pause, lost / 2)
        self._before = time
        tracks = self._tracker(corners, confidences, self._looked)
        followed = np.flatnonzero(tracks != NO_TRACK)
        if not len(followed):
            return
        height, width = frame.image.shape[:2]
        boxes = make_boxes(np.zeros(len(corners), int), corners, confidences=confidences)
        lies = lie_of(boxes, width=width, height=height)
        for row in followed.tolist():
            track = self._opened(int(tracks[row]), corners[row], time)
            track.ended, track.looked, track.last_box = time, self._looked, corners[row]
            track.pictures.next_box()
            if track.pictures.may_be_better(float(lies[row])):
                self._offer(track, frame, corners[row], float(lies[row]), time)

    def ended(self, now: float, *, all_of_them: bool = False) -> Iterator[Piece]:
        """What is to be stored by now: tracks that ended, and parts of those that go on for long."""
        for key, track in list(self._open.items()):
            is_over = (
                all_of_them
                or self._looked - track.looked > self.options.lost_seconds
                or now - track.ended > max(self.options.lost_seconds, _NO_PICTURES)
            )
            is_long = track.ended - track.began >= self.options.piece_seconds
            if not is_over and not is_long:
                continue
            del self._open[key]
            if not is_over:
                self._continue(key, track)
            if track.pictures.num_boxes >= self.options.min_boxes:
                yield Piece(
                    key,
                    track.number,
                    track.began,
                    track.ended,
                    track.first_box,
                    track.last_box,
                    track.pictures.chosen(),
                    track.tracklet,
                )

    def name(self, piece: Piece, tracklet: str) -> None:
        """Let the parts of a track that follow have the tracklet of the first one."""
        if piece.track in self._open:
            self._open[piece.track].tracklet = tracklet

    def _opened(self, key: int, box: NDArray[np.float64], time: float) -> _Open:
        if key not in self._open:
            self._open[key] = _Open(self._next_number(), time, box, BestPictures(self.options.best))
        return self._open[key]

    def _continue(self, key: int, track: _Open) -> None:
        self._open[key] = _Open(
            self._next_number(),
            track.ended,
            track.last_box,
            BestPictures(self.options.best),
            track.ended,
            track.looked,
            track.last_box,
            track.tracklet,
        )

    def _next_number(self) -> int:
        self._num += 1
        return self._num

    def _offer(self, track: _Open, frame: Frame, box: NDArray[np.float64], lie: float, time: float) -> None:
        corners = box.tolist()
        pixels = cut(frame.image, corners, context=self.options.context)
        if pixels is not None:
            quality = lie * sharpness(pixels)
            track.pictures.offer(Crop(frame.number, time, tuple(corners), quality, pixels))
