"""The picture that an item shows, as far as it can still be read; and a few items that stand for many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from reidkit.errors import DataError, MissingExtra
from reidkit.galleries import Gallery, Item
from reidkit.images.reading import load_image
from reidkit.video.item_pictures import is_from_video, picture_of

_CROP = re.compile(r"(.*)#(\d+),(\d+),(\d+),(\d+)", re.DOTALL)


def shown_picture(item: Item, thumbnail: bytes | None) -> Image.Image:
    """The picture of an item, or its thumbnail where that is gone; :class:`DataError` without either."""
    try:
        return item_picture(item)
    except (DataError, MissingExtra):  # of what reads videos
        if thumbnail is None:
            raise
        return load_image(thumbnail)


def thumbnails_of(items: Sequence[Item], gallery: Gallery | None) -> Mapping[int, bytes]:
    """Thumbnails that a gallery keeps of these items, by id; none where no gallery is given."""
    return gallery.thumbnails(ids=[item.id for item in items]) if gallery is not None else {}


def item_picture(item: Item) -> Image.Image:
    """The picture of an item, cut out where it is a part; :class:`DataError` where it cannot be read."""
    if is_from_video(item):
        return picture_of(item)
    if item.source is None:
        raise DataError("the item says of no picture")
    crop = _CROP.fullmatch(item.source)
    if crop is None or Path(item.source).exists():
        return load_image(item.source, box=None if item.box is None else _whole_pixels(item.box))
    left, top, right, bottom = map(int, crop.groups()[1:])
    return load_image(crop[1], box=(left, top, right, bottom))


def _whole_pixels(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(round, box)
    return left, top, right, bottom


def spread(items: Sequence[Item], num: int) -> list[Item]:
    """So many of the items at most, from all over; the first and the last among them."""
    if len(items) <= num:
        return list(items)
    return [items[round(place * (len(items) - 1) / max(1, num - 1))] for place in range(num)]
