"""The audit log: who asked for what, and when, in a file that only grows and shows where it was changed.

Each line is a JSON object that holds the hash of the line before it, and its own. Changing, removing or
inserting a line breaks the chain from there on; cutting off its end does not, so that ``verify`` tells the
last hash: kept elsewhere, it shows that too. Of pictures and names of people only hashes are written, so
that nothing is left here of what is erased elsewhere.

A power cut can leave the last line torn. The next entry sets what is left of it aside, in a file beside the
log, and one before it says so. Damage further up is nothing that a crash does: nothing is written behind it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from reidkit.errors import DataError, shortened
from reidkit.labels import moment
from reidkit.logs import get_logger

logger = get_logger(__name__)

START = "0" * 64
TORN_ACTION = "torn end set aside"
SERVICE = "service"
_TAIL = 1 << 16
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(("who", "action", "gallery", "before", "hash"), str),
    "number": int,
    "time": (int, float),
    "details": dict,
}
_LATEST = 1e11  # of times that can be told


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log.

    ``details`` are what the action was on; ``time`` in Unix seconds. What is not ``is_intact`` is not what
    was written, or does not follow the line before: of a line that was changed, details are not told.
    """

    number: int
    time: float
    who: str
    action: str
    gallery: str
    details: Mapping[str, Any]
    hash: str
    is_intact: bool = True
    is_torn: bool = False
    """Not written to its end, and the last."""

    def __str__(self) -> str:
        told = "  ".join(f"{key} {_told(value)}" for key, value in self.details.items())
        if not self.is_intact:
            told = f"{'TORN' if self.is_torn else 'NOT AS WRITTEN'}  {told}"
        return (
            f"{self.number}  {moment(self.time)}  {self.who}  {self.action}  {self.gallery}  {told}".rstrip()
        )


@dataclass(frozen=True, slots=True)
class Verified:
    """What a check of the chain found: how many entries there are, and the hash of the last.

    ``remarks`` are sentences on ends that a crash tore.
    """

    num_entries: int
    head: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _End:
    """Where a log ends: bytes of the file, and number and hash of the last entry."""

    size: int
    number: int
    hash: str


