"""Embeddings with their labels in files that any program can write: .npz, .parquet, folders of .npy.

A file holds one set or two, ``query`` and ``gallery``. Arrays of an ``.npz`` file, one row an image:

=============== ======================================================================================
``embeddings``  (N, D), floating-point
``identities``  (N,), integers or text; -1 is junk
``cameras``     (N,), integers or text; may be absent, as all that follow
``tracklets``   (N,), integers
``indices``     (N,), integers: places in the split
``times``       (N,), seconds
``paths``       (N,), text
``sources``     (N,), text, equal where two rows show the same picture; without them ``paths`` say so, unless
                one comes twice on a side, since it then holds several people
=============== ======================================================================================

With two sets each name has the set in front: ``query_embeddings``, ``gallery_embeddings``, ... A folder holds
the same arrays as ``query_embeddings.npy`` and so on; its embeddings are memory-mapped. A Parquet file has a
row for each image and the columns ``part`` ("query" or "gallery"; absent with one set), ``embedding`` (a list
of numbers), ``identity``, ``camera``, ``tracklet``, ``index``, ``time``, ``path``, ``source``.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, MissingExtra, did_you_mean
from reidkit.files import write_atomically
from reidkit.types import Features

SUFFIXES = (".npz", ".parquet")
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
}
"""Columns of a Parquet file by the names of the arrays."""

_OPTIONAL = ("cameras", "tracklets", "indices", "times", "sources")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".tar")

Arrays: TypeAlias = dict[str, NDArray[Any]]
Paths: TypeAlias = Sequence[str | PathLike[str]]


def save_features(
    path: str | Path,
    query: Features,
    gallery: Features | None = None,
    *,
    query_paths: Paths | None = None,
    gallery_paths: Paths | None = None,
) -> Path:
    """Write features as ``.npz`` or ``.parquet``, whichever ``path`` ends in.

    Args:
        path: an older file is replaced in one go.
        query: the one set, where there is no gallery.
        gallery: the set that is searched.
        query_paths, gallery_paths: image files of the rows, for readers of the file.

    Raises:
        ConfigError: another suffix.
        DataError: as many paths as rows are needed.
        MissingExtra: Parquet without pyarrow.
    """
    sets = {"": _arrays(query, query_paths)}
    if gallery is not None:
        sets = {"query": sets[""], "gallery": _arrays(gallery, gallery_paths)}
    return _write(Path(path), sets)


def save_embeddings(path: str | Path, embeddings: NDArray[np.floating[Any]], *, paths: Paths) -> Path:
    """Write embeddings (N, D) of images that bear no labels; raises as :func:`save_features` does."""
    return _write(Path(path), {"": {"embeddings": embeddings, "paths": _texts(paths, len(embeddings))}})


def load_features(path: str | Path) -> tuple[Features, Features | None]:
    """Read query and gallery features; the gallery is ``None`` where the file holds one set.

    Raises:
        DataError: no such file, damaged, a pickle; an array missing, of an unknown name, of another shape
            or holding Python objects. The message names it.
        MissingExtra: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix in _PICKLES:
        raise DataError(_pickle_refused(path))
    if path.is_dir():
        arrays = _read_folder(path)
    elif not path.is_file():
        raise DataError(f"{path}: no such file of features")
    elif path.suffix == ".parquet":
        arrays = _read_parquet(path)
    elif path.suffix == ".npz":
        arrays = _read_npz(path)
    else:
        raise DataError(
            f"{path}: features are read from {', '.join(SUFFIXES)} files and folders of .npy files"
        )
    two_sets = any(name.partition("_")[0] in PARTS for name in arrays)
    _check_names(path, arrays, two_sets)
    if two_sets:
        return _features(path, arrays, "query_"), _features(path, arrays, "gallery_")
    return _features(path, arrays, ""), None


