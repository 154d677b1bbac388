"""Work of several requests, done together by one thread, first come first served.

A gallery answers many searches in one pass, a network embeds several pictures sooner than one after the
other, and two threads that do either at the same time get in each other's way. So requests put their work in
a queue, and one thread takes what is there. The queue is bounded: where it is full, :class:`Busy` says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reidkit.errors import ReidError

Task = TypeVar("Task")
Result = TypeVar("Result")

LONGEST_WAIT = 8
"""Times the pause: as long as the first waits where others come in without a pause."""

PATIENCE = 2
"""Times as long as what was done last took: as long as the first waits for those who are known to come."""


class Busy(ReidError):
    """More waits to be done than may; ``seconds`` are to be waited before the next attempt."""

    def __init__(self, waiting: str, seconds: float = 1.0) -> None:
        self.seconds = seconds
        super().__init__(f"{waiting}, and no more may; try again in a second")


class NotReady(ReidError):
    """The service is still starting, or is shutting down; ``seconds`` are to be waited."""

    seconds = 5.0


ENDING = "the service is shutting down; try again in a while"


class Together(Generic[Task, Result]):
    """Does the tasks of several threads in one thread of its own.

    Args:
        do: does tasks; a result of each, or the error that it alone met.
        name: of the thread.
        size: of a task.
        at_once: the size of what is done together, at most, unless one task alone is larger.
        waiting: the size of what may wait; a task is taken where nothing else waits, however large.
        pause: seconds. What came in is done once nobody else came in for so long; or at once, where as much
            waits as is done together.
        what: what waits, in words for :class:`Busy`.
        enough: the size from which on nobody else is waited for; left out, that of ``at_once``.
        are_coming: whether others are known to come soon, who are waited for without regard to the pause:
            they would have to wait for the end of what was begun without them.
    """

    def __init__(
        self,
        do: Callable[[list[Task]], Sequence[Result | Exception]],
        *,
        name: str,
        at_once: int,
        waiting: int,
        pause: float,
        what: str,
        size: Callable[[Task], int] = lambda task: 1,
        enough: int | None = None,
        are_coming: Callable[[], bool] = lambda: False,
    ) -> None:
        self._do, self._size, self._what = do, size, what
        self._at_once, self._most_waiting, self._pause = at_once, waiting, pause
        self._queue: deque[_Entry[Task, Result]] = deque()
        self._enough, self._are_coming = enough or at_once, are_coming
        self._num_waiting = 0
        self._took = 0.0  # seconds of what was done last
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        """The size of what waits."""
        return self._num_waiting

    def do(self, task: Task) -> Result:
        """The result of a task, once it is done; its error.

        Raises :class:`Busy` where too much waits already, and :class:`NotReady` after :meth:`close`.
        """
        entry: _Entry[Task, Result] = _Entry(task, self._size(task))
        with self._changed:
            if self._closed:
                raise NotReady(ENDING)
            if self._queue and self._num_waiting + entry.size > self._most_waiting:
                raise Busy(f"{self._num_waiting:,} {self._what}")
            self._queue.append(entry)
            self._num_waiting += entry.size
            self._changed.notify()
        entry.done.wait()
        if isinstance(entry.result, Exception):
            raise entry.result
        assert entry.result is not None
        return entry.result

    def close(self) -> None:
        """Do what waits, and take no more."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while entries := self._next():
            started = time.monotonic()
            try:
                results = self._do([entry.task for entry in entries])
            except Exception as error:  # each of those who wait has to hear of it
                results = [error] * len(entries)
            self._took = time.monotonic() - started
            for entry, result in zip(entries, results, strict=True):
                entry.result = result
                entry.done.set()

    def _next(self) -> list[_Entry[Task, Result]]:
        """What is to be done next, once there is something; empty where the work is over."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            self._wait_for_others()
            entries: list[_Entry[Task, Result]] = []
            num = 0
            while self._queue and (not entries or num + self._queue[0].size <= self._at_once):
                entries.append(self._queue.popleft())
                num += entries[-1].size
            self._num_waiting -= num
            return entries

    def _wait_for_others(self) -> None:
        started = time.monotonic()
        latest = started + LONGEST_WAIT * self._pause
        latest_known = started + PATIENCE * self._took
        while not self._closed and self._num_waiting < self._enough:
            before, now = self._num_waiting, time.monotonic()
            is_known = now < latest_known and self._are_coming()
            left = min(self._pause, (latest_known if is_known else latest) - now)
            if left <= 0:
                return
            self._changed.wait_for(lambda: self._closed or self._num_waiting > before, left)  # noqa: B023
            if self._num_waiting == before and not is_known:
                return


class _Entry(Generic[Task, Result]):
    """A task of so large a size; ``done`` once there is a result."""

    def __init__(self, task: Task, size: int) -> None:
        self.task, self.size = task, size
        self.done = threading.Event()
        self.result: Result | Exception | None = None
