"""The verbs of a gallery on a PostgreSQL server with pgvector: one schema a gallery, exact search or HNSW.

Labels are columns, labels of one's own JSONB, and the server answers the filters. Beside this file stand
addresses, connections and errors, tables and their migrations, conditions as SQL, items, the ranking, and the
approximate index.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from reidkit.errors import ConfigError
from reidkit.galleries import (
    Addition,
    Condition,
    DamagedGallery,
    Decision,
    Gallery,
    Group,
    Hit,
    Item,
    Search,
    Verification,
    Where,
    check_encoder,
    check_where,
    conditions_of_queries,
    unit_embeddings,
)
from reidkit.galleries._decisions import carried_out
from reidkit.galleries._given import check_recall, checked_ids
from reidkit.galleries._labels import LABELS
from reidkit.galleries._postgres import decisions as decision_table
from reidkit.galleries._postgres import index as approximate_index
from reidkit.galleries._postgres import tables
from reidkit.galleries._postgres import thumbnails as thumbnail_table
from reidkit.galleries._postgres.adding import add, check_origin, with_sources
from reidkit.galleries._postgres.address import read_address
from reidkit.galleries._postgres.items import (
    check_storable,
    lock,
    read,
    rewrite_labels,
    with_ids,
)
from reidkit.galleries._postgres.nearest import Ranking
from reidkit.galleries._postgres.server import Connection, Server
from reidkit.galleries._postgres.tables import State
from reidkit.galleries._postgres.where import EVERYTHING, Clause, clause, of_ids
from reidkit.galleries._served import Stored, check, check_sources, in_order, verified

if TYPE_CHECKING:
    from reidkit.progress import ProgressCallback


class PostgresGallery(Gallery):
    """A gallery on a server, ``postgresql://user@host:port/database?gallery=NAME``.

    Search is exact: the server looks at all items that the filter lets through, and what float32 could have
    moved into or out of the top is computed again in float64, so that scores, ties and order are those of the
    embedded engine. With ``&index=hnsw`` an approximate index answers instead, unless a filter lets less
    than half of the items through. :meth:`build_index` says how much of the truth it finds.

    Any number of processes read and write at a time. A change is one transaction, as durable as the server
    makes it. Where the connection is lost, the verb is tried again for a minute; a change carries a key, so
    that it happens once. Threads may share one object, which holds a few connections.
    """

    def __init__(
        self, address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None
    ) -> None:
        self.address = read_address(address)
        self._server = Server(self.address, create=create)
        try:
            tables.prepare(self._server, create=create)
            if encoder is not None:
                self._settle_encoder(encoder)
            if self.address.index:
                approximate_index.ensure(self._server, self.location)
        except BaseException:
            self.close()
            raise

    # --- what a gallery offers ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        return self._server.read(tables.state).dimension

    @property
    def encoder(self) -> dict[str, Any] | None:
        return self._server.read(tables.state).encoder

    @property
    def location(self) -> str:
        return str(self.address)

    def _add(self, addition: Addition) -> NDArray[np.int64]:
        check_storable(addition.labels)

        return self._server.write(lambda connection: add(connection, addition, self.address))

    def _search(self, search: Search) -> list[list[Hit]] | list[list[Group]]:
        top, items = min(search.top, 2**31), min(search.items, 2**31)  # more than a server holds

        def work(connection: Connection) -> list[list[Hit]] | list[list[Group]]:
            state = tables.state(connection)
            check_origin(state, search.origin, self.location)
            units = unit_embeddings(search.queries, dimension=state.dimension, location=self.location)
            conditions = self._conditions(connection, search.where)
            of_each = conditions_of_queries(conditions, search.known, num_queries=len(units))
            clauses = {repr(of_query): clause(of_query) for of_query in of_each}
            wheres = [clauses[repr(of_query)] for of_query in of_each]
            approximate = self.address.index is not None and search.group is None
            ranking = Ranking(connection, self.location, approximate=approximate)
            if search.group is None:
                return ranking.items(units, wheres, top=top)
            return [
                ranking.groups(unit, where, search.group, top=top, items=items)
                for unit, where in zip(units, wheres, strict=True)
            ]

        return self._server.read(work)

    def _relabel(
        self, ids: list[int], changes: list[dict[str, Any]], thumbnails: dict[int, bytes | None]
    ) -> None:
        def work(connection: Connection) -> None:
            lock(connection, ids)
            rows = [
                stored.row.changed(changes[index], index)
                for index, stored in enumerate(self._by_id(connection, ids))
            ]
            check_storable(rows)
            named = [row.source for row in rows if row.source is not None]
            there = {source: id for source, (id, _) in with_sources(connection, named).items()}
            check_sources(named, there, set(ids))
            rewrite_labels(connection, rows)
            thumbnail_table.put(connection, thumbnails)

        self._server.write(work)

    def _thumbnails(self, ids: list[int]) -> dict[int, bytes]:
        found, wrong = self._server.read(lambda connection: thumbnail_table.read(connection, ids))
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

        def work(connection: Connection) -> list[Decision]:
            number = decision_table.lock(connection)
            lock(connection, named)
            rows = {id: stored.row for id, stored in with_ids(connection, named).items()}
            identities = {id: row.identity for id, row in rows.items()}
            kept, changed = carried_out(decisions, identities, next_id=number)
            relabelled = [replace(rows[id], identity=identity) for id, identity in changed.items()]
            check_storable(relabelled)
            rewrite_labels(connection, relabelled)
            decision_table.put(connection, kept)
            return kept

        return self._server.write(work)

    def decisions(self) -> list[Decision]:
        return self._server.read(lambda connection: decision_table.read(connection, self.location))

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        if ids is None and where is None:
            raise ConfigError("remove needs ids= or where=; where={} removes everything")
        wanted = None if ids is None else checked_ids(ids)

        def work(connection: Connection) -> int:
            if wanted is not None:
                self._by_id(connection, wanted, where)
            return self._delete(connection, self._clause(connection, wanted, where))

        return self._server.write(work)

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        return [stored.row.item for stored in self._select(ids, where)]

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        stored = self._select(ids, where, embeddings=True)
        rows = [item.embedding for item in stored if item.embedding is not None]
        return np.stack(rows) if rows else np.empty((0, self.dimension or 0), np.float32)

    def verify(self) -> Verification:
        def work(connection: Connection) -> Verification:
            decision_table.read(connection, self.location)
            return self._verified(connection)

        return self._server.read(work)

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        def work(connection: Connection) -> tuple[int, ...]:
            damaged = self._verified(connection).damaged
            decisions = decision_table.damaged(connection)
            if decisions and not drop:
                decision_table.read(connection, self.location)  # says so
            if damaged and not drop:
                raise DamagedGallery(
                    f"{self.location} is damaged: {len(damaged)} items, ids "
                    f"{', '.join(map(str, damaged[:10]))}{', ...' if damaged[10:] else ''}; "
                    "repair(drop=True) drops them",
                    ids=damaged,
                )
            decision_table.drop(connection, decisions)
            self._delete(connection, self._clause(connection, damaged, None))
            return damaged

        return self._server.write(work)

    def info(self) -> dict[str, Any]:
        """The keys that all engines have; ``bytes`` on the server, its version and pgvector's; ``index``, and
        the ``recall`` that was measured when it was built."""

        def work(connection: Connection) -> dict[str, Any]:
            state = tables.state(connection)
            return {
                "engine": "postgresql",
                "location": self.location,
                "num_items": tables.num_items(connection),
                "dimension": state.dimension,
                "encoder": state.encoder,
                "num_thumbnails": thumbnail_table.count(connection),
                **tables.about_the_server(connection),
                **({"recall": state.recall} if state.recall else {}),
            }

        return self._server.read(work)

    def compact(self, *, erase: bool = False) -> int:
        """Let the server use the room of removed and replaced items again; of about how many, as it counts.

        With ``erase`` the tables are written anew without them, while others wait. The server's journal,
        backups and standbys are its administrator's.
        """
        num_dead = self._server.read(tables.num_dead)
        self._server.outside(*tables.vacuum(everything=erase))
        return num_dead

    def build_index(
        self, *, min_recall: float = 0.0, sample: int = 100, progress: ProgressCallback | None = None
    ) -> float:
        """Make the approximate index that ``index=hnsw`` in the address uses; the recall measured with it.

        That is the share of the 10 nearest items that it finds, over a ``sample`` of stored ones as queries,
        among all and with a filter that half of the items pass; the smaller of the two. Where fewer pass,
        search is exact. Raises :class:`DataError`, and leaves what there was, below ``min_recall``.
        """
        check_recall(min_recall, sample)
        return approximate_index.build(self._server, self.location, min_recall=min_recall, sample=sample)

    def drop_index(self) -> None:
        self._server.write(approximate_index.drop)

    def __len__(self) -> int:
        return self._server.read(tables.num_items)

    def close(self) -> None:
        self._server.close()

    def __repr__(self) -> str:
        return f"PostgresGallery({self.location!r})"

    # --- its encoder --------------------------------------------------------------------------------------

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            state = tables.state(connection, "FOR UPDATE")
            self._check_encoder(connection, state, encoder)
            known = state.encoder or {}
            if known != {**known, **encoder}:
                tables.set_encoder(connection, {**known, **encoder})

        state = self._server.read(tables.state)
        if state.encoder is None or state.encoder != {**state.encoder, **encoder}:
            self._server.write(work)

    def _check_encoder(self, connection: Connection, state: State, encoder: Mapping[str, Any]) -> None:
        num_items = 0 if state.encoder else tables.num_items(connection)
        check_encoder(state.encoder, encoder, num_items=num_items, location=self.location)

    # --- selecting ----------------------------------------------------------------------------------------

    def _select(
        self, ids: Iterable[int] | None, where: Where | None, *, embeddings: bool = False
    ) -> list[Stored]:
        """Items in the order of the ids given, or as they were written."""
        wanted = None if ids is None else checked_ids(ids)

        def work(connection: Connection) -> list[Stored]:
            if wanted is not None:
                return self._by_id(connection, wanted, where, embeddings=embeddings)
            passing = self._clause(connection, None, where)
            return check(read(connection, passing, embeddings=embeddings), self.location)

        return self._server.read(work)

    def _by_id(
        self, connection: Connection, ids: list[int], where: Where | None = None, *, embeddings: bool = False
    ) -> list[Stored]:
        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        found = with_ids(connection, set(ids), embeddings=embeddings)
        return in_order(found, ids, self.location)

    def _clause(self, connection: Connection, ids: Collection[int] | None, where: Where | None) -> Clause:
        if ids is not None:
            return of_ids(ids)
        conditions = self._conditions(connection, where)
        if any(condition.is_relative for condition in conditions):
            raise ConfigError("where refers to the query, and only a search has one; name a value instead")
        return clause(conditions)

    def _conditions(self, connection: Connection, where: Where | None) -> tuple[Condition, ...]:
        own: set[str] = set()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            own = tables.own_labels(connection, where.keys() - LABELS.keys())
        return check_where(where, own)

    def _delete(self, connection: Connection, where: Clause) -> int:
        statement = sql.SQL("DELETE FROM items WHERE {} RETURNING id, identity").format(where.text)
        gone: dict[int, str | None] = dict(connection.execute(statement, where.values).fetchall())
        decision_table.forget(connection, gone.keys(), gone.values(), self.location)
        return len(gone)

    def _verified(self, connection: Connection) -> Verification:
        found = verified(read(connection, EVERYTHING, embeddings=True))
        return replace(found, thumbnails=tuple(thumbnail_table.damaged(connection)))
