"""Kinds of files by content: what is read, and what is whole and of another kind."""

from __future__ import annotations

import io
import os
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.errors import CheckpointError, DataError
from reidkit.files import open_regular, require_regular
from reidkit.images import kinds as image_kinds
from reidkit.images.kinds import kind_of
from reidkit.images.reading import is_image, load_image
from reidkit.images.survey import survey


def encoded(image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 32), "red").save(buffer, image_format, **options)
    return buffer.getvalue()


def tiff(*, bits: int, num_format: int, channels: int, photometric: int) -> bytes:
    """A TIFF of 2 x 2 pixels, uncompressed."""
    data = bytes(4 * channels * bits // 8)
    values = [
        *((256, 4, [2]), (257, 4, [2]), (258, 3, [bits] * channels), (259, 3, [1]), (262, 3, [photometric])),
        *((273, 4, [0]), (277, 3, [channels]), (278, 4, [2]), (279, 4, [len(data)])),
        (339, 3, [num_format] * channels),
    ]
    start = 8 + 2 + 12 * len(values) + 4
    rows, tail = b"", b""
    for tag, kind, numbers in values:
        packed = b"".join(struct.pack("<H" if kind == 3 else "<I", number) for number in numbers)
        if len(packed) > 4:
            packed, tail = struct.pack("<I", start + len(tail)), tail + packed
        rows += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    rows = rows.replace(
        struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, start + len(tail))
    )
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + rows + bytes(4) + tail + data


def jpeg_frame(marker: int, bits: int = 8) -> bytes:
    data = bytearray(encoded("JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = marker, bits
    return bytes(data)


@pytest.mark.parametrize(
    "image_format",
    ["JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "MPO"],
)
def test_what_pillow_reads_of_photographs_is_read_whatever_its_name(
    tmp_path: Path, image_format: str
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(image_format))
    np.testing.assert_allclose(np.asarray(load_image(path))[16, 8], (255, 0, 0), atol=4)


WHOLE = {
    "12 bits": (jpeg_frame(0xC1, 12), "JPEG of a kind that is not read .12 bits a channel"),
    "lossless": (jpeg_frame(0xC3), "JPEG of a kind that is not read .lossless"),
    "float TIFF": (tiff(bits=32, num_format=3, channels=3, photometric=2), "TIFF .*3 of 32 bits float"),
    "32-bit TIFF": (tiff(bits=32, num_format=1, channels=3, photometric=2), "TIFF .*3 of 32 bits"),
    "half floats": (tiff(bits=16, num_format=3, channels=1, photometric=1), "TIFF .*1 of 16 bits float"),
    "grey and alpha": (tiff(bits=16, num_format=1, channels=2, photometric=1), "TIFF .*2 of 16 bits"),
    "float grey": (tiff(bits=32, num_format=3, channels=1, photometric=1), "32-bit pixels, whose range"),
    "JPEG XL": (b"\xff\x0a" + bytes(40), "JPEG XL, which is not read here; convert it"),
    "PDF": (b"%PDF-1.7\n" + bytes(40), "a PDF, which is not read here"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript, which is not read here"),
    "video": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40), "a video, which .* cut pictures"),
    "raw": (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "raw file, which .* develop it"),
    "BMP in a JPEG's clothes": (
        encoded("BMP")[:30] + struct.pack("<I", 4) + encoded("BMP")[34:],
        r"BMP that cannot be decoded \(Unsupported BMP compression",
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_nobody_is_told_to_delete_a_whole_picture(name: str) -> None:
    data, message = WHOLE[name]
    with pytest.raises(DataError, match=message) as caught:
        load_image(data)
    assert "delete" not in str(caught.value)
    assert "is truncated or damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_raw_file_is_not_its_preview(tmp_path: Path) -> None:
    path = tmp_path / "photo.nef"
    Image.new("RGB", (16, 12)).save(path, "TIFF", tiffinfo={254: 1})
    with pytest.raises(DataError, match="raw file, of which only a preview"):
        load_image(path)


def test_heic_is_read_by_an_extra_and_named_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99))
    (tmp_path / "jpeg.heic").write_bytes(encoded("JPEG"))
    monkeypatch.setattr(image_kinds, "has_heic", lambda: False)
    assert not is_image(path)
    assert is_image(tmp_path / "jpeg.heic"), "by content it is a JPEG"
    with pytest.raises(DataError, match=r"HEIC, which is not read here; it needs pillow-heif: pip .*heic"):
        load_image(path)
    assert "1 .heic (HEIC: it needs pillow-heif" in survey(tmp_path).summary()
    monkeypatch.setattr(image_kinds, "has_heic", lambda: True)
    assert is_image(path)
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), "red")).save(path)
    np.testing.assert_allclose(np.asarray(load_image(path))[32, 32], (255, 0, 0), atol=6)


def test_a_survey_names_what_is_left_out(tmp_path: Path) -> None:
    contents = {
        "a/1.JPG": encoded("JPEG"),
        "a/2.jfif": encoded("JPEG"),
        "a/3.Jpe": encoded("JPEG"),
        "IMG_4": encoded("JPEG"),
        "5.dat": encoded("PNG"),
        "6.mov": b"\0\0\0\x14ftypqt  \0\0\0\0qt  ",
        "7.nef": encoded("TIFF"),
        "notes.txt": b"dear diary",
        "Thumbs.db": b"whatever",
        ".hidden.png": encoded("PNG"),
    }
    for name, data in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = survey(tmp_path)
    assert [path.name for path in found.images] == ["1.JPG", "2.jfif", "3.Jpe"]
    assert found.summary() == (
        "1 .dat (PNG by content, not by name: rename it), 1 .mov (a video: cut pictures out of it), "
        "1 .nef (a camera's raw file: develop it to JPEG or PNG), "
        "1 without a suffix (JPEG by content, not by name: rename it), 1 .txt"
    )
    assert load_image(tmp_path / "IMG_4").size == (16, 32), "given by itself it is read"


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"P6\n1 1 255\n", "PPM"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"P6x", None),
    ],
)
def test_signatures(start: bytes, name: str | None) -> None:
    kind = kind_of(start)
    assert (kind.name if kind else None) == name


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_regular_file_is_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "folder.jpg").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "s.jpg"))
    said = {
        "pipe.jpg": "is a named pipe, not a file",
        "link.jpg": "is a named pipe, not a file",
        "circle.jpg": "is a link that leads in a circle",
        "broken.jpg": "is a link to gone.jpg, which is missing",
        "folder.jpg": "is a folder, not a file",
        "s.jpg": "is a socket, not a file",
        "none.jpg": "is missing: there is no such file",
        "x" * 5000: "is too long for a path",
        "zero\0byte": "is no path",
        "/dev/null": "is a device, not a file",
    }
    for name, message in said.items():
        with pytest.raises(DataError, match=message) as caught:
            load_image(tmp_path / name)
        assert "\n" not in str(caught.value)
        with pytest.raises(CheckpointError, match=message):
            require_regular(tmp_path / name, error=CheckpointError)
    listening.close()
    (tmp_path / "whole.jpg").write_bytes(b"content")
    with open_regular(tmp_path / "whole.jpg") as file:
        assert file.read() == b"content"
