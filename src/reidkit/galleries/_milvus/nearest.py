"""The nearest items on a Milvus server: which they may be, as its float32 products tell.

With FLAT, the server compares all items that the filter lets through. Its HNSW misses some, and many where a
filter lets few through; so it is asked only where at least half of the items pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import DamagedGallery, Group, GroupBy, Hit
from reidkit.galleries._milvus.changes import View
from reidkit.galleries._milvus.items import ALL_FIELDS, Items, Version, version_of
from reidkit.galleries._milvus.server import MOST_FOUND, Entity, Server
from reidkit.galleries._milvus.where import carrying, of_numbers, tag
from reidkit.galleries._served import SLACK, GroupKey, check, groups_of, hits_of, near_in_blocks, reached

LEAST_SHARE = 0.5
"""Of the items, that must pass a filter for the index to be asked."""

MOST_OF_GROUPS = 4096  # items of the groups found that are sent to be ranked here
RECALL_TOP = 10  # nearest items that recall is measured by
_HALF = f"embedding_checksum < {2**31}"  # as good as drawn by lot

_TOLD_AT_ONCE = 1000  # places of one search that are told with labels and embeddings; of others by a second
_FOUND_AT_ONCE = 100_000  # places that one request asks for, over all of its queries


class Ranking:
    """The nearest items at one moment; by the index, or among all that the filters let through."""

    def __init__(self, server: Server, items: Items, view: View, *, approximate: bool = False) -> None:
        self._server, self._items, self._view = server, items, view
        self._location = str(server.address)
        self._approximate = approximate
        self._read: dict[int, Version] = {}  # with what a search told of them

    def items(self, queries: NDArray[np.float32], wheres: Sequence[str], *, top: int) -> list[list[Hit]]:
        """The ``top`` nearest items of each query (Q, D) among those that its filter lets through."""
        alike: dict[str, list[int]] = {}
        for index, where in enumerate(wheres):
            alike.setdefault(where, []).append(index)
        near: dict[int, list[int]] = {}
        for where, indexes in alike.items():
            near |= zip(indexes, self._near(queries[indexes], where, top), strict=True)
        stored = self._with_versions(version for versions in near.values() for version in versions)
        return [
            hits_of([stored[version] for version in near[index]], query, top)
            for index, query in enumerate(queries)
        ]

    def groups(
        self, query: NDArray[np.float32], where: str, kind: GroupBy, *, top: int, items: int
    ) -> list[Group]:
        """The ``top`` groups whose nearest item is nearest, each with its nearest items."""
        near = self._near_groups(query, where, kind, top)
        named = _both(where, carrying(tag(kind, label) for label, _ in near if label is not None))
        if self._items.count(self._view, named) > MOST_OF_GROUPS:
            return self._large_groups(query, where, kind, near, top=top, items=items)
        lone = [version for (label, _), version in near.items() if label is None]
        members: dict[GroupKey, list[Version]] = {}
        for item in [
            *check(self._items.read(self._view, named, embeddings=True), self._location),
            *self._with_versions(iter(lone)).values(),
        ]:
            members.setdefault(_group(kind, item), []).append(item)
        sizes = {group: len(of_group) for group, of_group in members.items()}
        return groups_of(kind, members, sizes, query, top=top, items=items)

    def _large_groups(
        self,
        query: NDArray[np.float32],
        where: str,
        kind: GroupBy,
        near: dict[GroupKey, int],
        *,
        top: int,
        items: int,
    ) -> list[Group]:
        """The same for groups whose items are too many to be sent: the server ranks those of each."""
        within = {group: _both(where, _of_group(kind, group)) for group in near}
        sizes = {group: self._items.count(self._view, passing) for group, passing in within.items()}
        versions = {group: self._near(query[None], passing, items)[0] for group, passing in within.items()}
        stored = self._with_versions(version for some in versions.values() for version in some)
        members = {group: [stored[version] for version in some] for group, some in versions.items()}
        return groups_of(kind, members, sizes, query, top=top, items=items)

    # --- by item ------------------------------------------------------------------------------------------

    def _near(self, queries: NDArray[np.float32], where: str, top: int) -> list[list[int]]:
        """Versions of the items that may be among the top of each query, all with this filter."""
        if not self._view.state.items:
            return [[] for _ in queries]
        if self._asks_index(where, top):
            parameters = {"ef": min(MOST_FOUND, max(128, 4 * (top + SLACK)))}
            found = self._search(queries, where, top + SLACK, parameters)
            return [[version for version, _ in of_query] for of_query in found]
        if self._view.state.index != "exact" or top + SLACK > MOST_FOUND:
            return near_in_blocks(self._blocks(where), queries, top=top)
        return self._near_by_scan(queries, where, top)

    def _near_by_scan(self, queries: NDArray[np.float32], where: str, top: int) -> list[list[int]]:
        """By the server, which looks at all items; by us, where more are equally near than it tells."""
        near: dict[int, list[int]] = {}
        left, limit = list(range(len(queries))), top + SLACK
        while left and limit <= MOST_FOUND:
            found = self._search(queries[left], where, limit)
            for index, of_query in zip(left, found, strict=True):
                if (within := reached(of_query, top, limit, queries.shape[1])) is not None:
                    near[index] = [version for version, _ in within]
            left = [index for index in left if index not in near]
            limit *= 4
        if left:
            near |= zip(left, near_in_blocks(self._blocks(where), queries[left], top=top), strict=True)
        return [near[index] for index in range(len(queries))]

    def _search(
        self, queries: NDArray[np.float32], where: str, limit: int, parameters: dict[str, int] | None = None
    ) -> list[list[tuple[int, float]]]:
        """Versions of the nearest items of each query, and how far they are, nearest first."""
        at_once, found = max(1, _FOUND_AT_ONCE // limit), list[list[Entity]]()
        for start in range(0, len(queries), at_once):
            found += self._server.search(
                self._view.state.items,
                queries[start : start + at_once],
                self._view.items(where),
                limit=limit,
                fields=ALL_FIELDS if limit * len(queries) <= _TOLD_AT_ONCE else ("version",),
                parameters=parameters or {},
            )
        told = [hit for hits in found for hit in hits if "record" in hit]
        self._read |= {hit["version"]: version_of(hit) for hit in told}
        return [[(hit["version"], -hit["distance"]) for hit in hits] for hits in found]

    def _blocks(self, where: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        for some in self._items.pieces(self._view, where):
            embeddings = [item.embedding for item in some if item.embedding is not None]
            yield np.array([item.version for item in some], np.int64), np.stack(embeddings)

    def _asks_index(self, where: str, top: int) -> bool:
        if not self._approximate or top + SLACK > MOST_FOUND:
            return False
        passing = self._items.count(self._view, where) if where else 1
        return passing >= LEAST_SHARE * (self._items.count(self._view) if where else 1)

    def _with_versions(self, versions: Iterator[int]) -> dict[int, Version]:
        wanted = set(versions)
        missing = wanted - self._read.keys()
        found = self._items.with_numbers(self._view, "version", missing, embeddings=True)
        self._read |= {item.version: item for item in found}
        if gone := wanted - self._read.keys():
            raise DamagedGallery(f"{self._location} is damaged: {len(gone)} items found are not there")
        return {item.version: item for item in check(map(self._read.__getitem__, wanted), self._location)}

    # --- by group -----------------------------------------------------------------------------------------

    def _near_groups(
        self, query: NDArray[np.float32], where: str, kind: GroupBy, top: int
    ) -> dict[GroupKey, int]:
        """Groups that may be among the top, nearest first, and the versions of their nearest items.

        Groups that were found are left out of the next search, so that one with many items hides no other.
        """
        nearest: dict[GroupKey, tuple[float, int]] = {}
        while True:
            left = _both(where, *(f"not ({_of_group(kind, group)})" for group in nearest))
            versions = self._near(query[None], left, 4 * top)[0]
            items = self._with_versions(iter(versions)).values()
            if not items:
                break
            for item in items:
                group = _group(kind, item)
                score = float(np.dot(item.embedding, query)) if item.embedding is not None else 0.0
                nearest[group] = max(nearest.get(group, (-2.0, 0)), (score, item.version))
            if len(nearest) >= top or len(items) < 4 * top:  # what was not found is farther, or is nothing
                break
        best = sorted(nearest, key=lambda group: -nearest[group][0])
        return {group: nearest[group][1] for group in best}


def measured_recall(server: Server, items: Items, view: View, *, sample: int) -> dict[str, float]:
    """The share of the nearest that the index finds, stored items being the queries."""
    drawn = [item.embedding for some in items.pieces(view) for item in some[:: max(1, len(some) // sample)]]
    queries = np.array([embedding for embedding in drawn if embedding is not None][:sample], np.float32)
    shares = {"all": 1.0, "half": 1.0}
    for name, where in (("all", ""), ("half", _HALF)) if len(queries) else ():
        exact = Ranking(server, items, view).items(queries, [where] * len(queries), top=RECALL_TOP)
        found = Ranking(server, items, view, approximate=True).items(
            queries, [where] * len(queries), top=RECALL_TOP
        )
        right = sum(
            len({hit.id for hit in one} & {hit.id for hit in other})
            for one, other in zip(exact, found, strict=True)
        )
        shares[name] = round(right / max(1, sum(map(len, exact))), 4)
    return shares


def _group(kind: GroupBy, item: Version) -> GroupKey:
    label = item.row.identity if kind == "identity" else item.row.item.tracklet
    return label, None if label is not None else item.row.id


def _of_group(kind: GroupBy, group: GroupKey) -> str:
    label, lone = group
    return of_numbers("id", [lone]) if lone is not None else carrying([tag(kind, label)])


def _both(*wheres: str) -> str:
    """What all of these let through; those that are empty let everything through."""
    return " and ".join(f"({where})" for where in wheres if where)
