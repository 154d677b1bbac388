"""What the verbs of every engine are given, checked: numbers, ids, embeddings."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.arrays import plain_array
from reidkit.errors import ConfigError, DataError, did_you_mean, shown

OnDuplicate = Literal["replace", "skip", "error"]
GroupBy = Literal["identity", "tracklet"]


def checked_top(top: Any, name: str = "top") -> int:
    """How many hits are asked for; :class:`ConfigError` unless it is a whole number above 0."""
    try:
        number = 0 if isinstance(top, bool) else operator.index(top)
    except TypeError:
        number = 0
    if number < 1:
        raise ConfigError(f"{name} is {shown(top)}; ask for 1 hit or more, a whole number")
    return number


def check_recall(min_recall: Any, sample: Any) -> None:
    """Raise :class:`ConfigError` unless these are a share, and a number of queries."""
    if isinstance(min_recall, bool) or not isinstance(min_recall, int | float) or not 0 <= min_recall <= 1:
        raise ConfigError(f"min_recall is {shown(min_recall)}; expected a share from 0 to 1, such as 0.95")
    checked_top(sample, "sample")


def checked_group(group: Any) -> GroupBy | None:
    """What hits are grouped by; :class:`ConfigError` unless it is a label of one person or track."""
    if group is not None and group not in ("identity", "tracklet"):
        close = did_you_mean(shown(group), ["identity", "tracklet"])
        raise ConfigError(f"group is {shown(group)};{close} Allowed: identity, tracklet, or None")
    return group  # type: ignore[no-any-return]


def checked_ids(ids: Any) -> list[int]:
    """Ids as integers; :class:`DataError` unless they are whole numbers."""
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise DataError(f"ids are of type {type(ids).__name__}; expected a list of whole numbers")
    numbers = []
    for id in ids:
        try:
            number = None if isinstance(id, bool) else operator.index(id)
        except TypeError:
            number = None
        if number is None or abs(number) >= 2**63:
            raise DataError(f"{shown(id)} is no id; ids are whole numbers, as add() returns them")
        numbers.append(number)
    return numbers


def unit_embeddings(
    embeddings: ArrayLike, *, dimension: int | None = None, location: str
) -> NDArray[np.float32]:
    """Rows (N, D) at unit length, as given where they have it already (to 1e-6); tensors of torch, too.

    Raises :class:`DataError` for other shapes and types, rows that are zero or not finite, and a
    dimension other than the gallery's.
    """
    array = _matrix(np.asarray(plain_array(embeddings, "embeddings")))
    if dimension is not None and array.shape[1] != dimension:
        raise DataError(
            f"embeddings have {array.shape[1]} numbers each, but those in {location} have {dimension}: "
            "another encoder?"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("nd,nd->n", array, array, dtype=np.float64, casting="same_kind"))
    wrong = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(wrong):
        raise DataError(
            f"embedding {wrong[0]} has length {norms[wrong[0]]} ({len(wrong)} such of {len(array)}); "
            "embeddings must be finite and not zero"
        )
    norms[np.abs(norms - 1) < 1e-6] = 1
    unit = np.empty(array.shape, np.float32)
    # Divides in float64 without a copy of all rows: float16 and large values keep their direction.
    np.divide(array, norms[:, None], out=unit, casting="same_kind")
    return unit


def embedding_rows(embeddings: ArrayLike) -> NDArray[Any]:
    """Embeddings as an array (N, D), where a single one (D,) may be given."""
    array = np.asarray(plain_array(embeddings, "embeddings"))
    return _matrix(array[None] if array.ndim == 1 else array)


def _matrix(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype.kind != "f" or not array.shape[1]:
        raise DataError(
            f"embeddings have shape {array.shape} and type {array.dtype}; expected floating-point (N, D)"
        )
    return array
