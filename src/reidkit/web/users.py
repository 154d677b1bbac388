"""Users of a service, with their roles, tokens and sessions, in one SQLite file.

Passwords are kept as argon2id makes them. Tokens and session keys are 256 random bits, of which nothing can
be guessed, so that a plain SHA-256 of them is kept: looking one up must not cost what a password does.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, local
from typing import TYPE_CHECKING, Any

from reidkit.errors import ConfigError, DataError, MissingExtra, ReidError, did_you_mean, shown
from reidkit.web.roles import ALL, Actor, Role

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MIN_PASSWORD = 12
MAX_PASSWORD = 1024
FREE_ATTEMPTS = 5
"""Wrong passwords before the next attempt has to wait; then twice as long each time."""

FREE_OF_ADDRESS = 20
"""The same of an address under whatever names: many people may share one."""

LONGEST_WAIT = 900.0
"""Seconds, at most, for one name from one address."""

LONGEST_WAIT_OF_ALL = 8.0
"""Seconds, at most, for a name from all addresses, and for an address with all names: whoever tries wrong
passwords must not keep out who knows the right one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"reid_[A-Za-z0-9_-]{43}")
_HASHES_AT_ONCE = BoundedSemaphore(2)  # each takes 64 MiB
_DAY = 86400.0

_MIGRATIONS = (
    """
    CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT, created REAL NOT NULL) STRICT;
    CREATE TABLE roles (user TEXT NOT NULL REFERENCES users ON DELETE CASCADE, gallery TEXT NOT NULL,
        role INTEGER NOT NULL, PRIMARY KEY (user, gallery)) STRICT;
    CREATE TABLE tokens (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT NOT NULL REFERENCES users
        ON DELETE CASCADE, label TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, created REAL NOT NULL,
        expires REAL NOT NULL, used REAL) STRICT;
    CREATE TABLE sessions (hash TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
        csrf TEXT NOT NULL, expires REAL NOT NULL) STRICT;
    CREATE TABLE failures (key TEXT PRIMARY KEY, number INTEGER NOT NULL, last REAL NOT NULL) STRICT;
    """,
)


class WrongLogin(ReidError):
    """A name and a password that do not go together; which of them is wrong is not told."""


