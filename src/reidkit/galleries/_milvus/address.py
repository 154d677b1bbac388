"""Addresses of galleries on a Milvus server, without their passwords where they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlencode

from reidkit.errors import ConfigError, did_you_mean, shown

FORM = "milvus://user@host:port/database?gallery=NAME"
LITE_FORM = "milvus-lite:///path/file.db?gallery=NAME"
PORT = 19530
CONSISTENCIES = ("strong", "bounded", "session", "eventually")
INDEXES = ("exact", "hnsw")

_NAME = re.compile(r"[^\W_]\w{0,39}", re.ASCII)
_PLACE = re.compile(
    r"(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:@/]+)(?::(?P<port>\d{1,5}))?(?:/(?P<database>\w{0,255}))?",
    re.ASCII | re.DOTALL,
)
_PARAMETERS = {"consistency": CONSISTENCIES, "index": INDEXES, "secure": ("no", "yes")}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gallery is: a server's ``host`` and ``port``, or the ``file`` of Milvus Lite.

    ``index`` is ``None`` where the address leaves it to the gallery.
    """

    gallery: str
    consistency: str
    index: str | None
    file: Path | None = None
    host: str = ""
    port: int = PORT
    database: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    secure: bool = False

    @property
    def server(self) -> str:
        """Where its server is, as messages name it."""
        return str(self.file) if self.file else f"{self.host}:{self.port}"

    @property
    def uri(self) -> str:
        """As pymilvus takes it."""
        return str(self.file) if self.file else f"http{'s' * self.secure}://{self.server}"

    def __str__(self) -> str:
        given = {
            "gallery": self.gallery,
            **({"index": self.index} if self.index else {}),
            **({"consistency": self.consistency} if self.consistency != CONSISTENCIES[0] else {}),
            **({"secure": "yes"} if self.secure else {}),
        }
        if self.file:
            return f"milvus-lite://{quote(str(self.file))}?{urlencode(given)}"
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        database = f"/{self.database}" if self.database else ""
        return f"milvus://{user}{self.server}{database}?{urlencode(given)}"


def read_address(address: str) -> Address:
    """An address with its scheme. It may hold a password, so that no error shows it."""
    scheme, _, rest = address.partition("://")
    place, _, query = rest.partition("?")
    form = FORM if scheme == "milvus" else LITE_FORM
    given = {"gallery": "people", "consistency": CONSISTENCIES[0], "index": "", "secure": "no"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in given or (name == "secure" and scheme != "milvus"):
            close = did_you_mean(name, given)
            raise ConfigError(
                f"the address of the gallery has an unknown parameter {shown(name)};{close} expected {form}, "
                f"and {', '.join(_PARAMETERS)}"
            )
        allowed = _PARAMETERS.get(name)
        if allowed and value not in allowed:
            close = did_you_mean(value, allowed)
            raise ConfigError(
                f"{name}={shown(value)} in the address of the gallery;{close} Allowed: {', '.join(allowed)}"
            )
        given[name] = value
    if not _NAME.fullmatch(given["gallery"]):
        raise ConfigError(
            f"gallery={shown(given['gallery'])} in the address is no name of one; expected A to Z, digits "
            "and _, at most 40, the first a letter or digit"
        )
    options = (given["gallery"], given["consistency"], given["index"] or None)
    if scheme == "milvus-lite":
        return Address(*options, file=_file(unquote(place)))
    found = _PLACE.fullmatch(place)
    if found is None or not 0 < int(found["port"] or PORT) < 2**16:
        raise ConfigError(
            f"the address of the gallery cannot be read; expected {form}, the port from 1 to 65535, and "
            "signs such as @ / : ? within a name or password written as %40 %2F %3A %3F"
        )
    return Address(
        *options,
        host=found["host"],
        port=int(found["port"] or PORT),
        database=found["database"] or "",
        user=unquote(found["user"] or ""),
        password=unquote(found["password"] or ""),
        secure=given["secure"] == "yes",
    )


def _file(place: str) -> Path:
    if not place.endswith(".db"):
        raise ConfigError(
            f"the address of the gallery names the file {shown(place)}; Milvus Lite takes those that end in "
            f".db: {LITE_FORM}"
        )
    return Path(place).absolute()
