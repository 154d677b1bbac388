"""Files: read only what is one; written so that a reader sees the old or the new; one writer at a time."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from reidkit.errors import DataError, ReidError

_UNFINISHED = ".unfinished"
_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

_NOT_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class WriteError(ReidError):
    """A file could not be written; what it held before is still there."""


def require_regular(path: str | Path, *, error: type[ReidError] = DataError) -> os.stat_result:
    """Refuse what is no regular file, without opening it: reading a named pipe waits for ever.

    Links are followed. To be called before any file is handed to a reader that opens it by its path.

    Args:
        path: what is to be read.
        error: what is raised, by the kind of file that was expected.

    Raises:
        ReidError: ``error``, in one line: nothing there, a link to nothing or in a circle, a folder, a named
            pipe, a socket, a device, or in a folder that may not be entered.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as problem:
        raise error(_why_absent(Path(path), problem)) from None
    for is_of_kind, kind in _NOT_FILES:
        if is_of_kind(status.st_mode):
            raise error(f"{path} is {kind}, not a file; give a regular file")
    return status


def open_regular(path: str | Path, *, error: type[ReidError] = DataError) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for it.

    Raises:
        ReidError: ``error``, where :func:`require_regular` does, or where the file may not be read.
    """
    require_regular(path, error=error)
    try:
        # Should a pipe have taken the file's place meanwhile, opening it does not wait for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as problem:
        raise error(f"{path} cannot be opened: {problem.strerror}") from None
    return os.fdopen(handle, "rb")


def from_home(path: str | Path) -> Path:
    """A path with the home folder for a ``~`` or ``~user`` at its start; that of an unknown user stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # pathlib's raises for an unknown user


def user_cache(room: str) -> Path:
    """A folder, maybe not yet there, for what can be made again; in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    cache = os.environ.get("XDG_CACHE_HOME") or from_home("~/.cache")
    return Path(cache) / "reidkit" / room


def user_state(room: str) -> Path:
    """A folder, maybe not yet there, for what cannot be made again; in ``$XDG_STATE_HOME`` if it is set."""
    state = os.environ.get("XDG_STATE_HOME") or from_home("~/.local/state")
    return Path(state) / "reidkit" / room


def check_own_folder(path: Path) -> None:
    """Refuse a folder that is a link, where its place was not given: whoever passed it on chose where to.

    Raises :class:`WriteError`.
    """
    if path.is_symlink():
        raise WriteError(
            f"{path} is a link, and files would be written to where it leads; remove it, or put the folder "
            "itself in its place"
        )


def write_atomically(path: str | Path, data: bytes | memoryview | str, *, private: bool = False) -> Path:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename it over ``path``.

    Parent folders are made. Text is written as UTF-8. What is ``private`` no other user of the machine reads.

    Raises:
        WriteError: the disk is full, the folder is not writable, ...; no temporary file is left.
    """
    path = Path(path)
    if isinstance(data, str):
        data = data.encode("utf-8")
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not private:  # as mkstemp's files are
            Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot_write(path, error, left="nothing was changed there") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path


def append(path: Path, text: str) -> None:
    """Write text behind what a file holds; one that breaks off in the middle leaves a part of it.

    Raises:
        WriteError: the disk is full, the file is not writable, ...
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _cannot_write(path, error, left="what it held is still there") from error


def remove_unfinished(folder: Path) -> None:
    """Remove what writers left that were killed. For a folder that nobody else writes to now."""
    for path in filter(is_unfinished, folder.iterdir()):
        path.unlink(missing_ok=True)


def is_unfinished(path: Path) -> bool:
    """Whether a writer is at work on this file, or was killed at it."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold a file's lock while inside; false where someone else holds it.

    The lock is the operating system's: it ends with its process, however that ends, and processes that this
    one starts do not share it. Always true on network file systems that have no locks.

    Raises:
        WriteError: the file cannot be made or written, or is a link, which may lead anywhere.
    """
    # Left to itself it would fall back to a file that outlives a killed process.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_fifo():
            raise WriteError(f"{path} is a link, or a pipe; remove it, and a file is made in its place")
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise _cannot_write(path, error, left="nothing was changed there") from error
    try:
        yield True
    finally:
        lock.release()


def _why_absent(path: Path, problem: OSError | ValueError) -> str:
    if isinstance(problem, ValueError):
        return f"{str(path)[:80]!r} is no path: {problem}"
    if problem.errno == errno.ENAMETOOLONG:
        return f"{str(path)[:80]}... is too long for a path ({len(str(path))} characters)"
    if problem.errno == errno.ELOOP:
        return f"{path} is a link that leads in a circle"
    if problem.errno not in (errno.ENOENT, errno.ENOTDIR):
        return f"{path} cannot be opened: {problem.strerror}"
    if path.is_symlink():
        return f"{path} is a link to {path.readlink()}, which is missing"
    return f"{path} is missing: there is no such file"


def _cannot_write(path: Path, error: OSError, *, left: str) -> WriteError:
    return WriteError(
        f"cannot write {path}: {error.strerror}; {left}. "
        "Free some space or choose another place, then run the same command again"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself last through a power cut, where folders can be flushed (not on Windows)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
