"""The gallery in a folder: vectors in a memory-mapped file, labels in SQLite, exact search.

``vectors-*.f32`` holds unit rows with their checksums (:mod:`reidkit.galleries._vector_file`);
``items.sqlite`` says which rows count and what they show (:mod:`reidkit.galleries._items_table`). SQLite is
the authority. Vectors are appended and brought to disk first, then their items are committed in one
transaction: after a crash in between, the rows that no item names are overwritten by the next add. A row
number is never used again within one file, and :meth:`compact` writes another file, so that a reader never
takes one item's vector for another's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.galleries import (
    DamagedGallery,
    Group,
    GroupBy,
    Hit,
    Item,
    OnDuplicate,
    Verification,
    _columns,
    _decisions_table,
    _format_1,
    _vector_file,
    check_encoder,
    checked_group,
    checked_ids,
    checked_top,
    embedding_rows,
    origin_of,
    unit_embeddings,
)
from reidkit.galleries._decisions import Decision, carried_out, checked_decisions
from reidkit.galleries._groups import nearest_groups
from reidkit.galleries._items_table import ItemsTable, no_gallery
from reidkit.galleries._labels import LABELS, label_column, label_rows, more, own_columns
from reidkit.galleries._nearest import nearest, pieces
from reidkit.galleries._records import FILE, Row, State
from reidkit.galleries._where import Condition, Where, check_where
from reidkit.registry import register

INDEXED = ("source", "content")  # labels that SQLite finds; nearly all of them differ
NUM_TRIES = 3  # searches that a writer may overtake


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """All rows (R, W) of one revision, and the numbers (K,) of items' rows, ascending.

    ``file`` tells the file from another that was put in its place.
    """

    state: State
    file: tuple[int, int] | None
    words: _vector_file.Words
    rows: NDArray[np.int64]

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(R, D)."""
        return _vector_file.vectors_of(self.words, self.state.dimension or 0)


