"""The approximate index of a gallery on a PostgreSQL server: HNSW, with the recall that was measured."""

from __future__ import annotations

import numpy as np
from psycopg import sql
from psycopg.types.json import Json

from reidkit.errors import DataError
from reidkit.galleries._postgres.items import read
from reidkit.galleries._postgres.nearest import Ranking
from reidkit.galleries._postgres.server import Connection, Server
from reidkit.galleries._postgres.tables import num_items, state
from reidkit.galleries._postgres.where import EVERYTHING, Clause

TOP = 10  # nearest items that recall is measured by
LARGEST_DIMENSION = 2000  # of pgvector's index over float32
_HALF = Clause(sql.SQL("mod(hashint8(id), 2) = 0"))


def build(server: Server, location: str, *, min_recall: float, sample: int) -> float:
    """Make the index anew and measure its recall; what there was stays where that is below ``min_recall``."""

    def work(connection: Connection) -> float:
        dimension = state(connection, "FOR UPDATE").dimension
        if dimension is None:
            raise DataError(f"{location} is empty; add embeddings first, then build the index over them")
        connection.execute("DROP INDEX IF EXISTS items_by_embedding")
        make(connection, dimension, location)
        recall = measure(connection, location, sample=sample)
        least = min(recall.values())
        if least < min_recall:
            raise DataError(
                f"{location}: the index finds {100 * least:.1f} % of the {TOP} nearest, fewer than the "
                f"{100 * min_recall:.1f} % asked for; it was not kept: search exactly, or ask for less"
            )
        told = recall | {"top": TOP, "queries": sample, "num_items": num_items(connection)}
        connection.execute("UPDATE gallery SET recall = %s", (Json(told),))
        return least

    return server.write(work)


def drop(connection: Connection) -> None:
    """Delete the index, if there is one."""
    connection.execute("DROP INDEX IF EXISTS items_by_embedding")
    connection.execute("UPDATE gallery SET recall = NULL")


def make(connection: Connection, dimension: int, location: str) -> None:
    """The index, over what there is and what will be added."""
    if dimension > LARGEST_DIMENSION:
        raise DataError(
            f"{location} has embeddings of {dimension} numbers; pgvector's index takes {LARGEST_DIMENSION} "
            "at most: leave index=hnsw out of the address, and search exactly"
        )
    connection.execute("SET LOCAL maintenance_work_mem = '1GB'")  # a graph that does not fit takes hours
    connection.execute("CREATE INDEX items_by_embedding ON items USING hnsw (embedding vector_ip_ops)")


def measure(connection: Connection, location: str, *, sample: int) -> dict[str, float]:
    """The share of the nearest items that the index finds, stored items being the queries: among all, and
    where a filter lets half of them through."""
    drawn = Clause(sql.SQL("id IN (SELECT id FROM items ORDER BY hashint8(id) LIMIT %s)"), (sample,))
    rows = [item.embedding for item in read(connection, drawn, embeddings=True) if item.embedding is not None]
    shares = {}
    for name, where in {"all": EVERYTHING, "half": _HALF}.items():
        shares[name] = 1.0
        if rows:
            queries, wheres = np.stack(rows), [where] * len(rows)
            exact = Ranking(connection, location).items(queries, wheres, top=TOP)
            found = Ranking(connection, location, approximate=True).items(queries, wheres, top=TOP)
            right = sum(
                len({hit.id for hit in one} & {hit.id for hit in other})
                for one, other in zip(exact, found, strict=True)
            )
            shares[name] = round(right / max(1, sum(map(len, exact))), 4)
    return shares


def ensure(server: Server, location: str) -> None:
    """Make the index where the address asks for it and there is something to be found by it."""
    there = server.read(
        lambda connection: (
            state(connection).dimension is None
            or connection.execute("SELECT to_regclass('items_by_embedding')").fetchone() != (None,)
        )
    )
    if not there:
        build(server, location, min_recall=0.0, sample=100)
