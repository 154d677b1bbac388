"""Many queries at once: all embeddings are read from the server a single time, and compared here.

The server compares one query after the other, each with all embeddings; from some number of queries on, it
takes less to send them. They come by COPY, in rows of one length that NumPy reads as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from reidkit.galleries._postgres.items import vector_form
from reidkit.galleries._postgres.server import Connection
from reidkit.galleries._postgres.where import Clause

MANY = 16
"""Queries from which on reading all embeddings takes less."""

_AT_ONCE = 8192  # embeddings compared in one product
_HEADER, _TRAILER = 19, 2  # bytes before and behind the rows


def embeddings_of(
    connection: Connection, where: Clause, dimension: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Ids (N,) and embeddings (N, D) of what a filter lets through, some at a time."""
    row = np.dtype(
        [
            ("num_fields", ">i2"),
            ("id_bytes", ">i4"),
            ("id", ">i8"),
            ("vector_bytes", ">i4"),
            ("vector", vector_form(dimension)),
        ]
    )
    query = sql.SQL("COPY (SELECT id, embedding FROM items WHERE {}) TO STDOUT (FORMAT BINARY)")
    with connection.cursor() as cursor, cursor.copy(query.format(where.text), where.values) as copy:
        data, skipped = bytearray(), _HEADER
        for piece in copy:
            data += piece
            if len(data) - skipped >= _AT_ONCE * row.itemsize + _TRAILER:
                yield _rows(data, row, skipped)
                del data[: skipped + (len(data) - skipped) // row.itemsize * row.itemsize]
                skipped = 0
        if len(data) - skipped > _TRAILER:
            yield _rows(data, row, skipped)


def _rows(
    data: bytearray, row: np.dtype[np.void], skipped: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    num = (len(data) - skipped) // row.itemsize
    rows = np.frombuffer(bytes(data[skipped : skipped + num * row.itemsize]), row)
    return rows["id"].astype(np.int64), rows["vector"]["embedding"].astype(np.float32)
