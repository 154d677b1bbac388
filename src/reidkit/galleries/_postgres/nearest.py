"""The nearest items on a PostgreSQL server: which they may be, as its float32 products tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from reidkit.galleries import Condition, Group, GroupBy, Hit
from reidkit.galleries._postgres.batch import MANY, embeddings_of
from reidkit.galleries._postgres.items import with_ids
from reidkit.galleries._postgres.server import Connection
from reidkit.galleries._postgres.where import EVERYTHING, Clause, clause, either, of_ids
from reidkit.galleries._served import SLACK, GroupKey, check, groups_of, hits_of, near_in_blocks, reached

LEAST_SHARE = 0.5
"""Of the items, that must pass a filter for the index to be asked: of fewer it misses some, and is slow."""

_FARTHEST = 1000  # places that the index is asked for at most
_SAMPLED_PAGES = 500  # of the table, that tell how many items pass
_SET_FOR_NOW = sql.SQL("set_config(%s, %s, true)")
_INDEX_SETTINGS = {
    "hnsw.iterative_scan": "strict_order",  # goes on where a filter lets few pass
    "hnsw.max_scan_tuples": str(2**31 - 1),
    "hnsw.scan_mem_multiplier": "4",
}


class Ranking:
    """The nearest items, in one transaction; by the index, or among all that the filters let through."""

    def __init__(self, connection: Connection, location: str, *, approximate: bool = False) -> None:
        self._connection, self._location, self._approximate = connection, location, approximate

    def items(self, queries: NDArray[np.float32], wheres: Sequence[Clause], *, top: int) -> list[list[Hit]]:
        """The ``top`` nearest items of each query (Q, D) among those that its filter lets through."""
        alike: dict[int, list[int]] = {}
        for index, where in enumerate(wheres):
            alike.setdefault(id(where), []).append(index)
        near: dict[int, list[int]] = {}
        for indexes in alike.values():
            near |= zip(indexes, self._near(queries[indexes], wheres[indexes[0]], top), strict=True)
        wanted = {id for ids in near.values() for id in ids}
        stored = with_ids(self._connection, wanted, embeddings=True)
        check(stored.values(), self._location)
        return [
            hits_of([stored[id] for id in near[index]], query, top) for index, query in enumerate(queries)
        ]

    def groups(
        self, query: NDArray[np.float32], where: Clause, kind: GroupBy, *, top: int, items: int
    ) -> list[Group]:
        """The ``top`` groups whose nearest item is nearest, each with its nearest items."""
        sizes = self._near_groups(query, where, kind, top)
        members = self._members(query, where, kind, list(sizes), items)
        stored = with_ids(self._connection, {id for ids in members.values() for id in ids}, embeddings=True)
        check(stored.values(), self._location)
        of_groups = {group: [stored[id] for id in ids] for group, ids in members.items()}
        return groups_of(kind, of_groups, sizes, query, top=top, items=items)

    def _near(self, queries: NDArray[np.float32], where: Clause, top: int) -> list[list[int]]:
        """Ids of the items that may be among the top of each query, all with this filter."""
        share = self._share(where) if self._approximate else 0.0
        if share >= LEAST_SHARE and top + SLACK <= _FARTHEST:
            self._use_index(top, share)
            return [self._near_by_index(query, where, top) for query in queries]
        if len(queries) >= MANY:
            return near_in_blocks(embeddings_of(self._connection, where, queries.shape[1]), queries, top=top)
        return [self._near_by_scan(query, where, top) for query in queries]

    def _near_by_scan(self, query: NDArray[np.float32], where: Clause, top: int) -> list[int]:
        # The index is not ordered by a sum: the server looks at all items.
        ranking = sql.SQL(
            "SELECT id, (embedding <#> %s) + 0 AS far FROM items WHERE {} ORDER BY far LIMIT %s"
        )
        return [id for id, _ in self._within_reach(ranking.format(where.text), query, where, top)]

    def _near_by_index(self, query: NDArray[np.float32], where: Clause, top: int) -> list[int]:
        ranking = sql.SQL("SELECT id FROM items WHERE {} ORDER BY embedding <#> %s LIMIT %s")
        values = (*where.values, query, top + SLACK)
        found = self._connection.execute(ranking.format(where.text), values).fetchall()
        if len(found) < top + SLACK:  # all that there are, or all that it came upon
            return self._near_by_scan(query, where, top)
        return [id for (id,) in found]

    def _use_index(self, top: int, share: float) -> None:
        effort = {"hnsw.ef_search": str(min(_FARTHEST, int(max(100, 2 * top) / share)))}
        settings = _INDEX_SETTINGS | effort
        statement = sql.SQL("SELECT {}").format(sql.SQL(", ").join([_SET_FOR_NOW] * len(settings)))
        self._connection.execute(statement, [text for pair in settings.items() for text in pair])

    def _share(self, where: Clause) -> float:
        """The share of items that a filter lets through, over some pages of the table."""
        if where is EVERYTHING:
            return 1.0
        pages = "SELECT least(100, 100.0 * %s / greatest(1, pg_relation_size('items') / 8192))"
        [percent] = self._connection.execute(pages, (_SAMPLED_PAGES,)).fetchone() or (100,)
        sample = sql.SQL(
            "SELECT avg(CASE WHEN {} THEN 1.0 ELSE 0.0 END)::float8 FROM items "
            "TABLESAMPLE SYSTEM (%s::real) REPEATABLE (0)"
        )
        [share] = self._connection.execute(
            sample.format(where.text), (*where.values, percent)
        ).fetchone() or (0,)
        return share or 0.0

    def _near_groups(
        self, query: NDArray[np.float32], where: Clause, kind: GroupBy, top: int
    ) -> dict[GroupKey, int]:
        """How many items each group has that may be among the top."""
        # With OFFSET, distances are computed before anything is sorted, and no embedding is.
        ranking = sql.SQL(
            "SELECT {label}, lone, count(*), min(far) AS far FROM (SELECT {label}, {lone} AS lone, "
            "embedding <#> %s AS far FROM items WHERE {where} OFFSET 0) AS each GROUP BY {label}, lone "
            "ORDER BY far LIMIT %s"
        ).format(label=sql.Identifier(kind), lone=_lone(kind), where=where.text)
        found = self._within_reach(ranking, query, where, top)
        return {(label, lone): num for label, lone, num, _ in found}

    def _members(
        self,
        query: NDArray[np.float32],
        where: Clause,
        kind: GroupBy,
        groups: Sequence[GroupKey],
        items: int,
    ) -> dict[GroupKey, list[int]]:
        """Ids of the items of each group that may be among its nearest."""
        within = either(
            clause([Condition(kind, "in", tuple(label for label, _ in groups if label is not None))]),
            of_ids([lone for _, lone in groups if lone is not None]),
        )
        ranking = sql.SQL(
            "SELECT {label}, lone, id, far FROM (SELECT {label}, lone, id, far, row_number() OVER "
            "(PARTITION BY {label}, lone ORDER BY far) AS rank FROM (SELECT {label}, {lone} AS lone, id, "
            "embedding <#> %s AS far FROM items WHERE {where}) AS each) AS ranked WHERE rank <= %s "
            "ORDER BY far"
        ).format(label=sql.Identifier(kind), lone=_lone(kind), where=(where & within).text)
        limit = items + SLACK
        while True:
            values = (query, *(where & within).values, limit)
            members: dict[GroupKey, list[tuple[int, float]]] = {}
            for label, lone, id, far in self._connection.execute(ranking, values):
                members.setdefault((label, lone), []).append((id, far))
            near = {group: reached(found, items, limit, len(query)) for group, found in members.items()}
            if None not in near.values():
                return {group: [id for id, _ in found or ()] for group, found in near.items()}
            limit *= 4

    def _within_reach(
        self, ranking: sql.Composed, query: NDArray[np.float32], where: Clause, top: int
    ) -> list[tuple[Any, ...]]:
        """Rows of a ranking by its last column that may be among the top."""
        limit = top + SLACK
        while True:
            found = self._connection.execute(ranking, (query, *where.values, limit)).fetchall()
            near = reached(found, top, limit, len(query))
            if near is not None:
                return near
            limit *= 4


def _lone(kind: GroupBy) -> sql.Composed:
    """The id of an item that belongs to nobody, and is a group by itself."""
    return sql.SQL("CASE WHEN {} IS NULL THEN id END").format(sql.Identifier(kind))
