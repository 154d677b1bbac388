"""A folder that embeddings are written to image by image, and that goes on where it was interrupted.

While it is being filled it holds

- ``.embeddings.npy.unfinished``: the rows so far, behind room for the header of an ``.npy`` file;
- ``encoded.jsonl``: a line for each row, with the image's path, size and time of change;
- ``encoder.json``: which encoder fills it.

Rows reach the disk before their lines, so that a line vouches for its row whatever was killed when. At the
end, after all other arrays are there, the header is written and the file becomes ``embeddings.npy``: a folder
that :func:`reidkit.load_features` reads is whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.errors import ConfigError, DataError, shown
from reidkit.evaluation.feature_archives import NPY_MAGIC
from reidkit.files import WriteError, exclusive, write_atomically
from reidkit.texts.files import parse_json, read_json

EMBEDDINGS_FILE = "embeddings.npy"

_UNFINISHED_FILE = ".embeddings.npy.unfinished"
_LINES_FILE = "encoded.jsonl"
_ENCODER_FILE = "encoder.json"
_LOCK_FILE = ".lock"
_HEADER_LENGTH = 128  # a multiple of 64, as readers expect


class OtherContent(ConfigError):
    """A folder that holds something else than what is to be written there."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image that has a row; ``size`` (bytes) and ``changed`` (nanoseconds) tell whether it is the same."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """As the file is now; zeros where there is none."""
        try:
            status = path.stat()
        except OSError:
            return cls(str(path), 0, 0)
        return cls(str(path), status.st_size, status.st_mtime_ns)

    def as_line(self) -> str:
        """A line of text that holds it."""
        return json.dumps([self.path, self.size, self.changed]) + "\n"


class EncodedFolder:
    """A folder that is being filled by one encoder; made by :func:`open_encoded_folder`.

    Attributes:
        images: those that have rows, in the order of these.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.folder, self._dim = folder, dim
        self.images = self._recovered()

    def append(self, embeddings: NDArray[np.float32], images: Sequence[EncodedImage]) -> None:
        """Add rows (N, D) of N images, to last through a crash."""
        try:
            _append(self.folder / _UNFINISHED_FILE, np.ascontiguousarray(embeddings, "<f4").tobytes())
            _append(self.folder / _LINES_FILE, "".join(image.as_line() for image in images).encode())
        except OSError as error:
            raise WriteError(
                f"cannot write to {self.folder}: {error.strerror}; the {len(self.images):,} embeddings "
                "before are still there. Free some space, then run the same command again"
            ) from error
        self.images += images

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """The rows of a finished folder, memory-mapped."""
        rows: NDArray[np.float32] = np.load(self.folder / EMBEDDINGS_FILE, mmap_mode="r", allow_pickle=False)
        return rows

    def finish(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write arrays that go with the rows, each into a file of its name, and let the folder be read."""
        for name, array in arrays.items():
            _save(self.folder / f"{name}.npy", array)
        unfinished = self.folder / _UNFINISHED_FILE
        with unfinished.open("r+b") as file:
            file.write(_header(len(self.images), self._dim))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(self.folder / EMBEDDINGS_FILE)

    def _recovered(self) -> list[EncodedImage]:
        """The images whose rows are whole; what was torn is cut off."""
        whole, unfinished = self.folder / EMBEDDINGS_FILE, self.folder / _UNFINISHED_FILE
        lines = self.folder / _LINES_FILE
        _refuse_links(whole, unfinished, lines)
        if whole.is_file():
            whole.replace(unfinished)
        if not unfinished.is_file():
            write_atomically(lines, b"")
            write_atomically(unfinished, bytes(_HEADER_LENGTH))
        num_rows = max(0, unfinished.stat().st_size - _HEADER_LENGTH) // (4 * self._dim)
        images, end = _read_lines(lines, num_rows)
        os.truncate(lines, end)
        os.truncate(unfinished, _HEADER_LENGTH + 4 * self._dim * len(images))
        return images


