"""Work of several threads, brought to disk together: bringing it there is what takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class _Entry(Generic[Task, Result]):
    """A task, and what became of it."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.result: Result | None = None
        self.error: Exception | None = None
        self.done = False
        self.leads = False  # its thread is to do all that wait
        self.told = threading.Event()  # that it is done, or leads


class GroupCommit(Generic[Task, Result]):
    """Does the tasks that wait while others are done, all at once.

    Args:
        commit: does tasks in their order, all of them or, where it raises an error, none. Its answer has a
            result for each task, or the error for which that task alone was left out.
    """

    def __init__(self, commit: Callable[[list[Task]], list[Result | Exception]]) -> None:
        self._commit = commit
        self._waiting: list[_Entry[Task, Result]] = []
        self._lock = threading.Lock()
        self._busy = False  # a thread does tasks

    def do(self, task: Task) -> Result:
        """The result of a task, once it is done; its error."""
        entry: _Entry[Task, Result] = _Entry(task)
        with self._lock:
            self._waiting.append(entry)
            entry.leads, self._busy = not self._busy, True
        try:
            if not entry.leads:
                entry.told.wait()
            if entry.leads:
                self._do_all()
        finally:  # where the thread was interrupted, too
            self._leave(entry)
        if entry.error is not None:
            raise entry.error
        assert entry.result is not None
        return entry.result

    def _do_all(self) -> None:
        with self._lock:
            entries, self._waiting = self._waiting, []
        try:
            self._try(entries)
        finally:
            with self._lock:
                self._waiting = [entry for entry in entries if not entry.done] + self._waiting
            for entry in entries:
                if entry.done:
                    entry.told.set()

    def _leave(self, entry: _Entry[Task, Result]) -> None:
        """Take an entry out, and give its turn to the next if it had one."""
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
            if entry.leads and self._waiting:
                self._waiting[0].leads = True
                self._waiting[0].told.set()
            elif entry.leads:
                self._busy = False

    def _try(self, entries: list[_Entry[Task, Result]]) -> None:
        try:
            answers = self._commit([entry.task for entry in entries])
        except Exception as error:
            if len(entries) > 1:  # one of them may be the reason
                for entry in entries:
                    self._try([entry])
                return
            answers = [error]
        for entry, answer in zip(entries, answers, strict=True):
            if isinstance(answer, Exception):
                entry.error = answer
            else:
                entry.result = answer
            entry.done = True
