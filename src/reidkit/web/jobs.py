"""Work that takes longer than a request: one job at a time, its state in a file that every process can read.

A job belongs to the process that started it, which holds a lock while it runs; where that process ended
without a word, the lock is free, and the job counts as cancelled. What jobs do can be started
again: it goes on where it stopped.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue

from filelock import FileLock, Timeout

from reidkit.errors import DataError, ReidError
from reidkit.files import write_atomically
from reidkit.logs import get_logger
from reidkit.progress import ProgressCallback
from reidkit.web.answers import JobAnswer
from reidkit.web.together import ENDING, NotReady

logger = get_logger(__name__)

Work = Callable[[ProgressCallback], str]
"""Does a job; called with how to tell of progress, and returns what came of it, as a sentence."""

KEPT = 100
_OPEN = ("waiting", "running")
_CUT_SHORT = "the service ended; start the job again to go on"
_BETWEEN_WRITES = 0.3


class Cancelled(ReidError):
    """The job is to end."""


class Jobs:
    """Jobs in a folder; those that are started here run one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._queue: Queue[tuple[JobAnswer, Work, FileLock] | None] = Queue()
        self._cancelled: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self, kind: str, gallery: str, who: str, work: Work) -> JobAnswer:
        """Start a job, or let it wait for those before it."""
        job = JobAnswer(
            id=secrets.token_hex(8), kind=kind, gallery=gallery, who=who, state="waiting", started=time.time()
        )
        lock = FileLock(self.folder / f"{job.id}.lock", thread_local=False)
        self._forget_old()
        with self._starting:
            if self._closed.is_set():
                raise NotReady(ENDING)
            lock.acquire(timeout=1)
            self._write(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._queue.put((job, work, lock))
        return job

    def get(self, number: str) -> JobAnswer:
        """A job as it is now. Raises :class:`NoSuchJob`."""
        path = self.folder / f"{number}.json"
        if not number.isalnum() or not number.isascii() or len(number) > 32 or not path.is_file():
            raise NoSuchJob("there is no such job, or none any more")
        job = JobAnswer.model_validate_json(path.read_bytes())
        if job.state in _OPEN and not self._is_held(number):
            job = JobAnswer.model_validate_json(path.read_bytes())  # it may have ended meanwhile
            if job.state in _OPEN:
                job = _ended(job, "cancelled", error=_CUT_SHORT)
                self._write(job)
                self._forget_lock(number)
        return job

    def of_gallery(self, gallery: str, number: str) -> JobAnswer:
        """A job, if it is of that gallery. Raises :class:`NoSuchJob`."""
        job = self.get(number)
        if job.gallery != gallery:
            raise NoSuchJob("there is no such job, or none any more")
        return job

    def all(self) -> list[JobAnswer]:
        """All jobs, the newest first."""
        found = []
        for path in self.folder.glob("*.json"):
            try:
                found.append(self.get(path.stem))
            except (NoSuchJob, OSError, ValueError):
                continue
        return sorted(found, key=lambda job: -job.started)

    def cancel(self, number: str) -> JobAnswer:
        """Let a job end at its next step."""
        job = self.get(number)
        if job.state in _OPEN:
            write_atomically(self.folder / f"{number}.cancel", b"", private=True)
            self._cancelled.add(number)
        return job

    def close(self, seconds: float = 10.0) -> None:
        """End what runs at its next step, and start nothing more."""
        with self._starting:
            self._closed.set()
            self._queue.put(None)
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            job, work, lock = taken
            try:
                self._do(job, work)
            finally:
                lock.release()
                self._forget_lock(job.id)

    def _do(self, job: JobAnswer, work: Work) -> None:
        progress = _Progress(self, job)
        try:
            progress.check()
            progress.write("running")
            result = work(progress)
        except Cancelled as error:
            self._write(_ended(progress.job, "cancelled", error=str(error)))
        except Exception as error:
            if self._closed.is_set():  # what it worked on is being closed
                self._write(_ended(progress.job, "cancelled", error=_CUT_SHORT))
            elif isinstance(error, ReidError):
                self._write(_ended(progress.job, "failed", error=str(error)))
            else:
                logger.exception(f"job {job.id} ({job.kind}) failed")
                self._write(
                    _ended(progress.job, "failed", error="a fault of the service; its log says which")
                )
        else:
            self._write(_ended(progress.job, "done", result=result))

    def is_cancelled(self, number: str) -> bool:
        """Whether a job is to end."""
        return (
            self._closed.is_set() or number in self._cancelled or (self.folder / f"{number}.cancel").exists()
        )

    def _is_held(self, number: str) -> bool:
        lock = FileLock(self.folder / f"{number}.lock", thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return True
        lock.release()
        return False

    def _forget_lock(self, number: str) -> None:
        for suffix in (".lock", ".cancel"):
            (self.folder / f"{number}{suffix}").unlink(missing_ok=True)

    def _write(self, job: JobAnswer) -> None:
        write_atomically(self.folder / f"{job.id}.json", job.model_dump_json(), private=True)

    def _forget_old(self) -> None:
        for job in self.all()[KEPT:]:
            if job.state not in _OPEN:
                (self.folder / f"{job.id}.json").unlink(missing_ok=True)


class NoSuchJob(DataError):
    """There is no such job."""


class _Progress:
    """Writes how far a job is, a few times a second, and ends it where that is asked for."""

    def __init__(self, jobs: Jobs, job: JobAnswer) -> None:
        self._jobs, self.job = jobs, job
        self._written = 0.0

    def __call__(self, done: int, total: int) -> None:
        self.job = self.job.model_copy(update={"done": done, "total": total})
        self.check()
        if time.monotonic() - self._written >= _BETWEEN_WRITES:
            self.write("running")

    def check(self) -> None:
        if self._jobs.is_cancelled(self.job.id):
            raise Cancelled("cancelled; what was done stays, and the same job started again goes on")

    def write(self, state: str) -> None:
        self.job = self.job.model_copy(update={"state": state})
        self._jobs._write(self.job)
        self._written = time.monotonic()


def _ended(job: JobAnswer, state: str, *, result: str = "", error: str = "") -> JobAnswer:
    return job.model_copy(update={"state": state, "ended": time.time(), "result": result, "error": error})
