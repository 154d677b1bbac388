"""A search of the embedded gallery: from queries to hits and groups, of one revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries._contract import Search
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._given import GroupBy, unit_embeddings
from reidkit.galleries._groups import nearest_groups
from reidkit.galleries._items import Group, Hit
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._nearest import nearest
from reidkit.galleries._records import FILE, State
from reidkit.galleries._relative import conditions_of_queries
from reidkit.galleries._selecting import Selecting
from reidkit.galleries._vectors import Snapshot, Vectors
from reidkit.galleries._where import Condition

NUM_TRIES = 3  # searches that a writer may overtake

Found = TypeVar("Found")


class Searching:
    """Searches a gallery's vectors for what its table lets through."""

    def __init__(self, table: ItemsTable, vectors: Vectors, selecting: Selecting) -> None:
        self._table, self._vectors, self._selecting = table, vectors, selecting

    def search(self, search: Search) -> list[list[Hit]] | list[list[Group]]:
        """Hits or groups of each query."""
        conditions = self._selecting.conditions(search.where)
        of_each = conditions_of_queries(conditions, search.known, num_queries=len(search.queries))
        if search.group is None:
            return self._of_each(search, of_each, self._hits)
        return self._of_each(search, of_each, self._groups)

    def _of_each(
        self,
        search: Search,
        conditions: list[tuple[Condition, ...]],
        attempt: Callable[[Search, NDArray[np.float32], Sequence[Condition]], list[Found] | None],
    ) -> list[Found]:
        """What is found for each query; queries with the same conditions are searched for together."""
        alike: dict[str, list[int]] = {}
        for index, of_query in enumerate(conditions):
            alike.setdefault(repr(of_query), []).append(index)
        found: dict[int, Found] = {}
        for indexes in alike.values():
            queries, of_query = search.queries[indexes], conditions[indexes[0]]
            results = self._found(partial(attempt, search, queries, of_query))
            found |= zip(indexes, results, strict=True)
        return [found[index] for index in range(len(conditions))]

    def _found(self, attempt: Callable[[], list[Found] | None]) -> list[Found]:
        for _ in range(NUM_TRIES):
            found = attempt()
            if found is not None:
                return found
        with self._table.reading():  # writers wait: one that replaces the same items all the time would win
            found = attempt()
        assert found is not None
        return found

    def _hits(
        self, search: Search, queries: NDArray[np.float32], conditions: Sequence[Condition]
    ) -> list[list[Hit]] | None:
        """Hits; ``None`` if another process took one of them away meanwhile."""
        with self._table.reading() as state:
            snapshot = self._selecting.snapshot(state)
            rows = self._selecting.matching(state, conditions)
        units = self._units(queries, snapshot)
        every = len(rows) == state.num_rows
        top = min(search.top, len(rows) + 1)
        return self._told(nearest(snapshot.stored, None if every else rows, units, top=top), snapshot.state)

    def _groups(
        self, search: Search, queries: NDArray[np.float32], conditions: Sequence[Condition]
    ) -> list[list[Group]] | None:
        """Groups; ``None`` if another process took one of their items away meanwhile."""
        assert search.group is not None
        kind: GroupBy = search.group
        with self._table.reading() as state:
            snapshot = self._selecting.snapshot(state)
            rows = self._selecting.matching(state, conditions)
            groups = self._selecting.groups(state, kind, rows)
        units = self._units(queries, snapshot)
        top = min(search.top, len(rows) + 1)
        ranked = nearest_groups(snapshot.stored, rows, groups, units, top=top, items=search.items)
        hits = self._told([(group.rows, group.scores) for found in ranked for group in found], state)
        if hits is None:
            return None
        of_each = iter(hits)
        return [[Group.of(kind, group.num_rows, tuple(next(of_each))) for group in found] for found in ranked]

    def _units(self, queries: NDArray[np.float32], snapshot: Snapshot) -> NDArray[np.float32]:
        """Unit queries, once it is sure that what they are compared with is whole."""
        dimension, location = snapshot.state.dimension, str(self._table.folder)
        units = unit_embeddings(queries, dimension=dimension, location=location)
        wrong = self._vectors.newly_damaged(snapshot)
        if len(wrong):
            with self._table.reading() as now:
                # What was replaced or removed since is of no account.
                if now.vectors == snapshot.state.vectors:
                    self._table.refuse(wrong, now)
        return units

    def _told(
        self, ranked: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], searched: State
    ) -> list[list[Hit]] | None:
        """Hits of the rows found; ``None`` if another process took one of them away since."""
        numbers = {number for rows, _ in ranked for number in rows.tolist()}
        with self._table.reading() as state:
            found = {row.row: row for row in self._table.among(state, "row", numbers)}
        if state.vectors != searched.vectors or len(found) < len(numbers):
            if state.revision == searched.revision:
                raise DamagedGallery(
                    f"{self._table.folder}: {FILE} is damaged: {len(numbers) - len(found)} embeddings have "
                    "no item; put a copy in its place, or fill a new gallery"
                )
            return None
        return [
            [
                Hit.of(found[number].item, score)
                for number, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
            for rows, scores in ranked
        ]
