"""MATLAB files of version 5 to 7, read with every length checked before it is believed.

SciPy's reader is compiled and trusts what a file says of itself: a damaged one can end the process. The
format is MathWorks' "MAT-File Format", level 5: tagged elements, each perhaps compressed. Values come as from
``scipy.io.loadmat(..., squeeze_me=True)``, except that numbers have the type they had in MATLAB, and not the
smaller one they are stored in.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 2**28
"""Most bytes that a variable may have when it is unpacked, or 64 times its own, where that is more: a small
file can claim to be huge."""

_MAX_DEPTH = 40  # of cells within cells
_HEADER = 128
_START = 4096  # bytes of a compressed variable that show its name

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_IS_COMPLEX = 0x0800

# How nearly every cell begins: flags, two lengths, no name; each with its tag.
_USUAL_HEAD = {order: struct.Struct(f"{order}6I2i2I") for order in "<>"}
_USUAL_TAGS = (6, 8, 5, 8, 1, 0)


class DamagedMatlab(ValueError):
    """Bytes that are not what the format says, or a kind of value that is not read here."""


class MatlabFile:
    """The variables of a file, each read when it is asked for.

    Raises:
        DamagedMatlab: the bytes are no such file; also from each method.
    """

    def __init__(self, content: bytes) -> None:
        if len(content) < _HEADER or content[126:128] not in (b"IM", b"MI"):
            raise DamagedMatlab("no header of MATLAB 5")
        self._order = "<" if content[126:128] == b"IM" else ">"
        self._elements: dict[str, tuple[int, memoryview]] = {}
        for kind, data in _Elements(memoryview(content)[_HEADER:], self._order).rest():
            self._elements[self._name(kind, data)] = (kind, data)

    @property
    def names(self) -> list[str]:
        """Of the variables, in the order of the file."""
        return list(self._elements)

    def value(self, name: str) -> Any:
        """A variable without axes of length 1.

        Numbers are arrays or scalars, text is ``str``, cells are object arrays, structs structured arrays
        whose fields hold objects.
        """
        kind, data = self._elements[name]
        if kind == _COMPRESSED:
            data = self._unpacked(data, whole=True)
        return _matrix(_Elements(data, self._order), depth=0)

    def _name(self, kind: int, data: memoryview) -> str:
        if kind == _COMPRESSED:
            data = self._unpacked(data, whole=False)
        elif kind != _MATRIX:
            raise DamagedMatlab(f"an element of type {kind} where a variable is expected")
        return _head(_Elements(data, self._order))[2]

    def _unpacked(self, data: memoryview, *, whole: bool) -> memoryview:
        """What a compressed element holds, behind its tag; its start only, unless ``whole``."""
        unpacker = zlib.decompressobj()
        try:
            limit = max(MAX_BYTES, 64 * len(data)) if whole else _START
            content = unpacker.decompress(data, limit)
        except zlib.error as error:
            raise DamagedMatlab(str(error)) from None
        if whole and not unpacker.eof:
            full = len(content) >= limit
            raise DamagedMatlab(f"more than {limit:,} bytes" if full else "a compressed variable is cut off")
        if len(content) < 8:
            raise DamagedMatlab("a compressed variable is empty")
        kind, size = struct.unpack(f"{self._order}II", content[:8])
        if kind != _MATRIX or (whole and size > len(content) - 8):
            raise DamagedMatlab("a compressed element holds no variable")
        return memoryview(content)[8 : 8 + size]


class _Elements:
    """Tagged elements one behind the other."""

    def __init__(self, data: memoryview, order: str) -> None:
        self.data = data
        self.order = order
        self.place = 0

    def next(self) -> tuple[int, memoryview]:
        """Type and bytes of the next element."""
        if self.place + 8 > len(self.data):
            raise DamagedMatlab("an element is missing at the end")
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.place)
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, start, end = kind & 0xFFFF, kind >> 16, self.place + 4, self.place + 8
            if size > 4:
                raise DamagedMatlab(f"a small element of {size} bytes")
        else:
            start = self.place + 8
            end = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(self.data):
            raise DamagedMatlab(f"an element of {size:,} bytes where {len(self.data) - start:,} are left")
        self.place = end
        return kind, self.data[start : start + size]

    def rest(self) -> Iterator[tuple[int, memoryview]]:
        while self.place < len(self.data):
            yield self.next()

    @property
    def num_left(self) -> int:
        return max(0, len(self.data) - self.place)

    def numbers(self) -> NDArray[Any]:
        """The next element, which must hold numbers, as stored (N,)."""
        kind, data = self.next()
        if kind not in _NUMBERS:
            raise DamagedMatlab(f"an element of type {kind} where numbers are expected")
        dtype = np.dtype(self.order + _NUMBERS[kind])
        if len(data) % dtype.itemsize:
            raise DamagedMatlab(f"{len(data)} bytes are no whole number of values")
        return np.frombuffer(data, dtype)

    def text(self) -> str:
        """The next element, which must hold text."""
        kind, data = self.next()
        if kind not in _TEXTS:
            raise DamagedMatlab(f"an element of type {kind} where text is expected")
        encoding = _TEXTS[kind]
        if encoding in ("utf-16", "utf-32"):
            encoding += "-le" if self.order == "<" else "-be"
        return bytes(data).decode(encoding)


def _head(elements: _Elements) -> tuple[int, tuple[int, ...], str]:
    """Flags, shape and name, with which each matrix begins."""
    usual = _USUAL_HEAD[elements.order]
    if elements.num_left >= usual.size:
        fields = usual.unpack_from(elements.data, elements.place)
        if (*fields[:2], *fields[4:6], *fields[8:]) == _USUAL_TAGS and min(fields[6:8]) >= 0:
            elements.place += usual.size
            return fields[2], fields[6:8], ""
    flags = elements.numbers()
    shape = tuple(int(length) for length in elements.numbers())
    if len(flags) != 2 or len(shape) < 2 or len(shape) > 32 or min(shape) < 0:
        raise DamagedMatlab(f"a variable of shape {shape[:5]}")
    return int(flags[0]), shape, elements.text()


def _matrix(elements: _Elements, *, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise DamagedMatlab(f"cells within cells, more than {_MAX_DEPTH} deep")
    if not elements.num_left:
        return np.array([])  # an empty cell may have no content at all
    flags, shape, _ = _head(elements)
    kind = flags & 0xFF
    if kind == _CHAR:
        return _characters(elements, shape)
    if kind in _CLASSES:
        return _squeezed(_numeric(elements, shape, _CLASSES[kind], is_complex=bool(flags & _IS_COMPLEX)))
    if kind == _CELL:
        return _squeezed(_cells(elements, shape, depth))
    if kind == _STRUCT:
        return _squeezed(_structs(elements, shape, depth))
    raise DamagedMatlab(f"a value of MATLAB's class {kind}, which is not read")


def _numeric(elements: _Elements, shape: tuple[int, ...], dtype: str, *, is_complex: bool) -> NDArray[Any]:
    parts = [elements.numbers() for _ in range(1 + is_complex)]
    if any(len(part) != math.prod(shape) for part in parts):
        raise DamagedMatlab(f"{len(parts[0]):,} values for the shape {shape[:5]}")
    values = parts[0].astype(dtype) if not is_complex else parts[0] + 1j * parts[1]
    return values.reshape(shape, order="F")


def _characters(elements: _Elements, shape: tuple[int, ...]) -> Any:
    """Rows of characters as texts, the last axis joined."""
    text = elements.text()
    if len(text) != math.prod(shape):
        raise DamagedMatlab(f"{len(text):,} characters for the shape {shape[:5]}")
    if not text:
        return np.array([], dtype=np.str_)
    if len(text) == shape[-1]:
        return text
    letters = np.array(list(text)).reshape(shape, order="F")
    rows = ["".join(row) for row in letters.reshape(-1, shape[-1])]
    return _squeezed(np.array(rows).reshape(shape[:-1]))


def _cells(elements: _Elements, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
    values = np.empty(_checked_count(elements, math.prod(shape)), dtype=object)
    for place in range(len(values)):
        values[place] = _inner(elements, depth)
    return values.reshape(shape, order="F")


def _structs(elements: _Elements, shape: tuple[int, ...], depth: int) -> NDArray[Any]:
    lengths = elements.numbers()
    length = int(lengths[0]) if len(lengths) else 0
    _, names = elements.next()
    if length <= 0 or len(names) % length:
        raise DamagedMatlab("the names of fields are cut off")
    fields = [
        bytes(names[start : start + length]).split(b"\0")[0].decode("latin-1")
        for start in range(0, len(names), length)
    ]
    if not all(fields) or len({*fields}) != len(fields):
        raise DamagedMatlab("two fields of one name, or one without")
    count = math.prod(shape)
    _checked_count(elements, count * max(1, len(fields)))
    values = np.empty(count, dtype=[(field, object) for field in fields])
    for place in range(count):
        for field in fields:
            values[field][place] = _inner(elements, depth)
    return values.reshape(shape, order="F")


def _inner(elements: _Elements, depth: int) -> Any:
    kind, data = elements.next()
    if kind != _MATRIX:
        raise DamagedMatlab(f"an element of type {kind} in a cell")
    return _matrix(_Elements(data, elements.order), depth=depth + 1)


def _checked_count(elements: _Elements, count: int) -> int:
    """``count``, where so many elements can be left: each has a tag of eight bytes."""
    if 8 * count > elements.num_left:
        raise DamagedMatlab(f"{count:,} cells in {elements.num_left:,} bytes")
    return count


def _squeezed(values: NDArray[Any]) -> Any:
    if not values.size:
        return np.array([], dtype=values.dtype)
    values = np.squeeze(values)
    return values.item() if not values.shape and values.dtype.isbuiltin else values
