"""The file of a gallery's vectors: unit rows, each with a checksum behind it.

A row is the vector, little-endian (:mod:`reidkit.galleries._storage`), padded to whole 64-bit words, and one
word more: its checksum. That is
the sum, modulo 2^64, of the row's words and its number, each times an odd key of its own that is drawn from
the file's name. Any flipped bit changes it, since 2^k times an odd number is not 0; of other damage one in
2^64 goes unseen; and a row in another place, or of another file, does not fit. NumPy multiplies and sums
integers nearly as fast as memory gives them. The checksum guards against damage, not against forgers.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.galleries._storage import Storage, Words, float_name, is_whole, num_words, packed, suffix_of

NAME = re.compile(r"vectors-[0-9a-f]{16}\.(f32|f16|i8)")
"""Names that are written."""

INDEX_NAME = re.compile(r"index-[0-9a-f]{16}\.faiss(\.unfinished)?")
"""Names of approximate indexes over such files, of the same number."""

NAME_1 = re.compile(r"vectors(-[1-9][0-9]{0,18})?\.f32")
"""Names of format 1."""

ROWS_AT_ONCE = 2048  # rows of 512 numbers that a processor's cache holds


def new_name(storage: Storage = "float32") -> str:
    """Never given before: what a killed writer left is not taken for another's file."""
    return f"vectors-{secrets.token_hex(8)}.{suffix_of(storage)}"


def remove_others(folder: Path, name: str) -> None:
    """Delete the files of vectors, of any format, but that of this name, and the indexes over them: no item's
    vector is in them."""
    for path in folder.glob("vectors*"):
        if path.name not in (name, float_name(name)) and (
            NAME.fullmatch(path.name) or NAME_1.fullmatch(path.name)
        ):
            with contextlib.suppress(OSError):  # in use, where the system forbids it; a later writer does it
                path.unlink()
    index = name.replace("vectors-", "index-").partition(".")[0]
    for path in folder.glob("index-*"):
        if INDEX_NAME.fullmatch(path.name) and not path.name.startswith(f"{index}."):
            with contextlib.suppress(OSError):
                path.unlink()
    for path in folder.glob("labels.columns*"):  # an earlier version kept labels there
        with contextlib.suppress(OSError):
            path.unlink()


def checksums(words: Words, numbers: NDArray[np.int64], name: str) -> Words:
    """Checksums (R,) that rows of words (R, W) with these numbers (R,) have in the file of this name."""
    key = _key(name, words.shape[1])
    total: Words = words[:, :-1] @ key[:-1] + numbers.astype(np.uint64) * key[-1]
    return total


def damaged(words: Words, numbers: NDArray[np.int64], *, name: str, dimension: int) -> NDArray[np.int64]:
    """Those of the row numbers (K,), ascending, whose row does not fit its checksum, or is no unit vector's.

    Words: (R, W), all rows of the file.
    """
    wrong = []
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        some = numbers[start : start + ROWS_AT_ONCE]
        whole = some[-1] - some[0] == len(some) - 1
        rows = words[some[0] : some[-1] + 1] if whole else words[some]
        fits = checksums(rows, some, name) == rows[:, -1]
        wrong.append(some[~(fits & is_whole(rows, name, dimension))])
    return np.concatenate(wrong) if wrong else np.empty(0, np.int64)


def map_rows(path: Path, *, num_rows: int, dimension: int) -> Words:
    """The first rows of a file as words (R, W), read only when they are used.

    Raises :class:`DataError` where it is missing, too short, a link, or no regular file.
    """
    shape = (num_rows, num_words(path.name, dimension))
    if not num_rows:
        return np.empty(shape, np.uint64)
    try:
        with open_regular(path, os.O_RDONLY) as file:
            check_length(path, os.fstat(file.fileno()).st_size, num_rows, dimension)
            return np.memmap(file, "<u8", mode="r", shape=shape).view(np.ndarray)
    except FileNotFoundError:
        check_length(path, 0, num_rows, dimension)
        raise
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def identity(path: Path, *, num_rows: int, dimension: int) -> tuple[int, int] | None:
    """What tells a file from another that is put in its place; ``None`` where there is none and no row.

    Raises :class:`DataError` where the file is shorter than its rows: whoever read on would be killed.
    """
    try:
        status = path.stat()
    except OSError:
        check_length(path, 0, num_rows, dimension)
        return None
    check_length(path, status.st_size, num_rows, dimension)
    return status.st_dev, status.st_ino


