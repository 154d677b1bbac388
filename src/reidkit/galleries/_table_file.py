"""The SQLite file of a gallery: opened with care, its transactions, and its one row of state.

A gallery travels, so that its SQLite file is data that may be damaged or hostile. Nothing of it is used
before its tables are those that are made here, word for word (no trigger, view or column besides), its one
row of state fits its checksum and its limits, and no file beside it leads elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from reidkit.errors import DataError
from reidkit.galleries import _columns_table, _decisions_table, _thumbnails_table
from reidkit.galleries._errors import NoGallery, UnavailableGallery
from reidkit.galleries._records import FILE, FORMAT, STATE_COLUMNS, TABLES, State
from reidkit.galleries._storage import Storage
from reidkit.galleries._vector_file import check_regular, new_name

APPLICATION_ID = 0x52454944  # "REID", in the header of the SQLite file
LOCK_SECONDS = 10.0
LONGEST = 2**20  # bytes of one text; a label or an encoder's description is far shorter

REASONS = {
    "SQLITE_BUSY": "another process is writing to it; try again when that has finished",
    "SQLITE_READONLY": "it cannot be written to; check the permissions of the folder and its files; "
    f"where they allow it, {FILE} is damaged",
    "SQLITE_PERM": "it cannot be opened; check the permissions of the folder and its files",
    "SQLITE_FULL": "the disk is full; nothing was changed",
    "SQLITE_IOERR": "reading or writing failed; check the disk, and its quota; nothing was changed",
    "SQLITE_CANTOPEN": f"{FILE} cannot be opened or made; check the permissions of the folder",
    "SQLITE_NOTADB": f"{FILE} is damaged or not made by reidkit",
    "SQLITE_NOMEM": "there is not enough memory",
}
OPTIONAL = (_columns_table.TABLE, _decisions_table.TABLE, _thumbnails_table.TABLE)
"""Tables that are made when there is something to write to them."""

# Bugs of ours, which are not to look like a user's mistake.
OURS = ("SQLITE_ERROR", "SQLITE_MISUSE", "SQLITE_RANGE")
DAMAGED = f"{FILE} is damaged; put a copy in its place, or fill a new gallery"


_connecting = threading.Lock()
_connected: weakref.WeakSet[TableFile] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_connected.clear)  # a lock in it may be held by a thread left behind


class TableFile:
    """A gallery's SQLite file. Threads may share one object; methods are called within a transaction."""

    def __init__(self, folder: Path, *, create: bool, storage: Storage) -> None:
        self.folder, self._storage = folder, storage
        self._lock, self._turn = threading.RLock(), threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        for suffix in ("", "-journal", "-wal", "-shm"):
            check_regular(folder / f"{FILE}{suffix}")
        _check_journal(folder / f"{FILE}-journal")
        try:
            with self._errors(ours=()):  # "unsupported file format" has the code of our own mistakes
                self._connect()
                self._open(create)
        except BaseException:
            self.close()
            raise

    @property
    def db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise DataError(f"{self.folder} is closed; open it again")
        return self._connection

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    # --- transactions -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def transaction(self, begin: str) -> Iterator[None]:
        """All that is done within, or, where an error is raised, none of it."""
        with self._lock, self._errors():
            self.db.execute(begin)
            try:
                self._check_place()
                yield
                self.db.execute("COMMIT")
            finally:
                if self._connection is not None and self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def reading(self) -> Iterator[State]:
        """What is read within is of one revision; no writer commits meanwhile, so keep it short.

        Within another transaction of the same thread, it is of that.
        """
        with self._lock:
            inner = self._connection is not None and self._connection.in_transaction
            with contextlib.nullcontext() if inner else self._reading_in_turn():
                yield self.state()

    @contextlib.contextmanager
    def _reading_in_turn(self) -> Iterator[None]:
        with self._turn, self.transaction("BEGIN"):
            yield

    def write_anew(self) -> None:
        """Write the whole file anew: what earlier versions deleted may still stand in its free places."""
        with self._lock, self._errors():
            self.db.execute("VACUUM")

    @contextlib.contextmanager
    def _errors(self, ours: Sequence[str] = OURS) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            code = "_".join(getattr(error, "sqlite_errorname", "").split("_")[:2])
            if code in ours or isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
                raise
            raise UnavailableGallery(f"{self.folder}: {REASONS.get(code, DAMAGED)}") from error

    # --- opening ------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """Open the file, once it is sure that it has no log.

        Whoever closes a file takes away all locks that the process has on it, on systems of POSIX: so it is
        not looked at beside connections that this process has.

        All of these read in turn. SQLite lets a connection join the read lock that another of its process
        has, so that threads which overlap would never let go of it, and other processes wait for ever.
        """
        place = self.folder / FILE
        with _connecting:
            if not any(table.is_of(_identity(place)) for table in _connected):
                _check_no_log(self.folder)
            self._connection = sqlite3.connect(
                place, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._file = _identity(place)
            beside = (table._turn for table in _connected if table.is_of(self._file))
            self._turn = next(beside, self._turn)
            _connected.add(self)

    def is_of(self, file: tuple[int, int] | None) -> bool:
        """Whether this is an open connection to the file of this identity."""
        return self._connection is not None and file is not None and self._file == file

    def _open(self, create: bool) -> None:
        db = self.db
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA cell_size_check = ON")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        # EXTRA brings the folder to disk with each commit, a new vectors file's name with it.
        db.execute("PRAGMA synchronous = EXTRA")
        # A large transaction must not lock readers out before it commits.
        db.execute("PRAGMA cache_spill = OFF")
        db.execute("PRAGMA temp_store = MEMORY")
        # What is deleted is overwritten: a person who is forgotten is not to be found in the file.
        db.execute("PRAGMA secure_delete = ON")
        # Not even begun, or by one who was killed; with vectors beside it, the table was emptied.
        is_new = self._pragma("page_count") == 0 and not any(self.folder.glob("vectors*"))
        if is_new and not create:
            raise no_gallery(self.folder)
        if is_new:
            with self.transaction("BEGIN IMMEDIATE"):
                if self._pragma("schema_version") == 0:  # nobody else was faster
                    self.create_tables(State(0, new_name(self._storage), 0, 0, 1, None, None))
        self.format = self.check_tables()
        db.execute("CREATE TEMP TABLE wanted (list INTEGER, value)")

    def _check_place(self) -> None:
        """Raise :class:`DataError` where the open file is no longer at its place: writes would be lost."""
        if not self.is_of(_identity(self.folder / FILE)):
            raise UnavailableGallery(
                f"{self.folder} was moved, deleted or replaced since it was opened; open it again"
            )

    def create_tables(self, state: State, *, in_memory: bool = False) -> None:
        """Make the tables; ``in_memory``, in front of those of the file, for this connection alone."""
        for statement in (*TABLES[FORMAT], *(OPTIONAL if in_memory else ())):
            if in_memory:
                temporary = statement.replace("CREATE TABLE", "CREATE TEMP TABLE")
                statement = temporary.replace("CREATE INDEX ", "CREATE INDEX temp.")
            self.db.execute(statement)
        if not in_memory:
            self.db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.db.execute(f"PRAGMA user_version = {FORMAT}")
        self.db.execute("INSERT INTO gallery VALUES (?, ?, ?, ?, ?, ?, ?, ?)", state.values())

    def check_tables(self) -> int:
        """The format of a file whose tables are exactly those of that format."""
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application != APPLICATION_ID:
            raise DataError(f"{self.folder}: {FILE} is not a gallery's: empty or not made by reidkit")
        if version not in TABLES:
            raise DataError(
                f"{self.folder} has format {version}; this version of reidkit reads format {FORMAT}: update "
                f"it, or, if no later one wrote the gallery, {FILE} is damaged"
            )
        found = self.db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL LIMIT 9").fetchall()
        tables = [str(sql) for (sql,) in found]
        encoding = self.db.execute("PRAGMA encoding").fetchone()[0]
        optional = set(OPTIONAL) if version == FORMAT else set()
        if set(tables) - optional != set(TABLES[version]) or encoding != "UTF-8":
            raise DataError(
                f"{self.folder}: {FILE} holds other tables than reidkit makes; it is damaged or not made by "
                "reidkit"
            )
        return version

    def _pragma(self, name: str) -> int:
        return int(self.db.execute(f"PRAGMA {name}").fetchone()[0])

    # --- the state ----------------------------------------------------------------------------------------

    def state(self) -> State:
        """The row of state, checked."""
        rows = self.db.execute("SELECT * FROM gallery LIMIT 2").fetchall()
        if len(rows) != 1:
            raise DataError(f"{self.folder}: {DAMAGED}")
        state = State(*rows[0][:-1])
        fault = state.fault()
        if fault is not None:
            raise DataError(f"{self.folder}: {FILE} is damaged or not made by reidkit: {fault}")
        if state.values() != rows[0]:
            raise DataError(f"{self.folder}: {DAMAGED}")
        return state

    def record(self, after: State) -> None:
        """Record the state as it is now."""
        self.db.execute(f"UPDATE gallery SET ({STATE_COLUMNS}) = (?, ?, ?, ?, ?, ?, ?, ?)", after.values())


def no_gallery(folder: Path) -> NoGallery:
    return NoGallery(f"there is no gallery at {folder}; check the path, or fill one first")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another; ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_no_log(folder: Path) -> None:
    """Refuse a write-ahead log: SQLite drops, without a word, what comes after a damaged place in it."""
    try:
        with (folder / FILE).open("rb") as file:
            header = file.read(20)
        has_log = header[18:] == b"\2\2" or (folder / f"{FILE}-wal").stat().st_size > 0
    except OSError:  # there is none; or it cannot be read, which SQLite says better
        return
    if has_log:
        raise DataError(
            f"{folder}: {FILE} was given a write-ahead log by another program, in which damage goes unseen; "
            f"take it out with `sqlite3 {FILE} 'PRAGMA journal_mode = DELETE'`, or put a copy in its place"
        )


def _check_journal(path: Path) -> None:
    """Refuse a journal that names a second one: SQLite would delete that file, wherever it is."""
    magic = bytes.fromhex("d9d505f920a163d7")  # ends a journal's name of another, in SQLite's format
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size > len(magic):
                file.seek(size - len(magic))
                if file.read() == magic:
                    raise DataError(
                        f"{path} is not of reidkit's making; put a copy of the gallery in its place"
                    )
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
