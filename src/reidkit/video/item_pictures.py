"""The picture of an item that came from a video: cut out of it again."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from reidkit.errors import DataError
from reidkit.galleries import Item
from reidkit.texts.addresses import is_address
from reidkit.video.crops import cut
from reidkit.video.frames import open_video


def is_from_video(item: Item) -> bool:
    """Whether :func:`reidkit.video.track` made an item."""
    return "video" in item.labels and item.frame is not None and item.box is not None


def picture_of(item: Item) -> Image.Image:
    """The picture within an item's box, from the video that it came from.

    Raises :class:`DataError` where the video is gone, or is another one, or the item says of no place in it.
    """
    if item.frame is None or item.box is None:
        raise DataError(f"item {item.id} does not say where in its video it is")
    if is_address(item.labels["video"]):
        raise DataError(
            f"item {item.id} came from a stream, which is gone; the gallery keeps a small picture"
        )
    video = open_video(Path(str(item.labels["video"])))  # a file: a gallery may not name what is elsewhere
    found = next(iter(video.frames(item.frame)), None)
    pixels = None if found is None or found.number != item.frame else cut(found.image, item.box)
    if pixels is None:
        raise DataError(f"{item.labels['video']} has no such place as frame {item.frame}, box {item.box}")
    return Image.fromarray(pixels)
