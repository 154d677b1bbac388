"""Arrays out of ``.npz`` archives and folders of ``.npy`` files, with nothing taken on trust.

A header may claim terabytes, hold Python objects or nest a thousand brackets; an archive may name a member
twice, or unfold to a thousand times its size. Each is detected before memory is allocated.
"""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, shown
from reidkit.files import open_regular

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK"
MAX_UNFOLDED = 1 << 30
"""Bytes that a small file may unfold to in any case; beyond, a hundred times its size."""

_MAX_RATIO = 100
_ERRORS = (
    *(ValueError, TypeError, KeyError, OSError, EOFError, OverflowError),
    *(SyntaxError, RecursionError, tokenize.TokenError),  # headers are Python's literals
)
_ZIP_ERRORS = (*_ERRORS, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an archive as numpy.savez writes it, compressed or not.

    Raises:
        DataError: no zip archive, damaged, encrypted; a member that is no array, is there twice, holds Python
            objects or is not of the size that its header says; or it unfolds to more than it can hold.
    """
    with open_regular(path) as file:
        size = file.seek(0, io.SEEK_END)
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(path, members, size)
                return {name_of(member.filename): _member(path, archive, member) for member in members}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path} is damaged or no .npz file (a zip archive, as numpy.savez writes it): {error}"
            ) from error


def read_folder(path: Path, *, mapped: str) -> dict[str, NDArray[Any]]:
    """The ``.npy`` files of a folder by their stems; those that end in ``mapped`` are memory-mapped.

    Raises:
        DataError: no such file; or one is damaged, or holds Python objects.
    """
    arrays = {}
    for file in sorted(path.iterdir()):
        if file.suffix.lower() != ".npy":
            continue
        with open_regular(file) as stream:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            _check_header(path, file.name, stream, size)
        try:
            array = np.load(file, allow_pickle=False, mmap_mode="r")
        except (*_ERRORS, MemoryError) as error:
            raise DataError(cannot_read(path, file.name, error)) from error
        # Labels are looked at again and again; only embeddings are large.
        arrays[file.stem] = array if file.stem.endswith(mapped) else np.array(array)
    if not arrays:
        raise DataError(
            f"{path} holds no .npy file; expected embeddings.npy and identities.npy, or query_... ones"
        )
    return arrays


def holds_arrays(path: Path) -> bool:
    """Whether a zip archive holds arrays, rather than the weights of a network."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (DataError, *_ZIP_ERRORS):
        return False


def name_of(member: str) -> str:
    """The array's name."""
    return member.removesuffix(".npy")


def cannot_read(path: Path, name: str, error: Exception | str) -> str:
    """One sentence on an array."""
    return f"{path}: {shown(name)} is damaged: {shown(str(error), 200)[1:-1]}"


def _check_members(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if len(names) > 100 or twice is not None:
        what = f"the member {shown(twice)} twice" if len(names) <= 100 else f"{len(names)} members"
        raise DataError(f"{path} holds {what}; write it anew with numpy.savez")
    locked = next((member.filename for member in members if member.flag_bits & 1), None)
    if locked is not None:
        raise DataError(f"{path}: {shown(locked)} is encrypted; write it anew with numpy.savez")
    unfolded = sum(member.file_size for member in members)
    if unfolded > max(MAX_UNFOLDED, _MAX_RATIO * size):
        raise DataError(
            f"{path} has {size:,} bytes and would unfold to {unfolded:,}; if that is meant, write it with "
            "numpy.savez, uncompressed"
        )


def _member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    name = name_of(member.filename)
    if name == member.filename:
        raise DataError(f"{path} holds {shown(name)}, which is no array; an .npz file has nothing but arrays")
    try:
        with archive.open(member) as stream:
            _check_header(path, name, stream, member.file_size)
        with archive.open(member) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read(1)  # to the end, where the checksum is compared
            return array
    except (*_ZIP_ERRORS, MemoryError) as error:
        raise DataError(cannot_read(path, name, error)) from error


def _check_header(path: Path, name: str, stream: IO[bytes], size: int) -> None:
    """Refuse an array that is not as large as what follows its header."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"format {version[0]}.{version[1]} is for arrays of records")
        shape, _, dtype = read(stream)
    except (*_ERRORS, MemoryError) as error:
        raise DataError(cannot_read(path, name, error)) from error
    if dtype.hasobject:
        raise DataError(
            f"{path}: {shown(name)} holds Python objects, which only unpickling (that is, running code) "
            "reads; write it as numbers or text: numpy.array(values.tolist())"
        )
    left = size - stream.tell()
    num_bytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (dtype.itemsize == 0 and math.prod(shape) > 0) or num_bytes > left:
        raise DataError(
            cannot_read(path, name, f"its header says {shown(shape)} of {dtype}, and {left:,} bytes follow")
        )
