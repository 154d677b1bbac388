"""A gallery as plain files that other programs read, and back: vectors, a table of labels, decisions.

A folder holds ``embeddings.npy``, float32 (N, D); ``items.jsonl``, the labels of each row;
``decisions.jsonl``; ``thumbnails.zip``, of each item that has one a JPEG file of the name of its id; and
``gallery.json``, which names the encoder and has a hash of each file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, ReidError, shown
from reidkit.files import WriteError, open_regular
from reidkit.galleries._copy import AT_ONCE
from reidkit.galleries._decisions import Decision, checked
from reidkit.galleries._items import Item
from reidkit.galleries._labels import LABELS
from reidkit.galleries._own_labels import own_value
from reidkit.galleries._places import PLACES, box_of, box_text
from reidkit.galleries._thumbnails import LARGEST, thumbnail_value

if TYPE_CHECKING:
    from reidkit.galleries import Gallery
    from reidkit.progress import ProgressCallback

FORMAT = "reidkit gallery export 1"
_VECTORS, _ITEMS, _DECISIONS, _ABOUT = "embeddings.npy", "items.jsonl", "decisions.jsonl", "gallery.json"
_THUMBNAILS = "thumbnails.zip"
_FILES = (_VECTORS, _ITEMS, _DECISIONS, _THUMBNAILS)
_MOST = 10_000_000  # bytes of what is said about a gallery

T = TypeVar("T")


def export_gallery(gallery: Gallery, folder: str | Path, *, progress: ProgressCallback | None = None) -> int:
    """Write all that a gallery holds to a new folder, whole or not at all; how many items.

    Raises:
        ConfigError: there is something at the folder's place already, or it is inside the gallery.
        WriteError: the disk is full, the place cannot be written to.
    """
    place = Path(folder)
    if place.exists() or place.is_symlink():
        raise ConfigError(f"{place} is there already; an export is a new folder: choose another place")
    if place.resolve().is_relative_to(Path(gallery.location).resolve()):
        raise ConfigError(
            f"{place} is inside the gallery, where what is forgotten would stay; choose another place"
        )
    unfinished = place.with_name(f"{place.name}.unfinished")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        items = gallery.items()
        _write_lines(unfinished / _ITEMS, map(_of_item, items))
        _write_lines(unfinished / _DECISIONS, map(asdict, gallery.decisions()))
        _write_vectors(unfinished / _VECTORS, gallery, items, progress)
        _write_thumbnails(unfinished / _THUMBNAILS, gallery, items)
        about = {
            "format": FORMAT,
            "num_items": len(items),
            "encoder": gallery.encoder,
            "sha256": {name: _hash(unfinished / name) for name in _FILES},
        }
        _write(unfinished / _ABOUT, lambda file: file.write(json.dumps(about, indent=1).encode()))
        unfinished.rename(place)
    except OSError as error:
        raise WriteError(f"cannot write {place}: {error.strerror}; nothing is there") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(items)


class ExportedGallery:
    """What was exported, to be copied into a gallery (:func:`reidkit.galleries.copy_gallery`).

    Raises :class:`DataError` where the folder is no export, or is not as it was written.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.location = str(folder)
        with open_regular(self._folder / _ABOUT) as file:
            about = self._read(lambda: dict(json.loads(file.read(_MOST))))
        if about.get("format") != FORMAT:
            raise DataError(f"{folder} is no export of a gallery that this version reads")
        for name in _FILES:
            if self._read(lambda: about["sha256"][name]) != _hash(self._folder / name):  # noqa: B023
                raise DataError(f"{self._folder / name} is not as it was written; put a copy in its place")
        self.encoder: dict[str, Any] | None = about.get("encoder")
        self._items = self._read(lambda: [_to_item(line) for line in self._lines(_ITEMS)])
        self._decisions = self._read(lambda: [_to_decision(line) for line in self._lines(_DECISIONS)])
        self._vectors = self._read(
            lambda: np.load(self._folder / _VECTORS, mmap_mode="r", allow_pickle=False)
        )
        self._small = self._read(lambda: zipfile.ZipFile(self._folder / _THUMBNAILS))
        self._rows = {item.id: row for row, item in enumerate(self._items)}
        is_table = self._vectors.ndim == 2 and self._vectors.dtype == np.float32
        if not is_table or len(self._rows) < len(self._items) or len(self._vectors) != len(self._items):
            raise DataError(f"{folder}: {_VECTORS} and {_ITEMS} do not go together; export the gallery again")

    def items(self) -> list[Item]:
        """All items, in the order in which they were written."""
        return self._items

    def decisions(self) -> list[Decision]:
        """What people decided of them."""
        return self._decisions

    def embeddings(self, *, ids: Sequence[int]) -> NDArray[np.float32]:
        """Unit embeddings (N, D) of the items with these ids."""
        return np.array(self._vectors[[self._rows[id] for id in ids]], np.float32)

    def thumbnails(self, *, ids: Sequence[int]) -> dict[int, bytes]:
        """Those of these items that have one, by their ids."""
        there = [id for id in ids if _name(id) in self._small.NameToInfo]
        return self._read(lambda: {id: self._thumbnail(id) for id in there})

    def _thumbnail(self, id: int) -> bytes:
        with self._small.open(_name(id)) as file:
            return thumbnail_value(file.read(LARGEST + 1))

    def _lines(self, name: str) -> Iterable[str]:
        with open_regular(self._folder / name) as file:
            for line in file:
                yield line.decode()

    def _read(self, read: Callable[[], T]) -> T:
        """What is read; whatever a file that was crafted makes JSON and NumPy raise is an error of it."""
        try:
            return read()
        except ReidError:
            raise
        except Exception as error:
            raise DataError(f"{self.location} is no export of a gallery, or damaged: {error}") from error


