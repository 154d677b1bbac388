"""Text of data sets, by whoever made them: UTF-8 or UTF-16, with or without a byte-order mark."""

from __future__ import annotations

import codecs
from pathlib import Path

from reidkit.errors import DataError
from reidkit.files import open_regular

MAX_BYTES = 2**30
PARQUET_MARK = b"PAR1"

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_OTHER_KINDS = (
    (b"PK\x03\x04", "a ZIP file, as Excel's .xlsx are"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)"),
    (b"\x1f\x8b", "compressed by gzip"),
    (PARQUET_MARK, "a Parquet file"),
)


def read_text(path: Path) -> str:
    """The whole text of a file, without its byte-order mark.

    Raises:
        DataError: no such file, one that is no plain file or cannot be read, more than 1 GB, or content that
            is not UTF-8 or UTF-16 text; an 8-bit encoding of Windows is named with the word that shows it.
    """
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{path} has more than {MAX_BYTES >> 20} MB; expected a text")
    return decoded(content, source=str(path))


def decoded(content: bytes, *, source: str) -> str:
    """:func:`read_text` of bytes; ``source`` is their name for messages."""
    for start, kind in _OTHER_KINDS:
        if content.startswith(start):
            raise DataError(f"{source} is {kind}, not text; save it as text (CSV UTF-8)")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not {encoding.removesuffix('-sig').upper()} text: {_why(content, error)}"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(
            f"{source} holds a zero byte in line {line}, as binary files do and UTF-16 without a byte-order "
            "mark; save it as UTF-8"
        )
    return text


def _why(content: bytes, error: UnicodeDecodeError) -> str:
    """Where text stops to be UTF-8, and what it looks like in Western Windows' own encoding."""
    line = content.count(b"\n", 0, error.start) + 1
    if error.encoding != "utf-8":
        return f"{error.reason} in line {line}; save it as UTF-8"
    around = content[max(0, error.start - 20) : error.start + 20].decode("cp1252", "replace")
    place = min(error.start, 20)
    start = max(around.rfind(sign, 0, place) for sign in ',;\t\n\r"/ ') + 1
    word = next(iter(around[start:].replace(",", " ").replace(";", " ").split()), "")
    return (
        f"byte {content[error.start]:#04x} in line {line}; in Windows-1252 it would read {word!r}: "
        "if that is right, save it as UTF-8 (in Excel 'CSV UTF-8')"
    )
