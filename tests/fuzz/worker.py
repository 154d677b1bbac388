"""The process in which cases run: ``python -m tests.fuzz.worker FOLDER``, a request a line, an answer a line.

It may die, hang or be killed at any time; the process that forked it then forks another.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from tests.fuzz import judge
from tests.fuzz.cases import KINDS, Case, Maker
from tests.fuzz.hostile import CANARY
from tests.fuzz.judge import Outcome
from tests.fuzz.world import World

MEMORY_LEFT = 4 * 2**30  # bytes of address space that a case may take; more is refused by the system
PROCESS_MEMORY = 16 * 2**30  # the same of a whole process, whose libraries alone reserve several GB
PROCESS_SECONDS = 60.0  # with the seconds that importing torch takes on a slow machine

_NEVER_IMPORTED = frozenset({CANARY, "antigravity", "this", "turtledemo", "idlelib"})
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
_MOVES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Blocked(BaseException):
    """What a case did that none may do; no ``except Exception`` takes it for its own."""


class Guard:
    """An audit hook, which Python offers no way to take out again; it looks while a case runs."""

    def __init__(self, base: Path) -> None:
        self.allowed = tuple(str(base / name) for name in ("case", "tmp", "home"))
        self.case: Case | None = None
        self.events: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[Any, ...]) -> None:
        if self.case is None:
            return
        if event == "import":
            if str(args[0]).partition(".")[0] in _NEVER_IMPORTED:
                self._block(f"imported {args[0]}")
        elif event == "open":
            self._see_open(*args)
        elif event in _STARTS:
            if not self.case.starts_python:
                self._block(f"started a process ({event})")
        elif event in _NETWORK:
            self._block(f"used the network ({event})")
        elif event in _MOVES:
            for path in args[: 2 if event in ("os.rename", "os.link", "os.symlink") else 1]:
                self._see_write(path)

    def _see_open(self, path: object, mode: str | None, flags: int) -> None:
        if isinstance(path, (str, bytes, os.PathLike)):
            if os.fsdecode(path).endswith(f"{CANARY}.py"):
                self._block(f"opened {CANARY}.py")
            if flags & _WRITE_FLAGS or (mode and set(mode) & set("wax+")):
                self._see_write(path)

    def _see_write(self, path: object) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        full = os.path.realpath(os.fsdecode(path))
        inside = any(full == place or full.startswith(place + os.sep) for place in self.allowed)
        if not inside and not full.startswith("/dev/"):
            self._block(f"wrote outside its folder ({Path(full).name})")

    def _block(self, what: str) -> None:
        self.events.append(what)
        raise Blocked(what)


class Worker:
    def __init__(self, base: Path) -> None:
        self.base = base
        self.world = World(base / "world")
        for name in ("world", "sentinel", "home", "tmp"):
            (base / name).mkdir(parents=True, exist_ok=True)
        (base / "sentinel" / "victim").write_bytes(b"untouched")
        (base / "sentinel" / f"{CANARY}.py").write_text(
            "def call(*args, **kwargs):\n    return 'ran'\n\nNet = call\n"
        )
        sys.path.append(str(base / "sentinel"))
        self.guard = Guard(base)
        self.out = (base / "stdout").open("w+b", buffering=0)
        self.err = (base / "stderr").open("w+b", buffering=0)
        for number, file in ((1, self.out), (2, self.err)):
            os.dup2(file.fileno(), number)

    def answer(self, kind: str, number: int, *, process: bool = False) -> dict[str, Any]:
        """Run one case; its faults and all that it printed."""
        try:
            case = self._make(kind, number)
        except Exception as error:
            return {"faults": [f"the case cannot be made: {error!r}"], "traceback": traceback.format_exc()}
        outcome = self._judged_run(case, process)
        if outcome.code == 3 and isinstance(case.run, tuple):
            again = dataclasses.replace(case, run=("--debug", *case.run))
            self._make(kind, number)
            debugged = self._judged_run(again, False)
            outcome.traceback = debugged.stderr[-6000:]
            outcome.error = _signature_of_text(debugged.stderr)
        command = case.run if isinstance(case.run, tuple) else ("a call in Python",)
        return {
            "faults": judge.faults(case, outcome),
            "command": [shown[:300] for shown in command],
            **dataclasses.asdict(outcome),
        }

    def _make(self, kind: str, number: int) -> Case:
        os.chdir(self.base)
        for name in ("case", "tmp"):
            _remove(self.base / name)
            (self.base / name).mkdir()
        maker = Maker.of(kind, number, self.base / "case", self.world)
        os.chdir(self.base / "case")
        return KINDS[kind].make(maker)

    def _judged_run(self, case: Case, process: bool) -> Outcome:
        before = self._trees()
        outcome = Outcome()
        started = time.perf_counter()
        if process and isinstance(case.run, tuple):
            self._run_process(case.run, outcome)
        else:
            self._run_here(case, outcome)
        outcome.seconds = 0.0 if process else time.perf_counter() - started
        os.chdir(self.base / "case")
        outcome.changes = judge.changes(before, self._trees())
        return outcome

    def _trees(self) -> dict[str, tuple[object, ...]]:
        trees = judge.tree(self.base / "case")
        for name in ("sentinel", "tmp"):
            trees.update({f"../{name}/{path}": state for path, state in judge.tree(self.base / name).items()})
        return trees

    def _run_process(self, args: tuple[str, ...], outcome: Outcome) -> None:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_AS, (PROCESS_MEMORY, PROCESS_MEMORY))

        command = [sys.executable, "-m", "reidkit", *args]
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=limit,
            start_new_session=True,
        ) as child:
            try:
                out, err = child.communicate(timeout=PROCESS_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                out, err = child.communicate()
                outcome.events.append(f"more than {PROCESS_SECONDS:.0f} seconds as a process")
        outcome.code = child.returncode
        if child.returncode < 0:
            outcome.events.append(f"died of {signal.Signals(-child.returncode).name} as a process")
        outcome.stdout, outcome.stderr = _text(out), _text(err)

    def _run_here(self, case: Case, outcome: Outcome) -> None:
        environment, argv, path = dict(os.environ), sys.argv, list(sys.path)
        for file in (self.out, self.err):
            file.seek(0)
            file.truncate()
        resting = _reset_peak()
        _limit_memory(_address_space() + MEMORY_LEFT)
        self.guard.events = outcome.events
        self.guard.case = case
        try:
            with warnings.catch_warnings():  # a command sets the filters of its whole process
                outcome.code = _run_command(case.run) if isinstance(case.run, tuple) else _run_call(case.run)
        except Blocked:
            outcome.code = 0  # it stands among the events
        except BaseException as error:
            outcome.code = None
            outcome.error = _signature(error)
            outcome.traceback = "".join(traceback.format_exception(error))[-6000:]
        finally:
            self.guard.case = None
            _limit_memory(resource.RLIM_INFINITY)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os.environ.clear()
            os.environ.update(environment)
            sys.argv, sys.path[:] = argv, path
        outcome.memory = max(0, _peak() - resting)
        for name, file in (("stdout", self.out), ("stderr", self.err)):
            file.seek(0)
            setattr(outcome, name, _text(file.read()))


def _import_everything() -> None:
    """So that what libraries do when they are imported is not taken for a case's doing."""
    import pkgutil

    import reidkit

    for name in ("torch._dynamo", "torchvision", "timm", "matplotlib.pyplot", "scipy.io", "rich.progress"):
        import_module(name)
    for module in pkgutil.walk_packages(reidkit.__path__, "reidkit."):
        if not module.name.endswith("__main__"):
            import_module(module.name)


