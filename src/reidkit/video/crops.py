"""Which pictures of a person are worth embedding: how a box lies, and how sharp what it shows is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import DataError
from reidkit.video.boxes import Boxes
from reidkit.video.frames import Picture

MOST_BOXES = 1000
"""Of one frame. More are no people; each is compared with all others."""

_GOOD_HEIGHT = 128.0  # pixels from which on more of them tell little
_LOOK = (8, 16)  # width and height of what pictures are compared by
_SHARPNESS_HEIGHT = 96
_BEHIND = 0.5  # a box that stands farther back covers little of one before it


def lie_of(boxes: Boxes, *, width: int, height: int) -> NDArray[np.float64]:
    """How well each box can be used, before any picture is seen; 0 to 1, (N,).

    The product of its height (up to 128 pixels), of the share that lies within the picture, of the share that
    no other box covers, and of its confidence.

    Raises:
        DataError: more than 1,000 boxes in a frame.
    """
    left, top, right, bottom = boxes.corners.T
    area = (right - left) * (bottom - top)
    inside_width = np.minimum(right, width) - np.maximum(left, 0)
    inside = inside_width * (np.minimum(bottom, height) - np.maximum(top, 0)) / area
    free = np.ones(len(boxes))
    for frame, rows in boxes.by_frame():
        if len(rows) > MOST_BOXES:
            raise DataError(
                f"{boxes.source}: frame {frame} has {len(rows):,} boxes; at most {MOST_BOXES:,} people are "
                "looked for in one picture: let the detector keep only boxes it is sure of"
            )
        free[rows] = 1 - _covered(boxes.corners[rows], area[rows])
    tall = np.minimum((bottom - top) / _GOOD_HEIGHT, 1)
    sure = np.clip(boxes.confidences, 0.01, 1)
    lie: NDArray[np.float64] = tall * inside * free * sure
    return lie


def _covered(corners: NDArray[np.float64], area: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of each box that the box which covers most of it does cover."""
    low = np.maximum(corners[:, None, :2], corners[None, :, :2])
    high = np.minimum(corners[:, None, 2:], corners[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=2) / area[:, None]
    np.fill_diagonal(common, 0)
    is_behind = corners[None, :, 3] < corners[:, None, 3]
    shares: NDArray[np.float64] = np.where(is_behind, _BEHIND * common, common).max(axis=1)
    return np.minimum(shares, 1)


def cut(image: Picture, corners: Sequence[float], *, context: float = 0.0) -> Picture | None:
    """The part of a picture within a box, (h, w, 3); ``None`` where no pixel is in it.

    ``corners`` are left, top, right, bottom; ``context`` is how much is added on each side, as a share of the
    box's width and height.
    """
    left, top, right, bottom = corners
    more_width, more_height = context * (right - left), context * (bottom - top)
    height, width = image.shape[:2]
    first_column, last_column = max(0, round(left - more_width)), min(width, round(right + more_width))
    first_row, last_row = max(0, round(top - more_height)), min(height, round(bottom + more_height))
    if first_column >= last_column or first_row >= last_row:
        return None
    return np.ascontiguousarray(image[first_row:last_row, first_column:last_column])


def sharpness(crop: Picture) -> float:
    """How much of a picture's contrast is in its edges, 0 to 1; at one size, so that crops compare."""
    grey = Image.fromarray(crop).convert("L")
    size = (max(8, round(grey.width * _SHARPNESS_HEIGHT / grey.height)), _SHARPNESS_HEIGHT)
    pixels = np.asarray(grey.resize(size, Image.Resampling.BILINEAR), np.float32)
    edges = float(np.abs(np.diff(pixels, axis=0)).mean() + np.abs(np.diff(pixels, axis=1)).mean())
    return edges / (edges + float(pixels.std()) + 1.0)


def look(crop: Picture) -> NDArray[np.float32]:
    """A few pixels of a crop, by which :func:`difference` compares it with others."""
    return np.asarray(Image.fromarray(crop).resize(_LOOK, Image.Resampling.BOX), np.float32)


def difference(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The mean difference of two looks, in the levels 0 to 255."""
    return float(np.abs(first - second).mean())
