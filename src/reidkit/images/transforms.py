"""From a picture to what a network reads, the same every time: resized, then normalised.

Images stay uint8 until the batch is on its device: a quarter of the memory to move between processes.
Nothing here imports torch; networks of other runtimes are fed without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor


def resized(
    image: Image.Image,
    *,
    height: int,
    width: int,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.uint8]:
    """An RGB image of any size as uint8 (height, width, 3)."""
    if image.size != (width, height):
        image = image.resize((width, height), resampling)
    return np.array(image)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, H, W) -> float32, per channel (value / 255 - mean) / std."""
    import torch  # here: whoever has a tensor has it, and others need not wait for it

    scale = 255 * torch.tensor(std, device=images.device).view(3, 1, 1)
    shift = 255 * torch.tensor(mean, device=images.device).view(3, 1, 1)
    return (images.float() - shift) / scale


def normalize_array(
    images: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """:func:`normalize` for arrays, equal to it bit for bit. uint8 (B, H, W, 3) -> float32 (B, 3, H, W)."""
    scale = 255 * np.array(std, dtype=np.float32).reshape(3, 1, 1)
    shift = 255 * np.array(mean, dtype=np.float32).reshape(3, 1, 1)
    floats = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    if not shift.any() and (scale == 1).all():  # a file that normalises by itself
        return floats
    normalized: NDArray[np.float32] = (floats - shift) / scale
    return normalized
