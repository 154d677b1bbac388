"""Small pictures of items, kept with them so that they can be shown when the pictures themselves are gone."""

from __future__ import annotations

from typing import Any

from reidkit.errors import shown

LARGEST = 2**16  # bytes of one thumbnail
_START, _END = b"\xff\xd8\xff", b"\xff\xd9"  # of every JPEG file


def thumbnail_value(value: Any) -> bytes:
    """A thumbnail as it is kept; :class:`ValueError` for what is none."""
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    if not isinstance(value, bytes):
        kind = type(value).__name__
        raise ValueError(f"{shown(value)} is of type {kind}; expected the bytes of a JPEG file")
    if len(value) > LARGEST:
        raise ValueError(
            f"a thumbnail has {len(value):,} bytes; at most {LARGEST:,} are kept: make the picture smaller"
        )
    if not (value.startswith(_START) and value.endswith(_END)):
        raise ValueError(f"{shown(value[:8])}... is not the content of a whole JPEG file")
    return value


def is_whole(data: object) -> bool:
    """Whether something read is a thumbnail as it is kept."""
    try:
        return isinstance(data, bytes) and thumbnail_value(data) == data
    except ValueError:
        return False