def _run_command(args: tuple[str, ...]) -> int:
    from reidkit.cli import main

    sys.argv = ["reid", *args]
    return _exit_code(main)


def _exit_code(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def _run_call(call: Callable[[], object]) -> int:
    """A call's ReidError is judged as the command line would print it."""
    from reidkit.errors import ReidError

    def printed() -> None:
        answer = call()
        if isinstance(answer, str):
            print(answer)

    try:
        return _exit_code(printed)
    except ReidError as error:
        lines = f"error: {error}".splitlines()
        print("\n".join(_printable(line) for line in lines), file=sys.stderr)
        return 2


def _printable(text: str) -> str:
    """A message's control characters are the command line's to make visible, and are judged there."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _signature(error: BaseException) -> str:
    """Type and the innermost place in reidkit: equal for failures of one cause."""
    place = "?"
    for frame in traceback.extract_tb(error.__traceback__):
        if f"{os.sep}reidkit{os.sep}" in frame.filename and f"cli{os.sep}__init__" not in frame.filename:
            place = f"{frame.filename.rpartition(os.sep + 'reidkit' + os.sep)[2]}:{frame.name}"
    return f"{type(error).__name__} in {place}"


def _signature_of_text(text: str) -> str:
    """The same of a traceback that was printed."""
    places = re.findall(r'reidkit/([\w/]+\.py)", line \d+, in (\S+)', text)
    kinds = re.findall(r"^([\w.]+(?:Error|Exception|Interrupt|Exit|Warning)\b)", text, re.MULTILINE)
    place = [f"{file}:{name}" for file, name in places if "cli/__init__" not in file]
    return f"{kinds[-1] if kinds else '?'} in {place[-1] if place else '?'}"


def _text(content: bytes) -> str:
    return content[-200_000:].decode("utf-8", "surrogateescape")


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _limit_memory(amount: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (amount, resource.RLIM_INFINITY))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _reset_peak() -> int:
    """Forget the highest memory use so far; the present one in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Import once, then fork a worker, and another whenever one has died.

    Answers are lines of JSON: {"pid": ...} of a new worker, {"died": ...} of one that is gone, else what came
    of a case.
    """
    base = Path(sys.argv[1]).resolve()
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    import tests.fuzz.kinds  # noqa: F401  # registers them

    _import_everything()
    while True:
        worker = os.fork()
        if worker == 0:
            _serve(base, requests, answers)
            os._exit(0)
        _tell(answers, {"pid": worker})
        _, status = os.waitpid(worker, 0)
        if status == 0:  # nothing more is asked
            return
        code = os.waitstatus_to_exitcode(status)
        _tell(answers, {"died": signal.Signals(-code).name if code < 0 else f"exit code {code}"})


def _serve(base: Path, requests: TextIO, answers: TextIO) -> None:
    crash = (base / "crash").open("w")
    faulthandler.enable(crash)  # one that dies leaves its last place here
    worker = Worker(base)
    for line in requests:
        _tell(answers, worker.answer(**json.loads(line)))


def _tell(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
