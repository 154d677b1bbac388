"""What a service is told: by a file, by the environment, by flags, each stronger than the one before."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reidkit.config.faults import explain
from reidkit.encoders.own import goes_by_name, place_of
from reidkit.errors import ConfigError, DataError, shown
from reidkit.files import open_regular, user_state

PREFIX = "REIDKIT_SERVE_"
"""Of environment variables; ``REIDKIT_SERVE_LIMITS__TOP=50`` is the key ``top`` of the table ``limits``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LOOPBACK_NAMES = ("localhost",)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ServedGallery(_Table):
    """A gallery: a folder or an address of a server; and its encoder, where that has moved, or its name."""

    address: str
    encoder: Path | None = None

    @field_validator("encoder", mode="before")
    @classmethod
    def _place(cls, given: Any) -> Any:
        return str(place_of(given)) if isinstance(given, str) else given


class Limits(_Table):
    """Beyond which a request is refused.

    Bytes and pixels are of one request and one picture; ``seconds`` are those a client may take to send a
    request; so many pictures, and so many searches, may be ``waiting``; a pause of ``batch_milliseconds``
    ends what is done together; ``requests_per_minute`` are of one user, 0 for any number; ``cached_bytes``
    are of small pictures kept in memory.
    """

    body_bytes: int = Field(default=20 << 20, ge=1024)
    json_bytes: int = Field(default=1 << 20, ge=1024)
    header_bytes: int = Field(default=16 << 10, ge=1024)
    pixels: int = Field(default=25_000_000, ge=1)
    pictures: int = Field(default=10, ge=1)
    added: int = Field(default=100, ge=1)
    top: int = Field(default=1000, ge=1)
    waiting: int = Field(default=128, ge=1, le=4096)
    batch_milliseconds: float = Field(default=4.0, ge=0, le=1000)
    seconds: float = Field(default=30.0, gt=0)
    requests_per_minute: int = Field(default=1200, ge=0)
    connections: int = Field(default=512, ge=1)
    cached_bytes: int = Field(default=256 << 20, ge=0)
    session_hours: float = Field(default=12.0, gt=0)


