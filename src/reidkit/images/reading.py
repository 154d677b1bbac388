"""Image files: finding them, and reading them strictly into RGB."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from reidkit.errors import ConfigError, DataError
from reidkit.files import open_regular
from reidkit.images import jpeg
from reidkit.images.damage import DECODING_ERRORS, Damaged, check_file, why_undecoded
from reidkit.images.kinds import LOOK, Kind, kind_of
from reidkit.images.pixels import ORIENTATION_TAG, UnreadPixels, as_rgb, from_array

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
_JPEG_2000 = (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc")
_PLAIN = (".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm")
IMAGE_SUFFIXES = frozenset((*_JPEG, *_PLAIN, *_JPEG_2000, ".webp", ".avif"))
"""Suffixes, in lower case, that make a file an image."""

HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
"""Suffixes that do where pillow-heif is installed."""

MAX_PIXELS = 64_000_000
"""Limit on width x height where none is set: a small file can claim to be huge and eat all memory."""

MAX_PIXELS_VARIABLE = "REIDKIT_MAX_PIXELS"
"""Environment variable that sets the limit: it reaches every process that is started from here."""

ImageSource: TypeAlias = str | PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any]
Box: TypeAlias = tuple[int, int, int, int]

# No JPEG needs more: 16 bytes a pixel, and a preview, colour profile and notes in front.
_JPEG_BYTES = 1 << 26
_DNG_VERSION, _SUBFILE_TYPE, _REDUCED = 50706, 254, 1


def is_image(path: Path) -> bool:
    """Whether the name has an image suffix and is not hidden (``._photo.jpg`` of macOS is no photo).

    What is named HEIC is one if it can be read here: by pillow-heif, or because it is a JPEG in truth.
    """
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix in HEIC_SUFFIXES and _is_readable(path))


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


class TooManyPixels(DataError):
    """An image is larger than what is accepted; ``pixels`` says how large, for people."""

    def __init__(self, name: str, pixels: str, limit: int) -> None:
        self.pixels = pixels
        super().__init__(
            f"{name} has {pixels} pixels, over the limit of {limit:,}; if the file can be trusted, raise the "
            f"limit with `reid --max-pixels NUMBER COMMAND` or the environment variable {MAX_PIXELS_VARIABLE}"
        )


def load_image(source: ImageSource, *, box: Box | None = None, max_pixels: int | None = None) -> Image.Image:
    """Read one image as 8-bit RGB, upright, whole or not at all.

    The same picture comes out the same from its path, its bytes, an open file and from Pillow: the EXIF
    orientation is applied; transparent pixels are laid on white; 16-bit grey keeps its upper eight bits; of
    an animation the first picture is taken. An array has neither orientation nor format, and counts as it is:
    see :func:`reidkit.images.pixels.from_array` for shapes and types. The kind of a file is told by its
    content.

    Args:
        source: a path, the bytes of a file, an open file, a PIL image, or an array.
        box: (left, top, right, bottom) in pixels of the upright image; what lies outside is cut off.
        max_pixels: largest width x height accepted, :func:`pixel_limit` where it is not given. Where it is
            above Pillow's own limit, that one is raised with it.

    Raises:
        DataError: nothing there, no regular file, empty, no image, of a kind that is not read, truncated or
            damaged as far as that can be told (see :mod:`reidkit.images.damage`), or too large; an array of
            another shape or type; the box holds no pixel. A PIL image that was loaded before is taken to be
            whole: Pillow does not say.
    """
    limit = pixel_limit() if max_pixels is None else max_pixels
    if isinstance(source, (str, PathLike)):
        name = str(source)
        with open_regular(name) as file:
            rgb = _read(file, name, limit)
    elif isinstance(source, Image.Image):
        rgb, name = to_rgb(source), _name(source)
    elif isinstance(source, np.ndarray):
        rgb, name = _of_array(source), "the image array"
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = "the image given as bytes"
        rgb = _read(io.BytesIO(source), name, limit)
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", "the image given as a file"))
        rgb = _read(_seekable(source, name), name, limit)
    else:
        raise DataError(
            f"a {type(source).__name__} is no image; give a path, bytes, a file, a PIL image or an array"
        )
    return rgb if box is None else _cut(rgb, box, name)


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image as :func:`load_image` gives that of its file; the one given stays as it is.

    A JPEG that Pillow has opened and not loaded is decoded here, strictly.

    Raises:
        DataError: it holds no pixels, or such as cannot be made RGB; or its file turns out to be damaged.
    """
    return _rgb(image, _name(image), Kind(f"a {image.format or 'PIL'} image", image.format or ""), None)


def _seekable(file: IO[bytes], name: str) -> IO[bytes]:
    """An open file, or its content where one cannot go back in it, as in a stream from elsewhere."""
    if getattr(file, "closed", False):
        raise DataError(f"{name} is closed; give it while it is open, or its path")
    if not isinstance(file.read(0), bytes):
        raise DataError(f"{name} is open as text; open it in binary mode, 'rb'")
    return file if hasattr(file, "seekable") and file.seekable() else io.BytesIO(file.read())


