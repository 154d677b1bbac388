"""Decoded, resized crops, kept in memory or on disk: an image is decoded once, not once an epoch.

All crops lie in one block of bytes that every worker process maps, a record each: which file it was made
from, a checksum, the pixels. A reader copies the record and holds the copy against both: a crop half written
by a process that was killed, or of a file that has changed since, is never served, but decoded anew.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from reidkit import logs
from reidkit.errors import UnknownName
from reidkit.files import from_home
from reidkit.images.reading import load_image
from reidkit.images.transforms import resized
from reidkit.types import Sample, Split

logger = logs.get_logger(__name__)

KINDS = ("none", "ram", "disk")

_FILE_KEY = 8  # bytes
_CHECKSUM = 4
_HEAD = _FILE_KEY + _CHECKSUM
_SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps it; containers often have little


class CropCache:
    """Crops of a split, each kept when it is first read.

    Works with any number of workers, forked or spawned. On disk it outlives the run, and several runs may use
    it at once.

    Args:
        split: the samples; as many of the first as fit are kept.
        height, width: of the crops, in pixels.
        gigabytes: limit of the cache's size (1e9 bytes).
        folder: for the cache's file; in memory without one.

    Attributes:
        num_kept: crops that there is room for.

    Raises:
        OSError: the disk, or the memory that processes can share, has no room, or cannot be used.
    """

    def __init__(
        self, split: Split, *, height: int, width: int, gigabytes: float, folder: Path | None = None
    ) -> None:
        self.height, self.width = height, width
        self.record_size = _HEAD + 3 * height * width
        self.num_kept = min(len(split), int(gigabytes * 1e9) // self.record_size)
        num_bytes = self.num_kept * self.record_size
        if folder is None:
            self.file = None
            self._records = _in_shared_memory(num_bytes)
        else:
            self.file = folder / f"{_name(split, height, width)}.crops"
            _reserve(self.file, num_bytes)
            self._records = _mapped(self.file, num_bytes)

    def read(self, sample: Sample) -> Tensor:
        """The sample's crop as uint8 (3, height, width), the same as without the cache.

        Raises:
            DataError: the image has to be decoded and cannot be.
        """
        if sample.index >= self.num_kept:
            return self._decode(sample)
        try:
            file_key = _file_key(sample)
        except OSError:
            return self._decode(sample)  # says what is wrong with the file
        # NumPy, not torch, copies: torch would use threads, which a forked process may not have.
        kept = self._records.numpy()[sample.index * self.record_size :][: self.record_size]
        record = kept.copy()  # first of all: another process may be writing it
        head, pixels = record[:_HEAD], record[_HEAD:]
        if head.tobytes() == file_key + _checksum(pixels):
            return torch.from_numpy(pixels).view(3, self.height, self.width)
        crop = self._decode(sample)
        pixels[:] = crop.numpy().ravel()
        head[:] = np.frombuffer(file_key + _checksum(pixels), dtype=np.uint8)
        kept[:] = record
        return crop

    def _decode(self, sample: Sample) -> Tensor:
        return read(sample, height=self.height, width=self.width)

    def __getstate__(self) -> dict[str, Any]:
        """For a spawned process: shared memory is handed over, a file is mapped there again."""
        state = self.__dict__.copy()
        if self.file is not None:
            state["_records"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            self._records = _mapped(self.file, self.num_kept * self.record_size)


def open_cache(
    kind: str,
    split: Split,
    *,
    height: int,
    width: int,
    gigabytes: float,
    folder: str | Path | None = None,
) -> CropCache | None:
    """A cache of the kind "ram" or "disk"; None for "none" and, with a warning, where there is no room.

    Args:
        kind: one of ``KINDS``.
        folder: of a disk cache, :func:`default_folder` where it is not given.
        split, height, width, gigabytes: see :class:`CropCache`.

    Raises:
        UnknownName: another kind.
    """
    if kind not in KINDS:
        raise UnknownName("cache", kind, KINDS)
    if kind == "none":
        return None
    place = None if kind == "ram" else from_home(folder) if folder else default_folder()
    try:
        cache = CropCache(split, height=height, width=width, gigabytes=gigabytes, folder=place)
    except OSError as error:
        where = "in shared memory" if place is None else f"in {place}"
        logger.warning(
            f"no cache {where}: {error.strerror or error}; images are decoded each time they are needed"
        )
        return None
    if cache.num_kept < len(split):
        needed = len(split) * cache.record_size / 1e9
        logger.warning(
            f"the cache holds {cache.num_kept:,} of {len(split):,} crops, its limit being {gigabytes:g} GB; "
            f"the others are decoded each time they are needed. All of them take {needed:.2f} GB"
        )
    return cache


def default_folder() -> Path:
    """$REIDKIT_CACHE, or ~/.cache/reidkit. Its files may be deleted at any time when nothing trains."""
    return from_home(os.environ.get("REIDKIT_CACHE") or "~/.cache/reidkit")


def read(sample: Sample, *, height: int, width: int) -> Tensor:
    """The sample's image as uint8 (3, height, width)."""
    image = load_image(sample.path, box=sample.box)
    return torch.from_numpy(resized(image, height=height, width=width)).permute(2, 0, 1)


def _file_key(sample: Sample) -> bytes:
    """Differs for another file or box, and for the same file after a change."""
    path, status = sample.path.absolute(), sample.path.stat()
    identity = (str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, sample.box)
    return hashlib.blake2b(repr(identity).encode(), digest_size=_FILE_KEY).digest()


def _checksum(pixels: NDArray[np.uint8]) -> bytes:
    return zlib.crc32(pixels.data).to_bytes(_CHECKSUM, "little")


def _name(split: Split, height: int, width: int) -> str:
    """Differs for other images, another size, and decoders that may decode otherwise."""
    decoders = f"{PIL.__version__} {simplejpeg.__version__}"
    digest = hashlib.blake2b(f"{decoders} {height} {width}".encode(), digest_size=8)
    for sample in split:
        digest.update(os.fsencode(sample.path.absolute()) + f" {sample.box}\n".encode())
    return f"{height}x{width}-{digest.hexdigest()}"


def _in_shared_memory(num_bytes: int) -> Tensor:
    # Linux promises more than there is, and kills who then writes to it: look first.
    if _SHARED_MEMORY.is_dir():
        _check_room(_SHARED_MEMORY, num_bytes)
    records = torch.empty(num_bytes, dtype=torch.uint8)
    try:
        records.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise OSError(str(error)) from error
    return records


def _mapped(file: Path, num_bytes: int) -> Tensor:
    return torch.from_file(str(file), shared=True, size=num_bytes, dtype=torch.uint8)


def _reserve(file: Path, num_bytes: int) -> None:
    """Make the file that large, with room on the disk for all of it: a write to a map cannot fail."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as output:
        size = output.tell()
        if size >= num_bytes:
            return
        try:
            _check_room(file.parent, num_bytes - size)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(output.fileno(), size, num_bytes - size)
            else:
                for start in range(size, num_bytes, 1 << 20):
                    output.write(bytes(min(1 << 20, num_bytes - start)))
        except OSError:
            output.truncate(size)
            raise


def _check_room(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise OSError(f"it needs {num_bytes / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free")
