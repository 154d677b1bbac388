"""The picture that an item shows, as far as it can still be read; and a few items that stand for many."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reidkit.errors import DataError
from reidkit.galleries import Item
from reidkit.images.reading import load_image
from reidkit.video.item_pictures import is_from_video, picture_of

_CROP = re.compile(r"(.*)#(\d+),(\d+),(\d+),(\d+)", re.DOTALL)


def item_picture(item: Item) -> Image.Image:
    """The picture of an item, cut out where it is a part; :class:`DataError` where it cannot be read."""
    if is_from_video(item):
        return picture_of(item)
    if item.source is None:
        raise DataError("the item says of no picture")
    crop = _CROP.fullmatch(item.source)
    if crop is None or Path(item.source).exists():
        return load_image(item.source)
    left, top, right, bottom = map(int, crop.groups()[1:])
    return load_image(crop[1], box=(left, top, right, bottom))


def spread(items: Sequence[Item], num: int) -> list[Item]:
    """So many of the items at most, from all over; the first and the last among them."""
    if len(items) <= num:
        return list(items)
    return [items[round(place * (len(items) - 1) / max(1, num - 1))] for place in range(num)]
