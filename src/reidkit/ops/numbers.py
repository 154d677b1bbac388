"""Checks of the numbers that configure a loss."""

from __future__ import annotations

import math
import sys

from reidkit.errors import ConfigError, shown


def check_number(
    name: str, value: object, *, low: float = 0.0, high: float = math.inf, also: str = ""
) -> None:
    """Raise :class:`ConfigError` unless ``low <= value < high``; ``also`` names what else is allowed."""
    if not (_is_number(value) and low <= value < high):  # type: ignore[operator]
        below = "" if high == math.inf else f" and below {high:g}"
        raise ConfigError(
            f"{name} is {shown(value)}; expected a finite number of at least {low:g}{below}{also}"
        )


def check_positive(name: str, value: object) -> None:
    """Raise :class:`ConfigError` unless ``value`` is finite and greater than 0."""
    if not (_is_number(value) and 0 < value < math.inf):  # type: ignore[operator]
        raise ConfigError(f"{name} is {shown(value)}; expected a finite number greater than 0")


def _is_number(value: object) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # integers may be larger than any float, and fit into no tensor


def check_count(name: str, value: object, *, also: str = "") -> None:
    """Raise :class:`ConfigError` unless ``value`` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {shown(value)}; expected an integer of at least 1{also}")
