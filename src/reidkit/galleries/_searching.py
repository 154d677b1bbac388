"""A search of the embedded gallery: from queries to hits and groups, of one revision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import _index_file
from reidkit.galleries._approximate import Approximate, Ranked, load
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
        self._index: tuple[object, Approximate | None] | None = None

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
        units = self._unit(queries, snapshot)
        index = None if conditions else self.index(snapshot)
        if index is not None:
            ranked = self._by_index(index, snapshot, units, search.top)
            if ranked is not None:
                return self._told(ranked, snapshot.state)
        self._check_vectors(snapshot)
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
        units = self._unit(queries, snapshot)
        self._check_vectors(snapshot)
        top = min(search.top, len(rows) + 1)
        ranked = nearest_groups(snapshot.stored, rows, groups, units, top=top, items=search.items)
        hits = self._told([(group.rows, group.scores) for found in ranked for group in found], state)
        if hits is None:
            return None
        of_each = iter(hits)
        return [[Group.of(kind, group.num_rows, tuple(next(of_each))) for group in found] for found in ranked]

    def _unit(self, queries: NDArray[np.float32], snapshot: Snapshot) -> NDArray[np.float32]:
        return unit_embeddings(queries, dimension=snapshot.state.dimension, location=str(self._table.folder))

    def _check_vectors(self, snapshot: Snapshot) -> None:
        """Raise :class:`DamagedGallery` unless all that is searched is as it was written."""
        self._refuse(self._vectors.newly_damaged(snapshot), snapshot.state)

    def _refuse(self, wrong: NDArray[np.int64], searched: State) -> None:
        if len(wrong):
            with self._table.reading() as now:
                # What was replaced or removed since is of no account.
                if now.vectors == searched.vectors:
                    self._table.refuse(wrong, now)

    def index(self, snapshot: Snapshot) -> Approximate | None:
        """The approximate index over these vectors, if there is one that may be used."""
        state, folder = snapshot.state, self._vectors.folder
        file = _index_file.identity(folder / _index_file.name_of(state.vectors))
        if self._index is None or self._index[0] != (state.vectors, file):
            found = None if file is None else load(folder, state.vectors, state.dimension or 0)
            self._index = (state.vectors, file), found
        return self._index[1]

    def forget(self) -> None:
        """Let go of the index."""
        self._index = None

    def _by_index(
        self, index: Approximate, snapshot: Snapshot, units: NDArray[np.float32], top: int
    ) -> list[Ranked] | None:
        """What is nearest by an index; ``None`` where it knows too few of the rows that there are.

        Its own copy of a vector says which rows are looked at, so that damage to one of these is not missed.
        """
        self._refuse(self._vectors.newly_damaged(snapshot, first=index.about.num_rows), snapshot.state)
        ranked = []
        for unit in units:
            found = index.nearest(snapshot, unit, top=top)
            if found is None:
                return None
            ranked.append(found)
        rows = np.unique(np.concatenate([rows for rows, _ in ranked]))
        self._refuse(self._vectors.damaged(snapshot.state, snapshot.words, rows), snapshot.state)
        return ranked

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
