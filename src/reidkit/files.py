"""Writing files so that a reader sees the old one or the new one, never a part; and one writer at a time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from reidkit.errors import ReidError

try:
    import fcntl
except ImportError:  # Windows
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

_UNFINISHED = ".unfinished"


class WriteError(ReidError):
    """A file could not be written; what it held before is still there."""


def write_atomically(path: str | Path, data: bytes | memoryview | str) -> Path:
    """Write to a temporary file beside ``path``, flush it to the disk, then rename it over ``path``.

    Parent folders are made. Text is written as UTF-8.

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
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp's files are private; this one is the user's
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
    """Hold a file's lock while inside; false where another process holds it.

    The lock is the operating system's: it ends with its process, however that ends, and processes that this
    one starts do not share it. Always true where there are no such locks: on Windows (:data:`HAS_LOCKS`) and
    on some network file systems.

    Raises:
        WriteError: the file cannot be made or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise _cannot_write(path, error, left="nothing was changed there") from error
    with file:
        yield _locked(file)


def _locked(file: TextIO) -> bool:
    if HAS_LOCKS:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # the two answers that POSIX allows
            return False
        except OSError:  # the file system has no locks
            return True
    return True


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
