"""Items of a gallery on a PostgreSQL server: written by COPY, read with their checksums compared.

The server has checksums of its own for its pages, where they are switched on. Those here are of what one
client wrote and another reads, whatever lies between them: CRC-32 of the labels, and of the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql
from psycopg.copy import QueuedLibpqWriter

from reidkit.errors import DataError, shown
from reidkit.galleries._labels import Labels
from reidkit.galleries._postgres.server import Connection
from reidkit.galleries._postgres.where import Clause, of_ids
from reidkit.galleries._records import Row
from reidkit.galleries._served import Stored, embedding_checksum
from reidkit.labels import camera_value

AT_ONCE = 500  # items that are read at a time: of more, the server writes a temporary file
_LABELS = "id, place, source, identity, camera, time, content, more, labels_checksum"
# An embedding is sent as the bytes that pgvector reads, made of all of them at once.
_TYPES = ("int8", "int8", "bytea", "text", "text", "float8", "text", "text", "int8", "int8", "bytea")


def check_storable(labels: Iterable[Labels | Row]) -> None:
    """Raise :class:`DataError` for a text with a NUL character: the server's texts have none."""
    for index, label in enumerate(labels):
        texts = {
            "sources": label.source,
            "identities": label.identity,
            "cameras": label.camera,
            "contents": label.content,
            "labels": _own_texts(label.more),
        }
        for name, text in texts.items():
            if isinstance(text, str) and "\0" in text:
                raise DataError(
                    f"{name}[{index}]: {shown(text)} holds a NUL character, which PostgreSQL cannot keep; "
                    "write the label without it"
                )


def _own_texts(more: str | None) -> str:
    """Tracklet and labels of one's own in one text, where one of them may hold a NUL character."""
    if more is None or "\\u0000" not in more:
        return ""
    known = json.loads(more)
    return " ".join(map(str, [known.get("tracklet"), *known.get("labels", {}).values()]))


# --- writing ----------------------------------------------------------------------------------------------


def write(
    connection: Connection,
    ids: Sequence[int | None],
    labels: Sequence[Labels],
    embeddings: NDArray[np.float32],
) -> list[int]:
    """Store items (N,), embeddings (N, D) among them, as the last written; their ids, new for ``None``."""
    new_ids = iter(_draw(connection, "ids", sum(id is None for id in ids)))
    known = [next(new_ids) if id is None else id for id in ids]
    places = _draw(connection, "places", len(ids))
    statement = f"COPY items ({_LABELS}, embedding_checksum, embedding) FROM STDIN (FORMAT BINARY)"
    vectors = zip(embeddings, _as_sent(embeddings), strict=True)
    with connection.cursor() as cursor:
        writer = QueuedLibpqWriter(cursor)  # sends what is there while we make more of it
        with cursor.copy(statement.encode(), writer=writer) as copy:
            copy.set_types(_TYPES)
            for id, place, label, (embedding, sent) in zip(known, places, labels, vectors, strict=True):
                values = _values(Row.labelled(id, place, label))
                copy.write_row((*values, embedding_checksum(id, embedding), sent))
    return known


def _as_sent(embeddings: NDArray[np.float32]) -> Iterator[bytes]:
    """Embeddings (N, D) in pgvector's binary form, some of them at a time."""
    form = vector_form(embeddings.shape[1])
    for start in range(0, len(embeddings), AT_ONCE):
        some = embeddings[start : start + AT_ONCE]
        sent = np.zeros(len(some), form)
        sent["dimension"], sent["embedding"] = embeddings.shape[1], some
        yield from map(np.void.tobytes, sent)


def vector_form(dimension: int) -> np.dtype[np.void]:
    """How pgvector sends and takes an embedding."""
    return np.dtype([("dimension", ">i2"), ("unused", ">i2"), ("embedding", ">f4", (dimension,))])


def lock(connection: Connection, ids: Collection[int]) -> None:
    """Nobody else changes these items before the transaction ends."""
    connection.execute("SELECT FROM items WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (list(ids),))


def rewrite_labels(connection: Connection, rows: Sequence[Row]) -> None:
    """Give items that are there the labels of these rows."""
    columns = _LABELS.removeprefix("id, place, ")
    statement = f"UPDATE items SET ({columns}) = ({', '.join(['%s'] * 7)}) WHERE id = %s"
    with connection.cursor() as cursor:
        # Where two exchange their sources, both would have the same for a moment.
        cursor.execute("UPDATE items SET source = NULL WHERE id = ANY(%s)", ([row.id for row in rows],))
        cursor.executemany(statement.encode(), [(*_values(row)[2:], row.id) for row in rows])


def _draw(connection: Connection, sequence: str, num: int) -> list[int]:
    """So many new numbers, ascending."""
    query = f"SELECT nextval('{sequence}') FROM generate_series(1, %s)"
    return sorted(number for (number,) in connection.execute(query.encode(), (num,)))


def _values(row: Row) -> tuple[Any, ...]:
    """In the order of the columns, the checksum last. A source is a file's name, which may be any bytes."""
    source = None if row.source is None else row.source.encode("utf-8", "surrogateescape")
    camera = None if row.camera is None else str(row.camera)
    return row.id, row.row, source, row.identity, camera, row.time, row.content, row.more, row.values()[-1]


# --- reading ----------------------------------------------------------------------------------------------


def read(connection: Connection, where: Clause, *, embeddings: bool = False) -> Iterator[Stored]:
    """Items in the order in which they were written, some at a time; compare them by ``check``."""
    query = sql.SQL("{} WHERE {} ORDER BY place").format(_select(embeddings), where.text)
    with connection.cursor("items_read") as cursor:
        cursor.execute(query, where.values, binary=True)
        while some := cursor.fetchmany(AT_ONCE):
            yield from map(_stored, some)


def with_ids(connection: Connection, ids: Collection[int], *, embeddings: bool = False) -> dict[int, Stored]:
    """The items of these ids that are there."""
    where = of_ids(ids)
    query = sql.SQL("{} WHERE {}").format(_select(embeddings), where.text)
    stored = map(_stored, connection.execute(query, where.values, binary=True))
    return {item.row.id: item for item in stored}


def _select(embeddings: bool) -> sql.SQL:
    return sql.SQL(f"SELECT {_LABELS}{', embedding_checksum, embedding' if embeddings else ''} FROM items")


def _stored(values: Sequence[Any]) -> Stored:
    id, place, source, identity, camera, time, content, more, checksum, *embedding = values
    source = None if source is None else bytes(source).decode("utf-8", "surrogateescape")
    row = Row(id, place, source, identity, camera_value(camera), time, content, more)
    if not embedding:
        return Stored(row, checksum)
    return Stored(row, checksum, embedding[0], embedding[1].to_numpy())