@contextmanager
def open_encoded_folder(folder: Path, encoder: Encoder) -> Iterator[EncodedFolder]:
    """Make a folder, or go on with one, to be filled by an encoder; nobody else fills it meanwhile.

    Raises:
        OtherContent: it holds embeddings of another encoder.
        ConfigError: it holds something else, or another process fills it.
        DataError: what it holds is damaged.
        WriteError: it cannot be written.
    """
    check_encoded_folder(folder)
    with exclusive(folder / _LOCK_FILE) as mine:
        if not mine:
            raise ConfigError(f"{folder} is being filled by another process; wait for it, or choose another")
        record = folder / _ENCODER_FILE
        if record.is_file():
            _check_encoder(record, encoder)
        else:
            content = {"fingerprint": encoder.fingerprint, "dim": encoder.dim}
            write_atomically(record, json.dumps(content))
        yield EncodedFolder(folder, encoder.dim)


def check_encoded_folder(folder: Path) -> None:
    """Refuse, before the work, a place that embeddings could not be written to.

    Raises :class:`ConfigError` for a file, or a folder with anything but embeddings.
    """
    if folder.is_symlink():
        raise ConfigError(f"{folder} is a link; give the folder itself")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder, or a file ending in .npz or .parquet")
    if folder.is_dir() and not (folder / _ENCODER_FILE).is_file():
        others = [path.name for path in folder.iterdir() if path.name != _LOCK_FILE]
        if others:
            raise ConfigError(
                f"{folder} holds {shown(sorted(others)[0])}, and not embeddings of `reid encode`; choose an "
                "empty folder or a new one"
            )


def holds_nothing(folder: Path) -> bool:
    """Whether a folder that was opened got no row."""
    lines = folder / _LINES_FILE
    return folder.is_dir() and not (lines.is_file() and lines.stat().st_size)


def _check_encoder(record: Path, encoder: Encoder) -> None:
    _refuse_links(record)
    made_by = read_json(record, error=DataError)
    fingerprint = made_by.get("fingerprint") if isinstance(made_by, dict) else None
    if fingerprint not in encoder.fingerprints or made_by.get("dim") != encoder.dim:
        raise OtherContent(
            f"{record.parent} holds embeddings of another encoder (fingerprint {shown(fingerprint)}, not "
            f"{encoder.fingerprint}); the two cannot be compared: choose another folder"
        )


def _read_lines(path: Path, most: int) -> tuple[list[EncodedImage], int]:
    """The first images that are noted down, and where in the file they end; a torn last line is none."""
    images: list[EncodedImage] = []
    end = 0
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                if len(images) == most or not line.endswith(b"\n"):
                    break
                images.append(_image(line, path))
                end += len(line)
    return images, end


def _image(line: bytes, path: Path) -> EncodedImage:
    what = f"{path}: a line of it"
    parts = parse_json(line.decode("utf-8", "replace"), what, error=DataError)
    kinds = [type(part) for part in parts] if isinstance(parts, list) else []
    if kinds != [str, int, int]:
        raise DataError(f"{what} is {shown(parts)}, no image; delete the folder and encode again")
    return EncodedImage(*parts)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _save(path: Path, array: NDArray[Any]) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    _refuse_links(unfinished)
    with unfinished.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _header(num_rows: int, dim: int) -> bytes:
    """The header of an ``.npy`` file, format 1.0, filled up to its length."""
    said = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({num_rows}, {dim}), }}"
    length = _HEADER_LENGTH - len(NPY_MAGIC) - 4
    return NPY_MAGIC + b"\x01\x00" + length.to_bytes(2, "little") + said.ljust(length - 1).encode() + b"\n"


def _refuse_links(*paths: Path) -> None:
    """What is written to is no link: whoever passed a folder on would choose where to."""
    for path in paths:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigError(f"{path} is a link, or no file; remove it")