class Settings(_Table):
    """How to serve.

    ``galleries`` are by the names that addresses call them; ``folder`` keeps users, the audit log, jobs and
    uploaded pictures; ``folders`` may be indexed or imported from, by name; ``trusted_proxies`` are
    addresses or networks whose word on where a request came from is taken; ``hosts`` are names that the
    service is reached by, besides its address.
    """

    galleries: dict[str, ServedGallery] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: int = Field(default=1, ge=1, le=64)
    folder: Path = Field(default_factory=lambda: user_state("serve"))
    folders: dict[str, Path] = Field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_tls: bool = False
    require_purpose: bool = False
    keep_uploads: bool = True
    backend: str = "auto"
    limits: Limits = Limits()

    @field_validator("galleries", mode="before")
    @classmethod
    def _addresses(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: {"address": one} if isinstance(one, str) else one for name, one in given.items()}

    @field_validator("galleries", "folders")
    @classmethod
    def _names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{shown(name)} is no name; use letters, digits, '.', '_' and '-', 64 at most"
                )
        return given

    @field_validator("hosts", "trusted_proxies", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        return (
            [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given
        )

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for address in given:
            try:
                ip_network(address, strict=False)
            except ValueError:
                raise ValueError(
                    f"{shown(address)} is no address; give one such as 10.0.0.1 or 10.0.0.0/8"
                ) from None
        return given

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if (self.certificate is None) is not (self.key is None):
            raise ValueError("TLS needs both a certificate and its key; give both, or none")
        return self

    @property
    def users_file(self) -> Path:
        return self.folder / "users.sqlite"

    @property
    def audit_file(self) -> Path:
        return self.folder / "audit.jsonl"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def is_encrypted(self) -> bool:
        """Whether browsers reach it by TLS, its own or a proxy's."""
        return self.certificate is not None or self.behind_tls


def is_loopback(host: str) -> bool:
    """Whether an address, or the name of one, is of this machine alone."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_settings(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    galleries: tuple[str, ...] = (),
    encoder: Path | None = None,
    **flags: Any,
) -> Settings:
    """Settings from a TOML file, then the environment, then flags.

    Args:
        file: the TOML file; paths in it are from its folder.
        environment: variables; those that begin with :data:`PREFIX` count.
        galleries: NAME=ADDRESS, or addresses alone, whose names are those of their folders; in place of the
            file's.
        encoder: of all of these galleries.
        flags: by the names of :class:`Settings`; ``None`` is left out.

    Raises:
        ConfigError: a key that is unknown, a value that cannot be.
        DataError: the file cannot be read.
    """
    found: dict[str, Any] = {} if file is None else _from_file(file)
    _merge(found, _from_environment(os.environ if environment is None else environment))
    _merge(found, {name: value for name, value in flags.items() if value is not None and value != ()})
    if galleries:
        found["galleries"] = _named(galleries, encoder)
    try:
        return Settings.model_validate(found)
    except ValidationError as error:
        raise ConfigError([explain(fault, _known_keys) for fault in error.errors()]) from None


def gallery_name(address: str) -> str:
    """What a gallery is called whose name is not given.

    >>> gallery_name("photos/people.gallery"), gallery_name("postgresql://host/db?gallery=hall")
    ('people', 'hall')
    """
    if "://" in address:
        parts = urlsplit(address)
        name = parse_qs(parts.query).get("gallery", [parts.path.strip("/")])[0]
    else:
        name = Path(address).resolve().name.removesuffix(".gallery")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:64] or "gallery"


def _known_keys(path: Sequence[Any]) -> list[str]:
    tables: dict[Any, type[_Table]] = {"limits": Limits, "galleries": ServedGallery}
    table = tables.get(path[0], Settings) if path else Settings
    return list(table.model_fields)


def _named(texts: tuple[str, ...], encoder: Path | None) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for text in texts:
        name, equals, address = text.partition("=")
        if not equals or not _NAME.fullmatch(name):
            name, address = gallery_name(text), text
        if name in named:
            raise ConfigError(
                f"two galleries are called {shown(name)}: {named[name]['address']} and {address}; name them, "
                f"NAME={address}"
            )
        named[name] = {"address": address, "encoder": encoder}
    return named


def _from_file(file: Path) -> dict[str, Any]:
    with open_regular(file) as opened:
        try:
            found = tomllib.load(opened)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{file} is no TOML: {error}") from None
    here = file.resolve().parent
    for key in ("folder", "certificate", "key"):
        if isinstance(found.get(key), str):
            found[key] = here / found[key]
    for name, place in _table(found, "folders"):
        found["folders"][name] = here / place if isinstance(place, str) else place
    for name, given in _table(found, "galleries"):
        one = {"address": given} if isinstance(given, str) else dict(given) if isinstance(given, dict) else {}
        if isinstance(one.get("address"), str) and "://" not in one["address"]:
            one["address"] = str(here / one["address"])
        if isinstance(one.get("encoder"), str) and not goes_by_name(one["encoder"]):
            one["encoder"] = here / one["encoder"]
        found["galleries"][name] = one or given
    return found


def _table(found: Mapping[str, Any], key: str) -> list[tuple[str, Any]]:
    table = found.get(key)
    return list(table.items()) if isinstance(table, dict) else []


def _from_environment(variables: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, text in variables.items():
        if not variable.startswith(PREFIX):
            continue
        *tables, key = variable.removeprefix(PREFIX).lower().split("__")
        if key == "galleries" and not tables:
            found[key] = _named(tuple(text.split()), None)
            continue
        inside = found
        for table in tables:
            inside = inside.setdefault(table, {})
        inside[key] = text
    return found


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict) and key != "galleries":
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value
