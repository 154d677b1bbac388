"""Thumbnails of items, in a table of a PostgreSQL server, which removes them with their items."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from reidkit.galleries._postgres.server import Connection
from reidkit.galleries._thumbnails_table import checksum_of, told

AT_ONCE = 500  # that are read at a time


def put(connection: Connection, thumbnails: Mapping[int, bytes | None]) -> None:
    """Keep the thumbnails of items, by their ids, in place of those they had; ``None`` is none."""
    if not thumbnails:
        return
    connection.execute("DELETE FROM thumbnails WHERE id = ANY(%s)", (list(thumbnails),))
    rows = [(id, checksum_of(id, data), data) for id, data in thumbnails.items() if data is not None]
    if rows:
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY thumbnails (id, checksum, data) FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(("int8", "int8", "bytea"))
            for row in rows:
                copy.write_row(row)


def read(connection: Connection, ids: Collection[int]) -> tuple[dict[int, bytes], list[int]]:
    """Those of these items that have one, and the ids of those whose thumbnail is not what was written."""
    query = "SELECT id, checksum, data FROM thumbnails WHERE id = ANY(%s)"
    return told(connection.execute(query, (list(ids),), binary=True))


def damaged(connection: Connection) -> list[int]:
    """Ids of all thumbnails that are not what was written."""
    wrong: list[int] = []
    with connection.cursor("thumbnails_read") as cursor:
        cursor.execute("SELECT id, checksum, data FROM thumbnails", binary=True)
        while some := cursor.fetchmany(AT_ONCE):
            wrong += told(some)[1]
    return sorted(wrong)


def count(connection: Connection) -> int:
    [number] = connection.execute("SELECT count(*) FROM thumbnails").fetchone() or (0,)
    return int(number)
