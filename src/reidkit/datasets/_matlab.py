"""MATLAB files: version 5 to 7 read whole, version 7.3 (HDF5) opened to read in parts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets._matlab_elements import MatlabFile
from reidkit.errors import DataError, MissingExtra

# What reading damaged bytes raises; h5py's exceptions are of nearly every kind.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, EOFError, RuntimeError, ArithmeticError, AttributeError),
    *(MemoryError, UnboundLocalError),
)
_MAX_PACKING = 1100  # deflate makes nothing smaller than a thousandth


def load_variable(path: Path, name: str) -> Any:
    """One variable of a MATLAB file of version 5 to 7, with axes of length 1 taken away.

    Cells come as object arrays, structs as structured arrays whose fields hold objects.

    Raises:
        DataError: the file is missing, damaged, of another version, or has no such variable.
    """
    _check_exists(path)
    if _is_hdf5(path):
        raise DataError(
            f"{path} is a MATLAB file of version 7.3; expected the release's own, of version 5 to 7"
        )
    try:
        file = MatlabFile(path.read_bytes())
        if name not in file.names:
            raise DataError(_no_variable(path, name, file.names))
        return file.value(name)
    except _DAMAGE as error:
        raise DataError(_damaged(path, error)) from None


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Take values of a MATLAB file apart: where they are of another shape or type, the file is to blame.

    Raises :class:`DataError` for what NumPy and Python then raise.
    """
    try:
        with np.errstate(invalid="raise"):  # NaN is no label, though NumPy makes it an integer
            yield
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise DataError(
            f"{path} holds other values than the release does ({type(error).__name__}: "
            f"{_first_line(error)}); copy it again"
        ) from None


class Hdf5File:
    """An open MATLAB file of version 7.3: variables and cells are read when asked for."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file = file
        self._path = path

    def variable(self, name: str) -> NDArray[Any]:
        """A variable as MATLAB has it: axes in MATLAB's order; a cell array holds references."""
        try:
            names = sorted(set(self._file) - {"#refs#"})
        except _DAMAGE as error:
            raise DataError(_damaged(self._path, error)) from None
        if name not in names:
            raise DataError(_no_variable(self._path, name, names))
        return self._read(name)

    def cell(self, reference: Any) -> NDArray[Any]:
        """What a reference of a cell array points to; an empty array for an empty cell."""
        return self._read(reference)

    def _read(self, key: Any) -> NDArray[Any]:
        try:
            dataset = self._file[key]
            if dataset.attrs.get("MATLAB_empty", 0):
                return np.empty((0, 0))
            self._check_size(dataset)
            # HDF5 stores rows first, MATLAB columns: all axes are reversed.
            return np.asarray(dataset[()]).T
        except _DAMAGE as error:
            raise DataError(_damaged(self._path, error)) from None

    def _check_size(self, dataset: Any) -> None:
        """Refuse what claims more values than the file can hold: it would take all memory."""
        stored = dataset.id.get_storage_size()
        if dataset.nbytes > _MAX_PACKING * stored + 2**20:
            raise DataError(
                f"{self._path} is damaged: {dataset.name} claims {dataset.nbytes:,} bytes, of which "
                f"{stored:,} are there; copy it again"
            )


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5File]:
    """Open a MATLAB file of version 7.3.

    Raises:
        DataError: the file is missing, damaged, or not of version 7.3; also later, where damage shows
            only when a part is read.
        MissingExtra: h5py is not installed.
    """
    try:
        import h5py
    except ImportError:
        raise MissingExtra("h5py", extra="data", needed_for=f"reading {path.name} (MATLAB 7.3)") from None
    _check_exists(path)
    if not _is_hdf5(path):
        raise DataError(f"{path} is not a MATLAB file of version 7.3 (HDF5); copy it again")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(_damaged(path, error)) from None
    with file:
        yield Hdf5File(file, path)


def _check_exists(path: Path) -> None:
    if not path.is_file():
        state = "is no plain file" if path.exists() else "is missing: there is no such file"
        raise DataError(f"{path} {state}; it is part of the release")


def _is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature stands at the start or behind MATLAB's 512-byte header."""
    signature = b"\x89HDF\r\n\x1a\n"
    with path.open("rb") as file:
        start = file.read(512 + len(signature))
    return start.startswith(signature) or start[512:] == signature


def _damaged(path: Path, error: Exception) -> str:
    return f"{path} is truncated or damaged ({_first_line(error)}); copy it again"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _no_variable(path: Path, name: str, found: list[str]) -> str:
    return f"{path} has no variable {name!r}; found {', '.join(found) or 'none'}"
