"""How vectors are stored: rows of 64-bit words that hold float32, float16, or int8 numbers.

float16 keeps 11 bits of each number, and half the bytes. int8 is a float16 file and a second one beside it,
of one byte a number, which alone is read whole by a search. What its rounding could have moved into or out of
the top is scored again from the float16 rows, so that no rounding to int8 is ever seen: with each row stands
how far its bytes are from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Storage = Literal["float32", "float16", "int8"]
STORAGES: tuple[Storage, ...] = get_args(Storage)

Words = NDArray[np.uint64]

_SUFFIXES: dict[Storage, str] = {"float32": "f32", "float16": "f16", "int8": "i8"}
_TYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2"), "i8": np.dtype("i1")}
_LARGEST_CODE = 127
_AT_ONCE = 256  # rows that are widened to float32 together, within a processor's cache


def suffix_of(storage: Storage) -> str:
    """The suffix of files of vectors that are stored so."""
    return _SUFFIXES[storage]


def storage_of(name: str) -> Storage:
    """How the vectors of a file of this name are stored."""
    return next(storage for storage, suffix in _SUFFIXES.items() if name.endswith(f".{suffix}"))


def float_name(name: str) -> str:
    """The file that has the vectors as floating-point numbers: itself, or the one beside it."""
    return name.removesuffix(".i8") + ".f16" if name.endswith(".i8") else name


def num_words(name: str, dimension: int) -> int:
    """64-bit words of one row of a file of this name, its checksum among them."""
    suffix = name.rpartition(".")[2]
    return -(-dimension * _TYPES[suffix].itemsize // 8) + (suffix == "i8") + 1


def numbers_of(words: Words, name: str, dimension: int) -> NDArray[Any]:
    """The numbers (R, D) within rows of words (R, W); no copy."""
    return words.view(_TYPES[name.rpartition(".")[2]])[:, :dimension]


def factors_of(words: Words) -> NDArray[np.float32]:
    """By what the bytes of rows of int8 (R, W) are multiplied, and how far that is from the row: (R, 2)."""
    return words[:, -2:-1].view("<f4")


def is_whole(words: Words, name: str, dimension: int) -> NDArray[np.bool_]:
    """Which of the rows (R,) hold numbers that vectors of unit length have."""
    if name.endswith(".i8"):
        factors = factors_of(words)
        return np.asarray(np.all((factors >= 0) & (factors <= 1), axis=1))
    vectors = np.asarray(numbers_of(words, name, dimension), np.float32)
    squares = np.einsum("nd,nd->n", vectors, vectors)
    # The sum itself rounds: of a hand-made description's 26,960 squares by more than a vector may be off.
    tolerance = max(1e-5 if name.endswith(".f32") else 2e-3, dimension * np.finfo(np.float32).eps / 2)
    return np.asarray(np.abs(squares - 1) < tolerance)


def packed(vectors: NDArray[np.float32], name: str) -> Words:
    """Vectors (N, D) as rows of words (N, W) of a file of this name, without their checksums."""
    num, dimension = vectors.shape
    words: Words = np.zeros((num, num_words(name, dimension)), "<u8")
    if name.endswith(".i8"):
        vectors = vectors.astype(np.float16).astype(np.float32)
        scales = np.abs(vectors).max(axis=1, initial=0) / _LARGEST_CODE
        codes = np.rint(vectors / np.maximum(scales, np.finfo(np.float32).tiny)[:, None])
        numbers_of(words, name, dimension)[:] = codes
        distances = np.linalg.norm(
            vectors.astype(np.float64) - codes * scales[:, None].astype(np.float64), axis=1
        )
        factors_of(words)[:] = np.stack(
            [scales, np.nextafter(distances.astype(np.float32), np.float32(2))], axis=1
        )
    else:
        numbers_of(words, name, dimension)[:] = vectors
    return words


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Vectors (R, D) in float32 or float16 and, where they are stored so, their int8 codes (R, D) with the
    factors (R, 2) that :func:`factors_of` tells."""

    vectors: NDArray[np.floating]
    codes: NDArray[np.int8] | None = None
    factors: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def scores(
        self, queries: NDArray[np.float32], block: slice | NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | float]:
        """Scores (Q, B) of these rows, and how far off they may be at most, each row's (B,) or all.

        A dot product of unit vectors in float32 is off by at most D * eps / 2; twice that is told.
        """
        rounding = queries.shape[1] * float(np.finfo(np.float32).eps)
        if self.codes is None or self.factors is None:
            return _product(queries, self.vectors[block]), rounding
        scales, distances = self.factors[block].T
        return _product(queries, self.codes[block]) * scales, distances * np.float32(1.001) + 2 * rounding

    def exact(self, rows: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        """Dot products (K,) in float64, by a sum that is the same for equal vectors wherever they stand."""
        scores: NDArray[np.float64] = (self.vectors[rows].astype(np.float64) * query).sum(axis=1)
        return scores


def _product(queries: NDArray[np.float32], rows: NDArray[Any]) -> NDArray[np.float32]:
    if rows.dtype == np.float32:
        return np.asarray(queries @ rows.T)
    scores = np.empty((len(queries), len(rows)), np.float32)
    wide = np.empty((_AT_ONCE, rows.shape[1]), np.float32)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        np.copyto(wide[: len(some)], some, casting="unsafe")
        np.matmul(queries, wide[: len(some)].T, out=scores[:, start : start + len(some)])
    return scores
