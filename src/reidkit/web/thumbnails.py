"""Small pictures of items, kept in memory up to a limit.

They are never on disk, so that nothing is left of an item that is erased, by whichever process.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable

from PIL import Image

from reidkit.errors import DataError, MissingExtra
from reidkit.galleries import Gallery, Item
from reidkit.logs import get_logger
from reidkit.search.item_pictures import shown_picture

logger = get_logger(__name__)

SIZE = (160, 320)
LARGE = (1024, 2048)


class NoPicture(DataError):
    """An item whose picture cannot be had. Why is for the log alone: it may say what is in a file."""


class Thumbnails:
    """JPEGs by key, the least used forgotten first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, gallery: str, item: Item, make: Callable[[Item], bytes]) -> bytes:
        """The small picture of an item, as it is now."""
        key = (gallery, item.id, item.source, item.content)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make(item)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += len(made)
            while self._size > self._limit:
                _, dropped = self._kept.popitem(last=False)
                self._size -= len(dropped)
        return made

    def forget(self, gallery: str) -> None:
        """Drop all of a gallery."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == gallery]:
                self._size -= len(self._kept.pop(key))


def jpeg_of(gallery: Gallery, item: Item, size: tuple[int, int]) -> bytes:
    """An item's picture as a JPEG that fits into (width, height), without anything but its pixels.

    Where the picture is gone, it is the thumbnail that the gallery keeps. Raises :class:`NoPicture` where
    there is none either.
    """
    try:
        image = shown_picture(item, gallery.thumbnails(ids=[item.id]).get(item.id))
    except (DataError, MissingExtra) as error:
        logger.debug(f"no picture of item {item.id}: {error}")
        raise NoPicture(
            f"the picture of item {item.id} cannot be read any more; index it where it is now"
        ) from None
    image.thumbnail(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()
