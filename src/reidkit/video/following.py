"""From streams of network cameras to people in a gallery, until told to stop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.encoders.loading import load_encoder
from reidkit.encoders.own import place_to_record
from reidkit.errors import ConfigError, shown
from reidkit.galleries import Gallery, open_gallery
from reidkit.galleries._labels import age
from reidkit.labels import lasting
from reidkit.logs import get_logger
from reidkit.texts.addresses import is_address
from reidkit.video.arrivals import Arrival, Arrivals
from reidkit.video.cameras import checked_cameras
from reidkit.video.detector import Detector
from reidkit.video.embedding import embed_tracks
from reidkit.video.joining import Joiner
from reidkit.video.options import JOINING_RATE, TrackOptions
from reidkit.video.sighting import Piece, Sighting
from reidkit.video.store import EmbeddedTrack, add_tracks
from reidkit.video.streams import Stream
from reidkit.video.view import Origin

_logger = get_logger(__name__)
_CONFIDENCE = 0.1  # of boxes that go on with a track, as in videos
_LONGEST_WAIT = 0.5  # seconds until a signal, or the end of a track, is noticed
_MOST_WAITING = 64  # tracks that wait to be embedded
_TELL_EVERY = 30.0  # seconds
_MANY_DROPPED = 0.5  # of the pictures; a person is followed well at half the rate of a camera


@dataclass(slots=True)
class StreamCounts:
    """What became of one camera's pictures: ``sent`` by it, ``dropped`` unseen.

    ``late`` are the seconds from the arrival of a picture until it had been looked at, at most.
    """

    camera: int | str
    stream: str
    seconds: float = 0.0
    sent: int = 0
    dropped: int = 0
    breaks: int = 0
    late: float = 0.0
    tracks: int = 0
    tracklets: int = 0
    pictures: int = 0


@dataclass(slots=True, eq=False)
class Followed:
    """The result of :func:`follow`."""

    counts: list[StreamCounts]

    def rows(self) -> list[tuple[str, ...]]:
        """The counts as text, under :data:`COLUMNS`."""
        return [
            (
                *(str(c.camera), c.stream, lasting(c.seconds), f"{c.sent:,}", f"{c.dropped:,}"),
                *(f"{c.breaks:,}", f"{c.late:.2f} s", f"{c.tracks:,}", f"{c.tracklets:,}", f"{c.pictures:,}"),
            )
            for c in self.counts
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"cameras": [asdict(counts) for counts in self.counts]}


COLUMNS = (
    *("camera", "stream", "time", "sent", "dropped", "breaks", "late"),
    *("tracks", "tracklets", "pictures"),
)


def follow(
    addresses: Sequence[str],
    detector: Detector | str | Path,
    *,
    encoder: Encoder | str | Path,
    gallery: Gallery | str | Path,
    cameras: Sequence[int | str] | None = None,
    options: TrackOptions | None = None,
    duration: float | str | None = None,
) -> Followed:
    """Follow people through streams, and store each track when it has ended.

    Of each camera the newest picture is looked at; what comes meanwhile is dropped and counted. A stream that
    breaks off is connected again, however long that takes. A track that goes on for long is stored in parts
    of one tracklet. The first SIGINT or SIGTERM ends the run, with all tracks stored; the second at once.

    Args:
        addresses: rtsp://..., one a camera.
        detector: finds the people, see :class:`reidkit.video.detector.Detector`.
        encoder: embeds the pictures, or where to load it from.
        gallery: filled as :func:`reidkit.video.track` does, with the times at which pictures arrived.
        cameras: of each stream, a number or a name; 1, 2, ... if left out.
        options: see the class.
        duration: after which to stop, seconds or a text such as "10m"; if left out, until told to.

    Raises:
        ConfigError: numbers of streams and cameras that do not go together; a protocol that is not known.
        DataError: a stream that cannot be connected at the beginning.
        CheckpointError: a detector that does not return what was described.
    """
    options = options or TrackOptions()
    names = checked_cameras(cameras, len(addresses), "streams")
    file = next((address for address in addresses if not is_address(address)), None)
    if file is not None:
        raise ConfigError(f"{shown(file)} is no address of a stream; follow people in files apart, by boxes")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"camera {twice} is given for two streams; give each a number of its own")
    seconds = _seconds(duration)
    place = None if isinstance(encoder, Encoder) else Path(encoder)
    network = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
    finder = detector if isinstance(detector, Detector) else Detector(detector)
    _warm_up(finder, network)
    origin = network.origin if place is None else {**network.origin, "path": place_to_record(place)}
    with _until_told() as told:
        streams = [Stream(address, patience=math.inf) for address in addresses]
        opened = (
            nullcontext(gallery) if isinstance(gallery, Gallery) else open_gallery(gallery, encoder=origin)
        )
        with opened as filled, Arrivals(streams) as arrivals:
            return _Run(streams, names, finder, network, filled, options).go_on(arrivals, told, seconds)


def _warm_up(detector: Detector, encoder: Encoder) -> None:
    """Let all be loaded that the first pictures need, before cameras send them."""
    blank = np.zeros((encoder.height, encoder.width, 3), np.uint8)
    detector.find(blank)
    encoder.encode(blank)


def _seconds(duration: float | str | None) -> float | None:
    seconds = age(duration) if isinstance(duration, str) else duration
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"duration = {shown(duration)}; give how long to go on, more than 0")
    return seconds


@contextmanager
def _until_told() -> Iterator[threading.Event]:
    """Set by the first SIGINT or SIGTERM; the next one ends the process as usual."""
    told = threading.Event()
    before: dict[signal.Signals, Any] = {}

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()
        for one, handler in before.items():
            signal.signal(one, handler)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, tell)
    except ValueError:  # not in the main thread: whoever runs us there handles signals
        before.clear()
    try:
        yield told
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class _Run:
    """One call of :func:`follow`. Times are seconds since it began."""

    def __init__(
        self,
        streams: Sequence[Stream],
        names: Sequence[int | str],
        detector: Detector,
        encoder: Encoder,
        gallery: Gallery,
        options: TrackOptions,
    ) -> None:
        self.streams, self.detector, self.encoder, self.gallery = streams, detector, encoder, gallery
        self.began, self.told = time.monotonic(), time.monotonic()
        start = time.time()
        since = datetime.fromtimestamp(start, UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.origins = [
            Origin(stream.name, name, start, f"camera={name},since={since}")
            for stream, name in zip(streams, names, strict=True)
        ]
        self.counts = [StreamCounts(name, stream.name) for name, stream in zip(names, streams, strict=True)]
        self.waiting: deque[tuple[int, Piece]] = deque()
        self.sightings = [Sighting(rate=stream.rate, options=options) for stream in streams]
        calibration = encoder.calibration
        self.lowest = None if calibration is None else calibration.threshold_at(JOINING_RATE)
        joins_from = self.lowest if options.join_score is None else options.join_score
        self.joiners = [
            Joiner(seconds=options.join_seconds, lowest=joins_from, size=(stream.width, stream.height))
            for stream in streams
        ]

    def go_on(self, arrivals: Arrivals, told: threading.Event, seconds: float | None) -> Followed:
        for origin, stream in zip(self.origins, self.streams, strict=True):
            size = f"{stream.width} x {stream.height}, {stream.rate:.4g} pictures/s"
            _logger.info("camera %s: %s, %s", origin.camera, stream.name, size)
        while not told.is_set() and not arrivals.is_over and (seconds is None or self._now() < seconds):
            arrival = arrivals.next(_LONGEST_WAIT)
            if arrival is not None:
                self._look(arrival)
            self._store(all_of_them=False)
            self._count(arrivals)
            if time.monotonic() - self.told >= _TELL_EVERY:
                self._tell()
        _logger.info("stopping: what is in sight is stored")
        self._store(all_of_them=True)
        self._count(arrivals)
        return Followed(self.counts)

    def _now(self) -> float:
        return time.monotonic() - self.began

    def _look(self, arrival: Arrival) -> None:
        counts = self.counts[arrival.camera]
        found = self.detector.find(arrival.frame.image, confidence=_CONFIDENCE)
        time_of_run = arrival.arrived - self.began
        self.sightings[arrival.camera].look(arrival.frame, found, time_of_run, gap=arrival.gap)
        counts.late = max(counts.late, time.monotonic() - arrival.arrived)

    def _store(self, *, all_of_them: bool) -> None:
        """Embed and store what has ended: one at a time, so that nobody is lost from sight meanwhile."""
        now = self._now()
        for number, sighting in enumerate(self.sightings):
            ended = sorted(sighting.ended(now, all_of_them=all_of_them), key=lambda piece: piece.ended)
            self.waiting += [(number, piece) for piece in ended]
        is_much = all_of_them or len(self.waiting) > _MOST_WAITING
        part = [
            self.waiting.popleft() for _ in range(len(self.waiting) if is_much else min(1, len(self.waiting)))
        ]
        embedded = embed_tracks(self.encoder, [piece.crops for _, piece in part])
        done = []
        for (number, piece), own in zip(part, embedded, strict=True):
            if own is not None:
                tracklet = self._tracklet(number, piece, own.mean)
                done.append(EmbeddedTrack(self.origins[number], piece.number, piece.crops, tracklet, *own))
                self._note(number, piece, done[-1])
        if done:
            add_tracks(self.gallery, done)

    def _tracklet(self, number: int, piece: Piece, mean: NDArray[np.float32]) -> str:
        """The name of what a piece belongs to: the track's earlier parts, another track's, or its own."""
        joiner, sighting = self.joiners[number], self.sightings[number]
        if piece.tracklet is None:
            own = self.origins[number].tracklet(piece.number, piece.began, name="")
            name = joiner.tracklet(own, piece.stay(mean))
            self.counts[number].tracklets += name == own
        else:
            name = piece.tracklet
            joiner.know(name, piece.stay(mean))
        sighting.name(piece, name)
        earliest = sighting.earliest
        joiner.forget(piece.ended if earliest is None else min(earliest, piece.ended))
        return name

    def _note(self, number: int, piece: Piece, track: EmbeddedTrack) -> None:
        counts = self.counts[number]
        counts.tracks += 1
        counts.pictures += len(piece.crops)
        _logger.info(
            "camera %s: %s, %s, pictures: %d%s",
            *(counts.camera, track.tracklet, lasting(round(piece.ended - piece.began, 1)), len(piece.crops)),
            self._looks_like(track.mean),
        )

    def _looks_like(self, mean: NDArray[np.float32]) -> str:
        """Whom of the gallery's people a track looks like, where the encoder's scores say what that means."""
        if self.lowest is None or not len(self.gallery):
            return ""
        [hits] = self.gallery.search(mean, top=1, where={"identity": {"not": None}})
        if not hits or hits[0].score < self.lowest:
            return ""
        return f", looks like {hits[0].identity} ({hits[0].score:.2f})"

    def _count(self, arrivals: Arrivals) -> None:
        for number, (counts, stream) in enumerate(zip(self.counts, self.streams, strict=True)):
            counts.seconds = round(self._now(), 3)
            counts.sent = arrivals.num_seen[number] + stream.num_skipped
            counts.dropped = arrivals.num_dropped[number] + stream.num_skipped
            counts.breaks = stream.num_breaks

    def _tell(self) -> None:
        self.told = time.monotonic()
        for counts, sighting in zip(self.counts, self.sightings, strict=True):
            _logger.info(
                "camera %s: %s, %s pictures, %s of them dropped; %s tracks stored, %d in sight",
                *(counts.camera, lasting(round(counts.seconds)), f"{counts.sent:,}", f"{counts.dropped:,}"),
                *(f"{counts.tracks:,}", sighting.num_in_sight),
            )
            if counts.dropped > _MANY_DROPPED * counts.sent:
                _logger.warning(
                    "camera %s: this machine looks at %.1f of %.1f pictures a second; give it fewer cameras, "
                    "or a smaller detector",
                    counts.camera,
                    (counts.sent - counts.dropped) / counts.seconds,
                    counts.sent / counts.seconds,
                )