def holds_features(path: str | Path) -> bool:
    """Whether a path looks like one for :func:`load_features` rather than like a network."""
    path = Path(path)
    if path.is_dir():
        return any(path.glob("*embeddings.npy"))
    return path.suffix in (*SUFFIXES, ".pkl", ".pickle")


def _arrays(features: Features, paths: Paths | None) -> Arrays:
    arrays = {"embeddings": features.embeddings, "identities": _plain(features.identities)}
    for name in _OPTIONAL:
        if (values := getattr(features, name)) is not None:
            arrays[name] = _plain(values)
    return arrays if paths is None else {**arrays, "paths": _texts(paths, len(features))}


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Without Python objects, which only a pickle can hold."""
    return np.array(values.tolist()) if values.dtype.kind == "O" else values


def _texts(paths: Paths, num_rows: int) -> NDArray[np.str_]:
    if len(paths) != num_rows:
        raise DataError(f"there are {len(paths)} paths for {num_rows} embeddings; give one for each")
    return np.array([str(path) for path in paths], dtype=np.str_)


def _write(path: Path, sets: Mapping[str, Arrays]) -> Path:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: features are written to a file ending in {' or '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return write_atomically(path, _as_parquet(sets))
    named = {
        f"{part}_{name}" if part else name: a for part, arrays in sets.items() for name, a in arrays.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **named)  # type: ignore[arg-type]  # its stubs take our names for its option
    return write_atomically(path, buffer.getbuffer())


def _as_parquet(sets: Mapping[str, Arrays]) -> memoryview:
    pyarrow, parquet = _pyarrow("writing")
    tables = []
    for part, arrays in sets.items():
        columns = {"part": pyarrow.array([part] * len(arrays["embeddings"]))} if part else {}
        for name, values in arrays.items():
            if name == "embeddings":
                flat = pyarrow.array(np.asarray(values, np.float32).ravel())
                columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])
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


def _read_npz(path: Path) -> Arrays:
    try:
        with path.open("rb") as stream:
            if not zipfile.is_zipfile(stream):
                raise zipfile.BadZipFile("an .npz file is a zip archive, as numpy.savez writes it")
        with np.load(path, allow_pickle=False) as file:
            return {name: _member(path, file, name) for name in file.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is damaged or no .npz file: {error}") from error


def _member(path: Path, file: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return file[name]
    except ValueError as error:
        raise DataError(_cannot_read(path, name, error)) from error


def _read_folder(path: Path) -> Arrays:
    arrays = {}
    for file in sorted(path.glob("*.npy")):
        try:
            mapped = np.load(file, allow_pickle=False, mmap_mode="r")
        except (ValueError, OSError, EOFError) as error:
            raise DataError(_cannot_read(path, file.name, error)) from error
        # Labels are looked at again and again; only embeddings are large.
        arrays[file.stem] = mapped if file.stem.endswith("embeddings") else np.array(mapped)
    if not arrays:
        raise DataError(
            f"{path} holds no .npy file; expected embeddings.npy and identities.npy, or query_... ones"
        )
    return arrays


def _cannot_read(path: Path, name: str, error: Exception) -> str:
    if "allow_pickle" in str(error):
        return (
            f"{path}: {name!r} holds Python objects, which only unpickling (that is, running code) reads; "
            "write it as numbers or text: numpy.array(values.tolist())"
        )
    return f"{path}: {name!r} is damaged: {error}"


def _read_parquet(path: Path) -> Arrays:
    pyarrow, parquet = _pyarrow("reading")
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    _check_columns(path, table.column_names)
    parts = np.array(table["part"].to_pylist(), dtype=object) if "part" in table.column_names else None
    for row, part in enumerate(() if parts is None else parts):
        if part not in PARTS:
            raise DataError(
                f"{path}, row {row}: part is {part!r};{did_you_mean(str(part), PARTS)} "
                f"Parts: {', '.join(PARTS)}"
            )
    arrays: Arrays = {}
    for part in ("",) if parts is None else PARTS:
        rows = table if parts is None else table.filter(pyarrow.array(parts == part))
        for name, column in COLUMNS.items():
            # A column that only the other set fills is absent from this one.
            if column in rows.column_names and (rows[column].null_count < len(rows) or not part):
                arrays[f"{part}_{name}" if part else name] = _column(path, column, part, rows[column])
    if parts is not None and "gallery" not in parts:
        return {name.removeprefix("query_"): values for name, values in arrays.items()}
    return arrays


def _column(path: Path, column: str, part: str, values: Any) -> NDArray[Any]:
    """A Parquet column as an array: (N, D) for lists of equal length, else (N,)."""
    import pyarrow.compute

    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise DataError(
            f"{path}: column {column!r} is empty in {values.null_count} of {len(values)} "
            f"{part + ' ' if part else ''}rows (first: {row}); fill it everywhere or leave it out"
        )
    if column != "embedding":
        return _plain(values.to_numpy())
    if "list" not in str(values.type):
        raise DataError(
            f"{path}: column 'embedding' is of type {values.type}; expected a list of numbers a row"
        )
    lengths = np.unique(pyarrow.compute.list_value_length(values).to_numpy())
    if len(lengths) > 1:
        raise DataError(
            f"{path}: embeddings have {lengths[0]} to {lengths[-1]} numbers; expected equally many"
        )
    flat: NDArray[Any] = values.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(values), lengths.max(initial=0))


def _check_columns(path: Path, found: Sequence[str]) -> None:
    known = ("part", *COLUMNS.values())
    for name in ("embedding", "identity"):
        if name not in found:
            raise DataError(_missing(path, "column", name, found))
    for name in found:
        if name not in known:
            raise DataError(_unknown(path, "column", name, known))


def _check_names(path: Path, arrays: Arrays, two_sets: bool) -> None:
    prefixes = [f"{part}_" for part in PARTS] if two_sets else [""]
    for prefix in prefixes:
        for name in ("embeddings", "identities"):
            if prefix + name not in arrays:
                raise DataError(_missing(path, "array", prefix + name, arrays))
    known = [prefix + name for prefix in prefixes for name in COLUMNS]
    for name in arrays:
        # Cameras under another name would be ignored, and the scores be those of a set without cameras.
        if name not in known:
            raise DataError(_unknown(path, "array", name, known))


def _missing(path: Path, kind: str, name: str, found: Iterable[str]) -> str:
    return (
        f"{path} has no {kind} {name!r};{did_you_mean(name, found)} Found: {', '.join(found) or 'none'}. "
        "Rename or add it"
    )


def _unknown(path: Path, kind: str, name: str, known: Sequence[str]) -> str:
    return (
        f"{path} has a {kind} {name!r} of no known meaning;{did_you_mean(name, known)} "
        f"Known: {', '.join(known)}. Rename it or leave it out"
    )


def _features(path: Path, arrays: Arrays, prefix: str) -> Features:
    optional = {name: arrays[prefix + name] for name in _OPTIONAL if prefix + name in arrays}
    paths = arrays.get(f"{prefix}paths")
    if "sources" not in optional and paths is not None and len(set(paths.tolist())) == len(paths):
        optional["sources"] = paths
    try:
        return Features(arrays[f"{prefix}embeddings"], arrays[f"{prefix}identities"], **optional)
    except DataError as error:
        raise DataError(f"{path}: {prefix}{error}") from error


def _pickle_refused(path: Path) -> str:
    return (
        f"{path} is not read: opening a pickle runs whatever code is in it. In the program that made it (in "
        "Torchreid and FastReID the names are much like these), write the arrays instead: "
        'numpy.savez("features.npz", query_embeddings=qf, query_identities=q_pids, query_cameras=q_camids, '
        "gallery_embeddings=gf, gallery_identities=g_pids, gallery_cameras=g_camids), tensors as qf.numpy()"
    )


def _pyarrow(doing: str) -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("pyarrow", extra="data", needed_for=f"{doing} Parquet files of features") from None
    return pyarrow, pyarrow.parquet
