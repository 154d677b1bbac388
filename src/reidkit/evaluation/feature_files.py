"""Embeddings with their labels in files that any program can write: .npz, .parquet, folders of .npy.

A file holds one set or two, ``query`` and ``gallery``. Arrays of an ``.npz`` file, one row an image:

=============== ======================================================================================
``embeddings``  (N, D), floating-point
``identities``  (N,), integers or text; -1 is junk
``cameras``     (N,), integers or text; may be absent, as all that follow
``tracklets``   (N,), integers
``indices``     (N,), integers: places in the split
``times``       (N,), seconds
``paths``       (N,), text: the image files
``sources``     (N,), text, equal where two rows show the same picture; without them ``paths`` say so, however
                they are written, unless one comes twice on a side, since it then holds several people
``encoders``    (N,) or (1,), text: the fingerprint of the encoder, one for a set; sides of two encoders are
                not compared
=============== ======================================================================================

With two sets each name has the set in front: ``query_embeddings``, ``gallery_embeddings``, ... A folder holds
the same arrays as ``query_embeddings.npy`` and so on; its embeddings are memory-mapped. A Parquet file has a
row for each image and the columns ``part`` ("query" or "gallery"; absent with one set), ``embedding`` (a list
of numbers), ``identity``, ``camera``, ``tracklet``, ``index``, ``time``, ``path``, ``source``,
``encoder``.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import Embeddings, fingerprints_of
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.feature_archives import NPY_MAGIC, ZIP_MAGIC, holds_arrays, read_folder, read_npz
from reidkit.evaluation.feature_tables import (
    COLUMNS,
    PARQUET_MAGIC,
    PARTS,
    as_parquet,
    import_pyarrow,
    missing,
    read_parquet,
    unknown,
)
from reidkit.evaluation.row_labels import refuse_two_kinds
from reidkit.evaluation.same_picture import path_name
from reidkit.files import open_regular, require_regular, write_atomically
from reidkit.labels import listed, read_labels
from reidkit.types import Features

SUFFIXES = (".npz", ".parquet")

_OPTIONAL = ("cameras", "tracklets", "indices", "times", "sources")
_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".tar")
_INTEGERS = ("tracklets", "indices")
_LONGEST_NAME = 1000  # characters of an encoder's fingerprints

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
    arrays = {**_embedding_arrays(embeddings), "paths": _texts(paths, len(embeddings))}
    return _write(Path(path), {"": arrays})


def check_target(path: str | Path) -> None:
    """Refuse, before the work, a file that features could not be written to.

    Raises:
        ConfigError: another suffix (capitals do not matter), or a folder.
        MissingExtra: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: features are written to a file ending in {' or '.join(SUFFIXES)}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give a file ending in {' or '.join(SUFFIXES)}")
    if path.suffix.lower() == ".parquet":
        import_pyarrow("writing")