class WrittenLog:
    """The log in a file, to be read; the file has to be there. Each verb raises :class:`DataError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> Iterator[Entry]:
        """All entries, the first first; :class:`DataError` at the first that is not what was written.

        The beginning of a last one, which a crash tore, is none.
        """
        return (entry for entry in self._followed() if not entry.is_torn)

    def _followed(self) -> Iterator[Entry]:
        for entry in self.all_entries():
            if not (entry.is_intact or entry.is_torn):
                raise DataError(
                    f"the audit log {self.path} was changed: entry {entry.number} is not what was written, "
                    f"or does not follow the one before: {shortened(str(entry), 90)}"
                )
            yield entry

    def all_entries(self) -> Iterator[Entry]:
        """All entries, the first first, also those that are not what was written."""
        before, number = START, 0
        with self._opened() as file:
            for line in file:
                number += 1
                written = _parsed(line)
                follows = written is not None and (written["before"], written["number"]) == (before, number)
                entry = _changed(line, number) if written is None else _entry(written, is_intact=follows)
                if written is None and not line.endswith(b"\n"):
                    entry = replace(entry, is_torn=True)
                yield entry
                before, number = entry.hash, entry.number

    def verify(self, head: str | None = None) -> Verified:
        """Follow the chain to its end.

        ``head`` is the hash that an earlier check told; the log must still hold it. Raises :class:`DataError`
        where the log is not what was written.
        """
        num, last, seen = 0, START, head in (None, START)
        remarks = []
        for entry in self._followed():
            if entry.is_torn:
                remarks.append("the last entry was not written to its end; the next one sets it aside")
                break
            num, last = entry.number, entry.hash
            seen |= last == head
            if (entry.who, entry.action) == (SERVICE, TORN_ACTION):
                remarks.append(
                    f"a torn end was set aside in {torn_file(self.path).name}, as entry {entry.number} says"
                )
        if not seen:
            raise DataError(
                f"the audit log {self.path} holds no entry of the hash {head}; its end was cut off"
            )
        return Verified(num, last, tuple(remarks))

    def last(self, num: int) -> list[Entry]:
        """The last entries, the newest first, also those that are not what was written."""
        return list(deque(self.all_entries(), maxlen=num))[::-1]

    def _opened(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise DataError(
                f"the audit log {self.path} cannot be read: {error.strerror}; if it was moved, put it back, "
                "or name the folder of the service that wrote it"
            ) from None


class NotWritten(DataError):
    """The log cannot be written, and so nothing is done."""


class AuditLog(WrittenLog):
    """The log in a file that is made if it is not there, to be written too.

    Threads may share one object, and several processes one file. Where the file is moved away, replaced or
    cut, the log goes on in the one at its place, and its next entry says so: it holds the number and the hash
    of the last entry that was known.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock = Lock()
        self._end: _End | None = None  # as this object left the file
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = self._open()

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
            try:
                try:
                    self._lock_in_place()
                    self._set_torn_aside()
                    self._append(who, action, gallery, known)
                    if durable:
                        os.fsync(self._file)
                finally:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
            except OSError as error:
                raise NotWritten(f"the audit log {self.path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotWritten(f"the audit log {self.path} cannot be opened: {error.strerror}") from None

    def _lock_in_place(self) -> None:
        """Lock the file that is at the log's place now, and write down where it is not as it was left."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        known = self._end
        while not self._is_in_place():
            known = known or self._read_end()[0]
            opened = self._open()
            os.close(self._file)  # and its lock
            self._file, self._end = opened, None
            fcntl.flock(self._file, fcntl.LOCK_EX)
        if known is not None and (self._end is None or os.fstat(self._file).st_size < known.size):
            logger.warning(
                f"the audit log {self.path} was moved, replaced or cut; it goes on in what is there"
            )
            self._set_torn_aside()
            self._append(SERVICE, "log replaced", "", {"entries": known.number, "head": known.hash})

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False

    def _append(self, who: str, action: str, gallery: str, details: Mapping[str, Any]) -> None:
        end, _ = self._read_end()
        entry = {
            "number": end.number + 1,
            "time": round(time.time(), 3),
            "who": who,
            "action": action,
            "gallery": gallery,
            "details": details,
            "before": end.hash,
        }
        entry["hash"] = _hash(entry)
        line = json.dumps(entry).encode() + b"\n"
        if os.write(self._file, line) < len(line):
            os.ftruncate(self._file, end.size)
            raise NotWritten(f"the audit log {self.path} cannot be written: the disk is full")
        self._end = _End(end.size + len(line), end.number + 1, str(entry["hash"]))

    def _set_torn_aside(self) -> None:
        """Keep in a file of its own what a crash left behind the last entry that is whole, and say so."""
        end, torn = self._read_end()
        if not torn:
            return
        if _parsed(torn) is not None:  # all but the end of its line was written
            _write_all(self._file, b"\n")
            return
        beside = torn_file(self.path)
        file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_all(file, torn.rstrip(b"\n") + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        os.ftruncate(self._file, end.size)
        logger.warning(
            f"the end of the audit log {self.path} was torn; {len(torn)} bytes are now in {beside}"
        )
        self._append(SERVICE, TORN_ACTION, "", {"bytes": len(torn), "sha256": hash_of(torn)})

    def _read_end(self) -> tuple[_End, bytes]:
        """The end of what is whole, and what a crash left behind it.

        Raises :class:`NotWritten` where more than the last line is damaged.
        """
        size = os.fstat(self._file).st_size
        if self._end is not None and self._end.size == size:
            return self._end, b""
        *others, torn = self._last_lines(size)
        if not torn and others and _parsed(others[-1]) is None:
            torn = others.pop()  # to its end, but not as it was written
        entry = _parsed(others[-1]) if others else None
        if others and entry is None:
            raise NotWritten(
                f"the audit log {self.path} is damaged before its last entry; keep it, moved away, to go on"
            )
        end = _End(size - len(torn), 0, START)
        return end if entry is None else replace(end, number=entry["number"], hash=entry["hash"]), torn

    def _last_lines(self, size: int) -> list[bytes]:
        """The last lines of the file, two whole ones where there are as many, and what is behind them."""
        length = _TAIL
        while True:
            tail = os.pread(self._file, min(size, length), max(0, size - length))
            if tail.count(b"\n") > 2 or length >= size:
                *whole, rest = tail.split(b"\n")
                return [line + b"\n" for line in whole[-2:]] + [rest]
            length *= 4


def torn_file(path: Path) -> Path:
    """Where torn ends of a log are set aside."""
    return path.with_name(f"{path.name}.torn")


def _write_all(file: int, data: bytes) -> None:
    if os.write(file, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hash_of(data: bytes | str) -> str:
    """How a picture, or a person's name, is named in the log."""
    return hashlib.sha256(
        data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    ).hexdigest()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
        whole = isinstance(entry, dict) and set(entry) == set(_KINDS) and entry["hash"] == _hash(entry)
        whole = whole and all(isinstance(entry[key], kind) for key, kind in _KINDS.items())
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


def _entry(entry: Mapping[str, Any], *, is_intact: bool) -> Entry:
    known = ("number", "time", "who", "action", "gallery", "details", "hash")
    return Entry(**{key: entry[key] for key in known}, is_intact=is_intact)


def _changed(line: bytes, number: int) -> Entry:
    """What can still be told of a line that is not what was written, at the place of this number."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    said = found if isinstance(found, dict) else {}
    moment = said.get("time")

    def text(key: str, otherwise: str = "") -> str:
        return said[key] if isinstance(said.get(key), str) else otherwise

    return Entry(
        number,
        moment if isinstance(moment, int | float) and 0 <= moment < _LATEST else 0.0,
        who=text("who"),
        action=text("action", "cannot be read"),
        gallery=text("gallery"),
        details={},
        hash=text("hash"),
        is_intact=False,
    )


def _told(value: Any) -> str:
    return ",".join(map(_told, value)) if isinstance(value, list) else shortened(str(value), 20)
