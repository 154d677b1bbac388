"""The gallery on a PostgreSQL server with pgvector: ``postgresql://user@host:port/database?gallery=NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reidkit.errors import MissingExtra
from reidkit.galleries import Gallery
from reidkit.registry import register


@register("gallery", "postgresql")
def postgres_gallery(
    address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None
) -> Gallery:
    """A gallery on a PostgreSQL server, for many machines; search is exact, or by pgvector's HNSW index.

    See :class:`reidkit.galleries._postgres.gallery.PostgresGallery`.

    Raises:
        MissingExtra: psycopg or pgvector is not installed.
        ConfigError: the address cannot be read.
        NoGallery: there is none and ``create`` is false.
        DataError: no server, no such database or user, no pgvector, a later format, another encoder.
    """
    try:
        from reidkit.galleries._postgres.gallery import PostgresGallery
    except ImportError as error:
        package = (error.name or "psycopg").partition(".")[0]
        raise MissingExtra(
            package, extra="postgres", needed_for="a gallery on a PostgreSQL server"
        ) from error
    return PostgresGallery(address, create=create, encoder=encoder)
