"""Checks of networks' options: absurd numbers are refused before anything is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reidkit.errors import ConfigError, UnknownName, shown

MAX_DIM = 65536
"""Widest embedding that a neck can be asked for; a linear layer to it from 2048 values has 0.5 GB."""

MAX_SIDE = 2048
"""Longest side of images, pixels, that a network can be built for."""


def check_whole(name: str, value: object, *, least: int, most: int, what: str) -> None:
    """Raise :class:`ConfigError` unless an option is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(
            f"{name} = {shown(value, 40)} is not possible; it is {what}, a whole number from {least} to "
            f"{most}"
        )


def check_choice(kind: str, value: object, known: Iterable[str]) -> None:
    """Raise :class:`ConfigError`, with the nearest choice, unless an option is one of those known."""
    known = tuple(known)
    if not isinstance(value, str):
        raise ConfigError(f"{kind} = {shown(value, 40)} is not possible; choose from {', '.join(known)}")
    if value not in known:
        raise UnknownName(kind, value, known)


def check_image_size(value: Sequence[int]) -> None:
    """Raise :class:`ConfigError` unless an option is [height, width] in pixels."""
    sides = list(value) if isinstance(value, (list, tuple)) else []
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
        raise ConfigError(
            f"image_size = {shown(value, 40)} is not [height, width] in pixels, each from 1 to {MAX_SIDE}"
        )
