"""A service in a process of its own, as users start one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.web.serving import free_port


class Process:
    """A running service; ``seconds`` it took until it was ready."""

    def __init__(self, words: list[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.port, self.log = port, log
        self.address = f"http://127.0.0.1:{port}"
        started = time.perf_counter()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "reidkit", "serve", *words, "--port", str(port)],
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                stderr=file,
            )
        self._wait()
        self.seconds = time.perf_counter() - started

    def _wait(self) -> None:
        for _ in range(3000):
            try:
                urllib.request.urlopen(f"{self.address}/readyz", timeout=5).read()
                return
            except (urllib.error.URLError, OSError):
                if self.process.poll() is not None:
                    raise AssertionError(self.log.read_text()) from None
                time.sleep(0.02)
        raise AssertionError("the service does not answer")

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def serving(folder: Path, *words: str, **environment: str) -> Iterator[Process]:
    """A service of the galleries of a world's folder."""
    galleries = [str(folder / "own.gallery"), str(folder / "foreign.gallery")]
    given = [*galleries, "--folder", str(folder / "state"), *words]
    process = Process(given, free_port(), folder / "log", environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)
