"""Adding to a gallery on a PostgreSQL server, within a transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import Addition, check_encoder, unit_embeddings
from reidkit.galleries._postgres import decisions as decision_table
from reidkit.galleries._postgres import thumbnails
from reidkit.galleries._postgres.address import Address
from reidkit.galleries._postgres.index import make
from reidkit.galleries._postgres.items import write
from reidkit.galleries._postgres.server import Connection
from reidkit.galleries._postgres.tables import State, num_items, set_dimension, set_encoder, state
from reidkit.galleries._postgres.where import source_hash
from reidkit.galleries._served import to_be_written


def add(connection: Connection, addition: Addition, address: Address) -> NDArray[np.int64]:
    """Store items; their ids (N,)."""
    _make_ready(connection, addition, address)
    labels, location = addition.labels, str(address)
    there = with_sources(connection, [label.source for label in labels if label.source is not None])
    known = {source: id for source, (id, _) in there.items()}
    ids, fresh = to_be_written(addition, known, location)
    if addition.on_duplicate == "replace":
        connection.execute("DELETE FROM items WHERE id = ANY(%s)", (list(known.values()),))
        # Decisions are on pictures: one that is another now was not decided on.
        contents = {label.source: label.content for label in labels}
        others = [id for source, (id, content) in there.items() if content != contents[source]]
        decision_table.forget(connection, others, (), location)
    embeddings = addition.embeddings[fresh]
    written = write(connection, [ids[i] for i in fresh], [labels[i] for i in fresh], embeddings)
    for index, id in zip(fresh, written, strict=True):
        ids[index] = id
    small = {id: addition.thumbnails[index] for index, id in zip(fresh, written, strict=True)}
    thumbnails.put(connection, {id: data for id, data in small.items() if data is not None})
    return np.array(ids, np.int64)


def _make_ready(connection: Connection, addition: Addition, address: Address) -> None:
    """The first embeddings tell how long all are and, where they know it, whose. Others may add too."""
    now = state(connection)
    is_first = now.dimension is None or (now.encoder is None and addition.origin is not None)
    now = state(connection, "FOR UPDATE" if is_first else "FOR SHARE")
    check_origin(now, addition.origin, str(address))
    unit_embeddings(addition.embeddings[:1], dimension=now.dimension, location=str(address))
    if now.dimension is None:
        dimension = addition.embeddings.shape[1]
        set_dimension(connection, dimension, str(address))
        if address.index:
            make(connection, dimension, str(address))
    if now.encoder is None and addition.origin is not None and not num_items(connection):
        set_encoder(connection, addition.origin)


def check_origin(now: State, origin: Mapping[str, Any] | None, location: str) -> None:
    """Refuse embeddings that name another encoder than the gallery's."""
    if origin is not None and now.encoder is not None:
        check_encoder(
            now.encoder, origin, num_items=0, location=location
        )  # which matters where none is known


def with_sources(connection: Connection, sources: Collection[str]) -> dict[str, tuple[int, str | None]]:
    """Id and content of the items of these sources, which nobody changes before the transaction ends."""
    if not sources:
        return {}
    hashes = {source_hash(source): source for source in sources}
    query = "SELECT sha256(source), id, content FROM items WHERE sha256(source) = ANY(%b) FOR UPDATE"
    found = connection.execute(query, (list(hashes),), binary=True)
    return {hashes[bytes(hash)]: (id, content) for hash, id, content in found}
