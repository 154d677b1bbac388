"""Connections to a PostgreSQL server: transactions that are tried again, and its errors in one line.

A write carries a key that is stored in the same transaction. Where the connection is lost, nobody knows
whether the server has committed: the next try looks for the key, and what is there is not done twice.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import psycopg
from pgvector.psycopg import register_vector
from psycopg import sql

from reidkit.errors import DataError, short
from reidkit.galleries import DamagedGallery, NoGallery, UnavailableGallery
from reidkit.galleries._postgres.address import Address
from reidkit.logs import get_logger

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
T = TypeVar("T")
logger = get_logger(__name__)

MOST_CONNECTIONS = 8  # of one gallery object; further threads wait for one
PATIENCE = 60.0  # seconds in which a server that was there may come back
SILENCE = 3.0  # of them, after which whoever waits is told
NUM_TRIES = 20  # of transactions that others were in the way of
OLDEST_PGVECTOR = (0, 8)  # the first that goes on scanning where a filter leaves too few

# What our statements rest on, whatever the server's settings are: compiling a search takes longer than doing
# it, a client that is gone holds nobody up, and what is committed is on disk.
_SETTINGS = """SELECT set_config('search_path', %s, false), set_config('jit', 'off', false),
    set_config('idle_in_transaction_session_timeout', '60s', false),
    set_config('synchronous_commit', CASE WHEN level IN ('off', 'local') THEN 'on' ELSE level END, false)
    FROM (SELECT current_setting('synchronous_commit') AS level) AS now"""
_KEEP_KEY = "INSERT INTO writes (key) VALUES (%s) ON CONFLICT DO NOTHING"
# Those that nobody asks for any more; without waiting for others who do the same.
_FORGET_KEYS = """DELETE FROM writes WHERE key IN (SELECT key FROM writes
    WHERE at < now() - interval '1 hour' LIMIT 1000 FOR UPDATE SKIP LOCKED)"""
_IN_THE_WAY = ("40001", "40P01", "23505")  # serialisation, deadlock, a source that another just added
_COMING_UP = ("starting up", "shutting down", "recovery mode", "not yet accepting")

# What the server says by its code, in our words. Whatever is not listed here is a mistake of ours.
_REASONS = {
    "53100": "the server's disk is full; nothing was changed: make room there",
    "53200": "the server is out of memory; nothing was changed",
    "53300": "the server has no connection left; close others, or raise its max_connections",
    "53400": "the server's limit was reached ({text}); nothing was changed",
    "54000": "the server's limit was reached ({text}); nothing was changed",
    "54023": "the server's limit was reached ({text}); nothing was changed",
    "55P03": "others hold what is needed for longer than the server's lock_timeout; nothing was changed",
    "57014": "the server ended the statement ({text}); nothing was changed: raise its statement_timeout, "
    "as by ALTER ROLE {user} SET statement_timeout = '60s'",
    "25P03": "the server ended the transaction ({text}); nothing was changed",
    "25P04": "the server ended the transaction ({text}); nothing was changed",
    "25006": "the server takes no changes: it is a standby, or set to read only ({text})",
    "42501": "the user {user} may not do this ({text}); ask the server's administrator for the right",
    "58030": "the server cannot read or write its files ({text}); nothing was changed",
    "58P01": "the server misses a file ({text})",
    "3F000": "the gallery is not there any more; open it again",
    "42P01": "the gallery is not there any more, or its tables were changed ({text})",
    "42703": "its tables were changed by another program ({text})",
}
_CORRUPTED = ("XX000", "XX001", "XX002")


class Server:
    """A gallery's connections, at most :data:`MOST_CONNECTIONS`. Threads may share one object."""

    def __init__(self, address: Address, *, create: bool) -> None:
        self.address, self._create = address, create
        self._idle: list[Connection] = []
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._open = True
        self._vector_schema: str | None = None
        self._adapted: Connection | None = None  # the first, from which others learn the type of vectors
        self._was_there = False

    @property
    def schema(self) -> sql.Identifier:
        return sql.Identifier(self.address.schema)

    def close(self) -> None:
        self._open = False
        while self._idle:
            self._idle.pop().close()

    # --- transactions -------------------------------------------------------------------------------------

    def read(self, work: Callable[[Connection], T]) -> T:
        """Do what only reads, all of it of one moment."""
        return self._try_again(work, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do all of a change or, where an error is raised, none of it; never twice."""
        key, result = uuid.uuid4(), list[T]()

        def attempt(connection: Connection) -> T:
            if connection.execute(_KEEP_KEY, (key,)).rowcount:
                connection.execute(_FORGET_KEYS)
                result[:] = [work(connection)]
            return result[0]

        return self._try_again(attempt, "BEGIN")

    def outside(self, *statements: sql.SQL) -> None:
        """What cannot be part of a transaction, such as VACUUM."""

        def work(connection: Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        self._try_again(work, None)

    def setup(self, work: Callable[[Connection], T]) -> T:
        """A change before the tables are there."""
        return self._try_again(work, "BEGIN")

    def _try_again(self, work: Callable[[Connection], T], begin: str | None) -> T:
        tries, deadline = 0, time.monotonic() + PATIENCE
        silent_until = time.monotonic() + SILENCE
        while True:
            try:
                with self._connection() as connection, _transaction(connection, begin):
                    return work(connection)
            except psycopg.Error as error:
                if _is_lost(error) and self._was_there and time.monotonic() < deadline:
                    logger.debug("%s: the connection was lost, it is made anew", self.address)
                    if time.monotonic() > silent_until:
                        left = deadline - time.monotonic()
                        logger.warning("%s: the server is gone; trying for %.0f s more", self.address, left)
                        silent_until = deadline
                    time.sleep(0.1)
                elif error.sqlstate in _IN_THE_WAY and tries < NUM_TRIES:
                    tries += 1
                    time.sleep(random.random() * 0.01 * tries)
                else:
                    raise self.told(error) from error

    # --- connections --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """One that nobody else uses meanwhile; it is kept where it is still good."""
        with self._slots:
            if not self._open:
                raise DataError(f"{self.address} is closed; open it again")
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                yield connection
            finally:
                status = connection.info.transaction_status
                if self._open and status == psycopg.pq.TransactionStatus.IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()

    def _connect(self) -> Connection:
        defaults = {"connect_timeout": 10, "application_name": "reidkit"}
        options = {**defaults, **self.address.connection, "client_encoding": "utf-8"}
        connection = psycopg.connect(**options, autocommit=True, context=self._adapted)
        try:
            if self._vector_schema is None:
                self._vector_schema = _schema_of_pgvector(connection, self.address, create=self._create)
            if self._adapted is None:
                register_vector(connection)
                self._adapted = connection
            path = sql.SQL(", ").join([self.schema, sql.Identifier(self._vector_schema)])
            connection.execute(_SETTINGS, (path.as_string(connection),))
        except BaseException:
            connection.close()
            raise
        self._was_there = True
        return connection

    # --- errors -------------------------------------------------------------------------------------------

    def told(self, error: psycopg.Error) -> Exception:
        """The server's error in our words, in one line and without a password; bugs of ours as they are."""
        text = self._without_password(short(error, 200))
        user = str(self.address.connection.get("user", "of this system"))
        code = error.sqlstate or ""
        if code in _CORRUPTED:
            return DamagedGallery(f"{self.address}: the server's files are damaged: {text}")
        if code in _REASONS:
            return UnavailableGallery(f"{self.address}: {_REASONS[code].format(text=text, user=user)}")
        if code and isinstance(error, psycopg.OperationalError) and not _is_lost(error):
            return UnavailableGallery(f"{self.address}: the server says: {text}; nothing was changed")
        if _is_lost(error) or isinstance(error, psycopg.OperationalError):
            return UnavailableGallery(f"{self.address}: {self._why_there_is_no_connection(text, user)}")
        return error

    def _why_there_is_no_connection(self, text: str, user: str) -> str:
        address, lower = self.address, text.lower()
        if "password" in lower and ("failed" in lower or "no password" in lower):
            return (
                f"the server refuses the user {user} or the password; give it in the address "
                "(user:password@host), in ~/.pgpass or as PGPASSWORD"
            )
        if "database" in lower and "does not exist" in lower:
            return f"the server has no database {address.database}; make it with createdb, or name another"
        if "role" in lower and "does not exist" in lower:
            return f"the server knows no user {user}; name another in the address"
        if "FATAL" in text and not any(sign in text for sign in _COMING_UP):
            return f"the server refuses the connection: {text.rpartition('FATAL:')[2].strip()}"
        if self._was_there:
            return f"the server is gone, and did not come back within {PATIENCE:.0f} s: {text}"
        return f"no PostgreSQL server answers at {address.server}: {text}; check host, port and that it runs"

    def _without_password(self, text: str) -> str:
        password = self.address.connection.get("password")
        return text.replace(password, "***") if password else text


@contextlib.contextmanager
def _transaction(connection: Connection, begin: str | None) -> Iterator[None]:
    """All that is done within, or none of it; with no beginning, each statement by itself."""
    if begin is None:
        yield
        return
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise


def _is_lost(error: psycopg.Error) -> bool:
    """Whether there is no server any more, or not yet, as opposed to one that answers with an error."""
    code = error.sqlstate or ""
    if code.startswith("08") or code in ("57P01", "57P02", "57P03", "57P05"):
        return True
    if code or not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    text = str(error)
    return "FATAL" not in text or any(sign in text for sign in _COMING_UP)


def _schema_of_pgvector(connection: Connection, address: Address, *, create: bool) -> str:
    """Where the extension is, which is made where it is not yet."""
    find = (
        "SELECT nspname, extversion FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace "
        "WHERE extname = 'vector'"
    )
    found = connection.execute(find).fetchone()
    if found is None and not create:
        raise NoGallery(
            f"there is no gallery at {address}, nor pgvector; check the address, or fill one first"
        )
    if found is None:
        try:
            with contextlib.suppress(psycopg.errors.UniqueViolation):  # another made it just now
                connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.errors.InsufficientPrivilege:
            raise DataError(
                f"{address}: the database has no pgvector, and the user may not create it; ask its "
                "administrator for CREATE EXTENSION vector"
            ) from None
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
            raise DataError(
                f"{address}: the server has no pgvector; install it there (package postgresql-NN-pgvector), "
                "then CREATE EXTENSION vector"
            ) from None
        found = connection.execute(find).fetchone()
    if found is None:
        raise DataError(f"{address}: the database has no pgvector; run CREATE EXTENSION vector there")
    schema, version = found
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_PGVECTOR:
        oldest = ".".join(map(str, OLDEST_PGVECTOR))
        raise DataError(
            f"{address}: the database has pgvector {version}; {oldest} or later is needed: update it, then "
            "ALTER EXTENSION vector UPDATE"
        )
    return str(schema)
