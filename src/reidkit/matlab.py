"""MATLAB files: version 5 to 7 read whole, version 7.3 (HDF5) opened to read in parts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra

# What SciPy's reader raises on damaged bytes.
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, zlib.error, RuntimeError)


def load_variable(path: Path, name: str) -> Any:
    """One variable of a MATLAB file of version 5 to 7, with axes of length 1 taken away.

    Cells come as object arrays, structs as structured arrays whose fields hold objects.

    Raises:
        DataError: the file is missing, damaged, of version 7.3, or has no such variable.
    """
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    _check_exists(path)
    if _is_hdf5(path):
        raise DataError(
            f"{path} is a MATLAB file of version 7.3; expected the release's own, of version 5 to 7"
        )
    try:
        names = [found for found, _, _ in whosmat(path)]
        variable = loadmat(path, variable_names=[name], squeeze_me=True).get(name)
    except (MatReadError, *_DAMAGE) as error:
        raise DataError(_damaged(path, error)) from None
    if variable is None:
        raise DataError(_no_variable(path, name, names))
    return variable


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
            # HDF5 stores rows first, MATLAB columns: all axes are reversed.
            return np.asarray(dataset[()]).T
        except _DAMAGE as error:
            raise DataError(_damaged(self._path, error)) from None


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
        raise DataError(f"{path} is missing: there is no such file; it is part of the release")


def _is_hdf5(path: Path) -> bool:
    """Whether the HDF5 signature stands at the start or behind MATLAB's 512-byte header."""
    signature = b"\x89HDF\r\n\x1a\n"
    with path.open("rb") as file:
        start = file.read(512 + len(signature))
    return start.startswith(signature) or start[512:] == signature


def _damaged(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path} is truncated or damaged ({reason}); copy it again"


def _no_variable(path: Path, name: str, found: list[str]) -> str:
    return f"{path} has no variable {name!r}; found {', '.join(found) or 'none'}"
