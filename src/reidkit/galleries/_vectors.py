"""The vectors of a gallery's revisions: mapped, checked once, appended, written anew."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import _vector_file
from reidkit.galleries._nearest import pieces
from reidkit.galleries._records import Row, State
from reidkit.galleries._storage import (
    Stored,
    Words,
    factors_of,
    float_name,
    num_words,
    numbers_of,
    storage_of,
)

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All rows of one revision, and the numbers (K,) of items' rows, ascending.

    ``files`` tells the files from others that were put in their place; ``words`` (R, W) are their rows, by
    their names.
    """

    state: State
    files: tuple[tuple[int, int] | None, ...]
    words: dict[str, Words]
    rows: Rows

    @property
    def stored(self) -> Stored:
        """The vectors, to be searched."""
        dimension, name = self.state.dimension or 0, self.state.vectors
        vectors = floats_of(self.words, self.state)
        if name.endswith(".i8"):
            words = self.words[name]
            codes: NDArray[np.int8] = numbers_of(words, name, dimension)
            return Stored(vectors, codes, factors_of(words))
        return Stored(vectors)


def floats_of(words: dict[str, Words], state: State) -> NDArray[np.floating]:
    """Vectors (R, D) of all rows, as they are stored in float32 or float16."""
    name = float_name(state.vectors)
    vectors: NDArray[np.floating] = numbers_of(words[name], name, state.dimension or 0)
    return vectors


def names(state: State) -> tuple[str, ...]:
    """The files of vectors of a state."""
    return tuple(dict.fromkeys([float_name(state.vectors), state.vectors]))


class Vectors:
    """The file of vectors that a state names, in one folder. Committed rows never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tidy = False
        self._snapshot: Snapshot | None = None
        # Of each first row from which on all are checked: a file of vectors, and up to where they were.
        self._verified: dict[int, tuple[object, int]] = {}

    def forget(self) -> None:
        """Let go of the file."""
        self._snapshot = None

    # --- reading ------------------------------------------------------------------------------------------

    def words(self, state: State) -> dict[str, Words]:
        """All rows, by the names of their files, mapped anew. Call within a transaction: no file is deleted
        before that ends."""
        extent = {"num_rows": state.num_rows, "dimension": state.dimension or 0}
        return {name: _vector_file.map_rows(self.folder / name, **extent) for name in names(state)}

    def snapshot(self, state: State, rows_of: Callable[[State], Rows]) -> Snapshot:
        """All rows, mapped anew only if something changed, with those of items, as ``rows_of`` tells them
        where it is not plain. Call within a transaction."""
        extent = {"num_rows": state.num_rows, "dimension": state.dimension or 0}
        files = tuple(_vector_file.identity(self.folder / name, **extent) for name in names(state))
        if self._snapshot is None or (self._snapshot.state, self._snapshot.files) != (state, files):
            rows = self.item_rows(state, rows_of)
            self._snapshot = Snapshot(state, files, self.words(state), rows)
        return self._snapshot

    def item_rows(self, state: State, rows_of: Callable[[State], Rows]) -> Rows:
        """Row numbers (K,) of all items, ascending; asked for only where that is needed."""
        known, start = np.empty(0, np.int64), 0
        if self._snapshot is not None and self._snapshot.state == state:
            return self._snapshot.rows
        if self._snapshot is not None and self._snapshot.state.vectors == state.vectors:
            known, start = self._snapshot.rows, self._snapshot.state.num_rows
        if state.num_items - len(known) == state.num_rows - start:  # all new rows are items, and none went
            return np.concatenate([known, np.arange(start, state.num_rows)])
        return rows_of(state)

    def damaged(self, state: State, words: dict[str, Words], rows: Rows) -> Rows:
        """Those of the rows (K,), ascending, that are not as they were written."""
        dimension = state.dimension or 0
        wrong = [_vector_file.damaged(words[name], rows, name=name, dimension=dimension) for name in words]
        return np.unique(np.concatenate(wrong))

    def newly_damaged(self, snapshot: Snapshot, first: int = 0) -> Rows:
        """Items' rows from the first on that are not as they were written; what was found whole once is not
        read again.

        Call outside of transactions, since it takes long.
        """
        state = snapshot.state
        file, num_checked = self._verified.get(first, (None, first))
        if file != (state.vectors, snapshot.files):
            num_checked = first
        if num_checked >= state.num_rows:
            return np.empty(0, np.int64)
        new = snapshot.rows[np.searchsorted(snapshot.rows, num_checked) :]
        wrong = self.damaged(state, snapshot.words, new)
        if not len(wrong):
            self._verified[first] = (state.vectors, snapshot.files), state.num_rows
        return wrong

    def num_whole_rows(self, state: State) -> int:
        """Rows that the file has bytes for."""
        return min(self._num_whole(name, state.dimension or 0) for name in names(state))

    def _num_whole(self, name: str, dimension: int) -> int:
        path = self.folder / name
        size = path.stat().st_size if path.is_file() else 0
        return size // (8 * num_words(name, dimension))

    # --- writing: within a transaction that lets nobody else write ----------------------------------

    def tidy(self, state: State) -> None:
        """Delete, once, what was left by the killed; unless what the state names is missing, and it is that
        of another gallery."""
        if not self._tidy and self.num_whole_rows(state) >= state.num_rows:
            _vector_file.remove_others(self.folder, state.vectors)
            self._tidy = True

    def untidy(self) -> None:
        """Something will be left behind."""
        self._tidy = False

    def append(self, state: State, vectors: Sequence[NDArray[np.float32]], dimension: int) -> None:
        """Bring vectors, in arrays (N, D), to disk, behind the rows that count."""

        def portions() -> Iterator[NDArray[np.float32]]:
            return (some[rows] for some in vectors for rows in pieces(np.arange(len(some))))

        self._write(replace(state, dimension=dimension), portions)

    def write_anew(self, state: State, words: dict[str, Words], items: Sequence[Row]) -> str:
        """Write the vectors of these items, ascending by row, to new files; the name of the first."""
        file = _vector_file.new_name(storage_of(state.vectors))
        rows = np.array([item.row for item in items], np.int64)
        vectors = floats_of(words, state)

        def portions() -> Iterator[NDArray[np.float32]]:
            return (np.asarray(vectors[some], np.float32) for some in pieces(rows))

        anew = replace(state, vectors=file, num_rows=0)
        try:
            self._write(anew, portions)
        except BaseException:
            for name in names(anew):
                with contextlib.suppress(OSError):
                    (self.folder / name).unlink()
            raise
        return file

    def _write(self, state: State, portions: Callable[[], Iterator[NDArray[np.float32]]]) -> None:
        for name in names(state):
            _vector_file.write_rows(
                self.folder / name, portions(), first=state.num_rows, dimension=state.dimension or 0
            )
