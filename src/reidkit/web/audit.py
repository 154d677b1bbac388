"""The audit log: who asked for what, and when, in a file that only grows and shows where it was changed.

Each line is a JSON object that holds the hash of the line before it, and its own. Changing, removing or
inserting a line breaks the chain from there on; cutting off its end does not, so that ``verify`` tells the
last hash: kept elsewhere, it shows that too. Of pictures and names of people only hashes are written, so
that nothing is left here of what is erased elsewhere.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from reidkit.errors import DataError, shortened
from reidkit.labels import moment

START = "0" * 64
_TAIL = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. ``details`` are what the action was on; ``time`` in Unix seconds."""

    number: int
    time: float
    who: str
    action: str
    gallery: str
    details: Mapping[str, Any]
    hash: str

    def __str__(self) -> str:
        told = "  ".join(f"{key} {_told(value)}" for key, value in self.details.items())
        return (
            f"{self.number}  {moment(self.time)}  {self.who}  {self.action}  {self.gallery}  {told}".rstrip()
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of the chain found: how many entries there are, and the hash of the last."""

    num_entries: int
    head: str


class AuditLog:
    """The log in a file. Threads may share one object, and several processes one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._end: tuple[int, int, str] | None = None  # size, number and hash as this object left the file
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DataError(f"the audit log {path} cannot be opened: {error.strerror}") from None

    def write(
        self, who: str, action: str, *, gallery: str = "", durable: bool = False, **details: Any
    ) -> None:
        """Add an entry.

        Args:
            who: the user's name.
            action: such as "search".
            gallery: what it was on.
            durable: wait until it is on the disk, for what cannot be made undone.
            details: plain values; what is ``None`` or empty is left out.
        """
        known = {key: value for key, value in details.items() if value not in (None, [], (), {}, "")}
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                size, number, before = self._read_end()
                entry = {
                    "number": number + 1,
                    "time": round(time.time(), 3),
                    "who": who,
                    "action": action,
                    "gallery": gallery,
                    "details": known,
                    "before": before,
                }
                entry["hash"] = _hash(entry)
                line = json.dumps(entry).encode() + b"\n"
                if os.write(self._file, line) < len(line):
                    os.ftruncate(self._file, size)
                    raise DataError(f"the audit log {self.path} cannot be written: the disk is full")
                self._end = size + len(line), number + 1, str(entry["hash"])
                if durable:
                    os.fsync(self._file)
            except OSError as error:
                raise DataError(f"the audit log {self.path} cannot be written: {error.strerror}") from None
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def entries(self) -> Iterator[Entry]:
        """All entries, the first first; :class:`DataError` at the first that is not what was written."""
        before, number = START, 0
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                entry = _parsed(line)
                if entry is None or entry.get("before") != before or entry.get("number") != number:
                    raise DataError(
                        f"the audit log {self.path} was changed: entry {number} is not what was written, or "
                        f"does not follow the one before: {shortened(line.decode('utf-8', 'replace'), 60)}"
                    )
                before = entry["hash"]
                yield _entry(entry)

    def verify(self, head: str | None = None) -> Verified:
        """Follow the chain to its end.

        ``head`` is the hash that an earlier check told; the log must still hold it. Raises :class:`DataError`
        where the log is not what was written.
        """
        num, last, seen = 0, START, head in (None, START)
        for entry in self.entries():
            num, last = entry.number, entry.hash
            seen |= last == head
        if not seen:
            raise DataError(
                f"the audit log {self.path} holds no entry of the hash {head}; its end was cut off"
            )
        return Verified(num, last)

    def last(self, num: int) -> list[Entry]:
        """The last entries, the newest first."""
        return list(deque(self.entries(), maxlen=num))[::-1]

    def close(self) -> None:
        os.close(self._file)

    def _read_end(self) -> tuple[int, int, str]:
        """Size of the file, and number and hash of its last entry. What a crash tore is cut off first."""
        size = os.fstat(self._file).st_size
        if self._end is not None and self._end[0] == size:
            return self._end
        tail = os.pread(self._file, min(size, _TAIL), max(0, size - _TAIL))
        whole = tail[: tail.rfind(b"\n") + 1]
        if len(whole) < len(tail):
            size -= len(tail) - len(whole)
            os.ftruncate(self._file, size)
        lines = whole.splitlines()
        if not lines:
            return size, 0, START
        entry = _parsed(lines[-1])
        if entry is None:
            raise DataError(
                f"the last entry of the audit log {self.path} is damaged; move the log away to go on"
            )
        return size, int(entry["number"]), str(entry["hash"])


def hash_of(data: bytes | str) -> str:
    """How a picture, or a person's name, is named in the log."""
    return hashlib.sha256(
        data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    ).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        whole = isinstance(entry, dict) and entry.get("hash") == _hash(entry)
    except (ValueError, RecursionError):
        return None
    return (
        entry
        if whole and line == json.dumps(entry).encode() + b"\n"[: len(line) - len(line.rstrip())]
        else None
    )


def _hash(entry: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in entry.items() if key != "hash"})
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(entry: Mapping[str, Any]) -> Entry:
    return Entry(
        **{key: entry[key] for key in ("number", "time", "who", "action", "gallery", "details", "hash")}
    )


def _told(value: Any) -> str:
    return ",".join(map(_told, value)) if isinstance(value, list) else shortened(str(value), 20)
