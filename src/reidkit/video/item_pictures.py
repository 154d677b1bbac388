"""The picture of an item that came from a video: cut out of it again."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from reidkit.errors import DataError
from reidkit.galleries import Item
from reidkit.video.crops import cut
from reidkit.video.frames import open_video


def is_from_video(item: Item) -> bool:
    """Whether :func:`reidkit.video.track` made an item."""
    return {"video", "frame", "box"} <= item.labels.keys()


def picture_of(item: Item) -> Image.Image:
    """The picture within an item's box, from the video that it came from.

    Raises :class:`DataError` where the video is gone, or is another one, or the labels are no place in it.
    """
    try:
        frame, text = int(item.labels["frame"]), str(item.labels["box"])  # type: ignore[arg-type]
        corners = [float(value) for value in text.split(",")]
        if len(corners) != 4:
            raise ValueError
    except (TypeError, ValueError):
        raise DataError(f"item {item.id} does not say where in its video it is") from None
    video = open_video(Path(str(item.labels["video"])))  # a file: a gallery may not name what is elsewhere
    found = next(iter(video.frames(max(frame, 0))), None)
    pixels = None if found is None or found.number != frame else cut(found.image, corners)
    if pixels is None:
        raise DataError(f"{item.labels['video']} has no such place as frame {frame}, box {text}")
    return Image.fromarray(pixels)
