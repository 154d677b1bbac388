"""Arrays of features as columns of a Parquet file: a row an image, ``part`` telling query from gallery."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra, did_you_mean, shortened, shown
from reidkit.files import require_regular

PARQUET_MAGIC = b"PAR1"
PARTS = ("query", "gallery")
COLUMNS = {
    "embeddings": "embedding",
    "identities": "identity",
    "cameras": "camera",
    "tracklets": "tracklet",
    "indices": "index",
    "times": "time",
    "paths": "path",
    "sources": "source",
    "encoders": "encoder",
}
"""Columns by the names of the arrays."""

_A = {"array": "an array", "column": "a column"}
_MAX_BYTES, _MAX_RATIO = 1 << 30, 1000


def as_parquet(sets: Mapping[str, Mapping[str, NDArray[Any]]]) -> memoryview:
    """Arrays by part ("" for one set alone) and name as the bytes of a Parquet file.

    Paths are text, or, where one is no text (a file name that is not UTF-8), the bytes of all names.

    Raises:
        DataError: a column of numbers in one part and of text in the other.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow("writing")
    as_bytes = any(_has_odd_names(arrays) for arrays in sets.values())
    tables = []
    for part, arrays in sets.items():
        columns = {"part": pyarrow.array([part] * len(arrays["embeddings"]))} if part else {}
        for name, values in arrays.items():
            if name == "embeddings":
                flat = pyarrow.array(np.asarray(values, np.float32).ravel())
                columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
            elif name == "paths" and as_bytes:
                columns["path"] = pyarrow.array([os.fsencode(path) for path in values.tolist()])
            elif name == "encoders":
                columns["encoder"] = pyarrow.array(values.tolist() * len(arrays["embeddings"]))
            else:
                columns[COLUMNS[name]] = pyarrow.array(values)
        tables.append(pyarrow.table(columns))
    # A column that only one set has is empty in the other.
    try:
        table = pyarrow.concat_tables(tables, promote_options="default")
    except pyarrow.ArrowException as error:
        raise DataError(
            f"query and gallery do not fit into one table, write both the same way: {error}"
        ) from None
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getbuffer()


def read_parquet(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a Parquet file, ``query_`` or ``gallery_`` in front of their names where there are parts.

    Raises:
        DataError: damaged, a column missing or of no known meaning, an unknown part, embeddings that are no
            lists of equally many numbers, a column with gaps, or far more values than the file can hold.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow("reading")
    require_regular(path)
    try:
        with parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names)
            _check_size(path, file.metadata)
            return _arrays(path, file.read())
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {shortened(_first_line(error), 200)}") from None


def import_pyarrow(doing: str) -> tuple[ModuleType, ModuleType]:
    """The modules pyarrow and pyarrow.parquet; raises :class:`MissingExtra` where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", extra="data", needed_for=f"{doing} Parquet files of features") from None
    return pyarrow, pyarrow.parquet


def missing(path: Path, kind: str, name: str, found: Any) -> str:
    """One sentence on an array or column that is not there."""
    names = ", ".join(shown(other, 40)[1:-1] for other in list(found)[:20]) or "none"
    return f"{path} has no {kind} {name!r};{did_you_mean(name, found)} Found: {names}. Rename or add it"


def unknown(path: Path, kind: str, name: str, known: Any) -> str:
    """One sentence on an array or column that says nothing."""
    return (
        f"{path} has {_A[kind]} {shown(name)} of no known meaning;{did_you_mean(name, known)} "
        f"Known: {', '.join(known)}. Rename it or leave it out"
    )


def _has_odd_names(arrays: Mapping[str, NDArray[Any]]) -> bool:
    try:
        for path in arrays["paths"].tolist() if "paths" in arrays else ():
            path.encode()
    except UnicodeEncodeError:
        return True
    return False


def _check_columns(path: Path, found: list[str]) -> None:
    known = ("part", *COLUMNS.values())
    for name in ("embedding", "identity"):
        if name not in found:
            raise DataError(missing(path, "column", name, found))
    for name in found:
        if name not in known:
            raise DataError(unknown(path, "column", name, known))
        if found.count(name) > 1:
            raise DataError(f"{path} has the column {name!r} twice; leave one out")


def _check_size(path: Path, metadata: Any) -> None:
    """A few bytes can repeat one value a billion times."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    num_values = sum(group.column(c).num_values for group in groups for c in range(metadata.num_columns))
    if 8 * num_values > max(_MAX_BYTES, _MAX_RATIO * path.stat().st_size):
        raise DataError(
            f"{path} has {path.stat().st_size:,} bytes and claims {num_values:,} values; write it without "
            "repeating one value over and over"
        )