def _of_item(item: Item) -> dict[str, Any]:
    labels = {
        name: {"time": value.timestamp()} if isinstance(value, datetime) else value
        for name, value in item.labels.items()
    }
    return {**asdict(item), "labels": labels}


def _to_item(line: str) -> Item:
    known = json.loads(line)
    labels = {
        name: datetime.fromtimestamp(value["time"], UTC) if isinstance(value, dict) else value
        for name, value in known.pop("labels").items()
    }
    if known["box"] is not None:
        known["box"] = box_of(box_text(known["box"]))
    item = Item(**known, labels=labels)
    if type(item.id) is not int:
        raise ValueError(f"{shown(line)} is no item")
    for name, value in known.items():
        kept = LABELS.get(name) or PLACES.get(name)
        if kept is not None and name != "box" and value is not None and not _is_same(kept(value), value):
            raise ValueError(f"{shown(value)} is not how the {name} of an item is kept")
    for name, value in labels.items():
        if not _is_same(own_value(value), value):
            raise ValueError(f"{shown(value)} is not how the label {shown(name)} is kept")
    return item


def _is_same(kept: object, value: object) -> bool:
    """Whether two labels are one, and of one type, but for 3 and 3.0."""
    return kept == value and isinstance(kept, str | bool) is isinstance(value, str | bool)


def _to_decision(line: str) -> Decision:
    known = json.loads(line)
    listed = {name: tuple(known[name]) for name in ("items", "before", "after")}
    if known.keys() != {field.name for field in fields(Decision)}:
        raise ValueError(f"{shown(line)} is no decision")
    return checked(Decision(**{**known, **listed}))


def _write_lines(path: Path, values: Iterable[dict[str, Any]]) -> None:
    _write(path, lambda file: file.writelines(json.dumps(value).encode() + b"\n" for value in values))


def _write_vectors(
    path: Path, gallery: Gallery, items: Sequence[Item], progress: ProgressCallback | None
) -> None:
    def write(file: BinaryIO) -> None:
        shape = (len(items), gallery.dimension or 0)
        header = BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(header.getvalue())
        for start in range(0, len(items), AT_ONCE):
            ids = [item.id for item in items[start : start + AT_ONCE]]
            file.write(np.ascontiguousarray(gallery.embeddings(ids=ids), "<f4").data.cast("B"))
            if progress is not None:
                progress(start + len(ids), len(items))

    _write(path, write)


def _write_thumbnails(path: Path, gallery: Gallery, items: Sequence[Item]) -> None:
    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for start in range(0, len(items), AT_ONCE):
                ids = [item.id for item in items[start : start + AT_ONCE]]
                for id, data in gallery.thumbnails(ids=ids).items():
                    archive.writestr(zipfile.ZipInfo(_name(id)), data)

    _write(path, write)


def _name(id: int) -> str:
    return f"{id}.jpg"


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _hash(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(cast(Any, file), "sha256").hexdigest()  # a reader, which its type hides
