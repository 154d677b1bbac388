"""The cameras that several videos or streams are of."""

from __future__ import annotations

from collections.abc import Sequence

from reidkit.errors import ConfigError, shown
from reidkit.labels import camera_value


def checked_cameras(cameras: Sequence[int | str] | None, num: int, what: str) -> list[int | str]:
    """Numbers or names, one for each of ``num`` videos; 1, 2, ... if left out.

    Raises :class:`ConfigError` for another number of them, and for one that stands for none.
    """
    names = list(range(1, num + 1)) if cameras is None else list(cameras)
    check_number(names, num, what, "cameras")
    return [_camera(name) for name in names]


def check_number(given: Sequence[object], num: int, what: str, named: str) -> None:
    """Raise :class:`ConfigError` where there is not one of these for each."""
    if len(given) != num:
        raise ConfigError(f"{num} {what}, but {len(given)} {named}; give one for each, in their order")


def _camera(value: int | str) -> int | str:
    camera = camera_value(value)
    if camera is None:
        raise ConfigError(f"camera {shown(value)} is none that is known; give a number or a name")
    return camera
