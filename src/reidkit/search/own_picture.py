"""The picture that is searched for, where the gallery holds it itself: its hits and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidkit.errors import ConfigError
from reidkit.galleries import Gallery, Hit, Item, Where
from reidkit.galleries._relative import keys_of_query
from reidkit.images.reading import ImageSource
from reidkit.search.pictures import HASH_LENGTH, content_hash

PictureFile = tuple[str | None, str | None]
"""Where a picture's file lies, and the hash of its content, as far as that is known."""


def own_picture(file: PictureFile) -> Callable[[Hit], bool]:
    """Whether a hit shows the very picture that is searched for."""
    source, content = file
    if content is None:
        return lambda hit: False
    return lambda hit: hit.content == content or (source is not None and hit.source == source)


def file_of(image: ImageSource) -> PictureFile:
    """Where a picture's file lies, and the hash of its content, as far as that is known.

    An array has no file, nor has what Pillow was given otherwise than by a path.
    """
    if isinstance(image, Image.Image):
        image = getattr(image, "filename", "")
        if not image or not Path(image).is_file():
            return None, None
    if isinstance(image, str | PathLike):
        return str(Path(image).resolve()), content_hash(Path(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return None, hashlib.sha256(image).hexdigest()[:HASH_LENGTH]
    if not isinstance(image, np.ndarray) and image.seekable():
        place = image.tell()
        image.seek(0)
        digest = hashlib.sha256(image.read()).hexdigest()[:HASH_LENGTH]
        image.seek(place)
        return None, digest
    return None, None


def known_queries(
    gallery: Gallery,
    where: Where | None,
    files: Sequence[PictureFile],
    given: Sequence[Mapping[str, Any]] | None,
) -> list[Mapping[str, Any]] | None:
    """What is known of each picture, where conditions refer to it: what is given, then what its item says.

    Raises :class:`ConfigError` where nothing says a label that is referred to.
    """
    keys = keys_of_query(where)
    if not keys:
        return None
    if given is None:
        given = [{}] * len(files)
    if len(given) != len(files):
        raise ConfigError(f"queries has {len(given)} mappings of labels for {len(files)} images")
    known: list[Mapping[str, Any]] = []
    for (source, content), labels in zip(files, given, strict=True):
        of_items = _labels(keys, _items_of(gallery, source, content))
        unsaid = [key for key in keys if key not in labels and key not in of_items]
        if unsaid:
            raise ConfigError(
                f"where refers to the {unsaid[0]} of {source or 'the query'}, which no item of it says; "
                f"give it by --query {unsaid[0]}=..., in Python by queries=[...]"
            )
        known.append({**of_items, **labels})
    return known


def _items_of(gallery: Gallery, source: str | None, content: str | None) -> list[Item]:
    """The item of a picture at its place, or else those of its copies."""
    if content is None:
        return []
    same = gallery.items(where={"content": content})
    return [item for item in same if item.source == source and source is not None] or same


def _labels(keys: Sequence[str], items: Sequence[Item]) -> dict[str, Any]:
    """The labels on which all items, at least one, agree."""
    labels = {}
    for key in keys:
        first, *others = [item.label(key) for item in items] or [None]
        if items and others == [first] * len(others):
            labels[key] = first
    return labels
