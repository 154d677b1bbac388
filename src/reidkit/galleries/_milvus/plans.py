"""What changes of a gallery on Milvus write: items anew, and what goes with them; they do not write it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import Addition, check_encoder, unit_embeddings
from reidkit.galleries._milvus.address import Address
from reidkit.galleries._milvus.book import State
from reidkit.galleries._milvus.changes import Change, View
from reidkit.galleries._milvus.decisions import Decisions, as_texts
from reidkit.galleries._milvus.items import Items, Version, bytes_each, entity
from reidkit.galleries._milvus.thumbnails import Thumbnails
from reidkit.galleries._milvus.thumbnails import as_texts as thumbnail_texts
from reidkit.galleries._milvus.where import carrying, of_sources, tag
from reidkit.galleries._records import Row
from reidkit.galleries._served import check, to_be_written


class Plans:
    """Changes of one gallery, as they are to be written; for the one writer, who sees all that there is."""

    def __init__(self, address: Address, items: Items, decisions: Decisions, thumbnails: Thumbnails) -> None:
        self._location, self._index = str(address), address.index
        self._items, self._decisions, self._pictures = items, decisions, thumbnails

    def added(self, view: View, addition: Addition) -> Change[NDArray[np.int64]]:
        view = View(self._made_ready(view, addition))
        sources = [label.source for label in addition.labels if label.source is not None]
        there = self.with_sources(view, sources)
        ids, fresh = to_be_written(
            addition, {source: item.row.id for source, item in there.items()}, self._location
        )
        replaced = list(there.values()) if addition.on_duplicate == "replace" else []
        contents = {label.source: label.content for label in addition.labels}
        others = [item.row.id for item in replaced if item.row.content != contents[item.row.source]]
        rows, state = list[Row](), view.state
        for index in fresh:
            given, id = addition.labels[index], ids[index]
            if id is None:
                id, state = state.next_id, replace(state, next_id=state.next_id + 1)
            ids[index] = id
            rows.append(Row.labelled(id, state.next_version + len(rows), given))
        change = self._rewritten(View(state), rows, addition.embeddings[fresh], [r.version for r in replaced])
        change = change.returning(np.array(ids, np.int64))
        small = {row.id: addition.thumbnails[index] for row, index in zip(rows, fresh, strict=True)}
        change = self.pictured(view, change, small, {item.row.id for item in replaced})
        # Decisions are on pictures: one that is another now was not decided on.
        return self._forgotten(view, change, others, set())

    def _made_ready(self, view: View, addition: Addition) -> State:
        """The first embeddings tell how long all are and, where they know it, whose."""
        state, origin = view.state, addition.origin
        check_origin(state, origin, self._location)
        unit_embeddings(addition.embeddings[:1], dimension=state.dimension, location=self._location)
        if state.dimension is None:
            index = self._index or state.index
            dimension = addition.embeddings.shape[1]
            state = replace(state, items=self._items.make(dimension, index), dimension=dimension, index=index)
        if state.encoder is None and origin is not None and not self._items.count(view, strong=True):
            state = replace(state, encoder=origin)
        return state

    def _rewritten(
        self, view: View, rows: Sequence[Row], embeddings: NDArray[np.float32], removed: list[int]
    ) -> Change[None]:
        """Items written anew, in the place of rows that are removed."""
        first = view.state.next_version
        entities = [
            entity(row, version, embedding, self._location)
            for version, (row, embedding) in enumerate(zip(rows, embeddings, strict=True), first)
        ]
        state = replace(view.state, next_version=first + len(rows))
        return Change(None, state, entities, bytes_each(entities), removed=removed)

    def changed(self, view: View, items: Sequence[Version], rows: Sequence[Row]) -> Change[None]:
        """Items with other labels."""
        embeddings = [item.embedding for item in items if item.embedding is not None]
        stacked = np.stack(embeddings) if embeddings else np.empty((0, 0), np.float32)
        return self._rewritten(view, rows, stacked, [item.version for item in items])

    def removed(self, view: View, items: Sequence[Version], change: Change[Any] | None = None) -> Change[int]:
        """Items taken out, and out of what was decided of them."""
        ids, versions = {item.row.id for item in items}, [item.version for item in items]
        change = replace(change or Change(0, view.state), result=len(items), removed=versions)
        names = {item.row.identity for item in items if item.row.identity is not None}
        unused = set()
        if names and self._decisions.read(view, strong=True):
            unused = {name for name in names if not self._is_named(view, name, ids)}
        change = self.pictured(view, change, {}, ids)
        return self._forgotten(view, change, list(ids), unused)

    def _is_named(self, view: View, identity: str, without: set[int]) -> bool:
        """Whether an item has this identity, besides some that go."""
        named = self._items.read(view, carrying([tag("identity", identity)]), strong=True)
        return any(item.row.id not in without for item in named)

    def _forgotten(
        self, view: View, change: Change[Any], ids: Sequence[int], identities: set[str]
    ) -> Change[Any]:
        """The same change, with items that are gone and names that nobody has taken out of all decisions."""
        if not ids:
            return change
        keys, left = self._decisions.without(view, set(ids), identities)
        texts, state = as_texts(left, change.state)
        gone = [*change.removed_texts, *keys]
        return replace(change, state=state, texts=[*change.texts, *texts], removed_texts=gone)

    def pictured(
        self, view: View, change: Change[Any], new: Mapping[int, bytes | None], gone: Collection[int]
    ) -> Change[Any]:
        """The same change, with new thumbnails by id, and without those that items had."""
        texts, state = thumbnail_texts(new, change.state)
        removed = [*change.removed_texts, *self._pictures.keys(view, gone)]
        return replace(change, state=state, texts=[*change.texts, *texts], removed_texts=removed)

    def with_sources(self, view: View, sources: Sequence[str]) -> dict[str, Version]:
        """The items of these sources."""
        if not sources:
            return {}
        found = check(self._items.read(view, of_sources(sources), strong=True), self._location)
        return {item.row.source: item for item in found if item.row.source is not None}


def check_origin(state: State, origin: Mapping[str, Any] | None, location: str) -> None:
    """Refuse embeddings that name another encoder than the gallery's."""
    if origin is not None and state.encoder is not None:
        check_encoder(state.encoder, origin, num_items=0, location=location)
