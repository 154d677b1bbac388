"""Embeddings as unit rows on a grid on which every dot product is exact.

Embeddings are scaled to unit length and their components rounded to multiples of 2^-26, 7e-9 apart. A
product of two is then a multiple of 2^-52, and by Cauchy-Schwarz no partial sum of a dot product exceeds 1 by
more than rounding, so that float64 holds every intermediate value exactly: a score is the same in any order
of summation, with any block size, thread count or library, and items that tie do tie. Float32 products are
only ever a first look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError

Indices = NDArray[np.intp]

GRID = 2.0**26
_ELEMENTS_PER_PART = 2**16
_ROWS_PER_MEAN = 1000


class UnitRows:
    """Embeddings (N, D) of any float type, memory-mapped or not, read as unit rows on the exact grid."""

    def __init__(self, embeddings: NDArray[np.floating[Any]], name: str) -> None:
        self._embeddings = embeddings
        self._norms = row_lengths(embeddings, name)
        self.notes = _norm_notes(self._norms, name)
        self._norms[self._norms == 0] = 1

    def __len__(self) -> int:
        return len(self._embeddings)

    @property
    def num_dimensions(self) -> int:
        return int(self._embeddings.shape[1])

    def sample_mean(self) -> NDArray[np.float64]:
        """The mean (D,) of unit rows from all over."""
        num_rows = min(len(self), _ROWS_PER_MEAN)
        mean: NDArray[np.float64] = self.take(np.arange(num_rows) * len(self) // num_rows).mean(axis=0)
        return mean

    def products(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Dot products (N,) of all unit rows with a vector (D,)."""
        if not vector.any():
            return np.zeros(len(self))
        return np.concatenate([self.take(part) @ vector for part in self._parts(np.arange(len(self)))])

    def take(
        self,
        rows: Indices,
        dtype: type[np.floating[Any]] = np.float64,
        *,
        origin: NDArray[np.float64] | None = None,
    ) -> NDArray[Any]:
        """Unit rows (len(rows), D), less ``origin``; float64 holds unit rows exactly, float32 to 6e-8."""
        unit = np.empty((len(rows), self.num_dimensions), dtype)
        start = 0
        for part in self._parts(rows):
            exact = self._embeddings[part].astype(np.float64, order="C")
            exact /= self._norms[part, None]
            exact *= GRID
            np.rint(exact, out=exact)
            exact /= GRID
            if origin is not None:
                exact -= origin
            unit[start : start + len(part)] = exact
            start += len(part)
        return unit

    def _parts(self, rows: Indices) -> Iterator[Indices]:
        return _small_parts(rows, self.num_dimensions)


def row_lengths(embeddings: NDArray[np.floating[Any]], name: str) -> NDArray[np.float64]:
    """Euclidean lengths (N,); :class:`DataError` for no rows, or values that are not finite."""
    if not len(embeddings):
        raise DataError(f"the {name} holds no embeddings; there is nothing to compare")
    lengths = np.empty(len(embeddings))
    for part in _small_parts(np.arange(len(embeddings)), embeddings.shape[1]):
        rows = embeddings[part].astype(np.float64, order="C")
        with np.errstate(over="ignore", invalid="ignore"):
            lengths[part] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    not_finite = np.flatnonzero(~np.isfinite(lengths))
    if len(not_finite):
        raise DataError(
            f"{name} embeddings hold NaN, infinity or overflow in {len(not_finite)} of "
            f"{len(embeddings)} rows ({first_few(not_finite)}); look at these images or at the model"
        )
    return lengths


def first_few(rows: Indices) -> str:
    """``rows 3, 8, 12, ...``: enough to find them by."""
    shown = ", ".join(str(row) for row in rows[:5])
    return f"row{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > 5 else ''}"


def cut(rows: Indices, length: int) -> Iterator[Indices]:
    """Parts of at most ``length``."""
    for start in range(0, len(rows), length):
        yield rows[start : start + length]


def _small_parts(rows: Indices, num_dimensions: int) -> Iterator[Indices]:
    """Few rows at a time, so that their float64 copies stay in the processor's cache."""
    return cut(rows, max(1, _ELEMENTS_PER_PART // max(1, num_dimensions)))


def _norm_notes(norms: NDArray[np.float64], name: str) -> tuple[str, ...]:
    # 1e-3 is what rounding a unit row to float16 can do.
    zero = np.flatnonzero(norms == 0)
    others = norms[norms > 0]
    notes = []
    if len(others) and np.abs(others - 1).max() > 1e-3:
        notes.append(
            f"{name} embeddings are not of unit length ({others.min():.3g} to {others.max():.3g}); "
            "they were normalised"
        )
    if len(zero):
        notes.append(f"{len(zero)} {name} embeddings are all zeros ({first_few(zero)}); their cosine is 0")
    return tuple(notes)
