"""Where an item is: the frame of its video or sequence, and its box in that picture. Kept with the labels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from reidkit.errors import shown

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels, from the upper left corner of the picture."""

_LARGEST_FRAME = 2**53
_FARTHEST = 1e6  # pixels
_DIGITS = 2  # of a pixel's fraction


def frame_value(value: Any) -> int:
    """The number of a frame; :class:`ValueError` for what is none."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = int(value) if isinstance(value, float) and value.is_integer() else -1
    if not 0 <= number <= _LARGEST_FRAME:
        raise ValueError(f"{shown(value)} is no number of a frame; expected a whole number from 0 on")
    return number


def box_text(value: Any) -> str:
    """A box as it is kept, to a hundredth of a pixel; :class:`ValueError` for what is none.

    >>> box_text((10, 20.5, 40, 100)), box_text("10, 20.50,40,100")
    ('10,20.5,40,100', '10,20.5,40,100')
    """
    try:
        corners = [float(part) for part in (value.split(",") if isinstance(value, str) else value)]
    except (TypeError, ValueError):
        corners = []
    if len(corners) != 4 or not all(math.isfinite(corner) and abs(corner) <= _FARTHEST for corner in corners):
        raise ValueError(f"{shown(value)} is no box; expected left, top, right, bottom in pixels")
    left, top, right, bottom = (round(corner, _DIGITS) + 0.0 for corner in corners)
    if left >= right or top >= bottom:
        raise ValueError(f"{shown(value)} is an empty box; expected left, top, right, bottom in pixels")
    return ",".join(str(corner).removesuffix(".0") for corner in (left, top, right, bottom))


def box_of(text: str) -> Box:
    """A box from how it is kept."""
    left, top, right, bottom = map(float, text.split(","))
    return left, top, right, bottom


PLACES: dict[str, Callable[[Any], Any]] = {"frame": frame_value, "box": box_text}
"""By name, what turns a given value into the kept one."""

NO_CONDITIONS = frozenset({"box"})
"""What filters do not ask for."""
