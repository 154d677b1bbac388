"""When two rows show one picture: it is found without any skill, so it never counts as its own match.

Two rows are one picture where their sources are equal or, without sources, where they are the same row of
one array. A sample's source is the content of its file and the box cut out of it, so that a copy under
another name is known too. Equal embeddings alone say nothing: copies of an array, without sources, are taken
for other pictures.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.types import Features, Split

Codes = NDArray[np.int64]

_FILES_REMEMBERED = 2**18


def picture_names(split: Split) -> list[str]:
    """A text for each sample; two samples show the same picture exactly where their texts are equal.

    Each file is read once, and again only where it has changed since. One that cannot be read is known by its
    path.
    """
    boxes = [
        "" if sample.box is None else " box " + ",".join(map(str, map(int, sample.box))) for sample in split
    ]
    return [_content(sample.path) + box for sample, box in zip(split, boxes, strict=True)]


def picture_codes(query: Features, gallery: Features | None) -> tuple[Codes, Codes]:
    """Numbers (Q,) and (G,), equal exactly where two rows show one picture.

    Without a gallery the queries are the gallery, and each row is at least a separate picture.
    """
    if gallery is None:
        codes = np.arange(len(query))
        if query.sources is not None:
            codes = _codes_of_texts(query.sources)
        return codes, codes
    if query.sources is not None and gallery.sources is not None:
        codes = _codes_of_texts(np.concatenate([query.sources, gallery.sources]))
        return codes[: len(query)], codes[len(query) :]
    rows = _addresses(query.embeddings, gallery.embeddings)
    if rows is not None:
        return rows
    return np.arange(len(query)), np.arange(len(query), len(query) + len(gallery))


def path_name(path: str) -> str:
    """A path in one form, whichever accents, separators and detours (``./a``, ``b/../a``) it is written with.

    The file system is not consulted: the path may come from another machine.
    """
    plain = unicodedata.normalize("NFC", path).replace("\\", "/")
    return plain and posixpath.normpath(plain)


def pairs_of(query_codes: Codes, gallery_codes: Codes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both sides, (P,) each, of all pairs with equal codes, by query."""
    order = np.argsort(gallery_codes, kind="stable")
    first = np.searchsorted(gallery_codes[order], query_codes, side="left")
    count = np.searchsorted(gallery_codes[order], query_codes, side="right") - first
    queries = np.repeat(np.arange(len(query_codes)), count)
    place_in_run = np.arange(len(queries)) - np.repeat(np.cumsum(count) - count, count)
    return queries, order[first[queries] + place_in_run]


def _content(path: Path) -> str:
    """What stands for the bytes of a file, or its resolved path where they cannot be had."""
    try:
        state = path.stat()
        if stat.S_ISREG(state.st_mode):
            return _digest(str(path), state.st_size, state.st_mtime_ns)
    except (OSError, ValueError):
        pass
    return os.path.realpath(path)


@lru_cache(maxsize=_FILES_REMEMBERED)
def _digest(path: str, size: int, changed: int) -> str:
    """Of the file as it was when it had this size and time of change."""
    return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


def _codes_of_texts(texts: NDArray[Any]) -> Codes:
    """Equal texts, equal codes; an empty text is a separate picture, since nothing is known of it."""
    known: dict[Any, int] = {}
    codes = [known.setdefault(text or row, row) for row, text in enumerate(texts.tolist())]
    return np.array(codes, np.int64)


def _addresses(query: NDArray[Any], gallery: NDArray[Any]) -> tuple[Codes, Codes] | None:
    """Where in memory each row of both sides begins; None where they have no row in common."""
    if query is gallery:
        return np.arange(len(query)), np.arange(len(query))
    step = query.strides[0]
    alike = query.dtype == gallery.dtype and query.strides == gallery.strides
    if not alike or not step:  # rows that were broadcast lie in one place, and are no one picture
        return None
    query_rows, gallery_rows = (
        side.__array_interface__["data"][0] + step * np.arange(len(side)) for side in (query, gallery)
    )
    return (query_rows, gallery_rows) if len(np.intersect1d(query_rows, gallery_rows)) else None
