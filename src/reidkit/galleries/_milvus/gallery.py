"""The verbs of a gallery on a Milvus server: two collections a gallery, its items and its book."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import (
    Addition,
    Condition,
    DamagedGallery,
    Decision,
    Gallery,
    Group,
    Hit,
    Item,
    NoGallery,
    Search,
    Verification,
    Where,
    check_encoder,
    check_where,
    conditions_of_queries,
    unit_embeddings,
)
from reidkit.galleries._decisions import carried_out
from reidkit.galleries._given import checked_ids
from reidkit.galleries._labels import LABELS
from reidkit.galleries._milvus.address import read_address
from reidkit.galleries._milvus.book import Book
from reidkit.galleries._milvus.changes import Change, Changes, View
from reidkit.galleries._milvus.decisions import Decisions, as_texts
from reidkit.galleries._milvus.items import Items, Version
from reidkit.galleries._milvus.nearest import RECALL_TOP, Ranking, measured_recall
from reidkit.galleries._milvus.plans import Plans, check_origin
from reidkit.galleries._milvus.server import Server
from reidkit.galleries._milvus.thumbnails import Thumbnails
from reidkit.galleries._milvus.where import carrying, expression, tag
from reidkit.galleries._served import check, check_sources, in_order, verified
from reidkit.logs import get_logger

logger = get_logger(__name__)


class MilvusGallery(Gallery):
    """A gallery on a server, ``milvus://user@host:port/database?gallery=NAME``.

    Search is exact, by Milvus's FLAT index, and scores, ties and order are those of the embedded engine; or
    by HNSW, with ``&index=hnsw`` when the gallery is made. One process writes at a time, the others wait. A
    change happens as a whole (:mod:`reidkit.galleries._milvus.changes`). Threads may share one object.
    """

    def __init__(
        self, address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None
    ) -> None:
        self.address = read_address(address)
        self._server = Server(self.address, create=create)
        try:
            self._book, self._items = Book(self._server), Items(self._server)
            self._changes = Changes(self._server, self._book)
            self._decisions = Decisions(self._book, self.location)
            self._pictures = Thumbnails(self._book)
            self._plans = Plans(self.address, self._items, self._decisions, self._pictures)
            self._open(create)
            if encoder is not None:
                self._settle_encoder(encoder)
        except BaseException:
            self.close()
            raise

    def _open(self, create: bool) -> None:
        if self._server.has(self._book.name):
            self._server.load(self._book.name)
            if self._server.is_alone:  # whoever was writing to the file has ended
                self._book.drop_claims(list(self._book.claims().of_writers))
        elif create:
            self._book.make()
        else:
            self._refuse_missing()
        state = self._changes.read(lambda view: view.state)
        if state.items:
            self._server.load(state.items)
        wanted = self.address.index
        if state.dimension is not None and wanted not in (None, state.index):
            raise DataError(
                f"{self.location}: the gallery was made with index={state.index}; leave index out of the "
                f"address, or copy it into another gallery that is made with index={wanted}"
            )

    def _refuse_missing(self) -> None:
        books = [re.fullmatch(r"reid_(\w+)_book", name) for name in self._server.collections()]
        others = sorted(book[1] for book in books if book)
        there = f"; the server has {', '.join(others[:10])}{', ...' if others[10:] else ''}" if others else ""
        raise NoGallery(f"there is no gallery at {self.location}{there}; check the name, or fill one first")

    # --- what a gallery offers ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        return self._changes.read(lambda view: view.state).dimension

    @property
    def encoder(self) -> dict[str, Any] | None:
        return self._changes.read(lambda view: view.state).encoder

    @property
    def location(self) -> str:
        return str(self.address)

    def _add(self, addition: Addition) -> NDArray[np.int64]:
        return self._changes.write(lambda view: self._plans.added(view, addition))

    def _search(self, search: Search) -> list[list[Hit]] | list[list[Group]]:
        def work(view: View) -> list[list[Hit]] | list[list[Group]]:
            check_origin(view.state, search.origin, self.location)
            units = unit_embeddings(search.queries, dimension=view.state.dimension, location=self.location)
            conditions = self._conditions(view, search.where)
            of_each = conditions_of_queries(conditions, search.known, num_queries=len(units))
            wheres = [expression(of_query) for of_query in of_each]
            if search.group is None:
                approximate = view.state.index != "exact"
                ranking = Ranking(self._server, self._items, view, approximate=approximate)
                return ranking.items(units, wheres, top=search.top)
            ranking = Ranking(self._server, self._items, view)
            return [
                ranking.groups(unit, where, search.group, top=search.top, items=search.items)
                for unit, where in zip(units, wheres, strict=True)
            ]

        return self._changes.read(work)

    def _relabel(
        self, ids: list[int], changes: list[dict[str, Any]], thumbnails: dict[int, bytes | None]
    ) -> None:
        def plan(view: View) -> Change[None]:
            items = self._by_id(view, ids, embeddings=True, strong=True)
            rows = [item.row.changed(changes[index], index) for index, item in enumerate(items)]
            named = [row.source for row in rows if row.source is not None]
            there = self._plans.with_sources(view, named)
            check_sources(named, {source: item.row.id for source, item in there.items()}, set(ids))
            change = self._plans.changed(view, items, rows)
            return self._plans.pictured(view, change, thumbnails, thumbnails.keys())

        self._changes.write(plan)

    def _thumbnails(self, ids: list[int]) -> dict[int, bytes]:
        found, wrong = self._changes.read(lambda view: self._pictures.read(view, ids))
        if wrong:
            raise DamagedGallery(
                f"{self.location} is damaged: the thumbnails of {len(wrong)} items are not what was written "
                f"(#{wrong[0]} first); drop these items with `reid gallery repair '{self.location}' --drop`, "
                "and index their images again",
                ids=wrong,
            )
        return found

    def _decide(self, decisions: list[Decision]) -> list[Decision]:
        named = {id for decision in decisions for id in decision.items}

        def plan(view: View) -> Change[list[Decision]]:
            found = self._items.with_numbers(view, "id", named, embeddings=True, strong=True)
            items = {item.row.id: item for item in check(found, self.location)}
            identities = {id: item.row.identity for id, item in items.items()}
            kept, changed = carried_out(decisions, identities, next_id=view.state.next_decision)
            rows = [replace(items[id].row, identity=identity) for id, identity in changed.items()]
            change = self._plans.changed(view, [items[id] for id in changed], rows)
            texts, state = as_texts(kept, change.state)
            state = replace(state, next_decision=view.state.next_decision + len(kept))
            return replace(change.returning(kept), state=state, texts=texts)

        return self._changes.write(plan)

    def decisions(self) -> list[Decision]:
        return list(self._changes.read(lambda view: self._decisions.read(view)).values())

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        if ids is None and where is None:
            raise ConfigError("remove needs ids= or where=; where={} removes everything")
        wanted = None if ids is None else checked_ids(ids)

        def plan(view: View) -> Change[int]:
            items = self._chosen(view, wanted, where, strong=True)
            return self._plans.removed(view, list({item.version: item for item in items}.values()))

        return self._changes.write(plan)

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        return [stored.row.item for stored in self._select(ids, where)]

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        stored = self._select(ids, where, embeddings=True)
        rows = [item.embedding for item in stored if item.embedding is not None]
        return np.stack(rows) if rows else np.empty((0, self.dimension or 0), np.float32)

    def verify(self) -> Verification:
        def work(view: View) -> Verification:
            self._decisions.read(view)
            return self._verified(view)

        return self._changes.read(work)

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        def plan(view: View) -> Change[tuple[int, ...]]:
            damaged = self._verified(view).damaged
            _, texts = self._decisions.sorted_out(view, strong=True)
            if texts and not drop:
                self._decisions.read(view)  # says so
            if damaged and not drop:
                raise DamagedGallery(
                    f"{self.location} is damaged: {len(damaged)} items, ids "
                    f"{', '.join(map(str, damaged[:10]))}{', ...' if damaged[10:] else ''}; "
                    "repair(drop=True) drops them",
                    ids=damaged,
                )
            items = self._items.with_numbers(view, "id", damaged, strong=True)
            dropped = Change((), view.state, removed_texts=texts)
            change = self._plans.removed(view, items, dropped) if items else dropped
            return change.returning(damaged)

        return self._changes.write(plan)

    def info(self) -> dict[str, Any]:
        """The keys that all engines have; the server's version, ``index``, and the ``recall`` measured."""

        def work(view: View) -> dict[str, Any]:
            state = view.state
            return {
                "engine": "milvus",
                "location": self.location,
                "num_items": self._items.count(view),
                "dimension": state.dimension,
                "encoder": state.encoder,
                "num_thumbnails": self._pictures.count(view),
                "server": self._server.version(),
                "index": state.index,
                "consistency": self.address.consistency,
                **({"recall": state.recall} if state.recall else {}),
            }

        return self._changes.read(work)

    def compact(self, *, erase: bool = False) -> int:
        """Have the server give back the room of removed items; how many those are it does not tell, and 0 is
        returned. When it deletes their bytes is its own affair, also where ``erase`` asks for it."""
        if erase:
            logger.warning(
                "%s: what was removed is found no more; when its bytes are deleted is up to Milvus",
                self.location,
            )
        state = self._changes.read(lambda view: view.state)
        if state.items:
            self._server.compact(state.items)
        self._server.compact(self._book.name)
        return 0

    def measure_recall(self, sample: int = 100) -> dict[str, float]:
        """The share of the 10 nearest items that the index finds, a ``sample`` of stored ones being queries:
        among ``all``, and with a filter that ``half`` of the items pass. :meth:`info` tells it later.
        """

        def plan(view: View) -> Change[dict[str, float]]:
            recall = measured_recall(self._server, self._items, view, sample=sample)
            told = {**recall, "top": RECALL_TOP, "queries": sample, "num_items": self._items.count(view)}
            return Change(recall, replace(view.state, recall=told))

        return self._changes.write(plan)

    def __len__(self) -> int:
        return self._changes.read(self._items.count)

    def close(self) -> None:
        self._server.close()

    def __repr__(self) -> str:
        return f"MilvusGallery({self.location!r})"

    # --- its encoder --------------------------------------------------------------------------------------

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        def plan(view: View) -> Change[None]:
            num_items = 0 if view.state.encoder else self._items.count(view, strong=True)
            check_encoder(view.state.encoder, encoder, num_items=num_items, location=self.location)
            return Change(None, replace(view.state, encoder={**(view.state.encoder or {}), **encoder}))

        known = self.encoder
        if known is None or known != {**known, **encoder}:
            self._changes.write(plan)

    # --- selecting ----------------------------------------------------------------------------------------

    def _select(
        self, ids: Iterable[int] | None, where: Where | None, *, embeddings: bool = False
    ) -> list[Version]:
        """Items in the order of the ids given, or as they were written."""
        wanted = None if ids is None else checked_ids(ids)
        return self._changes.read(lambda view: self._chosen(view, wanted, where, embeddings=embeddings))

    def _chosen(
        self,
        view: View,
        ids: list[int] | None,
        where: Where | None,
        *,
        embeddings: bool = False,
        strong: bool = False,
    ) -> list[Version]:
        if ids is None:
            passing = self._expression(view, where)
            found = self._items.read(view, passing, embeddings=embeddings, strong=strong)
            return found if strong else check(found, self.location)
        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        return self._by_id(view, ids, embeddings=embeddings, strong=strong)

    def _by_id(
        self, view: View, ids: Sequence[int], *, embeddings: bool = False, strong: bool = False
    ) -> list[Version]:
        found = self._items.with_numbers(view, "id", ids, embeddings=embeddings, strong=strong)
        return in_order({item.row.id: item for item in found}, ids, self.location)

    def _expression(self, view: View, where: Where | None) -> str:
        conditions = self._conditions(view, where)
        if any(condition.is_relative for condition in conditions):
            raise ConfigError("where refers to the query, and only a search has one; name a value instead")
        return expression(conditions)

    def _conditions(self, view: View, where: Where | None) -> tuple[Condition, ...]:
        own: set[str] = set()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            own = self._own_labels(view, [name for name in where if name not in LABELS])
        return check_where(where, own)

    def _own_labels(self, view: View, wanted: Sequence[object]) -> set[str]:
        """Those of these names that an item has a label under; all that there are, where one has none."""
        names = [name for name in wanted if isinstance(name, str)]
        found = {name for name in names if self._items.has(view, carrying([tag(name)]))}
        if len(found) == len(wanted):
            return found
        return {name for item in self._items.read(view, "") for name in item.row.item.labels}

    def _verified(self, view: View) -> Verification:
        found = verified(item for some in self._items.pieces(view) for item in some)
        return replace(found, thumbnails=tuple(self._pictures.damaged(view)))
