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
    """A file could not be written; what was there before is untouched."""


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
        raise WriteError(
            f"cannot write {path}: {error.strerror}; nothing was changed there. "
            "Free some space or choose another place, then run the same command again"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return path


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
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
