"""Stopping when asked to, by ctrl-C or by a cluster that takes its machine back, without losing a step."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.sharedctypes import RawValue
from types import FrameType, TracebackType
from typing import Any

from reidkit.training import distributed

_ONE_REQUEST = 1.0  # seconds; a launcher also passes on the signal that its cluster sends to every process


class GracefulStop:
    """Inside it, the first SIGINT or SIGTERM is only remembered; one a second later stops at once.

    One that nobody raised takes effect at the end.
    """

    def __init__(self) -> None:
        self._signal, self._since = 0, 0.0
        self._before: dict[signal.Signals, Any] = {}
        self._over = RawValue(ctypes.c_bool, False)

    def __enter__(self) -> GracefulStop:
        self._signal, self._over.value = 0, False
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, lambda number, frame: self.request(number))
            except ValueError:  # not in the main thread: whoever runs us there handles signals
                break
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.value = True
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and (exception := _exception(self._signal)) is not None:
            raise exception

    def request(self, number: int) -> None:
        """Ask to stop as a signal of that number would."""
        if not self._signal:
            self._signal, self._since = number, time.monotonic()
        elif time.monotonic() > self._since + _ONE_REQUEST and (exception := _exception(number)):
            raise exception

    def requested(self) -> BaseException | None:
        """What to raise if any process was asked to stop; every process gets the same answer."""
        return _exception(distributed.largest(self._signal))

    def for_workers(self) -> Callable[[int], None]:
        """To be called in each of a loader's processes.

        Signals reach a whole group of processes, but workers are needed until the step under way is saved.
        """
        return partial(_stop_with_parent, self._over)


def _exception(number: int) -> BaseException | None:
    if number == signal.SIGTERM:
        return SystemExit(128 + number)  # as a shell reports it
    return KeyboardInterrupt() if number else None


def _stop_with_parent(over: Any, worker: int) -> None:
    def terminate(number: int, frame: FrameType | None) -> None:
        if over.value:
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
