"""Runs cases in worker processes that may die or hang, and gathers what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

TESTS = Path(__file__).parents[1]
PATIENCE = 10.0  # seconds, after which a worker is ended and the case tried once more by a fresh one
FIRST_PATIENCE = 90.0  # of a worker's first case, which imports torch


@dataclass(frozen=True)
class Failure:
    """A case with faults; ``report`` is all that is known of it."""

    kind: str
    number: int
    faults: tuple[str, ...]
    report: dict[str, Any]

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.number}: {'; '.join(self.faults[:3])}\n"
            f"  reid {' '.join(map(repr, self.report.get('command', ())))}\n"
            f"  again: python benchmarks/fuzzing.py --kind {shlex.quote(self.kind)} --number {self.number}"
        )


@dataclass
class Tally:
    """Cases by kind, and the failures among them."""

    cases: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def table(self) -> str:
        """Markdown: a row for each kind."""
        failed = Counter(failure.kind for failure in self.failures)
        rows = [
            f"| {kind} | {count:,} | {self.codes[kind] / count:.0%} | {failed[kind]:,} |"
            for kind, count in self.cases.items()
        ]
        answered = sum(self.codes.values()) / max(1, self.cases.total())
        total = f"| all | {self.cases.total():,} | {answered:.0%} | {len(self.failures):,} |"
        return "\n".join(["| kind | cases | refused | failures |", "|---|--:|--:|--:|", *rows, total])

    def causes(self) -> list[tuple[str, list[Failure]]]:
        """Failures by what is wrong, the most frequent first."""
        found: dict[str, list[Failure]] = {}
        for failure in self.failures:
            found.setdefault(failure.faults[0], []).append(failure)
        return sorted(found.items(), key=lambda item: -len(item[1]))


class Harness:
    """Hands cases to a worker one by one."""

    def __init__(self, folder: Path | None = None) -> None:
        self._own = folder is None
        self.folder = Path(tempfile.mkdtemp(prefix="reidkit-fuzz-")) if folder is None else folder
        self._worker: subprocess.Popen[bytes] | None = None
        self._patience = FIRST_PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, cases: Iterable[tuple[str, int]], *, process: bool = False) -> Tally:
        """Run cases, given by kind and number."""
        tally = Tally()
        for kind, number in cases:
            report = self.report(kind, number, process=process)
            tally.cases[kind] += 1
            tally.codes[kind] += report.get("code") == 2
            if report["faults"]:
                tally.failures.append(Failure(kind, number, tuple(report["faults"]), report))
        return tally

    def report(self, kind: str, number: int, *, process: bool = False) -> dict[str, Any]:
        """What came of one case, with its ``faults``."""
        request = {"kind": kind, "number": number, "process": process}
        report = self._ask(request)
        if report.get("slow") or report.get("seconds", 0) > PATIENCE:  # perhaps the machine was busy
            self._stop()
            report = self._ask(request)
        return report

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self._worker or self._start()
        assert worker.stdin is not None and worker.stdout is not None
        patience = 120.0 if request["process"] else self._patience
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.write(json.dumps(request).encode() + b"\n")
            worker.stdin.flush()
        line = _line(worker, patience)
        if line is None or not line.endswith(b"\n"):
            slow = line is None
            if slow:
                worker.send_signal(signal.SIGABRT)  # its fault handler notes where it is
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(3)  # its death is its own
            self._stop()
            died = f"hangs, {self._last_place()}" if slow else f"the process died ({_death(worker)}), {self._last_place()}"
            return {"faults": [died], "slow": slow, "command": [], "code": None}
        self._patience = PATIENCE + 5
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUTF8": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "home"),
            "MPLCONFIGDIR": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
        }
        for name in ("home", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fuzz.worker", str(self.folder)]
        self._worker = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._patience = FIRST_PATIENCE
        return self._worker

    def _stop(self) -> None:
        if self._worker is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._worker.pid, signal.SIGKILL)
            self._worker.wait()
            for stream in (self._worker.stdin, self._worker.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
            self._worker = None

    def _last_place(self) -> str:
        """The innermost line of reidkit in what the worker's fault handler wrote."""
        crash = self.folder / "crash"
        text = crash.read_text(errors="replace") if crash.is_file() else ""
        _, _, current = text.rpartition("Current thread")  # others may wait elsewhere
        places = re.findall(r'reidkit/([\w/]+\.py)", line \d+ in (\w+)', current or text)
        return f"{places[0][0]}:{places[0][1]}" if places else "in no line of reidkit"


def _line(worker: subprocess.Popen[bytes], patience: float) -> bytes | None:
    """A line of the worker's answer; cut short where it died, None where it took too long."""
    assert worker.stdout is not None
    gathered, end = b"", time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        while not gathered.endswith(b"\n"):
            if not selector.select(max(0.0, end - time.monotonic())):
                return None
            piece = os.read(worker.stdout.fileno(), 1 << 16)
            if not piece:
                break
            gathered += piece
    return gathered


def _death(worker: subprocess.Popen[bytes]) -> str:
    code = worker.wait()
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def in_order(counts: dict[str, int], *, first: int = 0) -> Iterator[tuple[str, int]]:
    """Kind by kind, which keeps a worker's caches warm."""
    for kind, count in counts.items():
        for number in range(first, first + count):
            yield kind, number
