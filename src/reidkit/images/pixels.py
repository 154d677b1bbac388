"""Pixels of any kind as 8-bit RGB: turned upright, laid on white, sixteen bits cut to eight."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WITHOUT_RANGE = "whose range is not known; save it with 8 or 16 bits a channel"
_SIXTEEN_BITS_AS_32 = ("PPM", "PNG")  # what Pillow gives in mode "I" of these formats are 16 bits


class UnreadPixels(Exception):
    """Pixels that cannot be made RGB without guessing. The message goes on after "the image has ..."."""


def as_rgb(image: Image.Image, *, file_format: str | None, orientation: int = 1) -> Image.Image:
    """A new RGB image that bears no metadata, so that nothing of it is applied twice.

    Args:
        image: loaded, of any mode.
        file_format: Pillow's name of the format it was read from; ``None`` where it comes from elsewhere.
        orientation: of its EXIF data, 1 to 8.

    Raises:
        UnreadPixels: no pixels, pixels of 32 bits, or colours that Pillow does not convert.
    """
    if 0 in image.size:
        raise UnreadPixels(f"no pixels: it is {image.width} x {image.height}")
    if image.mode == "F" or (image.mode == "I" and file_format not in _SIXTEEN_BITS_AS_32):
        raise UnreadPixels(f"32-bit pixels, {_WITHOUT_RANGE}")
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        image = _on_white(image)
    method = _UPRIGHT.get(orientation)
    if method is not None:
        image = image.transpose(method)
    try:
        rgb = image.convert("RGB")
    except ValueError:
        raise UnreadPixels(f"colours of the kind {image.mode}; convert it to RGB") from None
    rgb.info = {}
    return rgb


def from_array(array: NDArray[Any]) -> Image.Image:
    """An array as an image, for :func:`as_rgb`.

    Taken are uint8 and uint16 (the upper byte counts, as in files of 16 bits) of shape (H, W) or (H, W, 1)
    for grey, (H, W, 2) grey and opacity, (H, W, 3) RGB, (H, W, 4) RGB and opacity; and bool (H, W).

    Raises:
        UnreadPixels: another shape or type.
    """
    seen = f"the shape {array.shape} and the type {array.dtype}"
    if array.dtype.kind == "f":
        raise UnreadPixels(
            f"{seen}: whether 1 or 255 is white cannot be told; give uint8, of values in 0..1 by "
            '(255 * array).round().astype("uint8")'
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_mask = array.ndim == 2 and array.dtype == np.bool_
    if not is_mask and (array.dtype.kind != "u" or array.dtype.itemsize > 2):
        raise UnreadPixels(f"{seen}; give uint8, 0..255")
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (2, 3, 4)):
        raise UnreadPixels(
            f"{seen}; give one image of the shape (H, W, 3) in RGB order, or a list of them{_turned(array)}"
        )
    if array.dtype.itemsize == 2:
        array = (array >> 8).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _turned(array: NDArray[Any]) -> str:
    return (
        "; colours go last: array.transpose(1, 2, 0)"
        if array.ndim == 3 and array.shape[0] in (1, 3, 4)
        else ""
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """The upper bytes of 16-bit grey; where one value of it is transparent, with opacity."""
    grey = np.asarray(image)
    upper = (grey >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(upper)
    opacity = np.where(grey == transparent, 0, 255).astype(np.uint8)
    return Image.fromarray(np.dstack([upper, opacity]))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied; Pillow converts it to nothing else
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
