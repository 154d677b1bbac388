"""Pictures of several requests, embedded together by one thread.

A network embeds eight pictures in little more time than one, and two threads that embed at the same time get
in each other's way. So requests put their pictures in a queue, and one thread takes what has come in within a
few milliseconds. The queue is bounded: where it is full, :class:`Busy` says so at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.network import Network, WrappedNetwork
from reidkit.errors import ReidError

MOST_AT_ONCE = 64


class Busy(ReidError):
    """More pictures wait to be embedded than may; ``seconds`` are to be waited before the next attempt."""

    def __init__(self, waiting: int, seconds: float = 1.0) -> None:
        self.seconds = seconds
        super().__init__(f"{waiting:,} pictures wait to be embedded, and no more may; try again in a second")


class NotReady(ReidError):
    """The service is still starting, or is shutting down."""


class BatchingNetwork(WrappedNetwork):
    """A network that embeds pictures of several threads together.

    Args:
        own: what embeds.
        waiting: pictures that may wait.
        seconds: how long the first of a batch waits for others.
    """

    def __init__(self, own: Network, *, waiting: int, seconds: float) -> None:
        super().__init__(own)
        self._most_waiting, self._seconds = waiting, seconds
        self._queue: deque[_Portion] = deque()
        self._num_waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="embedding", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """Pictures in the queue."""
        return self._num_waiting

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As the network does, in the batch of whoever asks at the same time.

        Raises :class:`Busy` where too many wait already.
        """
        portion = _Portion(images)
        with self._changed:
            if self._closed:
                raise NotReady("the service is shutting down; try again in a while")
            if self._queue and self._num_waiting + len(images) > self._most_waiting:
                raise Busy(self._num_waiting)
            self._queue.append(portion)
            self._num_waiting += len(images)
            self._changed.notify()
        portion.done.wait()
        if portion.error is not None:
            raise portion.error
        assert portion.embeddings is not None
        return portion.embeddings

    def close(self) -> None:
        """Embed what waits, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while portions := self._next():
            try:
                embeddings = self.own.embed(np.concatenate([portion.images for portion in portions]))
                ends = np.cumsum([len(portion.images) for portion in portions])[:-1]
                for portion, rows in zip(portions, np.split(embeddings, ends), strict=True):
                    portion.embeddings = rows
            except Exception as error:  # each of those who wait has to hear of it
                for portion in portions:
                    portion.error = error
            for portion in portions:
                portion.done.set()

    def _next(self) -> list[_Portion]:
        """What is to be embedded next, once there is something; empty where the work is over."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            until = time.monotonic() + self._seconds
            while not self._closed and self._num_waiting < MOST_AT_ONCE:
                left = until - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            portions: list[_Portion] = []
            num = 0
            while self._queue and (not portions or num + len(self._queue[0].images) <= MOST_AT_ONCE):
                portions.append(self._queue.popleft())
                num += len(portions[-1].images)
            self._num_waiting -= num
            return portions


class _Portion:
    """Pictures of one request; ``done`` once there are embeddings, or an error."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images = images
        self.done = threading.Event()
        self.embeddings: NDArray[np.float32] | None = None
        self.error: Exception | None = None
