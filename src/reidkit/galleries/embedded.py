"""The gallery in a folder: vectors in a memory-mapped file, labels in SQLite, exact search.

``vectors.f32`` holds unit rows, little-endian float32, one after the other; ``items.sqlite`` says which
rows count and what they show. SQLite is the authority. Vectors are appended and brought to disk first,
then their items are committed in one transaction: after a crash in between, the rows that no item names
are overwritten by the next add. A row number is never used again within one file, and :meth:`compact`
writes another file, so that a reader never takes one item's vector for another's.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import ConfigError, DataError, did_you_mean
from reidkit.galleries import Hit, Item, OnDuplicate, check_encoder, unit_embeddings
from reidkit.galleries.labels import Condition, Where, check_where, label_rows
from reidkit.galleries.nearest import nearest, pieces
from reidkit.registry import register

FORMAT = 1
APPLICATION_ID = 0x52454944  # "REID", in the header of the SQLite file
LOCK_SECONDS = 10.0

SCHEMA = f"""
    CREATE TABLE gallery (
        revision INTEGER NOT NULL,  -- counts changes: what a reader holds is fresh while this is the same
        vectors TEXT NOT NULL,      -- name of the file
        num_rows INTEGER NOT NULL,  -- rows of it that were committed, those of removed items too
        next_id INTEGER NOT NULL,
        dimension INTEGER,
        encoder TEXT
    );
    CREATE TABLE items (
        id INTEGER PRIMARY KEY,
        row INTEGER NOT NULL UNIQUE,
        source TEXT UNIQUE,
        identity TEXT,
        camera INTEGER,
        time REAL
    );
    INSERT INTO gallery VALUES (0, 'vectors.f32', 0, 1, NULL, NULL);
    PRAGMA application_id = {APPLICATION_ID};
    PRAGMA user_version = {FORMAT};
