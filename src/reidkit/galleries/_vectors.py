"""The vectors of a gallery's revisions: mapped, checked once, appended, written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import _vector_file
from reidkit.galleries._nearest import pieces
from reidkit.galleries._records import Row, State

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All rows (R, W) of one revision, and the numbers (K,) of items' rows, ascending.

    ``file`` tells the file from another that was put in its place.
    """

    state: State
    file: tuple[int, int] | None
    words: _vector_file.Words
    rows: Rows

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(R, D)."""
        return _vector_file.vectors_of(self.words, self.state.dimension or 0)


class Vectors:
    """The file of vectors that a state names, in one folder. Committed rows never change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tidy = False
        self._snapshot: Snapshot | None = None
        self._verified: tuple[object, int] = (None, 0)  # a file of vectors, and how many rows were checked

    def forget(self) -> None:
        """Let go of the file."""
        self._snapshot = None

    # --- reading ------------------------------------------------------------------------------------------

    def words(self, state: State) -> _vector_file.Words:
        """All rows, mapped anew. Call within a transaction: the file is not deleted before that ends."""
        path = self.folder / state.vectors
        return _vector_file.map_rows(path, num_rows=state.num_rows, dimension=state.dimension or 0)

    def snapshot(self, state: State, rows_of: Callable[[State], Rows]) -> Snapshot:
        """All rows, mapped anew only if something changed, with those of items, as ``rows_of`` tells them
        where it is not plain. Call within a transaction."""
        path = self.folder / state.vectors
        file = _vector_file.identity(path, num_rows=state.num_rows, dimension=state.dimension or 0)
        if self._snapshot is None or (self._snapshot.state, self._snapshot.file) != (state, file):
            rows = self.item_rows(state, rows_of)
            self._snapshot = Snapshot(state, file, self.words(state), rows)
        return self._snapshot

    def item_rows(self, state: State, rows_of: Callable[[State], Rows]) -> Rows:
        """Row numbers (K,) of all items, ascending; asked for only where that is needed."""
        known, start = np.empty(0, np.int64), 0
        if self._snapshot is not None and self._snapshot.state.vectors == state.vectors:
            known, start = self._snapshot.rows, self._snapshot.state.num_rows
        if state.num_items - len(known) == state.num_rows - start:  # all new rows are items, and none went
            return np.concatenate([known, np.arange(start, state.num_rows)])
        return rows_of(state)

    def damaged(self, state: State, words: _vector_file.Words, rows: Rows) -> Rows:
        """Those of the rows (K,), ascending, that are not as they were written."""
        return _vector_file.damaged(words, rows, name=state.vectors, dimension=state.dimension or 0)

    def newly_damaged(self, snapshot: Snapshot) -> Rows:
        """Items' rows that are not as they were written; what was found whole once is not read again.

        Call outside of transactions, since it takes long.
        """
        state = snapshot.state
        file, num_checked = self._verified
        if file != (state.vectors, snapshot.file):
            num_checked = 0
        if num_checked >= state.num_rows:
            return np.empty(0, np.int64)
        new = snapshot.rows[np.searchsorted(snapshot.rows, num_checked) :]
        wrong = self.damaged(state, snapshot.words, new)
        if not len(wrong):
            self._verified = (state.vectors, snapshot.file), state.num_rows
        return wrong

    def num_whole_rows(self, state: State) -> int:
        """Rows that the file has bytes for."""
        path = self.folder / state.vectors
        size = path.stat().st_size if path.is_file() else 0
        return size // (8 * _vector_file.num_words(state.dimension or 0))

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

    def append(self, state: State, vectors: NDArray[np.float32], rows: Rows) -> None:
        """Bring these rows (K,) of the vectors (N, D) to disk, behind those that count."""
        self._write(state.vectors, vectors, rows, first=state.num_rows)

    def write_anew(self, state: State, words: _vector_file.Words, items: Sequence[Row]) -> str:
        """Write the vectors of these items, ascending by row, to a new file; its name."""
        file = _vector_file.new_name()
        rows = np.array([item.row for item in items], np.int64)
        self._write(file, _vector_file.vectors_of(words, state.dimension or 0), rows, first=0)
        return file

    def _write(self, file: str, vectors: NDArray[np.float32], rows: Rows, *, first: int) -> None:
        portions = (vectors[some] for some in pieces(rows))
        _vector_file.write_rows(self.folder / file, portions, first=first, dimension=vectors.shape[1])
