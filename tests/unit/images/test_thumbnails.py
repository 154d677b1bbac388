"""Thumbnails: small, and nothing in them but pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from reidkit.galleries._thumbnails import LARGEST, thumbnail_value
from reidkit.images.reading import load_image
from reidkit.images.thumbnails import SIZE, thumbnail


@pytest.mark.parametrize("size", [(1, 1), (64, 128), (1000, 300), (300, 4000), SIZE])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_any_picture_gives_one_that_a_gallery_keeps(size, mode):
    shape = size[::-1] if mode == "L" else (*size[::-1], 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = thumbnail(Image.fromarray(noise, mode=mode) if mode == "L" else Image.fromarray(noise))
    assert thumbnail_value(data) == data
    assert len(data) < LARGEST
    width, height = load_image(data).size
    assert (width <= SIZE[0], height <= SIZE[1]) == (True, True)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.2) or min(width, height) < 20


def test_what_a_file_says_besides_is_left_out():
    buffer = io.BytesIO()
    image = Image.new("RGB", (40, 90), "red")
    exif = Image.Exif()
    exif[0x010E] = "at home"
    image.save(buffer, format="JPEG", exif=exif, comment=b"with a friend")
    assert b"at home" in buffer.getvalue()
    data = thumbnail(Image.open(buffer))
    assert b"at home" not in data
    assert b"with a friend" not in data
