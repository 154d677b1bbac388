"""Galleries: people's embeddings with where and when they were seen, to be searched.

An engine is one file of this folder: a class with the verbs of :class:`Gallery`, registered under the
scheme of its locations and constructed as ``Engine(address, *, create, encoder)``, where the address is
what follows ``scheme://``. What all engines accept (embeddings, labels, filters) is checked by
:class:`Gallery`, from which an engine inherits the verbs whose arguments need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from reidkit import registry, trust
from reidkit.errors import ConfigError, shown
from reidkit.galleries._contents import contents
from reidkit.galleries._contract import Addition, Gallery, Search
from reidkit.galleries._copy import Copied, copy_gallery
from reidkit.galleries._decisions import Decision, in_force
from reidkit.galleries._errors import DamagedGallery, NoGallery, UnavailableGallery
from reidkit.galleries._export import ExportedGallery, export_gallery
from reidkit.galleries._feedback import (
    accept,
    accept_all_proposals,
    accept_proposal,
    holds_most,
    item_ids,
    merge,
    proposals,
    reject,
    split,
    undo,
)
from reidkit.galleries._given import GroupBy, OnDuplicate, unit_embeddings
from reidkit.galleries._items import Group, Hit, Item, Verification
from reidkit.galleries._labels import age
from reidkit.galleries._origin import check_encoder, plain_encoder
from reidkit.galleries._relative import KnownQuery, conditions_of_queries
from reidkit.galleries._removal import erase, expire, forget
from reidkit.galleries._storage import Storage
from reidkit.galleries._training_table import write_training_table
from reidkit.galleries._where import Condition, Where, check_where
from reidkit.galleries._where_texts import parse_labels, parse_where

__all__ = [
    "Addition",
    "Condition",
    "Copied",
    "DamagedGallery",
    "Decision",
    "ExportedGallery",
    "Gallery",
    "Group",
    "GroupBy",
    "Hit",
    "Item",
    "KnownQuery",
    "NoGallery",
    "OnDuplicate",
    "Search",
    "UnavailableGallery",
    "Verification",
    "Where",
    "accept",
    "accept_all_proposals",
    "accept_proposal",
    "age",
    "check_encoder",
    "check_where",
    "conditions_of_queries",
    "contents",
    "copy_gallery",
    "erase",
    "expire",
    "export_gallery",
    "forget",
    "holds_most",
    "in_force",
    "item_ids",
    "merge",
    "open_gallery",
    "parse_labels",
    "parse_where",
    "proposals",
    "reject",
    "split",
    "undo",
    "unit_embeddings",
    "without_password",
    "write_training_table",
]


def open_gallery(
    location: str | os.PathLike[str],
    *,
    create: bool = True,
    encoder: Mapping[str, Any] | None = None,
    storage: Storage | None = None,
) -> Gallery:
    """Open a gallery, or make it.

    Args:
        location: a folder, or ``scheme://address`` for the engine registered as ``scheme``.
        create: make the gallery if there is none; otherwise that is a :class:`DataError`.
        encoder: which encoder the embeddings come from: ``fingerprint``, and whatever is needed to load
            it again, such as ``path``; kept as JSON. A gallery that holds embeddings of another encoder,
            or of one that was never recorded, is refused: their scores would mean nothing.
        storage: of a gallery in a folder, how its vectors are stored once it is made: "float32" (left out),
            "float16" or "int8".
    """
    place = _place(location)
    engine, separator, address = place.partition("://")
    if not separator:
        engine, address = "embedded", place
    options: dict[str, Any] = {
        "create": create,
        "encoder": None if encoder is None else plain_encoder(encoder),
    }
    if storage is not None:
        options["storage"] = storage
    with trust.given(engine):
        gallery: Gallery = registry.build("gallery", engine, options, address)
    return gallery


def without_password(location: str | os.PathLike[str]) -> str:
    """An address as messages show it.

    >>> without_password("postgresql://ann:secret@host/people?password=secret")
    'postgresql://ann@host/people?password='
    """
    place = re.sub(r"^([\w.+-]+://[^:/?#@]*):.*@", r"\1@", str(location), flags=re.DOTALL)
    return re.sub(r"((?:^|[?&])password=)[^&]*", r"\1", place) if "://" in place else place


def _place(location: str | os.PathLike[str]) -> str:
    try:
        place = os.fspath(location)
    except TypeError:
        raise ConfigError(
            f"location is of type {type(location).__name__}; expected a folder, or scheme://address"
        ) from None
    place = os.fsdecode(place)
    if not place or "\0" in place:
        raise ConfigError(f"location is {shown(place)}; expected a folder, or scheme://address")
    return place
