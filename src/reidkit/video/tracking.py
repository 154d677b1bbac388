"""From videos and boxes to people in a gallery."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from reidkit.encoders.encoder import Encoder
from reidkit.encoders.loading import load_encoder
from reidkit.encoders.own import place_to_record
from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries import Gallery, open_gallery
from reidkit.galleries._labels import seconds_of
from reidkit.logs import get_logger
from reidkit.texts.addresses import is_address, shown_address
from reidkit.video.boxes import BoxesOptions, load_boxes
from reidkit.video.cameras import check_number, checked_cameras
from reidkit.video.embedding import embed_tracks
from reidkit.video.frames import open_video
from reidkit.video.joining import Joiner
from reidkit.video.options import JOINING_RATE, TrackOptions
from reidkit.video.store import EmbeddedTrack, KnownTrack, add_tracks, known_tracks
from reidkit.video.view import SeenTrack, View, plan_view

_logger = get_logger(__name__)
_AT_A_TIME = 64  # pictures that are embedded and stored together; an interrupted run keeps what is stored
_TELL_EVERY = 10.0  # seconds

Moment = float | str | datetime | None


@dataclass(slots=True)
class ViewCounts:
    """What became of one camera's boxes. ``frames`` were read in this run; ``unseen`` have no picture."""

    camera: int | str
    video: str
    frames: int = 0
    boxes: int = 0
    left_out: int = 0
    tracks: int = 0
    known: int = 0
    unseen: int = 0
    tracklets: int = 0
    pictures: int = 0


