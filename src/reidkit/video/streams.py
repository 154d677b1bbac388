"""Streams of network cameras: connected again when they break off."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, cast
from urllib.parse import urlsplit

from reidkit.errors import DataError
from reidkit.logs import get_logger
from reidkit.video.frames import Frame, check_size, decoded, opened, pixels_of, video_stream

_logger = get_logger(__name__)
_OPTIONS = {"rtsp_transport": "tcp"}  # UDP loses packets, which shows as smeared pictures
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0


class Stream:
    """A camera at an address. Its pictures are counted over all connections; times are those of arrival.

    Args:
        address: rtsp://..., or another address that FFmpeg reads.
        patience: seconds of trying to connect, again and again, after which the stream has ended.
        timeout: seconds without a picture after which a connection is taken for broken.

    Raises:
        DataError: no connection at first, or no video in it.
    """

    is_endless = True

    def __init__(self, address: str, *, patience: float = 60.0, timeout: float = 10.0) -> None:
        self.address, self.patience, self.timeout = address, patience, timeout
        parts = urlsplit(address)
        self.name = f"{parts.hostname}{parts.path}"  # without the password
        self._shown = f"{parts.scheme}://{self.name}"
        with self._connected() as container:
            stream = video_stream(container, self._shown)
            self.width, self.height = stream.codec_context.width, stream.codec_context.height
            self.rate = float(stream.average_rate or stream.guessed_rate or 25)
        check_size(self._shown, self.width, self.height)

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """Pictures as they arrive, numbered from ``start``: a camera cannot be wound back."""
        number, began = start, time.monotonic()
        heard, pause = began, _FIRST_PAUSE
        while time.monotonic() - heard <= self.patience:
            try:
                with self._connected() as container:
                    stream = video_stream(container, self._shown)
                    for picture in decoded(container, stream, self._shown):
                        heard, pause = time.monotonic(), _FIRST_PAUSE
                        yield Frame(number, heard - began, pixels_of(picture))
                        number += 1
            except DataError as error:
                _logger.debug("%s", error)
            _logger.info("%s broke off after %d pictures; connecting again", self._shown, number - start)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        _logger.warning("%s: no picture for %g s; the stream has ended", self._shown, self.patience)

    def _connected(self) -> AbstractContextManager[Any]:
        options = _OPTIONS if self.address.startswith("rtsp") else {}
        try:
            return cast(AbstractContextManager[Any], opened(self.address, options, timeout=self.timeout))
        except DataError as error:
            raise DataError(str(error).replace(self.address, self._shown)) from None