"""

REASONS = {
    "SQLITE_BUSY": "another process is writing to it; try again when that has finished",
    "SQLITE_READONLY": "it cannot be written to; check the permissions of the folder and its files",
    "SQLITE_FULL": "the disk is full; nothing was changed",
    "SQLITE_IOERR": "reading or writing failed; check the disk, and its quota; nothing was changed",
    "SQLITE_CANTOPEN": "items.sqlite cannot be opened or made; check the permissions of the folder",
    "SQLITE_NOTADB": "items.sqlite is damaged or not made by reidkit",
    "SQLITE_CORRUPT": "items.sqlite is damaged; put a copy in its place, or fill a new gallery",
}


@dataclass(frozen=True, slots=True)
class _State:
    """The one row of the table ``gallery``."""

    revision: int
    vectors: str
    num_rows: int
    next_id: int
    dimension: int | None
    encoder: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Snapshot:
    """All vectors (R, D) of one revision, and the rows (K,) of items, in order; ``None`` if all rows are."""

    revision: int
    file: str
    vectors: NDArray[np.float32]
    rows: NDArray[np.int64] | None


@register("gallery", "embedded")
class EmbeddedGallery:
    """A gallery in one folder, for one machine; see :class:`reidkit.galleries.Gallery` for the verbs.

    Search is exact: scores are computed in float32 block by block, and whatever rounding could have moved
    into or out of the ``top`` is computed again in float64. Hits of equal score stand in the order in
    which their embeddings were written.

    One process writes at a time; another waits for ``LOCK_SECONDS``, then gets a :class:`DataError`.
    Any number may read meanwhile, and see each change as soon as it is committed. Threads may share one
    object. A removed or replaced item's vector stays in the file until :meth:`compact`.

    Raises:
        DataError: the path is a file, or a folder of something else; there is no gallery and ``create``
            is false; the gallery is damaged, or filled by another encoder.
    """

    def __init__(self, path: str, *, create: bool = True, encoder: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()
        self._snapshot: _Snapshot | None = None
        self._connection: sqlite3.Connection | None = None
        _check_place(self.path, create)
        try:
            self._open(create)
            if encoder is not None:
                self._settle_encoder(encoder)
            with self._reading() as state:
                self._map(state)
        except BaseException:
            self.close()
            raise

    # --- what a gallery offers ----------------------------------------------------------------------------

    @property
    def dimension(self) -> int | None:
        with self._reading() as state:
            return state.dimension

    @property
    def encoder(self) -> dict[str, Any] | None:
        with self._reading() as state:
            return _decoded(state.encoder)

    def add(
        self,
        embeddings: ArrayLike,
        *,
        sources: Sequence[str | os.PathLike[str] | None] | None = None,
        identities: Sequence[str | int | None] | NDArray[Any] | None = None,
        cameras: Sequence[int | None] | NDArray[Any] | None = None,
        times: Sequence[float | str | datetime | None] | NDArray[Any] | None = None,
        on_duplicate: OnDuplicate = "replace",
    ) -> NDArray[np.int64]:
        if on_duplicate not in (choices := ("replace", "skip", "error")):
            raise ConfigError(
                f"on_duplicate is {on_duplicate!r};{did_you_mean(on_duplicate, choices)} "
                f"Allowed: {', '.join(choices)}"
            )
        with self._writing() as state:
            vectors = unit_embeddings(embeddings, dimension=state.dimension, location=str(self.path))
            labels = label_rows(
                len(vectors), sources=sources, identities=identities, cameras=cameras, times=times
            )
            if not labels:
                return np.empty(0, np.int64)
            known = self._ids_of_sources([source for source, *_ in labels if source is not None])
            if known and on_duplicate == "error":
                raise DataError(
                    f"{self.path} holds {len(known)} of these {len(labels)} sources already, such as "
                    f"{next(iter(known))!r}; nothing was added: choose on_duplicate='replace' or 'skip'"
                )
            new_ids = itertools.count(state.next_id)
            ids = [known[source] if source in known else next(new_ids) for source, *_ in labels]
            fresh = [
                index
                for index, (source, *_) in enumerate(labels)
                if on_duplicate == "replace" or source not in known
            ]
            self._write(state.vectors, self._check_length(state), vectors, np.array(fresh, np.int64))
            self._db.executemany(
                "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)",
                ((ids[index], row, *labels[index]) for row, index in enumerate(fresh, state.num_rows)),
            )
            self._db.execute(
                "UPDATE gallery SET num_rows = num_rows + ?, next_id = ?, dimension = ?",
                (len(fresh), next(new_ids), vectors.shape[1]),
            )
        return np.array(ids, np.int64)

    def search(self, embeddings: ArrayLike, *, top: int = 10, where: Where | None = None) -> list[list[Hit]]:
        if top < 1:
            raise ConfigError(f"top is {top}; ask for 1 hit or more")
        conditions = check_where(where)
        queries = np.asarray(embeddings)
        if queries.ndim == 1:
            queries = queries[None]
        while True:
            with self._reading() as state:
                snapshot = self._map(state)
                rows = self._rows(conditions) if conditions else snapshot.rows
            queries = unit_embeddings(queries, dimension=state.dimension, location=str(self.path))
            hits = self._hits(nearest(snapshot.vectors, rows, queries, top=top), file=snapshot.file)
            if hits is not None:
                return hits

    def remove(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> int:
        if ids is None and where is None:
            raise ConfigError("remove needs ids= or where=; where={} removes everything")
        with self._writing():
            doomed = {id for (id,) in self._select("id", ids, where)}
            self._db.executemany("DELETE FROM items WHERE id = ?", ((id,) for id in doomed))
        return len(doomed)

    def items(self, *, ids: Iterable[int] | None = None, where: Where | None = None) -> list[Item]:
        with self._reading():
            return [Item(*row) for row in self._select("id, source, identity, camera, time", ids, where)]

    def embeddings(
        self, *, ids: Iterable[int] | None = None, where: Where | None = None
    ) -> NDArray[np.float32]:
        with self._reading() as state:
            rows = [row for _, row in self._select("id, row", ids, where)]
            return np.array(self._map(state).vectors[rows], np.float32)

    def info(self) -> dict[str, Any]:
        """The keys that all engines have, and ``bytes`` on disk, ``num_dead_rows`` that compact() drops."""
        with self._reading() as state:
            num_items = self._count()
            files = [self.path / "items.sqlite", self.path / state.vectors]
            return {
                "engine": "embedded",
                "location": str(self.path),
                "num_items": num_items,
                "dimension": state.dimension,
                "encoder": _decoded(state.encoder),
                "bytes": sum(file.stat().st_size for file in files if file.exists()),
                "num_dead_rows": state.num_rows - num_items,
            }

    def compact(self) -> int:
        """Write the vectors anew without those of removed and replaced items; how many these were.

        Needs room on disk for the new file beside the old one. Ids stay.
        """
        with self._writing() as state:
            vectors, rows = self._map(state).vectors, self._rows(())
            file = f"vectors-{state.revision + 1}.f32"
            self._write(file, 0, vectors, rows)
            # In ascending order a new number is never one that another item still has.
            self._db.executemany("UPDATE items SET row = ? WHERE row = ?", enumerate(rows.tolist()))
            self._db.execute("UPDATE gallery SET vectors = ?, num_rows = ?", (file, len(rows)))
        # Whoever still reads the old file has it open. Where the system forbids this, the next call does it.
        for old in self.path.glob("vectors*.f32"):
            if old.name != file:
                with contextlib.suppress(OSError):
                    old.unlink()
        return state.num_rows - len(rows)

    def __len__(self) -> int:
        with self._reading():
            return self._count()

    def close(self) -> None:
        with self._lock:
            self._snapshot = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EmbeddedGallery({str(self.path)!r})"

    # --- transactions -------------------------------------------------------------------------------------

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise DataError(f"{self.path} is closed; open it again")
        return self._connection

    def _open(self, create: bool) -> None:
        with self._errors():
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DataError(f"cannot make the folder {self.path}: {error.strerror}") from error
            self._connection = sqlite3.connect(
                self.path / "items.sqlite",
                timeout=LOCK_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            # EXTRA brings the folder to disk with each commit, a new vectors file's name with it.
            self._db.execute("PRAGMA synchronous = EXTRA")
            # A large transaction must not lock readers out before it commits.
            self._db.execute("PRAGMA cache_spill = OFF")
            if self._pragma("schema_version") == 0 and create:
                self._create()
            application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != APPLICATION_ID:
            raise DataError(f"{self.path}: items.sqlite is not a gallery's: empty or not made by reidkit")
        if version != FORMAT:
            raise DataError(
                f"{self.path} has format {version}; this version of reidkit reads format {FORMAT}: update it"
            )

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        if self._pragma("schema_version") == 0:  # nobody else was faster
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)
        self._db.execute("COMMIT")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[_State]:
        """What is read within is of one revision; no writer commits meanwhile, so keep it short."""
        with self._lock, self._errors():
            self._db.execute("BEGIN")
            try:
                yield self._state()
            finally:
                self._end()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[_State]:
        """All that is done within, or, where an error is raised, none of it."""
        with self._lock, self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._state()
                self._db.execute("UPDATE gallery SET revision = revision + 1")
                self._db.execute("COMMIT")
            finally:
                self._end()

    def _end(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
            if code not in REASONS:
                raise
            raise DataError(f"{self.path}: {REASONS[code]}") from error

    def _state(self) -> _State:
        return _State(*self._db.execute("SELECT * FROM gallery").fetchone())

    def _settle_encoder(self, encoder: Mapping[str, Any]) -> None:
        with self._reading() as state:
            self._check_encoder(state, encoder)
        if state.encoder is None:
            with self._writing() as state:
                self._check_encoder(state, encoder)
                self._db.execute("UPDATE gallery SET encoder = ?", (json.dumps(dict(encoder)),))

    def _check_encoder(self, state: _State, encoder: Mapping[str, Any]) -> None:
        check_encoder(_decoded(state.encoder), encoder, num_items=self._count(), location=str(self.path))

    # --- the table ----------------------------------------------------------------------------------------

    def _count(self) -> int:
        return int(self._db.execute("SELECT COUNT(*) FROM items").fetchone()[0])

    def _ids_of_sources(self, sources: list[str]) -> dict[str, int]:
        return dict(
            self._db.execute(
                "SELECT source, id FROM items WHERE source IN (SELECT value FROM json_each(?))",
                (json.dumps(sources),),
            )
        )

    def _rows(self, conditions: Sequence[Condition]) -> NDArray[np.int64]:
        condition, values = _sql(conditions)
        rows = self._db.execute(f"SELECT row FROM items WHERE {condition} ORDER BY row", values)
        return np.fromiter((row for (row,) in rows), np.int64)

    def _select(self, columns: str, ids: Iterable[int] | None, where: Where | None) -> list[tuple[Any, ...]]:
        """Rows of the table, ``id`` first: in the order of the ids given, or as they were written."""
        if ids is None:
            condition, values = _sql(check_where(where))
            return self._db.execute(
                f"SELECT {columns} FROM items WHERE {condition} ORDER BY row", values
            ).fetchall()
        if where is not None:
            raise ConfigError("ids and where cannot be combined; give one of them")
        wanted = [operator.index(id) for id in ids]
        selected = self._db.execute(
            f"SELECT {columns} FROM items WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(wanted),),
        )
        found = {row[0]: row for row in selected}
        unknown = [id for id in wanted if id not in found]
        if unknown:
            raise DataError(
                f"{self.path} has no item {unknown[0]} ({len(unknown)} such of {len(wanted)} ids)"
            )
        return [found[id] for id in wanted]

    def _hits(
        self, ranked: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], *, file: str
    ) -> list[list[Hit]] | None:
        """Hits of the rows found; ``None`` if another process took one of them away since."""
        rows = sorted({row for rows, _ in ranked for row in rows.tolist()})
        with self._reading() as state:
            selected = self._db.execute(
                "SELECT row, id, source, identity, camera, time FROM items "
                "WHERE row IN (SELECT value FROM json_each(?))",
                (json.dumps(rows),),
            )
            labels = {row: label for row, *label in selected}
        if state.vectors != file or len(labels) < len(rows):
            return None
        return [
            [Hit(*(*labels[row], score)) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]
            for rows, scores in ranked
        ]

    # --- the file of vectors ------------------------------------------------------------------------------

    def _map(self, state: _State) -> _Snapshot:
        """The vectors as of ``state``, mapped anew only if something changed. Call within a transaction:
        the file is not deleted before that ends."""
        if self._snapshot is not None and self._snapshot.revision == state.revision:
            return self._snapshot
        self._check_length(state)
        shape = (state.num_rows, state.dimension or 0)
        vectors: NDArray[np.float32] = np.empty(shape, np.float32)
        if state.num_rows:
            vectors = np.memmap(self.path / state.vectors, "<f4", mode="r", shape=shape).view(np.ndarray)
        rows = None if self._count() == state.num_rows else self._rows(())
        self._snapshot = _Snapshot(state.revision, state.vectors, vectors, rows)
        return self._snapshot

    def _check_length(self, state: _State) -> int:
        """Bytes of the file that items were committed for, all of which it must have."""
        file, expected = self.path / state.vectors, state.num_rows * (state.dimension or 0) * 4
        size = file.stat().st_size if file.is_file() else 0
        if size < expected:
            raise DataError(
                f"{file} has {size} bytes, but items.sqlite counts {state.num_rows} embeddings of "
                f"{state.dimension} numbers ({expected} bytes); it was cut or replaced by something else: "
                "put a copy in its place, or fill a new gallery"
            )
        return expected

    def _write(self, file: str, offset: int, vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Put these rows of the vectors (N, D) at ``offset`` of a file, which ends there or holds nothing
        of worth beyond, and bring them to disk; cut the file there again if that fails."""
        path = self.path / file
        try:
            with path.open("r+b" if path.exists() else "w+b") as stream:
                try:
                    stream.seek(offset)
                    stream.truncate()
                    for some in pieces(rows):
                        stream.write(vectors[some].astype("<f4").data)
                    stream.flush()
                    os.fsync(stream.fileno())
                except OSError:
                    os.ftruncate(stream.fileno(), offset)
                    raise
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}; the gallery is as it was") from error


