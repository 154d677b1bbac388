"""What a run needs to go on: a *checkpoint*, ``last.ckpt``, before it ``previous.ckpt``.

It holds everything that training needs to go on exactly where it stopped. It cannot run code when it is read.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidkit.encoders.foreign_files import reserves_memory
from reidkit.errors import CheckpointError, shortened
from reidkit.files import write_atomically

_MOST_EXPANDED = 4  # bytes of tensors to one in the file: parts of a state may share theirs
_MARK = b"reidkit sha256 "  # begins what stands behind a checkpoint's content; torch.load passes over it


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically, sealed by a checksum; the one before it stays as ``previous.ckpt``.

    ``state`` is made of dicts, lists, numbers, texts and tensors only.
    """
    buffer = io.BytesIO()  # in memory first: the disk then sees one plain write, whose failure is an OSError
    torch.save(dict(state), buffer)
    seal = _seal(buffer.getbuffer())
    buffer.write(seal)
    if path.exists():
        _keep(path, _previous(path))
    write_atomically(path, buffer.getbuffer())


def has_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint to go on from, be it the one before the last."""
    return path.is_file() or _previous(path).is_file()


def load_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a checkpoint, or the one before it where the last is missing or damaged.

    A damaged one (its end or its checksum is wrong) is renamed to ``damaged.ckpt``, so that it never takes
    the place of the one before it. Any other failure to read a file changes nothing.

    Returns:
        The state, and a sentence to show where the previous checkpoint had to be used.

    Raises:
        CheckpointError: neither can be used, or the system cannot read one: a disk's or a network's fault,
            too little memory.
    """
    try:
        return _load(path), None
    except _Damaged as error:
        problem = f"{path} cannot be read ({error})"
        try:
            state = _load(_previous(path))
        except _Damaged:
            raise CheckpointError(
                f"{problem}, and there is no earlier one; start again in another folder or delete this one"
            ) from error
    if path.exists():
        path.replace(path.with_name("damaged.ckpt"))
    return state, f"{problem}; going on from the checkpoint before it"


def _previous(path: Path) -> Path:
    return path.with_name("previous.ckpt")


def _keep(path: Path, previous: Path) -> None:
    previous.unlink(missing_ok=True)
    try:
        os.link(path, previous)
    except OSError:  # a file system without links: until the new one is written, only this name has it
        path.replace(previous)


def _seal(content: memoryview) -> bytes:
    return _MARK + hashlib.sha256(content).digest()


class _Damaged(Exception):
    """A checkpoint that is not there, or not as it was written."""


class _Foreign(Exception):
    """A checkpoint that is whole, and that no training wrote."""


def _load(path: Path) -> dict[str, Any]:
    if path.exists() and not path.is_file():  # reading a pipe waits for ever
        raise _Damaged("it is no regular file")
    try:
        content = _unsealed(memoryview(path.read_bytes()))
        if _unfolds(content):
            raise _Foreign
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if _num_bytes(state) > _MOST_EXPANDED * len(content):
            raise _Foreign
    except FileNotFoundError as error:
        raise _Damaged("no such file") from error
    except _Damaged:
        raise
    # Its checksum is right: this is what was written.
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile, _Foreign) as error:
        raise CheckpointError(
            f"{path} was not written by a training: it holds nothing, or more than numbers, texts and "
            "tensors of its size, and is not read, as that might run code"
        ) from error
    except Exception as error:  # bytes with the right checksum are not at fault
        said = shortened((str(error) or "out of memory").splitlines()[0], 200)
        raise CheckpointError(
            f"{path} cannot be read now: {said}. Nothing was changed; mend that, then run the same command "
            "again"
        ) from error
    return state


def _unfolds(content: memoryview) -> bool:
    """Whether a state would take far more memory than the bytes that it is kept in."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = archive.infolist()  # as torch writes them: not compressed, each bytes of its own
        if sum(entry.file_size for entry in entries) > len(content):
            return True
        for entry in entries:
            if entry.filename.endswith("data.pkl"):
                with archive.open(entry) as file:
                    return reserves_memory(file)
    return False


def _num_bytes(state: object) -> int:
    """Of all tensors in a state; one can repeat a few bytes without end."""
    total, values, seen = 0, [state], set()
    while values:
        value = values.pop()
        if isinstance(value, Tensor):
            total += value.numel() * value.element_size()
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            values += value.values() if isinstance(value, dict) else value
    return total


def _unsealed(content: memoryview) -> memoryview:
    length = len(content) - len(_MARK) - hashlib.sha256().digest_size
    if bytes(content[length:][: len(_MARK)]) != _MARK:
        raise _Damaged("it breaks off before its end, or is no checkpoint")
    if content[length:] != _seal(content[:length]):
        raise _Damaged("its checksum is wrong: bytes were changed")
    return content[:length]
