"""Identities and cameras of rows: as names for people, as shared integers for counting.

Arrays of features hold integers, text, whole floats or a mixture; they are read as :mod:`reidkit.labels`
says, both sides of a comparison as one column, so that 1, 1.0 and "1" are one identity. A camera is missing
where it is None, NaN, an empty text or -1: then it equals no camera, not even that of another such row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.labels import JUNK_LABEL, is_junk, is_number, label_text, listed, read_labels
from reidkit.types import JUNK, Split

MISSING_CAMERA = -1
"""How an integer says that a camera is not known."""

Codes = NDArray[np.int64]


def identity_labels(split: Split) -> NDArray[Any]:
    """Identities (N,) of samples: names where any has one, else integers."""
    return _labels([sample.identity for sample in split], [sample.identity_name for sample in split])


def camera_labels(split: Split) -> NDArray[Any] | None:
    """Cameras (N,) of samples likewise; ``None`` where no sample has one."""
    cameras = [sample.camera for sample in split]
    if all(camera is None for camera in cameras):
        return None
    codes = [MISSING_CAMERA if camera is None else camera for camera in cameras]
    names = [
        "" if sample.camera is None and sample.camera_name is None else sample.camera_name for sample in split
    ]
    return _labels(codes, names if any(names) else [None] * len(names))


def label_name(label: Any) -> str:
    """A label as text, as it was written."""
    return label_text(label) or ""


def label_names(labels: NDArray[Any]) -> list[str]:
    """Labels (N,) likewise."""
    return [label_name(label) for label in labels.tolist()]


def camera_names(cameras: NDArray[Any]) -> list[str]:
    """Cameras (N,) as text, as they were written; empty where one is missing."""
    return ["" if is_junk(name) else name for name in label_names(cameras)]


def label_codes(identities: NDArray[Any]) -> Codes:
    """Integers (N,) that are equal where the identities are; JUNK stays JUNK."""
    return shared_codes(identities, identities[:0], "identities")[0]


def camera_codes(cameras: NDArray[Any]) -> Codes:
    """Integers (N,) that are equal where the cameras are; each row without a camera has one of its own."""
    codes, _ = shared_codes(cameras, cameras[:0], "cameras")
    missing = codes < 0
    codes[missing] = codes.max(initial=0) + 1 + np.arange(missing.sum())
    return codes


def shared_codes(query_labels: NDArray[Any], gallery_labels: NDArray[Any], what: str) -> tuple[Codes, Codes]:
    """Labels (Q,) and (G,) as integers >= 0 that are equal where the labels are.

    Identities -1 are JUNK. Missing cameras are -1 among the queries' and -2 among the gallery's, which are
    never equal.

    Args:
        query_labels, gallery_labels: of both sides.
        what: "identities" or "cameras".

    Raises:
        DataError: values that are no labels, an identity that is missing, or two sides of different kinds
            with no label in common.
    """
    sides = [
        _distinct(labels, f"{side} {what}")
        for side, labels in (("query", query_labels), ("gallery", gallery_labels))
    ]
    distinct = [values for values, _ in sides]
    if all(isinstance(values, np.ndarray) for values in distinct):
        labels = np.unique(np.concatenate(distinct))
        codes = [np.searchsorted(labels, values) for values in distinct]
        unknown = [np.asarray(values) == -1 for values in distinct]
    else:
        column = read_labels([label for values in distinct for label in values], what=what, junk=True)
        are_numbers = [all(not isinstance(label, str | bytes) for label in labels) for labels in distinct]
        if what == "identities" or are_numbers[0] != are_numbers[1]:  # cameras may be called "1" and "door"
            num_queries = len(distinct[0])
            refuse_two_kinds(column.names[:num_queries], column.names[num_queries:], what)
        known = {name: code for code, name in enumerate(sorted({name for name in column.names if name}))}
        numbers = np.array([known.get(name or "", -1) for name in column.names], np.int64)
        nameless = np.array([name in (None, JUNK_LABEL) for name in column.names], np.bool_)
        codes = np.split(numbers, [len(distinct[0])])
        unknown = np.split(nameless, [len(distinct[0])])
        if what == "identities":
            for (_, place), numbers, side in zip(sides, codes, ("query", "gallery"), strict=True):
                _refuse_missing(numbers[place] < 0, side)
    missing = (JUNK, JUNK) if what == "identities" else (MISSING_CAMERA, MISSING_CAMERA - 1)
    found = [
        np.where(is_unknown, code, numbers).astype(np.int64)[place]
        for (_, place), numbers, is_unknown, code in zip(sides, codes, unknown, missing, strict=True)
    ]
    return found[0], found[1]


def _labels(codes: Sequence[int], names: Sequence[str | None]) -> NDArray[Any]:
    if all(name is None for name in names):
        return np.array(codes, dtype=np.int64)
    texts = [str(code) if name is None else name for code, name in zip(codes, names, strict=True)]
    return np.array(texts, dtype=np.str_)


def _distinct(labels: NDArray[Any], what: str) -> tuple[NDArray[np.int64] | list[Any], NDArray[np.intp]]:
    """The labels that occur, an array of integers or a list of others, and the place of each row in them."""
    if labels.dtype.kind in "iu" and (labels.dtype.kind == "i" or labels.max(initial=0) < 2**63):
        values, place = np.unique(labels, return_inverse=True)
        return values.astype(np.int64), place
    if labels.dtype.kind not in "iuUSOf":
        raise DataError(f"{what} are of type {labels.dtype}; give integers or strings")
    known: dict[Any, int] = {}
    place = np.empty(len(labels), np.intp)
    for row, label in enumerate(listed(labels)):
        try:
            # NaN differs from itself; each would become a separate label.
            key = None if label != label else label
            if key not in known:
                label_text(key)
            place[row] = known.setdefault(key, len(known))
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{what}, row {row}: {error}") from None
    return list(known), place


def refuse_two_kinds(query: Iterable[str | None], gallery: Iterable[str | None], what: str) -> None:
    """Raise :class:`DataError` where one side has numbers, the other text, and they never meet.

    They are two ways of writing, most likely. Names are given as :func:`reidkit.labels.read_labels` gives
    them; labels that are missing or -1 do not count.
    """
    sides = [{name for name in names if name not in (None, "", JUNK_LABEL)} for names in (query, gallery)]
    kinds = ["numbers" if all(map(is_number, names)) else "text" for names in sides]
    if all(sides) and kinds[0] != kinds[1] and not sides[0] & sides[1]:
        raise DataError(
            f"query {what} are {kinds[0]} ({min(sides[0])}, ...), gallery {what} {kinds[1]} "
            f"({min(sides[1])}, ...), and none is on both sides; write both the same way"
        )


def _refuse_missing(missing: NDArray[np.bool_], side: str) -> None:
    if missing.any():
        raise DataError(
            f"{side} identities are missing in {missing.sum()} of {len(missing)} rows (first: "
            f"{np.flatnonzero(missing)[0]}); give -1 to rows that count for nothing, or leave them out"
        )
