"""What a gallery that is not there, or not as it was written, raises."""

from __future__ import annotations

from collections.abc import Sequence

from reidkit.errors import DataError


class NoGallery(DataError):
    """There is no gallery at a location, and none was to be made."""


class UnavailableGallery(DataError):
    """A gallery that cannot be read or written now: it was moved, its disk fails or its server is silent."""


class DamagedGallery(DataError):
    """What a gallery holds is not what was written. ``ids`` are the items it concerns, where known."""

    def __init__(self, message: str, *, ids: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.ids = tuple(ids)
