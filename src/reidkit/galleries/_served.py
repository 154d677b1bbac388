"""What engines on a server have in common: items as they are read, and the nearest of those that it names.

A server ranks by float32 products, and how it rounds is its own affair. Whatever rounding could have moved
into or out of the top is scored again here, as in a folder: so scores, ties and order are the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError
from reidkit.galleries import _own_labels
from reidkit.galleries._contract import Addition
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._given import GroupBy
from reidkit.galleries._items import Group, Hit, Verification
from reidkit.galleries._nearest import nearest
from reidkit.galleries._records import Row

SLACK = 16  # places beyond the top that are looked at first

GroupKey: TypeAlias = tuple[str | None, int | None]  # a label, or the id of an item that has none
StoredItem = TypeVar("StoredItem", bound="Stored")
_Row = TypeVar("_Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """An item as it was read; ``embedding`` (D,) where it was asked for. ``row.row`` is its place."""

    row: Row
    labels_checksum: int
    embedding_checksum: int = 0
    embedding: NDArray[np.float32] | None = None

    @property
    def has_whole_labels(self) -> bool:
        return self.row.values()[-1] == self.labels_checksum and _own_labels.is_readable(self.row.more)

    @property
    def has_whole_embedding(self) -> bool:
        embedding = self.embedding
        return embedding is None or embedding_checksum(self.row.id, embedding) == self.embedding_checksum


def embedding_checksum(id: int, embedding: NDArray[np.float32]) -> int:
    return zlib.crc32(np.ascontiguousarray(embedding, "<f4").data, id & 0xFFFFFFFF)


def check(items: Iterable[StoredItem], location: str) -> list[StoredItem]:
    """The same items; :class:`DamagedGallery` where one is not what was written."""
    listed = list(items)
    wrong = [item.row.id for item in listed if not (item.has_whole_labels and item.has_whole_embedding)]
    if wrong:
        some = ", ".join(f"#{id}" for id in wrong[:3]) + (", ..." if wrong[3:] else "")
        raise DamagedGallery(
            f"{location} is damaged: {len(wrong)} items are not what was written ({some}); drop them with "
            f"`reid gallery repair '{location}' --drop`, and index their images again",
            ids=wrong,
        )
    return listed


def in_order(found: Mapping[int, StoredItem], ids: Sequence[int], location: str) -> list[StoredItem]:
    """The items with these ids; an error where one is not there, or not what was written."""
    unknown = [id for id in ids if id not in found]
    if unknown:
        raise DataError(f"{location} has no item {unknown[0]} ({len(unknown)} such of {len(ids)} ids)")
    return check([found[id] for id in ids], location)


def hits_of(items: Sequence[Stored], query: NDArray[np.float32], top: int) -> list[Hit]:
    """By their exact scores, equal scores in the order in which they were written."""
    ordered = sorted(items, key=lambda stored: stored.row.row)
    embeddings = [stored.embedding for stored in ordered if stored.embedding is not None]
    if not embeddings:
        return []
    [(rows, scores)] = nearest(np.stack(embeddings), None, query[None], top=min(top, len(embeddings) + 1))
    return [
        Hit.of(ordered[row].row.item, score)
        for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]


def reached(found: list[_Row], top: int, limit: int, dimension: int) -> list[_Row] | None:
    """Of ``limit`` rows or all that there are, nearest first, those that are no farther than the last of the
    top, or by too little to be sure; ``None`` where there may be more of them."""
    tolerance = 2 * dimension * float(np.finfo(np.float32).eps)
    reach = found[top - 1][-1] + tolerance if len(found) >= top else np.inf
    if len(found) == limit and found[-1][-1] <= reach:
        return None
    return [row for row in found if row[-1] <= reach]


def near_in_blocks(
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]], queries: NDArray[np.float32], *, top: int
) -> list[list[int]]:
    """Of rows that come some at a time, with their ids, those that may be among the ``top`` of each query.

    Shapes: ids (N,) and embeddings (N, D) of each block, queries (Q, D). As far as float32 can tell.
    """
    tolerance = 2 * queries.shape[1] * float(np.finfo(np.float32).eps)
    near = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for ids, embeddings in blocks:
        scores = queries @ embeddings.T
        for index, (best_ids, best) in enumerate(near):
            merged_ids, merged = np.concatenate([best_ids, ids]), np.concatenate([best, scores[index]])
            if len(merged) > top:
                kept = merged >= np.partition(merged, -top)[-top] - tolerance
                merged_ids, merged = merged_ids[kept], merged[kept]
            near[index] = merged_ids, merged
    return [ids.tolist() for ids, _ in near]


def groups_of(
    kind: GroupBy,
    members: Mapping[GroupKey, Sequence[Stored]],
    sizes: Mapping[GroupKey, int],
    query: NDArray[np.float32],
    *,
    top: int,
    items: int,
) -> list[Group]:
    """The ``top`` of groups that may be among them, each with its nearest ``items``, by exact scores."""
    found = [
        Group.of(kind, sizes[group], tuple(hits_of(of_group, query, items)))
        for group, of_group in members.items()
    ]
    # Scores that are told are 1 at most, and rounding makes more of some.
    by_id = {stored.row.id: stored for of_group in members.values() for stored in of_group}
    leaders = hits_of([by_id[group.hits[0].id] for group in found], query, top)
    by_leader = {group.hits[0].id: group for group in found}
    return [by_leader[hit.id] for hit in leaders]


def to_be_written(
    addition: Addition, known: Mapping[str, int], location: str
) -> tuple[list[int | None], list[int]]:
    """The ids that the items of an addition have already, and the places (N,) in it of those to be written.

    ``known`` are ids of the sources that are there. Raises :class:`DataError` where they may not be.
    """
    labels = addition.labels
    if known and addition.on_duplicate == "error":
        raise DataError(
            f"{location} holds {len(known)} of these {len(labels)} sources already, such as "
            f"{next(iter(known))!r}; nothing was added: choose on_duplicate='replace' or 'skip'"
        )
    ids = [None if label.source is None else known.get(label.source) for label in labels]
    return ids, [i for i, id in enumerate(ids) if id is None or addition.on_duplicate == "replace"]


def check_sources(named: Sequence[str], there: Mapping[str, int], own: Collection[int]) -> None:
    """Raise :class:`DataError` where one of these sources is that of two of the items, or of another.

    ``there`` are ids of the items that have them now; ``own`` of those that are to have them.
    """
    taken = [name for name, id in there.items() if id not in own]
    twice = [name for name in named if named.count(name) > 1] if len(set(named)) < len(named) else []
    if taken or twice:
        raise DataError(f"two items would have the source {[*taken, *twice][0]!r}; nothing was changed")


def verified(items: Iterable[Stored]) -> Verification:
    """Which items are not what was written."""
    num, labels, vectors = 0, list[int](), list[int]()
    for stored in items:
        num += 1
        if not stored.has_whole_labels:
            labels.append(stored.row.id)
        if not stored.has_whole_embedding:
            vectors.append(stored.row.id)
    return Verification(num, labels=tuple(sorted(labels)), vectors=tuple(sorted(vectors)))
