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
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, did_you_mean, shortened, shown
from reidkit.galleries import _approximate, _decisions_table, _format_1, _index_file, _thumbnails_table
from reidkit.galleries._adding import Placed
from reidkit.galleries._contract import Addition, Gallery, Search
from reidkit.galleries._decisions import Decision, carried_out
from reidkit.galleries._errors import DamagedGallery
from reidkit.galleries._given import check_recall
from reidkit.galleries._group_commit import GroupCommit
from reidkit.galleries._items import Group, Hit, Item, Verification
from reidkit.galleries._items_table import ItemsTable
from reidkit.galleries._origin import check_encoder
from reidkit.galleries._records import FILE, Row, State
from reidkit.galleries._searching import Searching
from reidkit.galleries._selecting import Selecting
from reidkit.galleries._storage import STORAGES, Storage, Words, num_words, storage_of
from reidkit.galleries._table_file import no_gallery
from reidkit.galleries._vectors import Vectors, floats_of, names
from reidkit.galleries._where import Where
from reidkit.registry import register

if TYPE_CHECKING:
    from reidkit.progress import ProgressCallback


@register("gallery", "embedded")
class EmbeddedGallery(Gallery):
    """A gallery in one folder, for one machine; see :class:`reidkit.galleries.Gallery` for the verbs.

    Search is exact: scores are computed in float32 block by block, and whatever rounding could have moved
    into or out of the ``top`` is computed again in float64. Hits of equal score stand in the order in
    which their embeddings were written.

    One process writes at a time; another waits for 10 seconds, then gets a :class:`DataError`. Any number
    may read meanwhile, and see each change as soon as it is committed. Threads may share one object; what
    several of them add at the same time is brought to disk together. A
    removed or replaced item's vector stays in the file until :meth:`compact`.

    ``storage`` is chosen when the gallery is made: "float32", "float16" of half the bytes, or "int8", of
    which a search reads a quarter (:mod:`reidkit.galleries._storage`). Scores are always those of what is
    stored.

    Checksums of vectors are compared when they are first searched, once in a process, and again for what
    is added; labels are with each item that is told, and as a whole before anything rests on all of them.

    A gallery of format 1, made by reidkit 0.1, is converted when it is opened, all at once or not at all;
    ``converted`` says so. In a place that cannot be written to, that is done in memory and a temporary file.

    Raises:
        NoGallery: there is none and ``create`` is false.
        ConfigError: there is one that stores its vectors otherwise than ``storage`` says.
        DataError: the path is a file, or a folder of something else; the gallery is damaged, is not one
            that reidkit makes, or was filled by another encoder.
    """

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        encoder: Mapping[str, Any] | None = None,
        storage: Storage | None = None,
    ) -> None:
        if storage is not None and storage not in STORAGES:
            near = did_you_mean(shown(storage), STORAGES)
            raise ConfigError(f"storage is {shown(storage)};{near} Allowed: {', '.join(STORAGES)}")
        if not path:
            raise ConfigError("location is 'embedded://', without a folder; write it behind, or alone")
        self.path = Path(path)
        self._temporary: TemporaryDirectory[str] | None = None
        _check_place(self.path, create)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {self.path}: {error.strerror}") from error
        self._table = ItemsTable(self.path, create=create, storage=storage or STORAGES[0])
        try:
            self.converted = self._table.format == 1
            if self.converted:
                self._temporary = _format_1.convert(self._table)
            self._vectors = Vectors(Path(self._temporary.name) if self._temporary else self.path)
            self._selecting = Selecting(self._table, self._vectors)
            self._searching = Searching(self._table, self._vectors, self._selecting)
            self._additions = GroupCommit(self._add_all)
            if encoder is not None:
                self._settle_encoder(encoder)
            with self._table.reading() as state:  # checks it
                stored = storage_of(state.vectors)
            if storage not in (None, stored):
                raise ConfigError(
                    f"{self.path} stores {stored}, not {storage}, which is chosen when a gallery is made: "
                    "leave storage out, or fill a new gallery"
                )
        except BaseException:
            self._table.close()
            if self._temporary is not None:
                self._temporary.cleanup()
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

    @property
    def location(self) -> str:
        return str(self.path)

    def _add(self, addition: Addition) -> NDArray[np.int64]:
        return self._additions.do(addition)

    def _add_all(self, additions: list[Addition]) -> list[NDArray[np.int64] | Exception]:
        """Bring additions to disk in one transaction; the ids of each, or why it was left out."""
        labels = (label for addition in additions for label in addition.labels)
        named = [label.source for label in labels if label.source is not None]
        if named:
            self._check_items()
        with self._writing() as state:
            if named:
                self._table.check_all(state)
            there = self._table.among(state, "source", named) if named else []
            placed = Placed.after(state, there, self.location)
            answers = [placed.try_add(addition) for addition in additions]
            if placed.vectors:
                self._vectors.append(state, placed.vectors, placed.state.dimension or 0)
                self._table.put(placed.items.values())
                _thumbnails_table.put(self._table.db, placed.thumbnails)
                # Decisions are on pictures: one that is another now was not decided on.
                self._table.forget_decisions(placed.others)
                self._table.set_state(placed.state)
        return answers

    def _search(self, search: Search) -> list[list[Hit]] | list[list[Group]]:
        if search.origin is not None:
            with self._table.reading() as state:
                if state.encoder is not None:
                    self._check_encoder(state, search.origin)
        return self._searching.search(search)

    def _relabel(
        self, ids: list[int], changes: list[dict[str, Any]], thumbnails: dict[int, bytes | None]
    ) -> None:
        self._check_items()
        with self._writing() as state:
            rows = [
                row.changed(changes[index], index)
                for index, row in enumerate(self._selecting.by_id(state, ids))
            ]
            named = [row.source for row in rows if row.source is not None]
            taken = [row for row in self._table.among(state, "source", named) if row.id not in set(ids)]
            if taken or len(set(named)) < len(named):
                name = taken[0].source if taken else next(n for n in named if named.count(n) > 1)
                raise DataError(f"two items would have the source {name!r}; nothing was changed")
            self._table.put(rows)
            _thumbnails_table.put(self._table.db, thumbnails)
            self._table.set_state(state)

    def _thumbnails(self, ids: list[int]) -> dict[int, bytes]:
        with self._table.reading() as state:
            found, wrong = _thumbnails_table.read(self._table.db, ids)
            if wrong:
                rows = self._table.among(state, "id", wrong)
                raise self._table.damage(f"the thumbnails of {len(wrong)} of {state.num_items} items", rows)
            return found

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        if ids is None and where is None:
            raise ConfigError("remove needs ids= or where=; where={} removes everything")
        with self._writing() as state:
            rows = self._selecting.items(state, ids, where)
            doomed = {row.id for row in rows}
            self._table.delete(doomed)
            self._table.forget_decisions(doomed, {row.identity for row in rows})
            self._table.set_state(state, num_items=state.num_items - len(doomed))
        return len(doomed)

    def _decide(self, decisions: list[Decision]) -> list[Decision]:
        named = {id for decision in decisions for id in decision.items}
        with self._writing() as state:
            rows = {row.id: row for row in self._table.among(state, "id", named)}
            identities = {id: row.identity for id, row in rows.items()}
            number = _decisions_table.next_id(self._table.db)
            kept, changed = carried_out(decisions, identities, next_id=number)
            self._table.put([replace(rows[id], identity=identity) for id, identity in changed.items()])
            _decisions_table.put(self._table.db, kept)
            self._table.set_state(state)
        return kept

    def decisions(self) -> list[Decision]:
        with self._table.reading():
            return _decisions_table.read(self._table.db)

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        with self._table.reading() as state:
            return [row.item for row in self._selecting.items(state, ids, where)]

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        with self._table.reading() as state:
            rows = np.array([row.row for row in self._selecting.items(state, ids, where)], np.int64)
            words = self._vectors.words(state)
            self._table.refuse(self._vectors.damaged(state, words, np.unique(rows)), state)
            return np.array(floats_of(words, state)[rows], np.float32)

    def verify(self) -> Verification:
        with self._table.reading() as state:
            self._table.check_structure()
            _decisions_table.read(self._table.db)
            labels = [row.id for row in self._table.damaged(state)]
            if labels:
                return Verification(state.num_items, labels=tuple(labels))
            items = {row.row: row for row in self._table.all(state)}
            self._table.columns.verify(items)
            numbers = np.array(sorted(items), np.int64)
            vectors = self._vectors.damaged(state, self._vectors.words(state), numbers)
            return Verification(
                state.num_items,
                vectors=tuple(sorted(items[row].id for row in vectors.tolist())),
                thumbnails=tuple(_thumbnails_table.damaged(self._table.db)),
            )

    def repair(self, *, drop: bool = False) -> tuple[int, ...]:
        with self._writing() as state:
            self._table.mend_indexes()
            self._table.columns.clear()  # they are made anew
            labels = [row.id for row in self._table.damaged(state)]
            self._table.delete(labels)
            num_rows = min(state.num_rows, self._vectors.num_whole_rows(state))
            words = self._vectors.words(replace(state, num_rows=num_rows))
            items = self._table.all(replace(state, num_items=self._table.count()))
            within = np.array([row.row for row in items if row.row < num_rows], np.int64)
            whole = set(within.tolist()) - set(self._vectors.damaged(state, words, within).tolist())
            pictures = set(_thumbnails_table.damaged(self._table.db))
            whole -= {row.row for row in items if row.id in pictures}
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
                changes |= self._rewritten(state, words, [row for row in items if row.row in whole])
            self._table.set_state(state, **changes)
        self._vectors.untidy()
        return dropped

    def info(self) -> dict[str, Any]:
        """The keys that all engines have, ``storage`` of the vectors, ``bytes`` on disk, ``searched_bytes``
        that a search without a filter reads, ``num_dead_rows`` that compact() drops, ``converted`` where it
        was of format 1 when it was opened; ``index``, and the ``recall`` measured when it was built."""
        with self._table.reading() as state:
            snapshot = self._selecting.snapshot(state)
            files = [self.path / FILE, *(self._vectors.folder / name for name in names(state))]
            files.append(self.path / _index_file.name_of(state.vectors))
            index = self._searching.index(snapshot)
            return {
                "engine": "embedded",
                "location": str(self.path),
                "num_items": state.num_items,
                "dimension": state.dimension,
                "encoder": _decoded(state.encoder),
                "num_thumbnails": _thumbnails_table.count(self._table.db),
                "storage": storage_of(state.vectors),
                "searched_bytes": 8 * num_words(state.vectors, state.dimension or 0) * state.num_rows,
                "bytes": sum(file.stat().st_size for file in files if file.exists()),
                "num_dead_rows": state.num_rows - state.num_items,
                "converted": self.converted,
                "index": "exact" if index is None else "hnsw",
                **({} if index is None else {"recall": index.about.recall_told(state.num_rows)}),
            }

    def compact(self, *, erase: bool = False) -> int:
        """Write the vectors anew without those of removed and replaced items; how many these were.

        Needs room on disk for the new file beside the old one, and for the table's with ``erase``. Ids stay.
        """
        self._vectors.untidy()
        with self._writing() as state:
            snapshot = self._selecting.snapshot(state)
            self._table.refuse(self._vectors.damaged(state, snapshot.words, snapshot.rows), state)
            rows = self._table.all(state)
            self._table.set_state(state, **self._rewritten(state, snapshot.words, rows))
        self._vectors.untidy()
        # The old file goes now, or with the next that writes. Whoever still reads it has it open.
        with contextlib.nullcontext() if erase else contextlib.suppress(DataError), self._writing():
            pass
        if erase:
            self._table.write_anew()
        return state.num_rows - len(rows)

    def build_index(
        self, *, min_recall: float = 0.0, sample: int = 100, progress: ProgressCallback | None = None
    ) -> float:
        """As every engine's; from then on searches without a condition use it (:mod:`_approximate`).

        It is of the vectors as they are: what is added later is searched exactly beside it, and
        :meth:`compact` drops it. Needs as much memory as it takes on disk, a byte a number and 150 an item.
        """
        check_recall(min_recall, sample)
        with self._table.reading() as state:
            snapshot = self._selecting.snapshot(state)
        if not len(snapshot.rows):
            raise DataError(f"{self.path} is empty; add embeddings first, then build the index over them")
        if self._temporary is not None:
            raise DataError(f"{self.path} cannot be written to; check the permissions of the folder")
        self._table.refuse(self._vectors.newly_damaged(snapshot), state)
        about = _approximate.build(
            snapshot, self.path, min_recall=min_recall, sample=sample, progress=progress
        )
        with self._table.reading() as now:
            if now.vectors != state.vectors:
                self._vectors.untidy()  # the next that writes deletes it
                raise DataError(f"{self.path} was compacted while the index was built; build it again")
        return about.recall

    def drop_index(self) -> None:
        with self._writing() as state:
            _index_file.delete(self.path / _index_file.name_of(state.vectors))
        self._searching.forget()

    def __len__(self) -> int:
        with self._table.reading() as state:
            return state.num_items

    def close(self) -> None:
        self._searching.forget()
        self._vectors.forget()
        self._selecting.forget()
        self._table.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __repr__(self) -> str:
        return f"EmbeddedGallery({str(self.path)!r})"

    # --- its encoder, and changes -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[State]:
        with self._table.writing() as state:
            if self._temporary is not None:
                raise DataError(f"{self.path} cannot be written to; check the permissions of the folder")
            self._vectors.tidy(state)  # nobody else writes now
            yield state

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        with self._table.reading() as state:
            recorded = self._check_encoder(state, encoder)
        if recorded is None:
            self._record(encoder)
        elif recorded != {**recorded, **encoder}:  # the same encoder in a new place
            with contextlib.suppress(DataError):  # which can be told again where the gallery is read-only
                self._record({**recorded, **encoder})

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

    def _rewritten(self, state: State, words: dict[str, Words], rows: list[Row]) -> dict[str, Any]:
        """Give these items, ascending by row, a new file of vectors; the changes of the state."""
        file = self._vectors.write_anew(state, words, rows)
        # In ascending order a new number is never one that another item still has.
        self._table.put(replace(row, row=number) for number, row in enumerate(rows))
        return {"vectors": file, "num_rows": len(rows)}


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