def check_length(path: Path, size: int, num_rows: int, dimension: int) -> None:
    """Raise :class:`DataError` where a file has fewer bytes than its rows need."""
    needed = num_rows * num_words(path.name, dimension) * 8
    if size < needed:
        raise DataError(
            f"{path} has {size} bytes, but items.sqlite counts {num_rows} embeddings of {dimension} numbers "
            f"({needed} bytes); it was cut or replaced by something else: put a copy in its place, or fill "
            "a new gallery"
        )


def write_rows(path: Path, vectors: Iterable[NDArray[np.float32]], *, first: int, dimension: int) -> int:
    """Bring vectors, in portions (n, D), to disk as the rows from ``first`` on, which end the file; how many.

    Whatever the file holds behind is of a writer that was killed. It is cut there again where writing fails.
    A vector that is not of unit length gets a checksum that does not fit: it was damaged before.

    Raises :class:`DataError`: the disk is full, the file cannot be written, is a link, or has another name.
    """
    offset, row = first * num_words(path.name, dimension) * 8, first
    check_length(path, path.stat().st_size if path.is_file() else 0, first, dimension)
    try:
        with open_regular(path, os.O_RDWR | (0 if first else os.O_CREAT)) as file:
            check_only_name(path)
            try:
                file.truncate(offset)
                file.seek(offset)
                for some in vectors:
                    _write(file, _rows(some, np.arange(row, row + len(some)), path.name))
                    row += len(some)
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(offset)
                raise
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}; the gallery is as it was") from error
    return row - first


def open_regular(path: Path, flags: int) -> FileIO:
    """Open a file that is no link, device or pipe, without waiting; :class:`DataError` for those."""
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    check_regular(path)
    handle = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):  # put in its place just now
        os.close(handle)
        raise DataError(f"{path} is not a regular file; a gallery holds nothing else")
    return FileIO(handle, "r+b" if flags & os.O_RDWR else "rb")


def check_regular(path: Path) -> None:
    """Raise :class:`DataError` where something other than a regular file stands at a path."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        kind = "a link, which may lead out of the gallery" if stat.S_ISLNK(mode) else "not a regular file"
        raise DataError(f"{path} is {kind}; remove it, or put a copy of the file in its place")


def check_only_name(path: Path) -> None:
    """Raise :class:`DataError` where a file that is to be written to has a second name elsewhere."""
    try:
        num_names = path.stat().st_nlink
    except OSError as error:
        raise DataError(f"{path} cannot be opened: {error.strerror}") from error
    if num_names > 1:
        raise DataError(
            f"{path} has a second name (a hard link), whose content would change with it; copy the gallery's "
            "folder, and write to the copy"
        )


def _rows(vectors: NDArray[np.float32], numbers: NDArray[np.int64], name: str) -> Words:
    words = packed(vectors, name)
    words[:, -1] = checksums(words, numbers, name)
    words[~is_whole(words, name, vectors.shape[1]), -1] ^= np.uint64(1)
    return words


def _write(file: FileIO, words: Words) -> None:
    left = words.data.cast("B")
    while left:  # a disk that is nearly full takes a part
        left = left[file.write(left) :]


@functools.lru_cache(maxsize=16)
def _key(name: str, num: int) -> Words:
    """Odd numbers (num,), the same for a name on every machine."""
    return np.frombuffer(hashlib.shake_128(name.encode()).digest(8 * num), "<u8") | np.uint64(1)
