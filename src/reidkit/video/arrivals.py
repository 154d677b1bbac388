"""The newest picture of each camera: whoever looks at them slowly misses some, but is never late."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from reidkit.video.frames import Frame
from reidkit.video.streams import Stream

_PATIENCE = 2.0  # seconds that a thread has to end; what waits in FFmpeg for a camera ends later by itself


@dataclass(frozen=True, slots=True)
class Arrival:
    """A picture of one camera, by its place in the list, and when it came (monotonic seconds).

    ``gap`` is the longest time without any picture since the one that was taken before.
    """

    camera: int
    frame: Frame
    arrived: float
    gap: float


class Arrivals:
    """Reads several streams at once, each in a thread of its own; a context manager.

    ``num_seen`` and ``num_dropped`` count each camera's pictures, and those that made way for newer ones.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self._streams = streams
        self.num_seen, self.num_dropped = [0] * len(streams), [0] * len(streams)
        self._newest: dict[int, Arrival] = {}
        self._reading = set(range(len(streams)))
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._read, args=(place,), name=stream.name, daemon=True)
            for place, stream in enumerate(streams)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in self._streams:
            stream.stop()
        until = time.monotonic() + _PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether all streams have ended, and their last pictures been taken."""
        with self._changed:
            return not self._reading and not self._newest

    def next(self, timeout: float) -> Arrival | None:
        """The picture that has waited longest; ``None`` where none comes for ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._error or not self._reading, timeout)
            if self._error is not None:
                raise self._error
            if not self._newest:
                return None
            return self._newest.pop(min(self._newest, key=lambda place: self._newest[place].arrived))

    def _read(self, place: int) -> None:
        before = time.monotonic()
        try:
            for frame in self._streams[place].frames():
                with self._changed:
                    self.num_seen[place] += 1
                    waiting = self._newest.pop(place, None)
                    self.num_dropped[place] += waiting is not None
                    arrived = time.monotonic()
                    gap = max(arrived - before, 0.0 if waiting is None else waiting.gap)
                    before = arrived
                    self._newest[place] = Arrival(place, frame, arrived, gap)
                    self._changed.notify()
        except BaseException as error:  # raised where the pictures are taken
            self._error = error
        finally:
            with self._changed:
                self._reading.discard(place)
                self._changed.notify()
