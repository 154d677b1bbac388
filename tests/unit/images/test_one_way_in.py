"""An image is the same from its path, its bytes, an open file, Pillow and, where it says all, an array."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError
from reidkit.images.reading import load_image, to_rgb

MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "HSV",
    "LAB",
    "I;16",
    "La",
    "RGBa",
    "RGBX",
)
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PPM", "JPEG2000", "AVIF")


def picture(mode: str) -> Image.Image:
    """A gradient with a transparent corner, so that every mode has something to lose."""
    rows, columns = np.mgrid[0:64, 0:32]
    pixels = np.stack([4 * rows, 8 * columns, 255 - 4 * rows, np.where(rows + columns < 24, 0, 255)], axis=2)
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode == "I;16":
        return Image.fromarray((rows * 1024 + columns).astype(np.uint16))
    if mode in ("P", "PA"):
        palette = image.convert("RGB").quantize(16)
        return palette if mode == "P" else palette.convert("PA")
    if mode == "La":
        return image.convert("LA").convert("La")
    if mode == "LAB":
        return image.convert("RGB").convert("LAB")
    return image.convert(mode) if mode in ("LA", "RGBA", "RGBa") else image.convert("RGB").convert(mode)


def files() -> list[tuple[str, bytes]]:
    """All modes in all formats that take them, upright and turned, with and without a transparent colour."""
    turned = Image.Exif()
    turned[0x0112] = 6
    found = []
    for image_format in FORMATS:
        for mode in MODES:
            for extra in ({}, {"exif": turned.tobytes()}, {"transparency": 0}):
                if "transparency" in extra and (
                    image_format not in ("PNG", "GIF") or mode not in ("P", "L", "I;16")
                ):
                    continue
                buffer = io.BytesIO()
                try:
                    picture(mode).save(buffer, image_format, **extra)
                except (OSError, ValueError, KeyError):
                    continue  # the format does not know the mode
                found.append((f"{image_format} {mode} {' '.join(extra)}", buffer.getvalue()))
    return found


def same(first: Image.Image, second: Image.Image, name: str) -> None:
    assert first.mode == second.mode == "RGB", name
    assert first.size == second.size, name
    np.testing.assert_array_equal(np.asarray(first), np.asarray(second), err_msg=name)


def test_path_bytes_file_and_pil_image_are_one(tmp_path: Path) -> None:
    made = files()
    assert len(made) > 60
    for name, data in made:
        path = tmp_path / "x"
        path.write_bytes(data)
        expected = load_image(path)
        same(load_image(data), expected, name)
        same(load_image(io.BytesIO(data)), expected, name)
        with path.open("rb") as file:
            file.read(7)  # wherever it stands
            same(load_image(file), expected, name)
        with Image.open(path) as image:
            same(to_rgb(image), expected, name)
            same(to_rgb(image), expected, f"{name}: asked twice")
            image.load()
            if name.startswith("TIFF") and "exif" in name:
                continue  # Pillow itself mixes up their sides when it is given the path
            same(load_image(image), expected, f"{name}: loaded")
            if image.mode != "I":  # 16 bits in 32, of which a copy does not know any more
                same(load_image(image.copy()), expected, f"{name}: copied")
        same(to_rgb(expected), expected, f"{name}: turned once, and not again")
        is_turned = "exif" in name and not name.startswith(("GIF", "BMP", "PPM", "JPEG2000"))
        assert expected.size == ((64, 32) if is_turned else (32, 64)), name


def test_a_transparent_grey_of_sixteen_bits_is_white(tmp_path: Path) -> None:
    image = picture("I;16")
    image.save(tmp_path / "x.png", transparency=1024)
    assert load_image(tmp_path / "x.png").getpixel((0, 1)) == (255, 255, 255)
    assert load_image(tmp_path / "x.png").getpixel((1, 1)) == (4, 4, 4)


def test_arrays_are_taken_where_their_meaning_is_known() -> None:
    rgba = np.asarray(picture("RGBA"))
    for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16"):
        image = picture(mode)
        same(load_image(np.asarray(image)), to_rgb(image), mode)
    same(
        load_image(rgba[:, ::-1]),
        to_rgb(picture("RGBA").transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "a view",
    )
    same(load_image(rgba[:, :, :1]), to_rgb(Image.fromarray(rgba[:, :, 0])), "(H, W, 1)")
    sixteen = np.asarray(picture("RGB")).astype(np.uint16) * 257
    same(load_image(sixteen), to_rgb(picture("RGB")), "16-bit colours")
    same(load_image(sixteen.astype(">u2")), to_rgb(picture("RGB")), "in the other byte order")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 4, 3), np.float32), r"float32: whether 1 or 255 is white cannot be told; give uint8"),
        (np.zeros((8, 4, 3), np.int64), r"shape \(8, 4, 3\) and the type int64; give uint8"),
        (np.zeros((3, 16, 8), np.uint8), r"colours go last: array.transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 4, 3), np.uint8), r"shape \(2, 8, 4, 3\).*or a list of them"),
        (np.zeros((0, 4, 3), np.uint8), r"no pixels: it is 4 x 0"),
        (np.zeros((8, 4, 3), object), "type object; give uint8"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (Image.new("RGB", (0, 4)), "the image has no pixels: it is 0 x 4"),
        (Image.new("F", (4, 4)), "the image has 32-bit pixels"),
        (Image.new("I", (4, 4)), "the image has 32-bit pixels"),
        (None, "a NoneType is no image; give a path, bytes"),
        (b"", r"the image given as bytes is empty \(0 bytes\)"),
    ],
)
def test_what_is_not_taken_is_refused_in_one_line(array: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_image(array)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_boxes_cut_every_source_and_never_give_what_has_no_pixel() -> None:
    image = picture("RGB")
    for source in (image, np.asarray(image)):
        same(load_image(source, box=(-4, 10, 100, 100)), to_rgb(image.crop((0, 10, 32, 64))), "clipped")
        for box in ((32, 0, 40, 4), (9, 3, 4, 8), (-9, -9, 0, 0), (4, 4, 4, 9), (2, 2, -1, 4)):
            with pytest.raises(DataError, match=r"holds no pixel of the 32 x 64 image"):
                load_image(source, box=box)
        for odd in ((float("nan"), 0, 4, 4), (0, 0, float("inf"), 4), (0, 0, 4), ("a", 0, 4, 4), 7):
            with pytest.raises(DataError, match=r"is no box; give \(left, top, right, bottom\)"):
                load_image(source, box=odd)  # type: ignore[arg-type]
