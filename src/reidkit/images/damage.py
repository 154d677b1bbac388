"""Damage that decoders do not tell, and what to say of a picture that could not be decoded.

Only what is known is said: a file is called damaged where a checksum, a declared length or the decoder shows
it. Else it may as well be whole and of a kind that is not read, and nobody is told to throw that away.

What is found, on pictures of 64 x 128 (``tests/unit/images/test_damage.py`` holds it):

========= ======= ============== =============================================
format    cut     zeros at end   bytes overwritten in the middle
========= ======= ============== =============================================
JPEG      yes     yes            long stretches (:mod:`reidkit.images.jpeg`)
PNG       yes     yes            yes: every chunk has a checksum
GIF       yes     yes            mostly: what is no valid code
WebP      yes     yes            hardly ever: nearly all bytes decode
AVIF      yes     yes            hardly ever
JPEG 2000 yes     yes            hardly ever
TIFF      yes     if compressed  Deflate and LZW mostly; pixels as such never
BMP, PPM  yes     no             no: any bytes are pixels, and zeros are black
========= ======= ============== =============================================
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import IO

from PIL import TiffImagePlugin, UnidentifiedImageError

from reidkit.errors import shortened
from reidkit.images import jpeg
from reidkit.images.kinds import Kind

DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError),
    *(AssertionError, RuntimeError, MemoryError, struct.error, zlib.error),
)
"""What Pillow's decoders raise, and those of its plugins, on bytes that nobody foresaw."""

_ZEROS = 256  # so many in a row are no end of anything compressed; an interrupted copy leaves them
_CHECKED_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"IEND")
_MB = 1 << 20
_MAX_PIECES = 1 << 18  # chunks or boxes of one file; a picture of 64 million pixels has a tenth


class Damaged(Exception):
    """The file is not what was once written; the message says how that shows."""


def check_file(file: IO[bytes], file_format: str) -> None:
    """Look for damage that Pillow does not; the file's position is left as it was.

    Args:
        file: open and seekable.
        file_format: Pillow's name.

    Raises:
        Damaged: it is.
    """
    place = file.tell()
    if file_format == "PNG":
        _check_chunks(file)
    elif file_format in ("WEBP", "AVIF"):
        _check_end(file, file_format)
    file.seek(place)


def why_undecoded(name: str, kind: Kind, file: IO[bytes] | None, error: Exception) -> str:
    """One sentence on a picture of a known kind that could not be decoded.

    Args:
        name: of the file.
        kind: what it is.
        file: what it was read from, as long as that is open.
        error: what the decoder raised.
    """
    if isinstance(error, Damaged):
        return _damaged(name, str(error))
    if kind.format == "JPEG" and file is not None:
        file.seek(0)
        if unread := jpeg.why_unread(file.read(_MB)):
            return (
                f"{name} is a JPEG of a kind that is not read ({unread}); convert it to a usual JPEG or PNG"
            )
    words = shortened(" ".join(str(error).split()), 200)
    reason = "incomplete header" if isinstance(error, UnidentifiedImageError) else words
    if "truncated" in reason.lower() or (file is not None and _is_cut(file, kind.format)):
        return _damaged(name, reason)
    if kind.format == "TIFF" and file is not None and isinstance(error, UnidentifiedImageError):
        return (
            f"{name} is a TIFF of a kind that is not read ({_pixel_layout(file)}); convert it to JPEG or PNG"
        )
    reason = "unknown header" if isinstance(error, UnidentifiedImageError) else reason
    return (
        f"{name} is {kind.name} that cannot be decoded ({reason}): it is of a kind that is not read, or "
        "damaged; if it shows whole elsewhere, convert it to JPEG or PNG there, else copy it again"
    )


def _damaged(name: str, reason: str) -> str:
    ways_out = "copy it again, or, if it shows whole elsewhere, save it anew"
    return f"{name} is truncated or damaged ({reason}); {ways_out}"


