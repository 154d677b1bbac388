"""Addresses of galleries on a PostgreSQL server, without their passwords where they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from reidkit.errors import ConfigError, did_you_mean, shown

FORM = "postgresql://user@host:port/database?gallery=NAME"
_NAME = re.compile(r"[^\W_][\w-]{0,39}", re.ASCII)
_INDEXES = ("hnsw",)
_OURS = {"gallery": "people", "index": None}  # parameters of ours, with what they are where left out
_LIBRARYS = frozenset(option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults())


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gallery is. ``connection`` is what psycopg takes, the password among it; ``repr`` hides it."""

    connection: dict[str, Any]
    gallery: str
    index: str | None

    @property
    def schema(self) -> str:
        """The name of the schema that holds the gallery's tables; it is no SQL before it is quoted."""
        return f"reid_{self.gallery}"

    @property
    def database(self) -> str:
        return str(self.connection["dbname"])

    @property
    def server(self) -> str:
        """Host and port; where these are left out, as the library finds them."""
        host, port = self.connection.get("host"), self.connection.get("port")
        return f"{host or 'the local socket'}{f':{port}' if port else ''}"

    def __str__(self) -> str:
        user, host = self.connection.get("user"), self.connection.get("host", "")
        port = self.connection.get("port")
        name = f"{quote(user, safe='')}@" if user else ""
        host = f"[{host}]" if ":" in host else quote(host, safe=",")
        place = f"{name}{host}{f':{port}' if port else ''}"
        index = {"index": self.index} if self.index else {}
        query = urlencode({"gallery": self.gallery, **index})
        return f"postgresql://{place}/{quote(self.database, safe='')}?{query}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"


def read_address(address: str) -> Address:
    """The address that follows ``postgresql://``. It may hold a password, so that no error shows it."""
    place, _, query = address.partition("?")
    if "#" in address:
        raise ConfigError(
            "the address of the gallery holds a '#'; write %23 for one within a name or password"
        )
    given = parse_qsl(query, keep_blank_values=True)
    for name, _ in given:
        if name not in _OURS and name not in _LIBRARYS:
            close = did_you_mean(name, [*_OURS, *sorted(_LIBRARYS)])
            raise ConfigError(
                f"the address of the gallery has an unknown parameter {shown(name)};{close} expected {FORM}, "
                "and parameters of PostgreSQL's library such as sslmode"
            )
    ours = _OURS | {name: value for name, value in given if name in _OURS}
    others = urlencode([(name, value) for name, value in given if name not in _OURS], quote_via=quote)
    try:
        connection = conninfo_to_dict(f"postgresql://{place}{'?' if others else ''}{others}")
    except psycopg.Error:  # whose text may hold the password
        raise ConfigError(
            f"the address of the gallery is none that PostgreSQL's library reads; expected {FORM}, with "
            "signs such as @ / : ? within a name or password written as %40 %2F %3A %3F"
        ) from None
    if not connection.get("dbname"):
        raise ConfigError(f"the address of the gallery names no database; expected {FORM}")
    if odd := [port for port in str(connection.get("port", "")).split(",") if port and not _is_port(port)]:
        raise ConfigError(f"the address of the gallery has the port {shown(odd[0])}; expected 1 to 65535")
    return Address(connection, _gallery(ours["gallery"]), _index(ours["index"]))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) < 2**16


def _gallery(name: str | None) -> str:
    if name is None or not _NAME.fullmatch(name):
        raise ConfigError(
            f"gallery={shown(name)} in the address is no name of one; expected A to Z, digits, - and _, "
            "at most 40, the first a letter or digit"
        )
    return name


def _index(name: str | None) -> str | None:
    if name is not None and name not in _INDEXES:
        raise ConfigError(
            f"index={shown(name)} in the address;{did_you_mean(name, _INDEXES)} Allowed: hnsw (approximate); "
            "left out, search is exact"
        )
    return name
