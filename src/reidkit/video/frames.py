"""Video, one picture after the other: files, folders of numbered pictures, streams of network cameras.

Pictures are counted from 0 and have a time in seconds after the first one. Nothing is kept: memory does not
depend on the length.
"""

from __future__ import annotations

import configparser
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra, shortened
from reidkit.files import require_regular
from reidkit.images.reading import is_image, load_image, pixel_limit
from reidkit.logs import get_logger
from reidkit.texts.addresses import is_address

Picture = NDArray[np.uint8]

_logger = get_logger(__name__)
_DEFAULT_RATE = 25.0
_OPTIONS = {"protocol_whitelist": "file,crypto,data"}
_MOT_FOLDER, _MOT_DESCRIPTION = "img1", "seqinfo.ini"


class Frame:
    """One picture of a video: ``number`` from 0, ``time`` in seconds after the first picture."""

    def __init__(self, number: int, time: float, read: Callable[[], Picture]) -> None:
        self.number, self.time = number, time
        self._read = read

    @cached_property
    def image(self) -> Picture:
        """Pixels (H, W, 3), RGB, upright; made when they are first asked for."""
        return self._read()


class Video(Protocol):
    """What can be read picture by picture.

    ``rate`` is pictures a second, on average; ``end`` the number after that of the last picture, where it is
    known before all are read.
    """

    name: str
    width: int
    height: int
    rate: float
    is_endless: bool
    end: int | None

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The pictures in order, from that of the number ``start`` on."""


def open_video(source: str | Path, *, rate: float | None = None) -> Video:
    """Open a video.

    Args:
        source: a file; a folder of pictures with numbers in their names, or one in MOT's layout; or the
            address of a stream (rtsp://...).
        rate: pictures a second of a folder, where its ``seqinfo.ini`` does not tell; 25 if left out.

    Raises:
        ConfigError: an address of a protocol that is not known.
        DataError: nothing there, no video in it, no pictures with numbers, pictures that are too large.
        MissingExtra: PyAV is not installed, and it is not a folder.
    """
    if is_address(source):
        from reidkit.video.streams import Stream

        return Stream(str(source))
    path = Path(source)
    return Pictures(path, rate=rate) if path.is_dir() else VideoFile(path)


class VideoFile:
    """A file, read by FFmpeg's libraries; rotation is applied, times may be uneven."""

    is_endless = False

    def __init__(self, path: Path) -> None:
        require_regular(path)
        self.path, self.name = path, path.stem
        with opened(str(path), _OPTIONS) as container:
            stream = video_stream(container, str(path))
            check_size(str(path), stream.codec_context.width, stream.codec_context.height)
            self.rate = float(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
            self.end: int | None = stream.frames or None
            first = next(decoded(container, stream, str(path)), None)
            self.width, self.height = upright_size(stream, first)
        self._first = 0 if first is None or first.pts is None else first.pts

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The pictures from ``start`` on. What cannot be decoded is left out of the count, and told."""
        with opened(str(self.path), _OPTIONS) as container:
            stream = video_stream(container, str(self.path))
            near = self._near(start) if start > 1 else None
            for number, picture in near or enumerate(decoded(container, stream, str(self.path))):
                if number >= start:
                    yield Frame(number, self._time(picture, number), pixels_of(picture))

    def _time(self, picture: Any, number: int) -> float:
        if picture.pts is None:
            return number / self.rate
        return float((picture.pts - self._first) * picture.time_base)

    def _near(self, start: int) -> Iterator[tuple[int, Any]] | None:
        """Pictures with their numbers from a little before ``start`` on, found by their times.

        ``None`` where the file does not lead there: then all before it are to be decoded.
        """
        stamps = self._stamps()
        if start >= len(stamps):
            return None
        pictures = self._sought(stamps[start - 1])
        before = None
        for picture in pictures:
            number = bisect_left(stamps, self._first if picture.pts is None else picture.pts)
            if number >= start or stamps[number] != picture.pts or before not in (None, number - 1):
                break
            before = number
            if number == start - 1:
                return enumerate(chain([picture], pictures), start=number)
        pictures.close()
        return None

    def _sought(self, stamp: int) -> Generator[Any]:
        """PyAV's frames from the last whole picture before a time on, if it can be found."""
        with opened(str(self.path), _OPTIONS) as container:
            stream = video_stream(container, str(self.path))
            try:
                container.seek(stamp, stream=stream)
            except (av_library().FFmpegError, OSError):
                return
            yield from decoded(container, stream, str(self.path))

    def _stamps(self) -> list[int]:
        """Times of all pictures in the file's own units; empty where they do not tell the order.

        What comes before the first picture that could be decoded is not counted.
        """
        with opened(str(self.path), _OPTIONS) as container:
            stream = video_stream(container, str(self.path))
            packets = [p for p in container.demux(stream) if p.size and not p.is_discard]
        stamps = [packet.pts for packet in packets]
        decoding = [packet.dts for packet in packets]
        if None in stamps or None in decoding or any(packet.is_corrupt for packet in packets):
            return []
        if decoding != sorted(set(decoding)) or len(set(stamps)) < len(stamps):
            return []
        return sorted(stamp for stamp in stamps if stamp >= self._first)


class Pictures:
    """A folder of pictures whose numbers, the last digits of their names, tell their order.

    They are counted from 1, or from 0 where one has that number; numbers that are missing stay so.
    """

    is_endless = False

    def __init__(self, folder: Path, *, rate: float | None = None) -> None:
        self.name = folder.name
        pictures = folder / _MOT_FOLDER if (folder / _MOT_FOLDER).is_dir() else folder
        described = next(
            (p / _MOT_DESCRIPTION for p in (folder, folder.parent) if (p / _MOT_DESCRIPTION).is_file()), None
        )
        if rate is None and described is not None:
            rate = _described_rate(described)
        if rate is None:
            rate = _DEFAULT_RATE
            _logger.info("%s does not tell how many pictures a second it has; %g are taken", folder, rate)
        self.rate = rate
        self._paths = _numbered(pictures)
        self.end: int | None = max(self._paths) + 1
        first = load_image(self._paths[min(self._paths)])
        self.width, self.height = first.size

    def frames(self, start: int = 0) -> Iterator[Frame]:
        for number in sorted(self._paths):
            if number >= start:
                yield Frame(number, number / self.rate, _picture_reader(self._paths[number]))


def _numbered(folder: Path) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    unnumbered = []
    for path in sorted(p for p in folder.iterdir() if is_image(p)):
        digits = re.findall(r"[0-9]+", path.stem)
        if not digits:
            unnumbered.append(path.name)
            continue
        number = int(digits[-1])
        if number in paths:
            raise DataError(
                f"{folder} has two pictures of the number {number}, {paths[number].name} and {path.name}; "
                "one folder is one video: move the others elsewhere"
            )
        paths[number] = path
    if not paths:
        found = f"{len(unnumbered):,} pictures without numbers" if unnumbered else "no pictures"
        raise DataError(
            f"{folder} holds {found}; a video is a file, or a folder with 000001.jpg, 000002.jpg, ..."
        )
    if unnumbered:
        _logger.warning(
            "%s: %d pictures have no number in their name and are left out, such as %s",
            *(folder, len(unnumbered), unnumbered[0]),
        )
    first = 0 if 0 in paths else 1
    return {number - first: path for number, path in paths.items()}


def _described_rate(file: Path) -> float | None:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
        rate = parser.getfloat("Sequence", "frameRate")
    except (configparser.Error, ValueError, OSError):
        return None
    return rate if 0 < rate < 10_000 else None


def _picture_reader(path: Path) -> Callable[[], Picture]:
    return lambda: np.asarray(load_image(path))


def pixels_of(picture: Any) -> Callable[[], Picture]:
    """What makes the upright RGB pixels of PyAV's frame."""

    def read() -> Picture:
        rgb = picture.to_ndarray(format="rgb24")
        turns = round(picture.rotation / 90) % 4  # counter-clockwise, as NumPy turns
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else np.asarray(rgb, np.uint8)

    return read


def av_library() -> Any:
    """PyAV, or :class:`MissingExtra`."""
    try:
        import av
    except ImportError:
        raise MissingExtra("av", extra="video", needed_for="reading and writing video") from None
    av.logging.set_libav_level(av.logging.PANIC)  # what matters is told by us
    return av


def opened(source: str, options: dict[str, str]) -> Any:
    """A container to read from, a context manager; :class:`DataError` where it is none."""
    av = av_library()
    try:
        return av.open(source, options=options)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = shortened(str(getattr(error, "strerror", None) or error), 120)
        raise DataError(
            f"{shortened(source, 300)} cannot be opened as video: {reason}; if it should be one, it may be "
            "cut short: copy it again, or have FFmpeg mend it"
        ) from None


def video_stream(container: Any, source: str) -> Any:
    """The first stream with pictures, set to be decoded by several threads."""
    if not container.streams.video:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DataError(f"{source} has no pictures, only {found}; give a video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise DataError(f"{source} is in a video format that the installed FFmpeg does not know; convert it")
    stream.thread_type = "AUTO"
    return stream


def upright_size(stream: Any, first: Any) -> tuple[int, int]:
    """Width and height of the pictures, of which ``first`` is one, or ``None`` where there are none."""
    if first is None:
        return stream.codec_context.width, stream.codec_context.height
    return (first.height, first.width) if first.rotation % 180 else (first.width, first.height)


def decoded(
    container: Any, stream: Any, source: str, *, wanted: Callable[[Any, float], bool] | None = None
) -> Iterator[Any]:
    """PyAV's frames; parts that are damaged are skipped, and how many is told at the end.

    Of a stream only packets are decoded that are ``wanted``, told how many seconds each took to come;
    and :class:`DataError` says why it breaks off. Where a file does, that is told.
    """
    av = av_library()
    num_damaged = 0
    packets = container.demux(stream)
    while True:
        began = time.monotonic()
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if wanted is not None:
                raise DataError(error.strerror or "it cannot be read") from None
            _logger.warning("%s breaks off: %s; what comes after is not read", source, error.strerror)
            packet = None
        if packet is None:
            break
        if wanted is not None and not wanted(packet, time.monotonic() - began):
            continue
        try:
            yield from packet.decode()
        except av.FFmpegError:
            num_damaged += 1
    if num_damaged:
        _logger.warning("%s: %d parts are damaged and give no picture", source, num_damaged)


def check_size(source: str, width: int, height: int) -> None:
    """Refuse pictures beyond the limit that holds for all images."""
    if width * height > pixel_limit():
        raise DataError(
            f"{source} has {width} x {height} pixels a picture, more than the {pixel_limit():,} allowed; "
            "raise the limit with `reid --max-pixels NUMBER COMMAND`, or make the video smaller"
        )
