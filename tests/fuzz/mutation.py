"""Damage to bytes and to texts."""

from __future__ import annotations

import random
import re

from tests.fuzz.hostile import HOSTILE_TEXTS, NAMES_OF_CODE

_EDGE = 512  # bytes at both ends, where headers and directories lie, and half of the damage falls
_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def damaged(content: bytes, random: random.Random) -> bytes:
    """Bytes with one to four wounds of a kind that disks, networks and enemies make."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_WOUNDS)(data, random)
    return bytes(data)


def flipped(content: bytes, random: random.Random) -> bytes:
    """Bytes with a single bit changed, anywhere."""
    data = bytearray(content)
    place = random.randrange(len(data))
    data[place] ^= 1 << random.randrange(8)
    return bytes(data)


def damaged_text(text: str, random: random.Random) -> bytes:
    """A text with words exchanged for hostile ones, or its bytes damaged, or in another encoding."""
    how = random.random()
    if how < 0.1:
        return text.encode(random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp500")))
    if how < 0.4:
        return damaged(text.encode(), random)
    words = list(re.finditer(r"\"[^\"\n]*\"|[\w.+-]+", text))
    for word in sorted(
        random.sample(words, min(len(words), random.choice((1, 1, 2, 3)))), key=lambda w: -w.start()
    ):
        text = text[: word.start()] + _word(random) + text[word.end() :]
    return text.encode("utf-8", "surrogateescape")


def _word(random: random.Random) -> str:
    return random.choice(
        (
            *HOSTILE_TEXTS,
            *(f'"{name}"' for name in NAMES_OF_CODE),
            "null", "true", "{}", "[]", "1979-05-27", "07:32:00", "1e400", "-0", "0x_", '"""', "'''",
            "[" * 2000 + "]" * 2000, '{"a":' * 2000, "1" * 5000,
        )
    )  # fmt: skip


def _place(data: bytearray, random: random.Random) -> int:
    where = random.random()
    if not data:
        return 0
    if where < 0.35:
        return random.randrange(min(len(data), _EDGE))
    if where < 0.5:
        return len(data) - 1 - random.randrange(min(len(data), _EDGE))
    return random.randrange(len(data))


def _flip(data: bytearray, random: random.Random) -> None:
    for _ in range(random.choice((1, 1, 8))):
        if data:
            data[_place(data, random)] ^= 1 << random.randrange(8)


def _overwrite(data: bytearray, random: random.Random) -> None:
    start, length = _place(data, random), random.choice((1, 2, 4, 16, 256))
    filling = random.choice((b"\0", b"\xff", None))
    data[start : start + length] = filling * length if filling else random.randbytes(length)


def _integer(data: bytearray, random: random.Random) -> None:
    size = random.choice((1, 2, 4, 8))
    start = _place(data, random) // random.choice((1, size)) * 1
    value = random.choice(_INTEGERS) % 256**size
    data[start : start + size] = value.to_bytes(size, random.choice(("little", "big")))


def _cut(data: bytearray, random: random.Random) -> None:
    del data[_place(data, random) :]


def _remove(data: bytearray, random: random.Random) -> None:
    start = _place(data, random)
    del data[start : start + random.choice((1, 4, 100))]


def _insert(data: bytearray, random: random.Random) -> None:
    start = _place(data, random)
    data[start:start] = random.choice(
        (random.randbytes(7), b"\0" * 100, bytes(data[:64]), b"(" * 5000, b"[" * 5000)
    )


def _repeat(data: bytearray, random: random.Random) -> None:
    start = _place(data, random)
    piece = bytes(data[start : start + random.choice((4, 64, 1024))])
    place = _place(data, random)
    data[place : place + len(piece)] = piece


_WOUNDS = (_flip, _flip, _flip, _overwrite, _overwrite, _integer, _integer, _cut, _remove, _insert, _repeat)
