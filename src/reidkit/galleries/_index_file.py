"""The file of an approximate index: what the library wrote, and behind it what it is of, sealed.

A gallery travels, but the library that reads an index trusts every number in it. So only an index is read
that was built on this account: it is sealed by a key that stays here, unknown to whoever gives a gallery
away. An index is made anew in minutes, from vectors that are checked.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import mmap
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from reidkit.errors import DataError
from reidkit.files import WriteError, user_cache
from reidkit.galleries._vector_file import open_regular

_TRAILER = 4096  # bytes at the end of the file
_KEY_BYTES = 32


class IndexRefused(Exception):
    """An index is there that is not to be used; the text says why."""


@dataclass(frozen=True, slots=True)
class About:
    """What an index is of: the first rows of the file of vectors of this name, so many of a dimension.

    ``recall`` is the share of the ``top`` nearest that it found when it was built, ``num_queries`` stored
    items being the queries.
    """

    vectors: str
    num_rows: int
    dimension: int
    recall: float
    top: int
    num_queries: int

    def recall_told(self, num_rows: int) -> dict[str, float]:
        """What is told of it, of a gallery that has so many rows now."""
        told = {"all": self.recall, "top": self.top, "queries": self.num_queries, "num_items": self.num_rows}
        return {**told, "num_added_since": num_rows - self.num_rows}


def name_of(vectors: str) -> str:
    """The name of the index over a file of vectors."""
    return f"index-{vectors.removeprefix('vectors-').partition('.')[0]}.faiss"


def identity(path: Path) -> tuple[int, int, int] | None:
    """What tells an index from another that is put in its place; ``None`` where there is none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def delete(path: Path) -> None:
    """Delete an index, if there is one, and what was left of another."""
    try:
        for place in (path, path.with_name(f"{path.name}.unfinished")):
            place.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot delete {path}: {error.strerror}") from error


def seal(unfinished: Path, about: About) -> None:
    """Say behind what the library wrote what that is of, and bring all of it to disk."""
    with unfinished.open("r+b") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0, os.SEEK_END)
        text = json.dumps({**asdict(about), "sha256": content})
        sealed = json.dumps({"about": text, "seal": _seal(_key(), text)}).encode()
        file.write(sealed.ljust(_TRAILER))
        file.flush()
        os.fsync(file.fileno())


def opened(path: Path) -> tuple[About, memoryview]:
    """What an index is of, and the bytes that the library wrote, mapped.

    Raises :class:`IndexRefused` where it was not built on this account, or is not as it was written.
    """
    try:
        with open_regular(path, os.O_RDONLY) as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        sealed = json.loads(bytes(content[-_TRAILER:]))
        text = sealed["about"]
        if not hmac.compare_digest(_seal(_key(create=False), text), sealed["seal"]):
            raise IndexRefused("it was not built by this user on this machine, or is damaged")
        known = json.loads(text)
        if hashlib.sha256(content[:-_TRAILER]).hexdigest() != known.pop("sha256"):
            raise IndexRefused("it is damaged")
        if known.keys() != {field.name for field in fields(About)}:
            raise IndexRefused("another version of reidkit wrote it")
        return About(**known), content[:-_TRAILER]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, DataError) as error:
        raise IndexRefused("it is damaged, or no index at all") from error


def _seal(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key(*, create: bool = True) -> bytes:
    """What only this user knows; made when the first index is built."""
    place = user_cache("gallery-indexes") / "key"
    if place.is_file() and len(key := place.read_bytes()) == _KEY_BYTES:
        return key
    if not create:
        raise IndexRefused("it was not built by this user on this machine")
    key = secrets.token_bytes(_KEY_BYTES)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(key)
    except OSError as error:
        raise WriteError(f"cannot write {place}, which an index is sealed by: {error.strerror}") from error
    return key
