"""The tables of a gallery on a PostgreSQL server, one schema a gallery; how earlier ones become today's."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from reidkit.errors import DataError
from reidkit.galleries import NoGallery, _own_labels
from reidkit.galleries._postgres.address import Address
from reidkit.galleries._postgres.server import Connection, Server

LONGEST_INDEXED = 500  # bytes of a label; an index takes some 2,700, and few labels are longer
LARGEST_DIMENSION = 16_000  # of pgvector
_LARGEST_IN_PLACE = 1500  # numbers of a vector that stands in its row's page of 8 kB, labels beside it

_TEXTS = ("identity", "camera", "content", "tracklet")
# What is of a person is to stand in the table alone, not in the statistics that the server keeps of it.
_PERSONAL = ("source", "identity", "content", "more", "tracklet", "labels", "embedding")

# "place" is the order in which embeddings were written. "more" is the JSON that checksums are of; "tracklet"
# and "labels" are read from it by the server. A source is a file's name: bytes, of any length.
_FIRST = (
    """CREATE TABLE gallery (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        format integer NOT NULL,
        dimension integer,
        encoder text,
        recall json
    )""",
    "CREATE SEQUENCE ids",
    "CREATE SEQUENCE places",
    "CREATE TABLE writes (key uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
    "CREATE INDEX writes_by_time ON writes (at)",
    """CREATE TABLE items (
        id bigint PRIMARY KEY,
        place bigint NOT NULL,
        source bytea,
        identity text COLLATE "C",
        camera text COLLATE "C",
        time double precision,
        content text COLLATE "C",
        more text COLLATE "C",
        labels_checksum bigint NOT NULL,
        embedding_checksum bigint NOT NULL,
        embedding vector NOT NULL,
        tracklet text COLLATE "C" GENERATED ALWAYS AS ((more::jsonb) ->> 'tracklet') STORED,
        labels jsonb GENERATED ALWAYS AS ((more::jsonb) -> 'labels') STORED
    )""",
    "CREATE UNIQUE INDEX items_by_source ON items (sha256(source))",
    "CREATE UNIQUE INDEX items_by_place ON items (place)",
    "CREATE INDEX items_by_time ON items (time)",
    *(
        f"CREATE INDEX items_by_{name} ON items ({name}) WHERE octet_length({name}) <= {LONGEST_INDEXED}"
        for name in _TEXTS
    ),
    *(f"ALTER TABLE items ALTER COLUMN {name} SET STATISTICS 0" for name in _PERSONAL),
    *(f"ALTER INDEX items_by_{name} ALTER COLUMN 1 SET STATISTICS 0" for name in ("source",)),
)

_DECISIONS = (
    """CREATE TABLE decisions (
        id bigint PRIMARY KEY,
        kind text NOT NULL,
        items text NOT NULL,
        who text NOT NULL,
        time double precision NOT NULL,
        undoes bigint,
        checksum bigint NOT NULL
    )""",
    *(f"ALTER TABLE decisions ALTER COLUMN {name} SET STATISTICS 0" for name in ("items", "who")),
)

_THUMBNAILS = (
    """CREATE TABLE thumbnails (
        id bigint PRIMARY KEY REFERENCES items ON DELETE CASCADE,
        checksum bigint NOT NULL,
        data bytea NOT NULL
    )""",
    "ALTER TABLE thumbnails ALTER COLUMN data SET STATISTICS 0, ALTER COLUMN data SET STORAGE EXTERNAL",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _DECISIONS, _THUMBNAILS)
"""Statements that lead from each format to the next, the first from nothing."""

FORMAT = len(MIGRATIONS)


@dataclass(frozen=True, slots=True)
class State:
    """The one row of the table ``gallery``. ``recall`` is that of the approximate index, as measured."""

    dimension: int | None
    encoder: dict[str, Any] | None
    recall: dict[str, Any] | None


def prepare(server: Server, *, create: bool) -> None:
    """Make the tables, or bring those of an earlier version up to date: as a whole or not at all.

    Raises:
        NoGallery: there is none, and ``create`` is false.
        DataError: a later version made it, or the schema is of something else.
    """
    found = server.setup(lambda connection: _format(connection, server.address))
    if found == FORMAT:
        return
    if not found and not create:
        others = server.setup(_galleries)
        there = (
            f"; the database has {', '.join(others[:10])}{', ...' if others[10:] else ''}" if others else ""
        )
        raise NoGallery(f"there is no gallery at {server.address}{there}; check the name, or fill one first")

    def migrate(connection: Connection) -> None:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"  # two that open a new gallery at once
        connection.execute(lock, (server.address.schema,))
        before = _format(connection, server.address)
        if not before:
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(server.schema))
        for statements in MIGRATIONS[before:]:
            connection.execute("; ".join(statements).encode())
        if not before:
            connection.execute("INSERT INTO gallery (format) VALUES (%s)", (FORMAT,))
        connection.execute("UPDATE gallery SET format = %s", (FORMAT,))

    server.setup(migrate)


def _format(connection: Connection, address: Address) -> int:
    """The format of the tables; 0 where there are none."""
    query = """SELECT c.relname, has_schema_privilege(n.oid, 'USAGE') FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s"""
    tables: dict[str, bool] = dict(connection.execute(query, (address.schema,)).fetchall())
    if not tables:
        return 0
    if not all(tables.values()):
        raise DataError(
            f"{address}: the user may not use this gallery; ask its owner for GRANT USAGE ON SCHEMA "
            f'"{address.schema}", and for rights on its tables'
        )
    ours = {"gallery", "items"} <= tables.keys()
    row = connection.execute("SELECT format FROM gallery").fetchone() if ours else None
    if row is None:
        raise DataError(
            f"{address}: the schema {address.schema} holds tables of something else; name another gallery"
        )
    [found] = row
    if not 1 <= found <= FORMAT:
        raise DataError(
            f"{address} has format {found}; this version of reidkit reads up to format {FORMAT}: update it"
        )
    return int(found)


def _galleries(connection: Connection) -> list[str]:
    found = connection.execute(
        "SELECT n.nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid "
        "WHERE n.nspname LIKE 'reid\\_%' AND c.relname = 'gallery' ORDER BY 1"
    )
    return [name.removeprefix("reid_") for (name,) in found]


def state(connection: Connection, lock: str = "") -> State:
    """What the gallery is; with "FOR UPDATE" or "FOR SHARE" nobody changes it before the transaction ends."""
    row = connection.execute(f"SELECT dimension, encoder, recall FROM gallery {lock}".encode()).fetchone()
    assert row is not None
    dimension, encoder, recall = row
    return State(dimension, None if encoder is None else json.loads(encoder), recall)


def set_encoder(connection: Connection, encoder: Mapping[str, Any]) -> None:
    connection.execute("UPDATE gallery SET encoder = %s", (json.dumps(dict(encoder)),))


def set_dimension(connection: Connection, dimension: int, location: str) -> None:
    """The first embeddings tell how long all will be."""
    if dimension > LARGEST_DIMENSION:
        raise DataError(
            f"embeddings have {dimension:,} numbers each; {location} takes {LARGEST_DIMENSION:,} at most, as "
            "pgvector does: keep them in a folder"
        )
    storage = "PLAIN" if dimension <= _LARGEST_IN_PLACE else "EXTERNAL"
    connection.execute("UPDATE gallery SET dimension = %s", (dimension,))
    change = (
        f"ALTER TABLE items ALTER embedding TYPE vector({dimension:d}), ALTER embedding SET STORAGE {storage}"
    )
    connection.execute(change.encode())


def own_labels(connection: Connection, wanted: Collection[object]) -> set[str]:
    """Those of these names that an item has a label under; all that there are, where one has none."""
    exists = "SELECT EXISTS (SELECT FROM items WHERE labels ? %s)"
    names = [name for name in wanted if isinstance(name, str) and _own_labels.NAME.fullmatch(name)]
    found = {name for name in names if connection.execute(exists, (name,)).fetchone() == (True,)}
    if len(found) == len(wanted):
        return found
    every = "SELECT DISTINCT jsonb_object_keys(labels) FROM items WHERE labels IS NOT NULL"
    return {name for (name,) in connection.execute(every)}


def about_the_server(connection: Connection) -> dict[str, Any]:
    """``bytes`` that the gallery takes, what serves it, and its index."""
    query = """SELECT sum(pg_total_relation_size(c.oid))::bigint, current_setting('server_version'),
        (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
        CASE WHEN to_regclass('items_by_embedding') IS NULL THEN 'exact' ELSE 'hnsw' END
        FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'"""
    names = ("bytes", "server", "pgvector", "index")
    return dict(zip(names, connection.execute(query).fetchone() or (), strict=True))


def num_dead(connection: Connection) -> int:
    """Rows of removed and replaced items whose room is not yet free, as far as the server has counted."""
    query = "SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'items'::regclass"
    [number] = connection.execute(query).fetchone() or (0,)
    return int(number)


def vacuum(*, everything: bool) -> list[sql.SQL]:
    """Statements that free what was deleted; all of it, by writing the tables anew."""
    how = "FULL, ANALYZE" if everything else "ANALYZE"
    return [sql.SQL(f"VACUUM ({how}) {table}") for table in ("items", "decisions", "thumbnails")]


def num_items(connection: Connection) -> int:
    [number] = connection.execute("SELECT count(*) FROM items").fetchone() or (0,)
    return int(number)
