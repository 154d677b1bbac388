"""The picture that is searched for, where the gallery holds it itself: its hits and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reidkit.errors import ConfigError, shown
from reidkit.galleries import Gallery, Hit, Item, Where
from reidkit.galleries._relative import keys_of_query
from reidkit.images.reading import ImageSource
from reidkit.search.pictures import HASH_LENGTH, content_hash

PictureFile = tuple[str | None, str | None]
"""Where a picture's file lies, and the hash of its content, as far as that is known."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is known of a query besides its embedding.

    ``files`` are those of the pictures that it was made of, ``items`` are the gallery's;
    ``labels`` are given, and come before what the items say.
    """

    files: tuple[PictureFile, ...] = ()
    items: tuple[Item, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def is_own(self, hit: Hit) -> bool:
        """Whether a hit shows a picture that is searched for."""
        return any(hit.id == item.id for item in self.items) or any(
            content is not None and (hit.content == content or (source is not None and hit.source == source))
            for source, content in (*self.files, *((item.source, item.content) for item in self.items))
        )

    def items_in(self, gallery: Gallery) -> list[Item]:
        """Its own items, and those of the gallery that show its pictures."""
        return [*self.items, *(item for file in self.files for item in _items_of(gallery, *file))]


def labels_of_queries(num: int, labels: Sequence[Mapping[str, Any]] | None) -> Sequence[Mapping[str, Any]]:
    """Labels that are given of so many images; none of any where there are none.

    Raises :class:`ConfigError` where these are no mappings, or not as many as the images.
    """
    if labels is None:
        return [{}] * num
    if not isinstance(labels, Sequence) or not all(isinstance(one, Mapping) for one in labels):
        raise ConfigError(
            f"queries is {shown(labels)}; expected a list with a mapping an image, such as {{'camera': 3}}"
        )
    if len(labels) != num:
        raise ConfigError(f"queries has {len(labels)} mappings of labels for {num} images")
    return labels


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
    if not isinstance(image, np.ndarray) and hasattr(image, "seekable") and image.seekable():
        place = image.tell()
        image.seek(0)
        digest = hashlib.sha256(image.read()).hexdigest()[:HASH_LENGTH]
        image.seek(place)
        return None, digest
    return None, None


def known_queries(
    gallery: Gallery, where: Where | None, queries: Sequence[Query]
) -> list[Mapping[str, Any]] | None:
    """What is known of each query, where conditions refer to it: what is given, then what its items say.

    Raises :class:`ConfigError` where nothing says a label that is referred to.
    """
    keys = keys_of_query(where)
    if not keys:
        return None
    known: list[Mapping[str, Any]] = []
    for query in queries:
        of_items = _labels(keys, query.items_in(gallery))
        unsaid = [key for key in keys if key not in query.labels and key not in of_items]
        if unsaid:
            source = next((source for source, _ in query.files if source is not None), "the query")
            raise ConfigError(
                f"where refers to the {unsaid[0]} of {source}, which no item of it says; "
                f"give it by --query {unsaid[0]}=..., in Python by queries=[...]"
            )
        known.append({**of_items, **query.labels})
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
