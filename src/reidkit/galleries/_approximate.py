"""The approximate index of a gallery in a folder: HNSW (Malkov & Yashunin, TPAMI 2020), by faiss.

It knows rows by a byte a number and says which may be near; those are checked and scored exactly, as all rows
are without it. Rows that were written since it was built are searched exactly beside it, and those whose item
is gone are left out. Filters and groups are always answered exactly.
"""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, MissingExtra
from reidkit.files import WriteError
from reidkit.galleries import _index_file
from reidkit.galleries._index_file import About, IndexRefused
from reidkit.galleries._nearest import nearest
from reidkit.galleries._vectors import Snapshot
from reidkit.logs import get_logger

if TYPE_CHECKING:
    from reidkit.progress import ProgressCallback

TOP = 10  # nearest items that recall is measured by

_AT_ONCE = 5000  # rows added to the graph together
_NEIGHBOURS, _WIDTH_TO_BUILD, _WIDTH = 16, 80, 128  # M, efConstruction and ef of the paper
_ROWS_TO_LEARN = 20_000  # from which the range of each number is learnt
_SPARE = 32  # candidates beyond twice the top: for what the bytes misjudge, and for rows that are gone

_logger = get_logger(__name__)

Ranked = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Row numbers (K,) and scores (K,), nearest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Approximate:
    """An index that may be used, over the first rows of a file of vectors."""

    about: About
    graph: Any

    def candidates(self, query: NDArray[np.float32], num: int) -> NDArray[np.int64]:
        """Rows (K,) that may be the nearest ones of a query (D,), K being at most ``num``."""
        width = _library().SearchParametersHNSW(efSearch=max(_WIDTH, num))
        [found] = self.graph.search(query[None], num, params=width)[1]
        return np.asarray(found[found >= 0], np.int64)

    def nearest(self, snapshot: Snapshot, query: NDArray[np.float32], *, top: int) -> Ranked | None:
        """The nearest items of one query (D,); ``None`` where too many of the rows it knows are gone."""
        found = self.candidates(query, 2 * top + _SPARE)
        rows = snapshot.rows
        later = rows[np.searchsorted(rows, self.about.num_rows) :]
        places = np.minimum(np.searchsorted(rows, found), len(rows) - 1)
        there = np.unique(found[rows[places] == found]) if len(rows) else found[:0]
        if len(there) < min(top, len(rows) - len(later)):
            return None
        [ranked] = nearest(snapshot.stored, np.concatenate([there, later]), query[None], top=top)
        return ranked


def build(
    snapshot: Snapshot,
    folder: Path,
    *,
    min_recall: float,
    sample: int,
    progress: ProgressCallback | None = None,
) -> About:
    """Make the index of a gallery's vectors, which are known to be whole; what it is, as measured.

    Raises :class:`DataError`, and leaves what there was, where it finds less than ``min_recall``.
    """
    state, library = snapshot.state, _library()
    vectors = snapshot.stored.vectors
    graph = _new_graph(library, state.dimension or 0)
    step = max(1, len(snapshot.rows) // _ROWS_TO_LEARN)
    graph.train(np.asarray(vectors[snapshot.rows[::step]], np.float32))
    for start in range(0, len(snapshot.rows), _AT_ONCE):
        some = snapshot.rows[start : start + _AT_ONCE]
        graph.add_with_ids(np.asarray(vectors[some], np.float32), some)
        if progress is not None:
            progress(start + len(some), len(snapshot.rows))
    about = About(state.vectors, state.num_rows, state.dimension or 0, 0.0, TOP, sample)
    recall, num_queries = _measured(Approximate(about, graph), snapshot, sample)
    if recall < min_recall:
        raise DataError(
            f"{folder}: the index finds {100 * recall:.1f} % of the {TOP} nearest, fewer than the "
            f"{100 * min_recall:.1f} % asked for; it was not kept: search exactly, or ask for less"
        )
    about = replace(about, recall=recall, num_queries=num_queries)
    _write(graph, folder, about)
    return about


def load(folder: Path, vectors: str, dimension: int) -> Approximate | None:
    """The index over the file of vectors of this name; a warning says why one that is there is not used."""
    path = folder / _index_file.name_of(vectors)
    if not path.exists():
        return None
    try:
        about, content = _index_file.opened(path)
        if (about.vectors, about.dimension) != (vectors, dimension):
            raise IndexRefused("it is of another gallery")
        return Approximate(about, _library().deserialize_index(np.frombuffer(content, np.uint8)))
    except (IndexRefused, MissingExtra, RuntimeError) as error:  # the last where another version wrote it
        _logger.warning(
            "%s is not used (%s); search is exact. `reid gallery index %s` makes it anew", path, error, folder
        )
        return None


def _measured(index: Approximate, snapshot: Snapshot, sample: int) -> tuple[float, int]:
    """The share of the nearest other rows that the index finds, stored rows being the queries; how many."""
    rows = snapshot.rows
    drawn = np.unique(np.linspace(0, len(rows) - 1, min(sample, len(rows))).astype(np.int64))
    queries = np.asarray(snapshot.stored.vectors[rows[drawn]], np.float32)
    exact = nearest(
        snapshot.stored, None if len(rows) == len(snapshot.stored) else rows, queries, top=TOP + 1
    )
    right = asked = 0
    for row, query, (true, _) in zip(rows[drawn].tolist(), queries, exact, strict=True):
        ranked = index.nearest(snapshot, query, top=TOP + 1)
        found = true if ranked is None else ranked[0]  # search is exact then
        wanted = set(true.tolist()) - {row}
        right += len(wanted & set(found.tolist()))
        asked += len(wanted)
    return (right / asked if asked else 1.0), len(drawn)


def _new_graph(library: Any, dimension: int) -> Any:
    numbers, product = library.ScalarQuantizer.QT_8bit, library.METRIC_INNER_PRODUCT
    graph = library.IndexHNSWSQ(dimension, numbers, _NEIGHBOURS, product)
    graph.hnsw.efConstruction = _WIDTH_TO_BUILD
    return library.IndexIDMap(graph)


def _write(graph: Any, folder: Path, about: About) -> None:
    path = folder / _index_file.name_of(about.vectors)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        with unfinished.open("xb") as file:
            _library().write_index(graph, _library().PyCallbackIOWriter(file.write))
        _index_file.seal(unfinished, about)
        unfinished.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}; there is no new index") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _library() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise MissingExtra("faiss-cpu", extra="ann", needed_for="an approximate index") from error