def _arrays(path: Path, table: Any) -> dict[str, NDArray[Any]]:
    import pyarrow

    parts = _parts(path, table)
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("",) if parts is None else PARTS:
        rows = table if parts is None else table.filter(pyarrow.array(parts == part))
        for name, column in COLUMNS.items():
            # A column that only the other set fills is absent from this one.
            if column in rows.column_names and (rows[column].null_count < len(rows) or not part):
                arrays[f"{part}_{name}" if part else name] = _column(path, column, part, rows[column])
    if parts is not None and "gallery" not in parts:
        return {name.removeprefix("query_"): values for name, values in arrays.items()}
    return arrays


def _parts(path: Path, table: Any) -> NDArray[Any] | None:
    if "part" not in table.column_names:
        return None
    parts = np.array(table["part"].to_pylist(), dtype=object)
    for row, part in enumerate(parts):
        if not isinstance(part, str) or part not in PARTS:
            raise DataError(
                f"{path}, row {row}: part is {shown(part)};{did_you_mean(str(part), PARTS)} "
                f"Parts: {', '.join(PARTS)}"
            )
    return parts


def _column(path: Path, column: str, part: str, values: Any) -> NDArray[Any]:
    """A column as an array: (N, D) for lists of equal length, else (N,)."""
    if values.null_count and column != "camera":  # one that is not known
        row = values.is_null().to_pylist().index(True)
        raise DataError(
            f"{path}: column {column!r} is empty in {values.null_count} of {len(values)} "
            f"{part + ' ' if part else ''}rows (first: {row}); fill it everywhere or leave it out"
        )
    if column == "embedding":
        return _embeddings(path, values)
    if column == "path":
        return np.array([os.fsdecode(value) for value in _texts(path, column, values)], dtype=np.str_)
    cells = np.empty(len(values), dtype=object)
    cells[:] = [value if not isinstance(value, list | dict) else str(value) for value in values.to_pylist()]
    return cells


def _texts(path: Path, column: str, values: Any) -> list[str | bytes]:
    cells = values.to_pylist()
    if not all(isinstance(cell, str | bytes) for cell in cells):
        raise DataError(f"{path}: column {column!r} is of type {values.type}; expected text")
    return list(cells)


def _embeddings(path: Path, values: Any) -> NDArray[Any]:
    import pyarrow.compute
    from pyarrow import types

    kind = values.type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not is_list or not types.is_floating(kind.value_type):
        raise DataError(
            f"{path}: column 'embedding' is of type {shortened(str(kind))}; expected a list of "
            "floating-point numbers a row"
        )
    lengths = np.unique(pyarrow.compute.list_value_length(values).to_numpy())
    if len(lengths) > 1:
        raise DataError(
            f"{path}: embeddings have {lengths[0]} to {lengths[-1]} numbers; expected equally many"
        )
    numbers = values.combine_chunks().flatten()
    if numbers.null_count:
        raise DataError(f"{path}: {numbers.null_count} numbers of the embeddings are missing")
    flat: NDArray[Any] = numbers.to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), lengths.max(initial=0))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