def load_features(path: str | Path) -> tuple[Features, Features | None]:
    """Read query and gallery features; the gallery is ``None`` where the file holds one set.

    What kind of file it is, its content says. Identities and cameras are read as :mod:`reidkit.labels` says,
    both sets as one column: integers where all are numbers, else text; a camera that is missing is -1, or an
    empty text. Where ``sources`` are absent, ``paths`` tell pictures apart, unless a set has one twice: then
    they name what the crops were cut from.

    Raises:
        DataError: no such file, no regular one, damaged, a pickle; an array missing, of an unknown name, of
            another shape or type, of more than the file can hold, or holding Python objects. The message
            names it.
        MissingExtra: Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() in _PICKLES:
        raise DataError(_pickle_refused(path))
    arrays = read_folder(path, mapped="embeddings") if path.is_dir() else _read(path)
    two_sets = any(name.partition("_")[0] in PARTS for name in arrays)
    prefixes = [f"{part}_" for part in PARTS] if two_sets else [""]
    _check_names(path, arrays, prefixes)
    try:
        _plain_labels(arrays, prefixes)
        sets = [_features(arrays, prefix) for prefix in prefixes]
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return sets[0], sets[1] if two_sets else None


def holds_features(path: str | Path) -> bool:
    """Whether a path looks like one for :func:`load_features` rather than like a network."""
    path = Path(path)
    if path.is_dir():
        return any(path.glob("*embeddings.npy"))
    if path.suffix.lower() in (*SUFFIXES, ".npy", ".pkl", ".pickle"):
        return True
    return path.is_file() and (_start(path) == PARQUET_MAGIC or holds_arrays(path))


def _read(path: Path) -> Arrays:
    require_regular(path)
    start = _start(path)
    if start == PARQUET_MAGIC:
        return dict(read_parquet(path))
    if start.startswith(ZIP_MAGIC):
        return dict(read_npz(path))
    if NPY_MAGIC.startswith(start) and start:
        raise DataError(
            f"{path} holds one array, and features are several: numpy.savez writes them into an .npz file; "
            "or put it into a folder with the others"
        )
    if path.suffix.lower() in SUFFIXES:
        raise DataError(
            f"{path} is damaged or no {path.suffix.lower()} file: it begins with {start!r}; write it anew"
        )
    raise DataError(f"{path}: features are read from {', '.join(SUFFIXES)} files and folders of .npy files")


def _start(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read(4)


def _arrays(features: Features, paths: Paths | None) -> Arrays:
    arrays = {**_embedding_arrays(features.embeddings), "identities": _plain(features.identities)}
    for name in _OPTIONAL:
        if (values := getattr(features, name)) is not None:
            arrays[name] = _plain(values)
    return arrays if paths is None else {**arrays, "paths": _texts(paths, len(features))}


def _embedding_arrays(embeddings: NDArray[np.floating[Any]]) -> Arrays:
    """The embeddings, and beside them their encoder, where they know it."""
    fingerprints = fingerprints_of(embeddings)
    encoder = {"encoders": np.array([" ".join(fingerprints)])} if fingerprints else {}
    return {"embeddings": np.asarray(embeddings), **encoder}


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Without Python objects, which only a pickle can hold; a missing camera as it is read again."""
    if values.dtype.kind != "O":
        return values
    listed = values.tolist()
    gap = "" if any(isinstance(value, str) for value in listed) else -1
    return np.array([gap if value is None else value for value in listed])


def _texts(paths: Paths, num_rows: int) -> NDArray[np.str_]:
    if len(paths) != num_rows:
        raise DataError(f"there are {len(paths)} paths for {num_rows} embeddings; give one for each")
    return np.array([str(path) for path in paths], dtype=np.str_)


def _write(path: Path, sets: Mapping[str, Arrays]) -> Path:
    check_target(path)
    if path.suffix.lower() == ".parquet":
        return write_atomically(path, as_parquet(sets))
    named = {
        f"{part}_{name}" if part else name: a for part, arrays in sets.items() for name, a in arrays.items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, **named)  # type: ignore[arg-type]  # its stubs take our names for its option
    return write_atomically(path, buffer.getbuffer())


def _check_names(path: Path, arrays: Arrays, prefixes: Sequence[str]) -> None:
    for prefix in prefixes:
        for name in ("embeddings", "identities"):
            if prefix + name not in arrays:
                raise DataError(missing(path, "array", prefix + name, arrays))
    known = [prefix + name for prefix in prefixes for name in COLUMNS]
    for name in arrays:
        # Cameras under another name would be ignored, and the metrics computed as if there were none.
        if name not in known:
            raise DataError(unknown(path, "array", name, known))


