"""Image files: finding them, and reading them strictly into RGB."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from reidkit.errors import ConfigError, DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
"""Suffixes, in lower case, that make a file an image."""

MAX_PIXELS = 64_000_000
"""Limit on width x height where none is set: a small file can claim to be huge and eat all memory."""

MAX_PIXELS_VARIABLE = "REIDKIT_MAX_PIXELS"
"""Environment variable that sets the limit: it reaches every process that is started from here."""

# Only what IMAGE_SUFFIXES promises: Pillow would otherwise hand PostScript to an outside program.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"GIF8", b"P5", b"P6")

# What Pillow's decoders raise on damaged bytes.
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, TypeError, KeyError, EOFError, struct.error)
_UNKNOWN_RANGE = "{path} has 32-bit pixels, whose range is not known; save it with 8 or 16 bits a channel"

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image(path: Path) -> bool:
    """Whether the name has an image suffix and is not hidden (``._photo.jpg`` of macOS is no photo)."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_files(folder: str | Path) -> list[Path]:
    """All files at any depth below a folder, in plain string order; hidden folders are not entered.

    Linked folders are followed, except those that lead back to a folder they lie in. Raises
    :class:`DataError` where the folder, or one below it, cannot be read.
    """
    return sorted(_walk(Path(folder)), key=Path.as_posix)


def list_images(folder: str | Path) -> list[Path]:
    """The files of :func:`list_files` that are images by name."""
    return [path for path in list_files(folder) if is_image(path)]


def pixel_limit() -> int:
    """Largest width x height that :func:`load_image` accepts: $REIDKIT_MAX_PIXELS, or 64 million.

    Raises:
        ConfigError: the variable holds something else than a number above 0.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"{MAX_PIXELS_VARIABLE} is {text!r}; give a number of pixels, like {MAX_PIXELS}")
    return int(text)


def load_image(
    path: str | Path, *, box: tuple[int, int, int, int] | None = None, max_pixels: int | None = None
) -> Image.Image:
    """Read one image as 8-bit RGB, upright, whole or not at all.

    The EXIF orientation is applied. Transparent pixels are laid on white; 16-bit grey keeps its upper
    eight bits; of an animation the first picture is taken.

    Args:
        path: the file.
        box: (left, top, right, bottom) in pixels of the upright image; what lies outside is cut off.
        max_pixels: largest width x height accepted, :func:`pixel_limit` where it is not given. Where it is
            above Pillow's own limit, that one is raised with it.

    Raises:
        DataError: the file is missing, empty, no image, truncated or damaged, or too large; or the box
            holds no pixel. A truncated image is refused as long as the program leaves Pillow's switch
            ``ImageFile.LOAD_TRUNCATED_IMAGES`` off.
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > limit:
                raise DataError(_too_large(path, f"{width} x {height} = {width * height:,}", limit))
            image.load()
            rgb = _to_rgb(_upright(image), path)
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))  # Pillow refuses before it tells width and height
        raise DataError(_too_large(path, f"{int(number[0]):,}" if number else "too many", limit)) from None
    except _DAMAGE as error:
        raise DataError(_why_unreadable(Path(path), error)) from None
    return rgb if box is None else _cut(rgb, box, path)


def _too_large(path: str | Path, pixels: str, limit: int) -> str:
    return (
        f"{path} has {pixels} pixels, over the limit of {limit:,}; if the file can be trusted, raise the "
        f"limit with `reid --max-pixels NUMBER COMMAND` or the environment variable {MAX_PIXELS_VARIABLE}"
    )


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_loop(parent, name)]
        here = Path(parent)
        yield from (here / name for name in names)


def _cannot_list(error: OSError) -> None:
    raise DataError(f"cannot list folder {error.filename}: {error.strerror}")


def _is_loop(parent: str, name: str) -> bool:
    folder = Path(parent, name)
    return folder.is_symlink() and Path(parent).resolve().is_relative_to(folder.resolve())


def _upright(image: Image.Image) -> Image.Image:
    if "exif" not in image.info:  # getexif() is slow beside a small crop, and Pillow turns TIFF by itself
        return image
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DAMAGE:
        return image  # broken metadata; the pixels are whole
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow gives 16-bit PGM as 32-bit "I"
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 0xFFFF:
            raise DataError(_UNKNOWN_RANGE.format(path=path))
        image = Image.fromarray((grey >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise DataError(_UNKNOWN_RANGE.format(path=path))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _cut(image: Image.Image, box: tuple[int, int, int, int], path: str | Path) -> Image.Image:
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], image.width), min(box[3], image.height)
    if left >= right or top >= bottom:
        raise DataError(
            f"{path}: box {tuple(box)} holds no pixel of the {image.width} x {image.height} image; "
            "a box is (left, top, right, bottom) in pixels"
        )
    return image.crop((left, top, right, bottom))


def _why_unreadable(path: Path, error: Exception) -> str:
    """One sentence on a file that Pillow could not read."""
    if path.is_dir():
        return f"{path} is a folder, not an image"
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except FileNotFoundError:
        return f"{path} is missing: there is no such file"
    except OSError as unreadable:
        return f"{path} cannot be opened: {unreadable.strerror}"
    if not start:
        return f"{path} is empty (0 bytes); copy it again or delete it"
    if start.startswith(_SIGNATURES):
        reason = "incomplete header" if isinstance(error, UnidentifiedImageError) else error
        return f"{path} is truncated or damaged ({reason}); copy it again or delete it"
    return (
        f"{path} is not an image: it begins with {start[:16]!r}; "
        f"expected one of {', '.join(_FORMATS)}; delete it, or convert it"
    )
