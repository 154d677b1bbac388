"""Galleries on a Milvus server, ``milvus://user@host/database?gallery=NAME``, or in a Milvus Lite file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidkit.errors import MissingExtra
from reidkit.galleries import Gallery
from reidkit.registry import register


@register("gallery", "milvus")
def milvus_gallery(address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None) -> Gallery:
    """A gallery on a Milvus server, for clusters; search is exact, or by an HNSW index.

    See :class:`reidkit.galleries._milvus.gallery.MilvusGallery`.

    Raises:
        MissingExtra: pymilvus is not installed.
        ConfigError: the address cannot be read.
        NoGallery: there is none and ``create`` is false.
        DataError: no server, no such database or user, a later format, another encoder.
    """
    return _gallery(f"milvus://{address}", create, encoder)


@register("gallery", "milvus-lite")
def milvus_lite_gallery(
    address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None
) -> Gallery:
    """A gallery in a file of Milvus Lite, ``milvus-lite:///path/file.db``: one process, for trying things.

    The errors are those of ``milvus``.
    """
    return _gallery(f"milvus-lite://{address}", create, encoder)


def _gallery(address: str, create: bool, encoder: Mapping[str, Any] | None) -> Gallery:
    try:
        from reidkit.galleries._milvus.gallery import MilvusGallery
    except ImportError as error:
        package = (error.name or "pymilvus").partition(".")[0]
        raise MissingExtra(package, extra="milvus", needed_for="a gallery on a Milvus server") from error
    return MilvusGallery(address, create=create, encoder=encoder)