def _read(file: IO[bytes], name: str, limit: int) -> Image.Image:
    file.seek(0)
    start = file.read(LOOK)
    kind = kind_of(start)
    if not start:
        raise DataError(f"{name} is empty (0 bytes); copy it again or delete it")
    if kind is None and not any(start):
        raise DataError(
            f"{name} is damaged: it begins with zeros, as an interrupted copy leaves it; copy it again"
        )
    if kind is None:
        raise DataError(f"{name} is not an image: it begins with {start[:16]!r}; leave it out, or convert it")
    if not kind.is_read:
        raise DataError(f"{name} is {kind.name}, which is not read here; {kind.hint}")
    if kind.format == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    file.seek(0)
    try:
        image = Image.open(file, formats=(kind.format,))
    except Image.DecompressionBombError as error:
        number = re.search(r"\d+", str(error))  # Pillow refuses before it tells width and height
        raise TooManyPixels(name, f"{int(number[0]):,}" if number else "too many", limit) from None
    except DECODING_ERRORS as error:
        raise DataError(why_undecoded(name, kind, file, error)) from None
    width, height = image.size
    if width * height > limit:
        raise TooManyPixels(name, f"{width} x {height} = {width * height:,}", limit)
    if kind.format == "TIFF" and _is_preview(image):
        raise DataError(
            f"{name} is a camera's raw file, of which only a preview could be read; develop it to JPEG"
        )
    return _rgb(image, name, kind, file)


def _rgb(image: Image.Image, name: str, kind: Kind, file: IO[bytes] | None) -> Image.Image:
    try:
        loaded = _loaded(image)
        return as_rgb(loaded, file_format=image.format, orientation=_orientation(image))
    except UnreadPixels as error:
        raise DataError(f"{name} has {error}") from None
    except jpeg.UnreadJpeg as error:
        raise DataError(
            f"{name} is a JPEG of a kind that is not read ({error}); save it as a usual one"
        ) from None
    except (Damaged, *DECODING_ERRORS) as error:
        raise DataError(why_undecoded(name, kind, file, error)) from None


def _loaded(image: Image.Image) -> Image.Image:
    """The image with its pixels decoded; strictly where it comes from a file and was not decoded before."""
    file = image.fp if isinstance(image, ImageFile.ImageFile) and _is_fresh(image) else None
    if file is not None and not file.closed and file.seekable():
        if image.format in ("JPEG", "MPO") and image.tell() == 0:
            pixels = _jpeg_pixels(file, image)
            # Of CMYK it was the check alone: files differ in whether they are inverted, which Pillow knows.
            if pixels is not None and pixels.shape[:2] == image.size[::-1] and image.mode != "CMYK":
                return Image.fromarray(pixels)
        elif image.format == "TIFF" and bool(getattr(image, "filename", "")) and image.tell() == 0:
            # Opened by its path, Pillow maps the file to memory and takes the sides of a turned one for each
            # other. From the open file it does not.
            file.seek(0)
            image = Image.open(file, formats=("TIFF",))
        elif image.format is not None:
            check_file(file, image.format)
    image.load()
    return image


def _is_fresh(image: ImageFile.ImageFile) -> bool:
    """Whether its pixels are still to be decoded, as far as Pillow tells: of WebP and AVIF it does not."""
    return bool(image.tile) or image.format in ("WEBP", "AVIF")


def _jpeg_pixels(file: IO[bytes], image: Image.Image) -> NDArray[np.uint8] | None:
    place = file.tell()
    file.seek(0)
    data = file.read(16 * image.width * image.height + _JPEG_BYTES)
    file.seek(place)
    try:
        return jpeg.decode(data, image.mode)
    except ValueError as error:
        raise Damaged(str(error)) from None


def _orientation(image: Image.Image) -> int:
    if "exif" not in image.info:  # getexif() is slow beside a small crop, and Pillow turns TIFF by itself
        return 1
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except DECODING_ERRORS:
        return 1  # broken metadata; the pixels are whole


def _is_preview(image: Image.Image) -> bool:
    """Whether a TIFF is the raw file of a camera: its first picture is a small one, to be shown in lists."""
    tags = getattr(image, "tag_v2", {})
    return _DNG_VERSION in tags or tags.get(_SUBFILE_TYPE) == _REDUCED


def _of_array(array: NDArray[Any]) -> Image.Image:
    try:
        return as_rgb(from_array(array), file_format=None)
    except UnreadPixels as error:
        raise DataError(f"the image array has {error}") from None


def _name(image: Image.Image) -> str:
    return str(getattr(image, "filename", "") or "the image")


def _is_readable(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            kind = kind_of(file.read(LOOK))
    except (DataError, OSError):
        return True  # so that reading it says what is wrong
    return kind is not None and kind.is_read


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


def _cut(image: Image.Image, box: Box, name: str) -> Image.Image:
    try:
        left, top, right, bottom = map(round, box)  # refuses what is not finite
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name}: {box!r} is no box; give (left, top, right, bottom) in pixels") from None
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, image.width), min(bottom, image.height)
    if left >= right or top >= bottom:
        raise DataError(
            f"{name}: box {tuple(box)} holds no pixel of the {image.width} x {image.height} image; "
            "a box is (left, top, right, bottom) in pixels"
        )
    return image.crop((left, top, right, bottom))
