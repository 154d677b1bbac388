"""Damage of each format: what is found, and what cannot be told, as the module says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import DataError
from reidkit.images import jpeg
from reidkit.images.reading import load_image, to_rgb

FORMATS: dict[str, dict[str, object]] = {
    "JPEG": {},
    "JPEG progressive": {"progressive": True},
    "JPEG grey": {},
    "JPEG cmyk": {},
    "PNG": {},
    "GIF": {},
    "WEBP": {},
    "WEBP lossless": {"lossless": True},
    "AVIF": {},
    "JPEG2000": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "BMP": {},
    "PPM": {},
}
NO_CHECKSUM = ("TIFF", "BMP", "PPM")  # any bytes are pixels there


def person(mode: str = "RGB") -> Image.Image:
    pixels = np.zeros((128, 64, 3))
    pixels[:64], pixels[64:] = (200, 60, 40), (30, 80, 160)
    pixels += np.random.default_rng(0).normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    found = {}
    for name, options in FORMATS.items():
        buffer = io.BytesIO()
        mode = {"JPEG grey": "L", "JPEG cmyk": "CMYK"}.get(name, "RGB")
        person(mode).save(buffer, name.split()[0], **options)  # type: ignore[arg-type]
        found[name] = buffer.getvalue()
    return found


def is_read(data: bytes) -> bool:
    try:
        load_image(data)
    except DataError as error:
        message = str(error)
    else:
        return True
    assert "damaged" in message
    assert "\n" not in message
    return False


def places(data: bytes) -> range:
    return range(len(data) // 3, 9 * len(data) // 10, len(data) // 9)


@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_file_is_damaged_by_all_means(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    assert is_read(data)
    for place in places(data):
        with pytest.raises(DataError, match=r"is truncated or damaged \(.+\); copy it again"):
            load_image(data[:place])


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in NO_CHECKSUM])
def test_zeros_to_the_end_as_an_interrupted_copy_leaves_them(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    for place in places(data)[:-1]:
        assert not is_read(data[:place] + bytes(len(data) - place)), place


@pytest.mark.parametrize("name", ["JPEG", "JPEG progressive", "JPEG grey", "JPEG cmyk"])
def test_a_jpeg_that_is_cut_and_closed_or_overwritten(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    noise = np.random.default_rng(0).bytes(600)
    for place in places(data)[:-1]:
        assert not is_read(data[:place] + b"\xff\xd9"), place
        assert not is_read(data[:place] + bytes(len(data) - place - 2) + b"\xff\xd9"), place
        assert not is_read(data[:place] + noise[: len(data) // 3] + data[place + len(data) // 3 :]), place


def test_a_progressive_jpeg_that_lacks_scans_is_damaged(files: dict[str, bytes]) -> None:
    for mode in ("RGB", "L", "CMYK"):
        buffer = io.BytesIO()
        person(mode).save(buffer, "JPEG", progressive=True)
        data = buffer.getvalue()
        assert is_read(data + b"\xff\xda and what else follows the end")
        scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
        assert len(scans) > 4
        for place in scans[1:]:
            with pytest.raises(DataError, match=r"damaged \(scans of a progressive JPEG are missing"):
                load_image(data[:place] + b"\xff\xd9")


def test_a_jpeg_without_steps_of_quantisation_is_damaged(files: dict[str, bytes]) -> None:
    for name in ("JPEG", "JPEG progressive", "JPEG grey", "JPEG cmyk"):
        data = files[name]
        place = data.index(b"\xff\xdb")
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        with pytest.raises(DataError, match=r"damaged \(a quantisation table holds a zero"):
            load_image(data[: place + 4] + bytes(end - place - 4) + data[end:])


def test_a_jpeg_whose_frame_is_zeros_is_of_no_kind(files: dict[str, bytes]) -> None:
    data = files["JPEG"]
    place = data.index(b"\xff\xc0")
    with pytest.raises(DataError, match="it is of a kind that is not read, or damaged"):
        load_image(data[: place + 4] + bytes(15) + data[place + 19 :])


@pytest.mark.parametrize("num_bytes", [9, 4096])
def test_a_file_of_zeros_is_damaged(num_bytes: int) -> None:
    with pytest.raises(DataError, match="is damaged: it begins with zeros, as an interrupted copy"):
        load_image(bytes(num_bytes))


def test_every_changed_byte_of_a_png_is_found(files: dict[str, bytes]) -> None:
    data = files["PNG"]
    for place in range(8, len(data), 397):
        changed = bytearray(data)
        changed[place] ^= 0x10
        assert not is_read(bytes(changed)), place


@pytest.mark.parametrize("name", ["GIF", "TIFF lzw", "TIFF deflate"])
def test_noise_in_the_middle_is_mostly_found(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    tried = list(places(data))
    noise = np.random.default_rng(0).bytes(64)
    read = sum(is_read(data[:place] + noise + data[place + 64 :]) for place in tried)
    assert read <= len(tried) // 2


def test_what_follows_the_picture_does_not_matter(files: dict[str, bytes]) -> None:
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        assert is_read(files[name] + b"a video of the moment" * 9), name
        assert is_read(files[name] + bytes(4096)), name


def test_a_few_filling_bytes_before_the_end_mark_are_usual(files: dict[str, bytes]) -> None:
    data = files["JPEG"]
    assert is_read(data[:-2] + b"\0" + data[-2:])
    assert is_read(data[:-2] + b"\xff\xff" + data[-2:])


def test_a_jpeg_opened_by_pillow_is_read_as_strictly(files: dict[str, bytes], tmp_path: Path) -> None:
    data = files["JPEG"]
    path = tmp_path / "closed.jpg"
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with Image.open(path) as image, pytest.raises(DataError, match=r"closed\.jpg is truncated or damaged"):
        to_rgb(image)
    with Image.open(io.BytesIO(data)) as image:
        image.draft("L", (16, 32))  # smaller, as its owner wants it
        assert to_rgb(image).size == image.size != (64, 128)


def test_the_bits_are_those_of_pillow(files: dict[str, bytes]) -> None:
    for name in ("JPEG", "JPEG progressive", "JPEG grey", "JPEG cmyk"):
        with Image.open(io.BytesIO(files[name])) as image:
            expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(load_image(files[name])), expected, err_msg=name)


def test_no_real_image_is_called_damaged(real_data: Path) -> None:
    paths = sorted((real_data / "market1501-500").rglob("*.jpg"))[::40]
    assert len(paths) > 200
    for path in paths:
        load_image(path)


def test_a_jpeg_that_repeats_itself_is_not_worked_through(files: dict[str, bytes]) -> None:
    data = files["JPEG progressive"]
    start = data.rindex(b"\xff\xda")
    bomb = data[:start] + data[start:-2] * (jpeg.MAX_SCANS + 1) + data[-2:]
    with pytest.raises(
        DataError, match=r"of a kind that is not read \(11\d scans; 100 are decoded at most\)"
    ):
        load_image(bomb)


def test_unknown_sampling_factors_are_left_to_pillow(files: dict[str, bytes]) -> None:
    data = bytearray(files["JPEG"])
    data[data.index(b"\xff\xc0") + 11] = 0x42  # luminance four times as wide, twice as high as colour
    assert jpeg.decode(bytes(data), "RGB") is None


def test_whatever_the_bytes_are_it_is_a_picture_or_one_line(files: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    for name, data in files.items():
        for _ in range(20):
            changed = bytearray(data)
            for place in rng.integers(0, min(len(data), 300), 4):
                changed[place] = rng.integers(256)
            try:
                load_image(bytes(changed))
            except DataError as error:
                message = str(error)
            else:
                continue
            assert "\n" not in message, name
            assert len(message) < 600, name