def _sql(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """A condition in SQL, and the values of its question marks."""
    parts: list[str] = ["TRUE"]
    values: list[Any] = []
    for condition in conditions:
        key = condition.key
        if condition.operator in (">=", "<"):
            parts.append(f"{key} {condition.operator} ?")
            values.append(condition.values[0])
            continue
        negated = "NOT " if condition.operator == "not in" else ""
        unknown = "TRUE" if None in condition.values else "FALSE"
        listed = f"{key} IN (SELECT value FROM json_each(?))"
        parts.append(f"{negated}CASE WHEN {key} IS NULL THEN {unknown} ELSE {listed} END")
        values.append(json.dumps([value for value in condition.values if value is not None]))
    return " AND ".join(parts), values


def _decoded(encoder: str | None) -> dict[str, Any] | None:
    return None if encoder is None else dict(json.loads(encoder))


def _check_place(path: Path, create: bool) -> None:
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; a gallery is a folder")
    if (path / "items.sqlite").is_file():
        return
    contents = sorted(file.name for file in path.iterdir()) if path.is_dir() else []
    if contents:
        raise DataError(
            f"{path} is not a gallery: it holds {', '.join(contents[:3])}{', ...' if contents[3:] else ''} "
            "but no items.sqlite; choose another folder"
        )
    if not create:
        raise DataError(f"there is no gallery at {path}; check the path, or fill one first")