@register("gallery", "embedded")
class EmbeddedGallery:
    """A gallery in one folder, for one machine; see :class:`reidkit.galleries.Gallery` for the verbs.

    Search is exact: scores are computed in float32 block by block, and whatever rounding could have moved
    into or out of the ``top`` is computed again in float64. Hits of equal score stand in the order in
    which their embeddings were written.

    One process writes at a time; another waits for 10 seconds, then gets a :class:`DataError`. Any number
    may read meanwhile, and see each change as soon as it is committed. Threads may share one object. A
    removed or replaced item's vector stays in the file until :meth:`compact`.

    Checksums of vectors are compared when they are first searched, once in a process, and again for what
    is added; labels are with each item that is told, and as a whole before anything rests on all of them.

    A gallery of format 1, made by reidkit 0.1, is converted when it is opened, all at once or not at all;
    ``converted`` says so. In a place that cannot be written to, that is done in memory and a temporary file.

    Raises:
        NoGallery: there is none and ``create`` is false.
        DataError: the path is a file, or a folder of something else; the gallery is damaged, is not one
            that reidkit makes, or was filled by another encoder.
    """

    def __init__(self, path: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._temporary: TemporaryDirectory[str] | None = None
        self._snapshot: _Snapshot | None = None
        self._columns: tuple[State | None, _columns.Columns] = None, _columns.EMPTY
        self._verified: tuple[object, int] = (None, 0)  # a file of vectors, and how many rows were checked
        self._tidy = False
        _check_place(self.path, create)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {self.path}: {error.strerror}") from error
        self._table = ItemsTable(self.path, create=create)
        try:
            self.converted = self._table.format == 1
            if self.converted:
                self._temporary = _format_1.convert(self._table)
            self._vectors_folder = Path(self._temporary.name) if self._temporary else self.path
            if encoder is not None:
                self._settle_encoder(encoder)
            with self._table.reading():  # checks the state
                pass
        except BaseException:
            self.close()
            raise

    # --- what a gallery offers ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        with self._table.reading() as state:
            return state.dimension

    @property
    def encoder(self) -> dict[str, Any] | None:
        with self._table.reading() as state:
            return _decoded(state.encoder)

    def add(
        self,
        embeddings: ArrayLike,
        *,
        sources: Sequence[Any] | None = None,
        identities: Sequence[Any] | NDArray[Any] | None = None,
        cameras: Sequence[Any] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        contents: Sequence[str | None] | None = None,
        tracklets: Sequence[Any] | NDArray[Any] | None = None,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
        on_duplicate: OnDuplicate = "replace",
    ) -> NDArray[np.int64]:
        if on_duplicate not in (choices := ("replace", "skip", "error")):
            raise ConfigError(
                f"on_duplicate is {shown(on_duplicate)};{did_you_mean(shown(on_duplicate), choices)} "
                f"Allowed: {', '.join(choices)}"
            )
        vectors = unit_embeddings(embeddings, location=str(self.path))
        self._check_origin(embeddings, filling=True)
        described = label_rows(
            len(vectors),
            sources=sources,
            identities=identities,
            cameras=cameras,
            times=times,
            contents=contents,
            tracklets=tracklets,
            own=labels,
        )
        if not described:
            return np.empty(0, np.int64)
        named = [label.source for label in described if label.source is not None]
        if named:
            self._check_items()
        with self._writing() as state:
            # Only now is it sure which dimension the gallery has.
            unit_embeddings(vectors[:1], dimension=state.dimension, location=str(self.path))
            there: dict[str | None, Row] = {}
            if named:
                self._table.check_all(state)
                there = {row.source: row for row in self._table.among(state, "source", named)}
            known = {source: row.id for source, row in there.items()}
            if known and on_duplicate == "error":
                raise DataError(
                    f"{self.path} holds {len(known)} of these {len(described)} sources already, such as "
                    f"{next(iter(known))!r}; nothing was added: choose on_duplicate='replace' or 'skip'"
                )
            new_ids = itertools.count(state.next_id)
            ids = [known[label.source] if label.source in known else next(new_ids) for label in described]
            fresh = [
                index
                for index, label in enumerate(described)
                if on_duplicate == "replace" or label.source not in known
            ]
            self._write(state.vectors, vectors, np.array(fresh, np.int64), first=state.num_rows)
            rows = [
                Row(ids[index], number, *astuple(described[index]))
                for number, index in enumerate(fresh, state.num_rows)
            ]
            self._table.put(rows)
            # Decisions are on pictures: one that is another now was not decided on.
            others = [row.id for row in rows if row.content != there.get(row.source, row).content]
            self._table.forget_decisions(others)
            num_new = sum(label.source not in known for label in described)
            self._table.set_state(
                state,
                num_rows=state.num_rows + len(fresh),
                num_items=state.num_items + num_new,
                next_id=next(new_ids),
                dimension=vectors.shape[1],
            )
        return np.array(ids, np.int64)

    @overload
    def search(
        self, embeddings: ArrayLike, *, top: int = 10, where: Where | None = None, group: None = None
    ) -> list[list[Hit]]: ...

    @overload
    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        group: GroupBy,
        items: int = 10,
    ) -> list[list[Group]]: ...

    def search(
        self,
        embeddings: ArrayLike,
        *,
        top: int = 10,
        where: Where | None = None,
        group: GroupBy | None = None,
        items: int = 10,
    ) -> list[list[Hit]] | list[list[Group]]:
        top, kind, items = checked_top(top), checked_group(group), checked_top(items, "items")
        conditions = self._conditions(where)
        queries = embedding_rows(embeddings)
        self._check_origin(embeddings, filling=False)

        def attempt() -> list[list[Hit]] | list[list[Group]] | None:
            if kind is None:
                return self._try_search(queries, top, conditions)
            return self._try_groups(queries, top, conditions, kind, items)

        for _ in range(NUM_TRIES):
            found = attempt()
            if found is not None:
                return found
        with self._table.reading():  # writers wait: one that replaces the same items all the time would win
            found = attempt()
        assert found is not None
        return found

    def relabel(
        self,
        ids: Iterable[int],
        *,
        sources: Sequence[Any] | None = None,
        identities: Sequence[Any] | NDArray[Any] | None = None,
        cameras: Sequence[Any] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        tracklets: Sequence[Any] | NDArray[Any] | None = None,
        labels: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None,
    ) -> None:
        wanted = checked_ids(ids)
        if len(set(wanted)) < len(wanted):
            raise DataError("ids holds one twice; give each item its labels once")
        given = {"sources": sources, "identities": identities, "cameras": cameras, "times": times}
        columns = {
            field: label_column(kind, given[kind], len(wanted))
            for kind, field in _FIELDS.items()
            if given[kind] is not None
        }
        own = own_columns(labels, len(wanted))
        if tracklets is not None:
            own["tracklet"] = label_column("tracklets", tracklets, len(wanted))
        self._check_items()
        with self._writing() as state:
            rows = [
                replace(
                    row,
                    more=_more_with(row, {name: values[index] for name, values in own.items()}, index),
                    **{field: values[index] for field, values in columns.items()},
                )
                for index, row in enumerate(self._by_id(state, wanted))
            ]
            named = [row.source for row in rows if row.source is not None]
            taken = [row for row in self._table.among(state, "source", named) if row.id not in set(wanted)]
            if taken or len(set(named)) < len(named):
                name = taken[0].source if taken else next(n for n in named if named.count(n) > 1)
                raise DataError(f"two items would have the source {name!r}; nothing was changed")
            self._table.put(rows)
            self._table.set_state(state)

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        if ids is None and where is None:
            raise ConfigError("remove needs ids= or where=; where={} removes everything")
        with self._writing() as state:
            rows = self._select(state, ids, where)
            doomed = {row.id for row in rows}
            self._table.delete(doomed)
            self._table.forget_decisions(doomed, {row.identity for row in rows})
            self._table.set_state(state, num_items=state.num_items - len(doomed))
        if doomed:  # nobody keeps what was removed in the copy of its labels
            _columns.remove_file(self.path)
        return len(doomed)

    def decide(self, decisions: Iterable[Decision]) -> list[Decision]:
        given = checked_decisions(decisions)
        named = {id for decision in given for id in decision.items}
        with self._writing() as state:
            rows = {row.id: row for row in self._table.among(state, "id", named)}
            identities = {id: row.identity for id, row in rows.items()}
            number = _decisions_table.next_id(self._table.db)
            kept, changed = carried_out(given, identities, next_id=number)
            self._table.put([replace(rows[id], identity=identity) for id, identity in changed.items()])
            _decisions_table.put(self._table.db, kept)
            self._table.set_state(state)
        return kept

    def decisions(self) -> list[Decision]:
        with self._table.reading():
            return _decisions_table.read(self._table.db)

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        with self._table.reading() as state:
            return [row.item for row in self._select(state, ids, where)]

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        with self._table.reading() as state:
            rows = np.array([row.row for row in self._select(state, ids, where)], np.int64)
            words = self._words(state)
            self._refuse(self._damaged(state, words, np.unique(rows)), state)
            return np.array(_vector_file.vectors_of(words, state.dimension or 0)[rows], np.float32)

    def verify(self) -> Verification:
        with self._table.reading() as state:
            self._table.check_structure()
            _decisions_table.read(self._table.db)
            labels = [row.id for row in self._table.damaged(state)]
            rows = {} if labels else {row.row: row.id for row in self._table.all(state)}
            if labels:
                return Verification(state.num_items, labels=tuple(labels))
            numbers = np.array(sorted(rows), np.int64)
            vectors = self._damaged(state, self._words(state), numbers)
            return Verification(state.num_items, vectors=tuple(sorted(rows[row] for row in vectors.tolist())))

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        with self._writing() as state:
            self._table.mend_indexes()
            labels = [row.id for row in self._table.damaged(state)]
            self._table.delete(labels)
            num_rows = min(state.num_rows, self._num_whole_rows(state))
            words = self._words(replace(state, num_rows=num_rows))
            items = self._table.all(replace(state, num_items=self._table.count()))
            within = np.array([row.row for row in items if row.row < num_rows], np.int64)
            whole = set(within.tolist()) - set(self._damaged(state, words, within).tolist())
            vectors = [row.id for row in items if row.row not in whole]
            dropped = tuple(sorted({*labels, *vectors}))
            decisions = _decisions_table.damaged(self._table.db)
            if decisions and not drop:
                _decisions_table.read(self._table.db)  # says so
            if dropped and not drop:
                raise DamagedGallery(
                    f"{self.path} is damaged: {len(dropped)} items, ids {', '.join(map(str, dropped[:10]))}"
                    f"{', ...' if dropped[10:] else ''}; repair(drop=True) drops them",
                    ids=dropped,
                )
            self._table.delete(vectors)
            _decisions_table.drop(self._table.db, decisions)
            self._table.forget_decisions(dropped)
            changes: dict[str, Any] = {"num_items": len(whole)}
            if num_rows < state.num_rows:  # in the same file, rows would be given a second time
                changes |= self._rewrite(state, words, [row for row in items if row.row in whole])
            self._table.set_state(state, **changes)
        self._tidy = False
        return dropped

    def info(self) -> dict[str, Any]:
        """The keys that all engines have, and ``bytes`` on disk, ``num_dead_rows`` that compact() drops,
        ``converted`` where it was of format 1 when it was opened."""
        with self._table.reading() as state:
            files = [self.path / FILE, self._vectors_folder / state.vectors]
            return {
                "engine": "embedded",
                "location": str(self.path),
                "num_items": state.num_items,
                "dimension": state.dimension,
                "encoder": _decoded(state.encoder),
                "bytes": sum(file.stat().st_size for file in files if file.exists()),
                "num_dead_rows": state.num_rows - state.num_items,
                "converted": self.converted,
            }

    def compact(self, *, erase: bool = False) -> int:
        """Write the vectors anew without those of removed and replaced items; how many these were.

        Needs room on disk for the new file beside the old one, and for the table's with ``erase``. Ids stay.
        """
        self._tidy = False
        with self._writing() as state:
            snapshot = self._map(state)
            self._refuse(self._damaged(state, snapshot.words, snapshot.rows), state)
            rows = self._table.all(state)
            self._table.set_state(state, **self._rewrite(state, snapshot.words, rows))
        self._tidy = False
        # The old file goes now, or with the next that writes. Whoever still reads it has it open.
        with contextlib.nullcontext() if erase else contextlib.suppress(DataError), self._writing():
            _columns.remove_file(self.path)
        if erase:
            self._table.write_anew()
        return state.num_rows - len(rows)

    def __len__(self) -> int:
        with self._table.reading() as state:
            return state.num_items

    def close(self) -> None:
        self._snapshot = None
        self._columns = None, _columns.EMPTY
        self._table.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedGallery({str(self.path)!r})"

    # --- the table ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        with self._table.writing() as state:
            if self._temporary is not None:
                raise DataError(f"{self.path} cannot be written to; check the permissions of the folder")
            # Nobody else writes now, so that what is not named was left by the killed; unless what is named
            # is missing, and the table is that of another gallery.
            if not self._tidy and self._num_whole_rows(state) >= state.num_rows:
                _vector_file.remove_others(self.path, state.vectors)
                self._tidy = True
            yield state

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        with self._table.reading() as state:
            recorded = self._check_encoder(state, encoder)
        if recorded is None:
            self._record(encoder)
        elif recorded != {**recorded, **encoder}:  # the same encoder in a new place
            with contextlib.suppress(DataError):  # which can be told again where the gallery is read-only
                self._record({**recorded, **encoder})

    def _check_origin(self, embeddings: ArrayLike, *, filling: bool) -> None:
        """Refuse embeddings that name another encoder; the first ones tell whose the gallery is."""
        given = origin_of(embeddings)
        if given is None:
            return
        with self._table.reading() as state:
            if state.encoder is not None:
                self._check_encoder(state, given)
            unknown = state.encoder is None and not state.num_items
        if filling and unknown:
            self._record(given)

    def _record(self, encoder: Mapping[str, Any]) -> None:
        with self._writing() as state:
            self._check_encoder(state, encoder)
            self._table.set_state(state, encoder=json.dumps(dict(encoder)))

    def _check_encoder(self, state: State, encoder: Mapping[str, Any]) -> dict[str, Any] | None:
        recorded = _decoded(state.encoder)
        check_encoder(recorded, encoder, num_items=state.num_items, location=str(self.path))
        return recorded

    def _check_items(self) -> None:
        """Check all items before a writer asks for it, who holds others up."""
        with self._table.reading() as state:
            self._table.check_all(state)

    def _select(self, state: State, ids: Iterable[int] | None, where: Where | None) -> list[Row]:
        """Items in the order of the ids given, or as they were written."""
        if ids is None:
            conditions = self._conditions(where)
            if not conditions:
                return self._table.all(state)
            return self._table.at(state, self._matching(state, conditions))
        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        return self._by_id(state, checked_ids(ids))

    def _by_id(self, state: State, ids: list[int]) -> list[Row]:
        found = {row.id: row for row in self._table.among(state, "id", set(ids))}
        unknown = [id for id in ids if id not in found]
        if unknown:
            raise DataError(f"{self.path} has no item {unknown[0]} ({len(unknown)} such of {len(ids)} ids)")
        return [found[id] for id in ids]

    def _try_search(
        self, queries: NDArray[Any], top: int, conditions: Sequence[Condition]
    ) -> list[list[Hit]] | None:
        """Hits; ``None`` if another process took one of them away meanwhile."""
        with self._table.reading() as state:
            snapshot = self._map(state)
            rows = self._matching(state, conditions)
        units = self._checked_queries(queries, snapshot)
        every = len(rows) == state.num_rows
        ranked = nearest(snapshot.vectors, None if every else rows, units, top=min(top, len(rows) + 1))
        return self._hits(ranked, snapshot.state)

    def _try_groups(
        self, queries: NDArray[Any], top: int, conditions: Sequence[Condition], kind: GroupBy, items: int
    ) -> list[list[Group]] | None:
        """Groups; ``None`` if another process took one of their items away meanwhile."""
        with self._table.reading() as state:
            snapshot = self._map(state)
            rows = self._matching(state, conditions)
            columns = self._columns_of(state)
        units = self._checked_queries(queries, snapshot)
        groups = columns.codes(kind)[np.searchsorted(columns.rows, rows)].astype(np.int64)
        ranked = nearest_groups(
            snapshot.vectors, rows, groups, units, top=min(top, len(rows) + 1), items=items
        )
        hits = self._hits([(group.rows, group.scores) for found in ranked for group in found], state)
        if hits is None:
            return None
        of_each = iter(hits)
        return [[_group(kind, group.num_rows, tuple(next(of_each))) for group in found] for found in ranked]

    def _checked_queries(self, queries: NDArray[Any], snapshot: _Snapshot) -> NDArray[np.float32]:
        """Unit queries, once it is sure that what they are compared with is whole."""
        units = unit_embeddings(queries, dimension=snapshot.state.dimension, location=str(self.path))
        self._check_vectors(snapshot)
        return units

    def _hits(
        self, ranked: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], searched: State
    ) -> list[list[Hit]] | None:
        """Hits of the rows found; ``None`` if another process took one of them away since."""
        numbers = {number for rows, _ in ranked for number in rows.tolist()}
        with self._table.reading() as state:
            found = {row.row: row for row in self._table.among(state, "row", numbers)}
        if state.vectors != searched.vectors or len(found) < len(numbers):
            if state.revision == searched.revision:
                raise DamagedGallery(
                    f"{self.path}: {FILE} is damaged: {len(numbers) - len(found)} embeddings have no item; "
                    "put a copy in its place, or fill a new gallery"
                )
            return None
        return [
            [
                _hit(found[number].item, score)
                for number, score in zip(rows.tolist(), scores.tolist(), strict=True)
            ]
            for rows, scores in ranked
        ]

    # --- the file of vectors ------------------------------------------------------------------------------

    def _words(self, state: State) -> _vector_file.Words:
        """All rows, mapped anew only if something changed. Call within a transaction: the file is not
        deleted before that ends."""
        path = self._vectors_folder / state.vectors
        return _vector_file.map_rows(path, num_rows=state.num_rows, dimension=state.dimension or 0)

    def _map(self, state: State) -> _Snapshot:
        path = self._vectors_folder / state.vectors
        file = _vector_file.identity(path, num_rows=state.num_rows, dimension=state.dimension or 0)
        if self._snapshot is None or (self._snapshot.state, self._snapshot.file) != (state, file):
            self._snapshot = _Snapshot(state, file, self._words(state), self._item_rows(state))
        return self._snapshot

    def _item_rows(self, state: State) -> NDArray[np.int64]:
        """Row numbers (K,) of all items, ascending; read from the table only where that is needed."""
        known, start = np.empty(0, np.int64), 0
        if self._snapshot is not None and self._snapshot.state.vectors == state.vectors:
            known, start = self._snapshot.rows, self._snapshot.state.num_rows
        if state.num_items - len(known) == state.num_rows - start:  # all new rows are items, and none went
            return np.concatenate([known, np.arange(start, state.num_rows)])
        return self._columns_of(state).rows

    def _conditions(self, where: Where | None) -> tuple[Condition, ...]:
        """Checked conditions; only where one is on a label of one's own is it looked up which there are."""
        own: frozenset[str] = frozenset()
        if isinstance(where, Mapping) and not where.keys() <= LABELS.keys():
            with self._table.reading() as state:
                own = self._columns_of(state).own_names
        return check_where(where, own)

    def _matching(self, state: State, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        """Row numbers (K,) of the items that all conditions let through, ascending."""
        coded = [condition for condition in conditions if condition.key not in INDEXED]
        if coded:
            columns = self._columns_of(state)
            rows = columns.rows[columns.pass_(coded)]
        else:
            rows = self._item_rows(state)
        for condition in conditions:
            if condition.key in INDEXED:
                found = self._table.rows_with(state, condition.key, condition.values)
                rows = rows[np.isin(rows, found, invert=condition.operator == "not in")]
        return rows

    def _columns_of(self, state: State) -> _columns.Columns:
        """Labels of all items; what this process knows already, or was kept, is not read again."""
        known_for, columns = self._columns
        if known_for == state:
            return columns
        if known_for is None or known_for.vectors != state.vectors:
            columns = _columns.read_file(self.path, state.vectors)
        rows, checksums = self._table.checksums(state)
        columns, num_read = _columns.brought_up_to_date(
            columns, rows, checksums, lambda missing: self._table.with_checksums(state, missing)
        )
        # Within the transaction: whoever removes an item waits, and then removes the file.
        if num_read >= _columns.WORTH_KEEPING and self._temporary is None:
            _columns.write_file(self.path, state.vectors, columns)
        self._columns = state, columns
        return columns

    def _check_vectors(self, snapshot: _Snapshot) -> None:
        """Raise :class:`DamagedGallery` unless all items' vectors are as they were written; once, but for
        what is new. Outside of transactions, since it takes long, and committed rows never change."""
        state = snapshot.state
        file, num_checked = self._verified
        if file != (state.vectors, snapshot.file):
            num_checked = 0
        if num_checked < state.num_rows:
            new = snapshot.rows[np.searchsorted(snapshot.rows, num_checked) :]
            wrong = self._damaged(state, snapshot.words, new)
            if len(wrong):
                with self._table.reading() as now:
                    # What was replaced or removed since is of no account.
                    self._refuse(wrong if now.vectors == state.vectors else wrong[:0], now)
            else:
                self._verified = (state.vectors, snapshot.file), state.num_rows

    def _damaged(self, state: State, words: _vector_file.Words, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return _vector_file.damaged(words, rows, name=state.vectors, dimension=state.dimension or 0)

    def _refuse(self, wrong: NDArray[np.int64], state: State) -> None:
        items = self._table.among(state, "row", wrong.tolist())
        if items:
            raise self._table.damage(f"the embeddings of {len(items)} of {state.num_items} items", items)

    def _num_whole_rows(self, state: State) -> int:
        """Rows that the file has bytes for."""
        path = self._vectors_folder / state.vectors
        size = path.stat().st_size if path.is_file() else 0
        return size // (8 * _vector_file.num_words(state.dimension or 0))

    def _rewrite(self, state: State, words: _vector_file.Words, rows: list[Row]) -> dict[str, Any]:
        """Write the vectors of these items, by their rows, to a new file; the changes of the state."""
        file = _vector_file.new_name()
        numbers = np.array([row.row for row in rows], np.int64)
        self._write(file, _vector_file.vectors_of(words, state.dimension or 0), numbers, first=0)
        # In ascending order a new number is never one that another item still has.
        self._table.put(replace(row, row=number) for number, row in enumerate(rows))
        return {"vectors": file, "num_rows": len(rows)}

    def _write(self, file: str, vectors: NDArray[np.float32], rows: NDArray[np.int64], *, first: int) -> None:
        """Bring these rows of the vectors (N, D) to disk, as the file's rows from ``first`` on."""
        portions = (vectors[some] for some in pieces(rows))
        _vector_file.write_rows(self.path / file, portions, first=first, dimension=vectors.shape[1])


# Labels that can be changed, with the fields that hold them.
_FIELDS = {"sources": "source", "identities": "identity", "cameras": "camera", "times": "time"}


def _more_with(row: Row, changes: dict[str, Any], index: int) -> str | None:
    """An item's tracklet and own labels with these in the place of former ones."""
    item = row.item
    tracklet = changes.pop("tracklet", item.tracklet)
    return more(tracklet, {**item.labels, **changes}, index)


def _hit(item: Item, score: float) -> Hit:
    return Hit(
        item.id,
        item.source,
        item.identity,
        item.camera,
        item.time,
        max(-1.0, min(1.0, score)),
        content=item.content,
        tracklet=item.tracklet,
        labels=item.labels,
    )


def _group(kind: GroupBy, num_items: int, hits: tuple[Hit, ...]) -> Group:
    label = hits[0].identity if kind == "identity" else hits[0].tracklet
    return Group(kind, label, num_items, hits)


def _decoded(encoder: str | None) -> dict[str, Any] | None:
    return None if encoder is None else dict(json.loads(encoder))


def _check_place(path: Path, create: bool) -> None:
    try:
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file; a gallery is a folder")
        # Listed once: another process may be making the gallery just now.
        contents = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
        if FILE in contents:
            return
    except OSError as error:  # a name too long, a loop of links, no permission
        raise DataError(f"{shortened(str(path))} cannot be opened: {error.strerror}") from error
    if contents:
        raise DataError(
            f"{path} is not a gallery: it holds {', '.join(contents[:3])}{', ...' if contents[3:] else ''} "
            f"but no {FILE}; choose another folder"
        )
    if not create:
        raise no_gallery(path)