@dataclass(slots=True, eq=False)
class Tracked:
    """The result of :func:`track`.

    ``names`` holds for each view the tracklet of each track, ``identities`` the identity of each tracklet
    that has one in the gallery; ``elapsed`` are seconds of work, ``video_seconds`` those of video read.
    """

    views: list[View]
    names: list[dict[int, str]]
    identities: dict[str, str]
    counts: list[ViewCounts]
    elapsed: float = 0.0
    video_seconds: float = 0.0

    def rows(self) -> list[tuple[str, ...]]:
        """The counts as text, under :data:`COLUMNS`."""
        return [
            (str(c.camera), Path(c.video).name, *(f"{getattr(c, name):,}" for name in COLUMNS[2:]))
            for c in self.counts
        ]

    @property
    def pace(self) -> str:
        """How fast it went."""
        return _pace(sum(c.frames for c in self.counts), self.video_seconds, self.elapsed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        speed = {"seconds": round(self.elapsed, 3), "video_seconds": round(self.video_seconds, 3)}
        return {"cameras": [asdict(counts) for counts in self.counts], **speed}


COLUMNS = ("camera", "video", "frames", "boxes", "left_out", "tracks", "known", "tracklets", "pictures")


def track(
    videos: Sequence[str | Path],
    boxes: Sequence[str | Path],
    *,
    cameras: Sequence[int | str] | None = None,
    starts: Sequence[Moment] | None = None,
    encoder: Encoder | str | Path | None = None,
    gallery: Gallery | str | Path | None = None,
    options: TrackOptions | None = None,
    boxes_options: BoxesOptions | None = None,
) -> Tracked:
    """Find people's tracks in videos, embed the best pictures of each, and store them.

    What the gallery holds already is not done again: killed at any time, the same call goes on at the first
    frame of the first track that is missing, and no track is lost or there twice.

    Args:
        videos: files, folders of pictures, one a camera or one after the other.
        boxes: the file of each video's boxes.
        cameras: of each video, a number or a name; 1, 2, ... if left out.
        starts: when each video's first picture was taken, or one time for all: Unix seconds, a datetime, or
            ISO text (UTC where no offset is given); not known if left out.
        encoder: embeds the pictures, or where to load it from. Without one tracks are found, and no more.
        gallery: filled with an item for each picture (labels ``kind`` "crop", ``frame``, ``box``,
            ``quality``) and each track (``kind`` "track"), with camera, time and tracklet.
        options, boxes_options: see the classes.

    Raises:
        ConfigError: numbers of videos, boxes, cameras and starts that do not go together; a camera with two
            videos of one time; a gallery without an encoder.
        DataError: a video or boxes that cannot be read; a gallery with tracks of the same video that were
            made otherwise.
    """
    options = options or TrackOptions()
    views = _views(videos, boxes, cameras, starts, options, boxes_options)
    if encoder is not None and not isinstance(encoder, Encoder):
        place: Path | None = Path(encoder)
        encoder = load_encoder(encoder)
    else:
        place = None
    if gallery is None or not isinstance(gallery, str | Path):
        return _Run(views, encoder, gallery, options).finish()
    if encoder is None:
        raise ConfigError("gallery: an encoder is needed to fill it; give the run or file of one")
    described = encoder.origin if place is None else {**encoder.origin, "path": place_to_record(place)}
    with open_gallery(gallery, encoder=described) as opened:
        return _Run(views, encoder, opened, options).finish()


def _views(
    videos: Sequence[str | Path],
    boxes: Sequence[str | Path],
    cameras: Sequence[int | str] | None,
    starts: Sequence[Moment] | None,
    options: TrackOptions,
    boxes_options: BoxesOptions | None,
) -> list[View]:
    num = len(videos)
    names = checked_cameras(cameras, num, "videos")
    began = list(starts or [None])
    began = began * num if len(began) == 1 else began
    check_number(boxes, num, "videos", "files of boxes")
    check_number(began, num, "videos", "starts")
    views = []
    for source, file, camera, start in zip(videos, boxes, names, began, strict=True):
        if is_address(source):
            raise ConfigError(
                f"{shown_address(str(source))} is a stream, for which no file of boxes can be; give it to a "
                "detector, apart from files"
            )
        video = open_video(source)
        views.append(
            plan_view(
                source,
                video,
                load_boxes(file, video, options=boxes_options),
                camera=camera,
                start=None if start is None else _start(start),
                options=options,
            )
        )
    _check_apart(views)
    return views


def _start(value: Moment) -> float:
    try:
        return seconds_of(value)
    except (DataError, ConfigError, ValueError) as error:
        raise ConfigError(f"start {shown(value)} is no time, such as 2026-11-01T08:00:00: {error}") from None


def _check_apart(views: Sequence[View]) -> None:
    """A camera sees one thing at a time, and a file is of one camera."""
    sources = [view.origin.source for view in views]
    twice = next((source for source in sources if sources.count(source) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is given twice; give each video once, with all boxes in one file")
    by_camera: dict[int | str, list[View]] = {}
    for view in views:
        by_camera.setdefault(view.origin.camera, []).append(view)
    for camera, same in by_camera.items():
        if len(same) > 1 and any(view.origin.start is None for view in same):
            raise ConfigError(
                f"camera {camera} is given for {len(same)} videos; give each camera a number of its own, or, "
                "for one camera's videos one after the other, when each begins"
            )
        ordered = sorted(same, key=lambda view: view.origin.start or 0.0)
        for first, second in itertools.pairwise(ordered):
            if (first.origin.start or 0) + first.num_planned / first.video.rate > (second.origin.start or 0):
                raise ConfigError(
                    f"camera {camera} is given for {first.origin.source} and {second.origin.source}, "
                    "which are of the same time; give each camera a number of its own"
                )


@dataclass(slots=True, eq=False)
class _Run:
    """One call of :func:`track`."""

    views: list[View]
    encoder: Encoder | None
    gallery: Gallery | None
    options: TrackOptions
    names: list[dict[int, str]] = field(default_factory=list)
    identities: dict[str, str] = field(default_factory=dict)
    counts: list[ViewCounts] = field(default_factory=list)
    joiners: list[Joiner] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def finish(self) -> Tracked:
        known = [self._known(view) for view in self.views]
        self._begin(known)
        if self.encoder is None:
            for view, names in zip(self.views, self.names, strict=True):
                names.update({track.number: view.tracklet(track) for track in view.tracks})
        else:
            for part in _in_parts(self._seen(known)):
                self._embed(part)
        for count, view, names in zip(self.counts, self.views, self.names, strict=True):
            count.frames, count.tracklets = view.num_frames, len(set(names.values()))
        elapsed = time.monotonic() - self.began
        return Tracked(self.views, self.names, self.identities, self.counts, elapsed, self._video_seconds())

    def _known(self, view: View) -> dict[int, KnownTrack]:
        return {} if self.gallery is None else known_tracks(self.gallery, view.origin)

    def _begin(self, known: Sequence[dict[int, KnownTrack]]) -> None:
        for view, there in zip(self.views, known, strict=True):
            joiner = Joiner(
                seconds=self.options.join_seconds,
                lowest=self._lowest(view),
                size=(view.video.width, view.video.height),
            )
            for track in view.tracks:
                if track.number in there:
                    one = there[track.number]
                    joiner.know(one.tracklet, view.stay(track, one.mean))
                    if one.identity is not None:
                        self.identities[one.tracklet] = one.identity
            self.joiners.append(joiner)
            self.names.append({number: one.tracklet for number, one in there.items()})
            self.counts.append(
                ViewCounts(
                    view.origin.camera,
                    view.origin.source,
                    boxes=view.num_given,
                    left_out=view.num_given - len(view.boxes),
                    tracks=len(view.tracks),
                    known=len(there),
                )
            )

    def _lowest(self, view: View) -> float | None:
        """The score from which on two tracks of one camera are one person's."""
        if self.options.join_score is not None or self.encoder is None or view.boxes.has_tracks:
            return self.options.join_score
        if self.encoder.calibration is None:
            _logger.info(
                "the encoder has no calibration, so that people who were hidden get a new tracklet; give a "
                "join_score, from which on two tracks are one"
            )
            return None
        return self.encoder.calibration.threshold_at(JOINING_RATE)

    def _seen(self, known: Sequence[dict[int, KnownTrack]]) -> Iterator[SeenTrack]:
        """The tracks of all views, in the order in which they end: all cameras are read at once."""
        streams = [
            view.seen_tracks(set(there), read=lambda _: self._tell())
            for view, there in zip(self.views, known, strict=True)
        ]
        return heapq.merge(*streams, key=lambda seen: seen.ended)

    def _embed(self, part: Sequence[SeenTrack]) -> None:
        assert self.encoder is not None
        done = []
        embedded = embed_tracks(self.encoder, [seen.crops for seen in part])
        for seen, own in zip(part, embedded, strict=True):
            number = self.views.index(seen.view)
            if own is None:
                self.counts[number].unseen += 1
                self.names[number][seen.track.number] = seen.view.tracklet(seen.track)
                continue
            own_name, stay = seen.view.tracklet(seen.track), seen.view.stay(seen.track, own.mean)
            tracklet = self.joiners[number].tracklet(own_name, stay)
            done.append(EmbeddedTrack(seen.view.origin, seen.track.number, seen.crops, tracklet, *own))
            self.names[number][seen.track.number] = tracklet
            self.counts[number].pictures += len(own.pictures)
        if self.gallery is not None and done:
            add_tracks(self.gallery, done)

    def _video_seconds(self) -> float:
        return sum(view.num_frames / view.video.rate for view in self.views)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self.told < _TELL_EVERY:
            return
        self.told = now
        num = sum(view.num_frames for view in self.views)
        planned = sum(view.num_planned for view in self.views)
        pace = _pace(num, self._video_seconds(), now - self.began)
        _logger.info("%s of %s frames, %s", f"{num:,}", f"{planned:,}", pace)


def _pace(num_frames: int, video_seconds: float, elapsed: float) -> str:
    elapsed = max(elapsed, 1e-9)
    return f"{num_frames / elapsed:,.0f} frames/s, {video_seconds / elapsed:.1f} times real time"


def _in_parts(tracks: Iterator[SeenTrack]) -> Iterator[list[SeenTrack]]:
    """Tracks in groups of a few pictures more than are embedded at a time."""
    part: list[SeenTrack] = []
    for seen in tracks:
        part.append(seen)
        if sum(len(one.crops) for one in part) >= _AT_A_TIME:
            yield part
            part = []
    if part:
        yield part
