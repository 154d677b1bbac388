"""The gallery on a PostgreSQL server with pgvector: one schema a gallery, exact search or HNSW.

Labels are columns, labels of one's own JSONB, and the server answers the filters. Beside this file stand
addresses, connections and errors, tables and their migrations, conditions as SQL, items, the ranking, and the
approximate index (``_postgres_*.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, MissingExtra
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
from reidkit.galleries._given import checked_ids
from reidkit.galleries._labels import LABELS
from reidkit.registry import register

if TYPE_CHECKING:
    from reidkit.galleries._postgres_items import Stored
    from reidkit.galleries._postgres_server import Connection
    from reidkit.galleries._postgres_tables import State
    from reidkit.galleries._postgres_where import Clause


@register("gallery", "postgresql")
class PostgresGallery(Gallery):
    """A gallery on a server, ``postgresql://user@host:port/database?gallery=NAME``.

    Search is exact: the server looks at all items that the filter lets through, and what float32 could have
    moved into or out of the top is computed again in float64, so that scores, ties and order are those of the
    embedded engine. With ``&index=hnsw`` an approximate index answers instead; a filter that leaves it too
    little is answered exactly. :meth:`build_index` says how much of the truth it finds.

    Any number of processes read and write at a time. A change is one transaction, as durable as the server
    makes it. Where the connection is lost, the verb is tried again for a minute; a change carries a key, so
    that it happens once. Threads may share one object, which holds a few connections.

    Raises:
        MissingExtra: psycopg or pgvector is not installed.
        ConfigError: the address cannot be read.
        NoGallery: there is none and ``create`` is false.
        DataError: no server, no such database or user, no pgvector, a later format, another encoder.
    """

    def __init__(
        self, address: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None
    ) -> None:
        _check_installed()
        from reidkit.galleries import _postgres_decisions, _postgres_index, _postgres_tables
        from reidkit.galleries._postgres_address import read_address
        from reidkit.galleries._postgres_server import Server

        self.address = read_address(address)
        self._server = Server(self.address, create=create)
        self._tables, self._index, self._decisions = _postgres_tables, _postgres_index, _postgres_decisions
        try:
            _postgres_tables.prepare(self._server, create=create)
            if encoder is not None:
                self._settle_encoder(encoder)
            if self.address.index:
                _postgres_index.ensure(self._server, self.location)
        except BaseException:
            self.close()
            raise

    # --- what a gallery offers ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        return self._server.read(self._tables.state).dimension

    @property
    def encoder(self) -> dict[str, Any] | None:
        return self._server.read(self._tables.state).encoder

    @property
    def location(self) -> str:
        return str(self.address)

    def _add(self, addition: Addition) -> NDArray[np.int64]:
        from reidkit.galleries._postgres_items import check_storable

        check_storable(addition.labels)

        def work(connection: Connection) -> NDArray[np.int64]:
            self._make_ready(connection, addition)
            return self._store(connection, addition)

        return self._server.write(work)

    def _search(self, search: Search) -> list[list[Hit]] | list[list[Group]]:
        from reidkit.galleries._postgres_nearest import Ranking
        from reidkit.galleries._postgres_where import clause

        top, items = min(search.top, 2**31), min(search.items, 2**31)  # more than a server holds

        def work(connection: Connection) -> list[list[Hit]] | list[list[Group]]:
            state = self._tables.state(connection)
            self._check_origin(connection, state, search.origin)
            units = unit_embeddings(search.queries, dimension=state.dimension, location=self.location)
            conditions = self._conditions(connection, search.where)
            of_each = conditions_of_queries(conditions, search.known, num_queries=len(units))
            wheres = [clause(of_query) for of_query in of_each]
            approximate = self.address.index is not None and search.group is None
            ranking = Ranking(connection, self.location, approximate=approximate)
            if search.group is None:
                return ranking.items(units, wheres, top=top)
            return [
                ranking.groups(unit, where, search.group, top=top, items=items)
                for unit, where in zip(units, wheres, strict=True)
            ]

        return self._server.read(work)

    def _relabel(self, ids: list[int], changes: list[dict[str, Any]]) -> None:
        from reidkit.galleries._postgres_items import check_storable, lock, rewrite_labels

        def work(connection: Connection) -> None:
            lock(connection, ids)
            rows = [
                stored.row.changed(changes[index], index)
                for index, stored in enumerate(self._by_id(connection, ids))
            ]
            check_storable(rows)
            self._check_sources(connection, [row.source for row in rows if row.source is not None], ids)
            rewrite_labels(connection, rows)

        self._server.write(work)

    def _decide(self, decisions: list[Decision]) -> list[Decision]:
        from reidkit.galleries._postgres_items import check_storable, lock, rewrite_labels, with_ids

        named = {id for decision in decisions for id in decision.items}

        def work(connection: Connection) -> list[Decision]:
            number = self._decisions.lock(connection)
            lock(connection, named)
            rows = {id: stored.row for id, stored in with_ids(connection, named).items()}
            identities = {id: row.identity for id, row in rows.items()}
            kept, changed = carried_out(decisions, identities, next_id=number)
            relabelled = [replace(rows[id], identity=identity) for id, identity in changed.items()]
            check_storable(relabelled)
            rewrite_labels(connection, relabelled)
            self._decisions.put(connection, kept)
            return kept

        return self._server.write(work)

    def decisions(self) -> list[Decision]:
        return self._server.read(lambda connection: self._decisions.read(connection, self.location))

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
            self._decisions.read(connection, self.location)
            return self._verified(connection)

        return self._server.read(work)

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        def work(connection: Connection) -> tuple[int, ...]:
            damaged = self._verified(connection).damaged
            decisions = self._decisions.damaged(connection)
            if decisions and not drop:
                self._decisions.read(connection, self.location)  # says so
            if damaged and not drop:
                raise DamagedGallery(
                    f"{self.location} is damaged: {len(damaged)} items, ids "
                    f"{', '.join(map(str, damaged[:10]))}{', ...' if damaged[10:] else ''}; "
                    "repair(drop=True) drops them",
                    ids=damaged,
                )
            self._decisions.drop(connection, decisions)
            self._delete(connection, self._clause(connection, damaged, None))
            return damaged

        return self._server.write(work)

    def info(self) -> dict[str, Any]:
        """The keys that all engines have; ``bytes`` on the server, its version and pgvector's; ``index``, and
        the ``recall`` that was measured when it was built."""

        def work(connection: Connection) -> dict[str, Any]:
            state = self._tables.state(connection)
            return {
                "engine": "postgresql",
                "location": self.location,
                "num_items": self._tables.num_items(connection),
                "dimension": state.dimension,
                "encoder": state.encoder,
                **self._tables.about_the_server(connection),
                "recall": state.recall,
            }

        return self._server.read(work)

    def compact(self, *, erase: bool = False) -> int:
        """Let the server use the room of removed and replaced items again; of about how many, as it counts.

        With ``erase`` the tables are written anew without them, while others wait. The server's journal,
        backups and standbys are its administrator's.
        """
        num_dead = self._server.read(self._tables.num_dead)
        self._server.outside(*self._tables.vacuum(everything=erase))
        return num_dead

    def build_index(self, *, min_recall: float = 0.0, sample: int = 100) -> float:
        """Make the approximate index that ``index=hnsw`` in the address uses; the recall measured with it.

        That is the share of the 10 nearest items that it finds, over a ``sample`` of stored ones as queries.
        Raises :class:`DataError`, and leaves no index, where it is below ``min_recall``.
        """
        return self._index.build(self._server, self.location, min_recall=min_recall, sample=sample)

    def __len__(self) -> int:
        return self._server.read(self._tables.num_items)

    def close(self) -> None:
        self._server.close()

    def __repr__(self) -> str:
        return f"PostgresGallery({self.location!r})"

    # --- its encoder --------------------------------------------------------------------------------------

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        def work(connection: Connection) -> None:
            state = self._tables.state(connection, "FOR UPDATE")
            self._check_encoder(connection, state, encoder)
            known = state.encoder or {}
            if known != {**known, **encoder}:
                self._tables.set_encoder(connection, {**known, **encoder})

        state = self._server.read(self._tables.state)
        if state.encoder is None or state.encoder != {**state.encoder, **encoder}:
            self._server.write(work)

    def _check_encoder(self, connection: Connection, state: State, encoder: Mapping[str, Any]) -> None:
        num_items = 0 if state.encoder else self._tables.num_items(connection)
        check_encoder(state.encoder, encoder, num_items=num_items, location=self.location)

    def _check_origin(self, connection: Connection, state: State, origin: Mapping[str, Any] | None) -> None:
        """Refuse embeddings that name another encoder than the gallery's."""
        if origin is not None and state.encoder is not None:
            self._check_encoder(connection, state, origin)

    # --- adding -------------------------------------------------------------------------------------------

    def _make_ready(self, connection: Connection, addition: Addition) -> None:
        """The first embeddings tell how long all are and, where they know it, whose. Others may add too."""
        state = self._tables.state(connection, "FOR SHARE")
        num = addition.embeddings.shape[1]
        is_first = state.dimension is None or (state.encoder is None and addition.origin is not None)
        if is_first:
            state = self._tables.state(connection, "FOR UPDATE")
        self._check_origin(connection, state, addition.origin)
        unit_embeddings(addition.embeddings[:1], dimension=state.dimension, location=self.location)
        if state.dimension is None:
            self._tables.set_dimension(connection, num, self.location)
            if self.address.index:
                self._index.make(connection, num, self.location)
        if state.encoder is None and addition.origin is not None and not self._tables.num_items(connection):
            self._tables.set_encoder(connection, addition.origin)

    def _store(self, connection: Connection, addition: Addition) -> NDArray[np.int64]:
        from reidkit.galleries._postgres_items import write

        labels = addition.labels
        there = self._with_sources(connection, [label.source for label in labels if label.source is not None])
        known = {source: id for source, (id, _) in there.items()}
        if known and addition.on_duplicate == "error":
            raise DataError(
                f"{self.location} holds {len(known)} of these {len(labels)} sources already, such as "
                f"{next(iter(known))!r}; nothing was added: choose on_duplicate='replace' or 'skip'"
            )
        ids = [None if label.source is None else known.get(label.source) for label in labels]
        fresh = [i for i, id in enumerate(ids) if id is None or addition.on_duplicate == "replace"]
        if addition.on_duplicate == "replace":
            connection.execute("DELETE FROM items WHERE id = ANY(%s)", (list(known.values()),))
            # Decisions are on pictures: one that is another now was not decided on.
            contents = {label.source: label.content for label in labels}
            others = [id for source, (id, content) in there.items() if content != contents[source]]
            self._decisions.forget(connection, others, (), self.location)
        written = write(
            connection, [ids[i] for i in fresh], [labels[i] for i in fresh], addition.embeddings[fresh]
        )
        for index, id in zip(fresh, written, strict=True):
            ids[index] = id
        return np.array(ids, np.int64)

    def _with_sources(
        self, connection: Connection, sources: Collection[str]
    ) -> dict[str, tuple[int, str | None]]:
        """Id and content of the items of these sources, which nobody changes before the transaction ends."""
        from reidkit.galleries._postgres_where import source_hash

        if not sources:
            return {}
        hashes = {source_hash(source): source for source in sources}
        query = "SELECT sha256(source), id, content FROM items WHERE sha256(source) = ANY(%s) FOR UPDATE"
        found = connection.execute(query, (list(hashes),), binary=True)
        return {hashes[bytes(hash)]: (id, content) for hash, id, content in found}

    def _check_sources(self, connection: Connection, named: list[str], ids: Collection[int]) -> None:
        there = self._with_sources(connection, named)
        taken = [name for name, (id, _) in there.items() if id not in set(ids)]
        twice = [name for name in named if named.count(name) > 1] if len(set(named)) < len(named) else []
        if taken or twice:
            raise DataError(f"two items would have the source {[*taken, *twice][0]!r}; nothing was changed")

    # --- selecting ----------------------------------------------------------------------------------------

    def _select(
        self, ids: Iterable[int] | None, where: Where | None, *, embeddings: bool = False
    ) -> list[Stored]:
        """Items in the order of the ids given, or as they were written."""
        from reidkit.galleries._postgres_items import check, read

        wanted = None if ids is None else checked_ids(ids)

        def work(connection: Connection) -> list[Stored]:
            if wanted is not None:
                return self._by_id(connection, wanted, where, embeddings=embeddings)
            clause = self._clause(connection, None, where)
            return check(read(connection, clause, embeddings=embeddings), self.location)

        return self._server.read(work)

    def _by_id(
        self, connection: Connection, ids: list[int], where: Where | None = None, *, embeddings: bool = False
    ) -> list[Stored]:
        from reidkit.galleries._postgres_items import check, with_ids

        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        found = with_ids(connection, set(ids), embeddings=embeddings)
        unknown = [id for id in ids if id not in found]
        if unknown:
            raise DataError(
                f"{self.location} has no item {unknown[0]} ({len(unknown)} such of {len(ids)} ids)"
            )
        return check([found[id] for id in ids], self.location)

    def _clause(self, connection: Connection, ids: Collection[int] | None, where: Where | None) -> Clause:
        from reidkit.galleries._postgres_where import clause, of_ids

        if ids is not None:
            return of_ids(ids)
        conditions = self._conditions(connection, where)
        if any(condition.is_relative for condition in conditions):
            raise ConfigError("where refers to the query, and only a search has one; name a value instead")
        return clause(conditions)

    def _conditions(self, connection: Connection, where: Where | None) -> tuple[Condition, ...]:
        own: set[str] = set()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            own = self._tables.own_labels(connection, where.keys() - LABELS.keys())
        return check_where(where, own)

    def _delete(self, connection: Connection, where: Clause) -> int:
        from psycopg import sql

        statement = sql.SQL("DELETE FROM items WHERE {} RETURNING id, identity").format(where.text)
        gone: dict[int, str | None] = dict(connection.execute(statement, where.values).fetchall())
        self._decisions.forget(connection, gone.keys(), gone.values(), self.location)
        return len(gone)

    def _verified(self, connection: Connection) -> Verification:
        from reidkit.galleries._postgres_items import read
        from reidkit.galleries._postgres_where import EVERYTHING

        num, labels, vectors = 0, [], []
        for stored in read(connection, EVERYTHING, embeddings=True):
            num += 1
            if not stored.has_whole_labels:
                labels.append(stored.row.id)
            if not stored.has_whole_embedding:
                vectors.append(stored.row.id)
        return Verification(num, labels=tuple(sorted(labels)), vectors=tuple(sorted(vectors)))


def _check_installed() -> None:
    try:
        import pgvector.psycopg  # noqa: F401
        import psycopg  # noqa: F401
    except ImportError as error:
        package = (error.name or "psycopg").partition(".")[0]
        raise MissingExtra(
            package, extra="postgres", needed_for="a gallery on a PostgreSQL server"
        ) from error