def _check_chunks(file: IO[bytes]) -> None:
    """Compare the checksums of a PNG's chunks; Pillow does not for those of the pixels."""
    size = file.seek(0, os.SEEK_END)
    place = file.seek(8)
    for _ in range(_MAX_PIECES):
        if not (header := file.read(8)):
            return
        length, name = int.from_bytes(header[:4], "big"), header[4:]
        place += 12 + length
        if place > size:
            within = (
                f"within the chunk {name.decode()}"
                if name.isalpha() and len(name) == 4
                else "in a chunk's head"
            )
            raise Damaged(f"image file is truncated: it ends {within}")
        if not name.isalpha():
            raise Damaged(f"{name!r} where a chunk's name should be")
        if name not in _CHECKED_CHUNKS:
            file.seek(place)
            continue
        checksum = zlib.crc32(name)
        for start in range(0, length, _MB):
            checksum = zlib.crc32(file.read(min(_MB, length - start)), checksum)
        if checksum != int.from_bytes(file.read(4), "big"):
            raise Damaged(f"wrong checksum of the chunk {name.decode()}")
        if name == b"IEND":
            return
    raise Damaged(f"it has more than {_MAX_PIECES:,} chunks")


def _check_end(file: IO[bytes], file_format: str) -> None:
    """Refuse zeros where compressed pixels should end; decoders of WebP and AVIF make a picture of them."""
    size = file.seek(0, os.SEEK_END)
    if file_format == "WEBP":  # what follows the picture does not matter
        file.seek(4)
        size = min(size, 8 + int.from_bytes(file.read(4), "little"))
    file.seek(max(0, size - _ZEROS))
    if file.read(_ZEROS) == bytes(_ZEROS):
        raise Damaged(f"it ends in {_ZEROS} or more zero bytes, as an interrupted copy leaves it")


def _is_cut(file: IO[bytes], file_format: str) -> bool:
    """Whether the file is shorter than it says it is, or has no end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(64)
    if file_format == "JPEG":
        return _has_no_scan(file)
    if file_format == "BMP":
        return size < 54 or size < int.from_bytes(start[2:6], "little")
    if file_format == "WEBP":
        return size < 30 or size < 8 + int.from_bytes(start[4:8], "little")
    if file_format == "GIF":
        file.seek(max(0, size - _MB))
        return not file.read().rstrip(b"\0").endswith(b";")
    if file_format == "TIFF":
        return _is_cut_tiff(file, size)
    if file_format in ("AVIF", "HEIF", "JPEG2000"):
        return _ends_within_box(file, size)
    return size < 24  # shorter than any header


def _has_no_scan(file: IO[bytes]) -> bool:
    file.seek(0)
    data = file.read(_MB)
    return len(data) < _MB and b"\xff\xda" not in data


def _is_cut_tiff(file: IO[bytes], size: int) -> bool:
    """Whether the first directory, or something it points to, lies beyond the end."""
    file.seek(0)
    start = file.read(8)
    order = ">" if start[:2] == b"MM" else "<"
    if len(start) < 8 or start[2:4] in (b"+\0", b"\0+"):  # the second is a BigTIFF, which is hardly ever met
        return len(start) < 8
    place = struct.unpack(order + "I", start[4:])[0]
    file.seek(place)
    head = file.read(2)
    if len(head) < 2:
        return True
    (num,) = struct.unpack(order + "H", head)
    entries = file.read(12 * num)
    if num == 0 or len(entries) < 12 * num:
        return True
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    for entry in range(num):
        _, kind, count, value = struct.unpack_from(order + "HHII", entries, 12 * entry)
        length = sizes.get(kind, 0) * count
        if length > 4 and value + length > size:
            return True
    return False


def _pixel_layout(file: IO[bytes]) -> str:
    """What a TIFF's first directory says of its pixels; for a person to know the kind by."""
    file.seek(0)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
        file.seek(tags.next)
        tags.load(file)
        bits, formats = tags.get(258, (1,)), tags.get(339, (1,))
        compression = TiffImagePlugin.COMPRESSION_INFO.get(tags.get(259, 1), f"number {tags.get(259)}")
    except DECODING_ERRORS:
        return "its directory is of an unknown form"
    numbers = {1: "", 2: " signed", 3: " float"}.get(formats[0], "")
    return f"channels: {len(bits)} of {bits[0]} bits{numbers}, compression: {compression}"


def _ends_within_box(file: IO[bytes], size: int) -> bool:
    """Whether the last box of an ISO media file is longer than what is left of the file."""
    place = 0
    for _ in range(_MAX_PIECES):
        if place >= size:
            break
        file.seek(place)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length == 0:  # to the end of the file
            return False
        if length < 8:
            return True
        place += length
    return place > size