def _plain_labels(arrays: Arrays, prefixes: Sequence[str]) -> None:
    """Put integers or text in place of identities and cameras, both sets read as one column."""
    for name in ("identities", "cameras"):
        present = [prefix + name for prefix in prefixes if prefix + name in arrays]
        for key in present:
            _check_column(key, arrays[key])
        if not present or all(arrays[key].dtype.kind == "i" for key in present):
            continue
        rows = [value for key in present for value in listed(arrays[key])]
        dated = next((key for key in present if arrays[key].dtype.kind in "mM"), None)
        if dated is not None:
            raise DataError(f"{dated} are dates or times; a label is a text or a whole number")
        column = read_labels(rows, what=name, junk=name == "identities")
        gap = None if name == "cameras" or None not in column.names else column.names.index(None)
        if gap is not None:
            raise DataError(
                f"{name}, row {gap}: no identity; write -1 for images that show nobody in particular"
            )
        if len({arrays[key].dtype.kind in "iuf" for key in present}) > 1:
            num_queries = len(arrays[present[0]])
            refuse_two_kinds(column.names[:num_queries], column.names[num_queries:], name)
        if name == "cameras" and not any(column.names):
            for key in present:
                del arrays[key]
            continue
        if column.kind == "numbers":
            plain = np.array([-1 if code is None else code for code in column.codes], dtype=np.int64)
        else:
            plain = np.array([name or "" for name in column.names], dtype=np.str_)
        ends = np.cumsum([len(arrays[key]) for key in present])
        arrays.update(zip(present, np.split(plain, ends[:-1]), strict=True))


def _features(arrays: Arrays, prefix: str) -> Features:
    embeddings = arrays[f"{prefix}embeddings"]
    if embeddings.ndim == 2 and embeddings.shape[1] == 0 and len(embeddings):
        raise DataError(f"{prefix}embeddings have shape {embeddings.shape}: no numbers a row")
    if f"{prefix}encoders" in arrays:
        embeddings = Embeddings(embeddings, _fingerprints(arrays[f"{prefix}encoders"], len(embeddings)))
    optional = {name: arrays[prefix + name] for name in _OPTIONAL if prefix + name in arrays}
    for name, values in optional.items():
        _check_column(prefix + name, values)
        if name in (*_INTEGERS, "times"):
            optional[name] = _numbers(prefix + name, values, whole=name in _INTEGERS)
    paths = arrays.get(f"{prefix}paths")
    if paths is not None and "sources" not in optional:
        _check_column(f"{prefix}paths", paths)
        sources = [path_name(path) if isinstance(path, str) else path for path in paths.tolist()]
        if len(set(sources)) == len(sources):
            optional["sources"] = np.array(sources)
    try:
        return Features(embeddings, arrays[f"{prefix}identities"], **optional)
    except DataError as error:
        raise DataError(f"{prefix}{error}") from error


def _fingerprints(values: NDArray[Any], num_rows: int) -> tuple[str, ...]:
    """Those of the one encoder that a set is of."""
    names = {value for value in values.ravel().tolist() if isinstance(value, str)}
    if values.shape not in ((1,), (num_rows,)) or len(names) != 1 or len(name := names.pop()) > _LONGEST_NAME:
        raise DataError(
            f"encoders have shape {values.shape} and type {values.dtype}; expected one fingerprint, a text, "
            "for the whole set: embeddings of two encoders cannot be compared"
        )
    return tuple(name.split())


def _check_column(name: str, values: NDArray[Any]) -> None:
    if values.ndim != 1:
        raise DataError(f"{name} has shape {values.shape}; expected one value a row, (N,)")


def _numbers(name: str, values: NDArray[Any], *, whole: bool) -> NDArray[Any]:
    kind = "whole numbers" if whole else "numbers of seconds"
    if values.dtype.kind == "i" or (values.dtype.kind == "f" and not whole):
        return values
    try:
        numbers = np.array([float(value) for value in values.tolist()])
        if whole and (numbers != [int(value) for value in values.tolist()]).any():
            raise ValueError("a fraction")
        return np.array([int(value) for value in values.tolist()], dtype=np.int64) if whole else numbers
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} are of type {values.dtype}; expected {kind}") from None


def _pickle_refused(path: Path) -> str:
    return (
        f"{path} is not read: opening a pickle runs whatever code is in it. In the program that made it (in "
        "Torchreid and FastReID the names are much like these), write the arrays instead: "
        'numpy.savez("features.npz", query_embeddings=qf, query_identities=q_pids, query_cameras=q_camids, '
        "gallery_embeddings=gf, gallery_identities=g_pids, gallery_cameras=g_camids), tensors as qf.numpy()"
    )
