"""Streams of network cameras: connected again when they break off."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast

from reidkit.errors import ConfigError, DataError, shortened
from reidkit.labels import lasting
from reidkit.logs import get_logger
from reidkit.texts.addresses import shown_address
from reidkit.video.frames import Frame, av_library, check_size, decoded, pixels_of, upright_size, video_stream

_logger = get_logger(__name__)
PROTOCOLS = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "tcp", "udp", "srt")
_OPTIONS = {"analyzeduration": "1000000"}  # microseconds that FFmpeg looks at before the first picture
_RTSP_OPTIONS = {"rtsp_transport": "tcp"}  # UDP loses packets, which shows as smeared pictures
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_TELL_EVERY = 60.0  # seconds without a picture
_WINDOW = 2.0  # seconds after which it is known whether decoding keeps up
_IDLE = 0.02  # of the time, that a thread which keeps up waits at least
_WAITING = 0.02  # seconds; less may be the operating system's


class Stream:
    """A camera at an address. Its pictures are counted over all connections; times are those of arrival.

    Args:
        address: rtsp://..., or another address that FFmpeg reads. It is told without path and password.
        patience: seconds of trying to connect, again and again, after which the stream has ended.
        timeout: seconds without a picture after which a connection is taken for broken.

    ``num_breaks`` counts how often it broke off, ``num_skipped`` parts that were not decoded because what
    was sent is more than this machine can decode.

    Raises:
        ConfigError: a protocol that is not known.
        DataError: no connection at first, or no video in it.
    """

    is_endless = True
    end: int | None = None

    def __init__(self, address: str, *, patience: float = 60.0, timeout: float = 10.0) -> None:
        self.name = shown_address(address)
        self._protocol = address.partition("://")[0].lower()
        if self._protocol not in PROTOCOLS:
            raise ConfigError(f"{self.name} begins with none of {', '.join(PROTOCOLS)}; a file has no ://")
        self._address, self.patience, self.timeout = address, patience, timeout
        self.num_breaks = self._num_skipped_before = 0
        self._backlog = _Backlog(self.name)
        self._stopped = threading.Event()
        with self._connected() as container:
            stream = video_stream(container, self.name)
            first = next(decoded(container, stream, self.name), None)
            if first is None:
                raise DataError(f"{self.name} is connected, but gives no picture; look at the camera")
            self.width, self.height = upright_size(stream, first)
            self.rate = float(stream.average_rate or stream.guessed_rate or 25)
            self._has_end = bool(container.duration)  # what a camera sends has none
        check_size(self.name, self.width, self.height)

    @property
    def num_skipped(self) -> int:
        return self._num_skipped_before + self._backlog.num_skipped

    def stop(self) -> None:
        """Let :meth:`frames`, in another thread, end with the next picture or pause."""
        self._stopped.set()

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Pictures as they arrive, numbered from ``start``: a camera cannot be wound back."""
        number, began = start, time.monotonic()
        heard, told, pause = began, began, _FIRST_PAUSE
        is_broken = False  # what breaks off again and again is connected more and more seldom
        while not self._stopped.is_set():
            reason, connected = "it ended", time.monotonic()
            try:
                for picture in self._pictures():
                    if self._stopped.is_set():
                        return
                    if is_broken:
                        _logger.info(
                            "%s is there again, after %s", self.name, lasting(time.monotonic() - heard)
                        )
                        is_broken = False
                    heard = time.monotonic()
                    yield Frame(number, heard - began, pixels_of(picture))
                    number += 1
                if self._has_end:
                    _logger.info("%s has ended after %d pictures: it is a recording", self.name, number)
                    return
            except DataError as error:
                reason = str(error)
            now = time.monotonic()
            if now - connected > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            if not is_broken:
                is_broken, told = True, now
                self.num_breaks += 1
                _logger.warning("%s broke off: %s; connecting again until it is there", self.name, reason)
            elif now - told >= _TELL_EVERY:
                told = now
                _logger.warning("%s: no picture for %s; still trying", self.name, lasting(now - heard))
            if now - heard > self.patience:
                _logger.warning("%s: no picture for %g s; the stream has ended", self.name, self.patience)
                return
            self._stopped.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _pictures(self) -> Iterator[Any]:
        """PyAV's frames of one connection."""
        with self._connected() as container:
            stream = video_stream(container, self.name)
            self._num_skipped_before = self.num_skipped
            self._backlog = _Backlog(self.name)
            yield from decoded(container, stream, self.name, wanted=self._backlog.is_wanted)

    def _connected(self) -> AbstractContextManager[Any]:
        options = _OPTIONS | (_RTSP_OPTIONS if self._protocol.startswith("rtsp") else {})
        av = av_library()
        try:
            return cast(
                AbstractContextManager[Any], av.open(self._address, options=options, timeout=self.timeout)
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            # What the error itself says holds the whole address.
            reason = shortened(getattr(error, "strerror", None) or "it is no address", 120)
            raise DataError(
                f"{self.name} cannot be connected: {reason}; is the camera on, and is the address right, "
                "with user and password?"
            ) from None


class _Backlog:
    """Which packets of a connection to decode: all, or whole pictures only while decoding lies behind.

    It lies behind where the next packet is always there already. It has caught up, from a whole picture on,
    when one had to be waited for.
    """

    def __init__(self, name: str) -> None:
        self.name, self.num_skipped = name, 0
        self._since, self._waited = time.monotonic(), 0.0
        self._is_behind = False

    def is_wanted(self, packet: Any, waited: float) -> bool:
        """Whether to decode a packet, for which ``waited`` seconds were spent."""
        self._waited += waited
        spent = time.monotonic() - self._since
        if self._is_behind and packet.is_keyframe and self._waited > _WAITING:
            self._is_behind = False
        elif not self._is_behind and spent >= _WINDOW:
            self._is_behind = self._waited < _IDLE * spent
            self._since, self._waited = time.monotonic(), 0.0
            if self._is_behind:
                _logger.warning(
                    "%s: this machine cannot decode all that is sent; pictures are dropped to catch up",
                    self.name,
                )
        is_wanted = not self._is_behind or bool(packet.is_keyframe)
        self.num_skipped += not is_wanted
        return is_wanted