class TooManyAttempts(ReidError):
    """Passwords were tried too often; ``seconds`` are to be waited."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"too many wrong passwords; wait {math.ceil(seconds)} seconds before the next attempt"
        )


@dataclass(frozen=True, slots=True)
class User:
    """A user as administrators see one; times in Unix seconds."""

    name: str
    roles: Mapping[str, Role]
    has_password: bool
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """A token, which itself is shown only once."""

    id: int
    label: str
    created: float
    expires: float
    used: float | None


@dataclass(frozen=True, slots=True)
class _Limit:
    """After ``free`` wrong passwords the next has to wait, for ``longest`` seconds at most."""

    key: str
    free: int
    longest: float
    is_of_name: bool = True

    def wait(self, number: int) -> float:
        """Seconds after the last of so many wrong passwords."""
        return min(self.longest, 2.0 ** min(number - self.free + 1, 60)) if number >= self.free else 0.0


def _limits(name: str, address: str) -> tuple[_Limit, ...]:
    name = name[:64]
    return (
        _Limit(f"name {name} address {address}", FREE_ATTEMPTS, LONGEST_WAIT),
        _Limit(f"name {name}", FREE_ATTEMPTS, LONGEST_WAIT_OF_ALL),
        _Limit(f"address {address}", FREE_OF_ADDRESS, LONGEST_WAIT_OF_ALL, is_of_name=False),
    )


class Users:
    """The users in a file, which is made if it is not there. Threads may share one object.

    Raises :class:`DataError` where the file is something else, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = local()
        self._hasher = _hasher()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_private(path)
        with self._transaction() as database:
            _migrate(database, path)
        # Compared with where there is no such user, so that it takes as long.
        self._of_nobody = self._hasher.hash(secrets.token_hex(16))

    def __len__(self) -> int:
        [(num,)] = self._read("SELECT count(*) FROM users")
        return int(num)

    # --- users --------------------------------------------------------------------------------------------

    def add(
        self, name: str, *, password: str | None, role: Role, galleries: tuple[str, ...] = (ALL,)
    ) -> None:
        """Add a user, or change one: their role in these galleries, and the password where one is given.

        A new password ends all sessions of the user. Raises :class:`ConfigError` for a name or a password
        that will not do.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{shown(name)} is no name of a user; use letters, digits and . _ @ -, 64 at most"
            )
        hashed = None if password is None else self._hashed(password)
        with self._transaction() as database:
            database.execute(
                "INSERT INTO users VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
                "SET password = coalesce(?, password)",
                (name, hashed, time.time(), hashed),
            )
            for gallery in galleries:
                database.execute("INSERT OR REPLACE INTO roles VALUES (?, ?, ?)", (name, gallery, int(role)))
            if hashed is not None:
                database.execute("DELETE FROM sessions WHERE user = ?", (name,))

    def remove(self, name: str) -> None:
        """Remove a user with tokens and sessions. Raises :class:`DataError` where there is none."""
        with self._transaction() as database:
            self._check_known(name)
            database.execute("DELETE FROM users WHERE name = ?", (name,))

    def revoke_role(self, name: str, gallery: str) -> None:
        """Take a user's role in a gallery away."""
        with self._transaction() as database:
            self._check_known(name)
            database.execute("DELETE FROM roles WHERE user = ? AND gallery = ?", (name, gallery))

    def all(self) -> list[User]:
        """All users by name."""
        return [
            User(name, self._roles(name), password is not None, self._tokens(name))
            for name, password in self._read("SELECT name, password FROM users ORDER BY name")
        ]

    # --- tokens -------------------------------------------------------------------------------------------

    def make_token(self, name: str, *, label: str = "", days: float = 90.0) -> str:
        """A new token of a user, for programs; it cannot be read again."""
        if not 0 < days <= 3650:
            raise ConfigError(f"a token is for {days} days; give a number above 0, up to 3650")
        token = f"reid_{secrets.token_urlsafe(32)}"
        now = time.time()
        with self._transaction() as database:
            self._check_known(name)
            database.execute(
                "INSERT INTO tokens (user, label, hash, created, expires) VALUES (?, ?, ?, ?, ?)",
                (name, label[:64], _digest(token), now, now + days * _DAY),
            )
        return token

    def revoke_token(self, name: str, token: int) -> None:
        """Let a token of a user be good for nothing. Raises :class:`DataError` where there is none."""
        with self._transaction() as database:
            done = database.execute("DELETE FROM tokens WHERE user = ? AND id = ?", (name, token))
            if not done.rowcount:
                raise DataError(f"{shown(name)} has no token {token}; `reid serve users list` lists them")

    def by_token(self, token: str, *, address: str = "") -> Actor | None:
        """Who sends a token; ``None`` where it is unknown, revoked or expired."""
        if not _TOKEN.fullmatch(token):
            return None
        found = self._read(
            "SELECT id, user, used FROM tokens WHERE hash = ? AND expires > ?", (_digest(token), time.time())
        )
        if not found:
            return None
        [(number, name, used)] = found
        if used is None or abs(time.time() - used) > 60:
            with self._transaction() as database:
                database.execute("UPDATE tokens SET used = ? WHERE id = ?", (time.time(), number))
        return Actor(name, self._roles(name), "token", address=address)

    # --- sessions -----------------------------------------------------------------------------------------

    def log_in(self, name: str, password: str, *, hours: float, address: str = "") -> tuple[str, Actor]:
        """The key of a new session, and whose it is.

        Raises:
            WrongLogin: no such user, or another password; after the same time.
            TooManyAttempts: for this name, or from this address.
        """
        limits = _limits(name, address)
        self._begin_attempt(limits)
        found = (
            self._read("SELECT password FROM users WHERE name = ?", (name,)) if _NAME.fullmatch(name) else []
        )
        hashed = found[0][0] if found else None
        if not self._matches(hashed or self._of_nobody, password) or hashed is None:
            raise WrongLogin("the name and the password do not go together")
        key, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        now = time.time()
        with self._transaction() as database:
            query = "SELECT password FROM users WHERE name = ?"
            if database.execute(query, (name,)).fetchall() != found:
                raise WrongLogin("the user was removed, or got another password, just now; log in again")
            for limit in limits:
                if limit.is_of_name:
                    database.execute("DELETE FROM failures WHERE key = ?", (limit.key,))
                else:
                    database.execute("UPDATE failures SET number = number - 1 WHERE key = ?", (limit.key,))
            database.execute("DELETE FROM failures WHERE last < ?", (time.monotonic() - _DAY,))
            database.execute("DELETE FROM sessions WHERE expires < ?", (now,))
            database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)", (_digest(key), name, csrf, now + hours * 3600)
            )
            if self._hasher.check_needs_rehash(hashed):
                new = self._hashed(password)
                database.execute("UPDATE users SET password = ? WHERE name = ?", (new, name))
        return key, Actor(name, self._roles(name), "session", csrf, address)

    def by_session(self, key: str, *, address: str = "") -> Actor | None:
        """Whose session a key is of; ``None`` where there is none, or none any more."""
        found = self._read("SELECT user, csrf, expires FROM sessions WHERE hash = ?", (_digest(key),))
        if not found:
            return None
        [(name, csrf, expires)] = found
        if expires <= time.time():
            self.log_out(key)  # for good, even where the clock is put back
            return None
        return Actor(name, self._roles(name), "session", csrf, address)

    def log_out(self, key: str) -> None:
        """End a session."""
        with self._transaction() as database:
            database.execute("DELETE FROM sessions WHERE hash = ?", (_digest(key),))

    # --- inside -------------------------------------------------------------------------------------------

    def _begin_attempt(self, limits: tuple[_Limit, ...]) -> None:
        """Count an attempt as failed until it is known to have succeeded.

        Counted afterwards, all attempts that are made at once would be let through. Raises
        :class:`TooManyAttempts`, and then counts nothing.
        """
        with self._transaction() as database:
            # Since the machine was started: nobody sets this clock. Read in here, as another attempt's would
            # be later than one that was read before it. What is later still is of before the last start.
            now = time.monotonic()
            database.execute("UPDATE failures SET last = ? WHERE last > ?", (now, now))
            query, waits = "SELECT number, last FROM failures WHERE key = ?", [0.0]
            for limit in limits:
                for number, last in database.execute(query, (limit.key,)).fetchall():
                    waits.append(last + limit.wait(number) - now)
            for limit in limits if max(waits) <= 0 else ():
                database.execute(
                    "INSERT INTO failures VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET "
                    "number = number + 1, last = excluded.last",
                    (limit.key, now),
                )
        if max(waits) > 0:
            raise TooManyAttempts(max(waits))

    def _hashed(self, password: str) -> str:
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise ConfigError(
                f"the password has {len(password):,} characters; use {MIN_PASSWORD} to {MAX_PASSWORD:,}"
            )
        with _HASHES_AT_ONCE:
            return str(self._hasher.hash(password))

    def _matches(self, hashed: str, password: str) -> bool:
        from argon2.exceptions import Argon2Error, InvalidHashError

        with _HASHES_AT_ONCE:
            try:
                return bool(self._hasher.verify(hashed, password[:MAX_PASSWORD].encode("utf-8", "replace")))
            except (Argon2Error, InvalidHashError):
                return False

    def _roles(self, name: str) -> dict[str, Role]:
        found = self._read("SELECT gallery, role FROM roles WHERE user = ?", (name,))
        return {gallery: Role(role) for gallery, role in found}

    def _tokens(self, name: str) -> tuple[Token, ...]:
        found = self._read(
            "SELECT id, label, created, expires, used FROM tokens WHERE user = ? ORDER BY id", (name,)
        )
        return tuple(Token(*row) for row in found)

    def _check_known(self, name: str) -> None:
        names = [known for (known,) in self._read("SELECT name FROM users")]
        if name not in names:
            raise DataError(
                f"there is no user {shown(name)};{did_you_mean(name, names)} `reid serve users list`"
            )

    def _database(self) -> sqlite3.Connection:
        database: sqlite3.Connection | None = getattr(self._local, "database", None)
        if database is None:
            try:
                database = sqlite3.connect(self.path, timeout=10, isolation_level=None)
                database.execute("PRAGMA foreign_keys = ON")
                database.execute("PRAGMA journal_mode = WAL")
            except sqlite3.DatabaseError as error:
                raise DataError(f"{self.path} cannot be opened as a file of users: {error}") from None
            self._local.database = database
        return database

    def _read(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        return self._database().execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database()
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")


def _make_private(path: Path) -> None:
    """Before SQLite opens it, so that the files that it keeps beside it are nobody else's either."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise DataError(f"{path} cannot be opened as a file of users: {error.strerror}") from None


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    [version] = database.execute("PRAGMA user_version").fetchone()
    if version > len(_MIGRATIONS):
        raise DataError(f"{path} is of a later version of reidkit ({version}); use that one")
    for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
        for statement in filter(str.strip, statements.split(";")):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {number}")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ModuleNotFoundError:
        raise MissingExtra("argon2-cffi", extra="web", needed_for="keeping users") from None
    return PasswordHasher()
