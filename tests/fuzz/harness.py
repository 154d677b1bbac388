"""Runs cases in worker processes that may die or hang, and gathers what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds, after which a worker is ended and the case tried once more by a fresh one
PROCESS_PATIENCE = 120.0  # of a case that is a process of its own
START = 240.0  # of importing torch and all the rest on a busy machine


@dataclass(frozen=True)
class Failure:
    """A case with faults; ``report`` is all that is known of it."""

    kind: str
    number: int
    faults: tuple[str, ...]
    report: dict[str, Any]

    def __str__(self) -> str:
        command = " ".join(map(repr, self.report.get("command", ())))
        return (
            f"{self.kind} {self.number}: {'; '.join(self.faults[:3])}\n"
            f"  {command or 'of unknown command: its worker is gone'}\n"
            f"  again: python benchmarks/fuzzing.py --kind {shlex.quote(self.kind)} --number {self.number}"
        )


@dataclass
class Tally:
    """Cases by kind, and the failures among them."""

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # with exit code 2
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count another's cases with these."""
        self.cases += other.cases
        self.refused += other.refused
        self.failures += other.failures

    def table(self) -> str:
        """Markdown: a row for each kind."""
        failed = Counter(failure.kind for failure in self.failures)
        rows = [
            f"| {kind} | {count:,} | {self.refused[kind] / count:.0%} | {failed[kind]:,} |"
            for kind, count in self.cases.items()
        ]
        refused = sum(self.refused.values()) / max(1, self.cases.total())
        total = f"| all | {self.cases.total():,} | {refused:.0%} | {len(self.failures):,} |"
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
        self._process: subprocess.Popen[bytes] | None = None  # imports once, and forks workers
        self._worker = 0  # process number of the present one
        self._gathered = b""

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
            tally.refused[kind] += report.get("code") == 2
            if report["faults"]:
                tally.failures.append(Failure(kind, number, tuple(report["faults"]), report))
        return tally

    def report(self, kind: str, number: int, *, process: bool = False) -> dict[str, Any]:
        """What came of one case, with its ``faults``."""
        request = {"kind": kind, "number": number, "process": process}
        report = self._ask(request)
        if report.get("hangs") or report.get("seconds", 0) > PATIENCE:  # perhaps the machine was busy
            report = self._ask(request)
        return report

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._process is None:
            self._start()
        self._send(request)
        answer = self._receive(PROCESS_PATIENCE if request["process"] else PATIENCE + 2)
        hangs = answer is None
        if answer is None:
            answer = self._end_worker()
        if "died" in answer:
            place = self._last_place()
            self._worker = self._expect(START)["pid"]
            fault = f"hangs, {place}" if hangs else f"the process died ({answer['died']}), {place}"
            return {"faults": [fault], "hangs": hangs, "command": [], "code": None}
        return answer

    def _end_worker(self) -> dict[str, Any]:
        for number in (signal.SIGABRT, signal.SIGKILL):  # to the first its fault handler notes where it is
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._worker, number)
            answer = self._receive(5.0)
            if answer is not None and "died" in answer:
                return answer
        return self._expect(START)

    def _send(self, request: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _expect(self, patience: float) -> dict[str, Any]:
        answer = self._receive(patience)
        if answer is None:
            raise TimeoutError(f"the worker has said nothing for {patience} seconds")
        return answer

    def _receive(self, patience: float) -> dict[str, Any] | None:
        """The next line of JSON, or None where none comes."""
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + patience
        while b"\n" not in self._gathered:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise ChildProcessError("the worker is gone, and with it all that starts others")
            self._gathered += piece
        line, _, self._gathered = self._gathered.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
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
        command = [sys.executable, "-m", "tests.fuzz.worker", str(self.folder)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._worker = self._expect(START)["pid"]

    def _stop(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None

    def _last_place(self) -> str:
        """The innermost line of reidkit in what the worker's fault handler wrote."""
        crash = self.folder / "crash"
        text = crash.read_text(errors="replace") if crash.is_file() else ""
        _, _, current = text.rpartition("Current thread")  # others may wait elsewhere
        places = re.findall(r'reidkit/([\w/]+\.py)", line \d+ in (\w+)', current or text)
        return f"{places[0][0]}:{places[0][1]}" if places else "in no line of reidkit"
