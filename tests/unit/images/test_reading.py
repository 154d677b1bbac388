"""Finding images and reading them strictly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError
from reidkit.images.reading import list_files, list_images, load_image


def picture() -> Image.Image:
    """Four flat quarters on JPEG's 16-pixel grid, so that it keeps the colours and every turn shows."""
    pixels = np.zeros((64, 32, 3), np.uint8)
    pixels[:32, :16] = (250, 0, 0)
    pixels[:32, 16:] = (0, 250, 0)
    pixels[32:, :16] = (0, 0, 250)
    pixels[32:, 16:] = (250, 250, 250)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8))


def pixels_of(path: Path, **options: object) -> np.ndarray:
    image = load_image(path, **options)  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    picture().save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert (pixels_of(path) == np.asarray(picture())).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(tmp_path: Path, suffix: str, orientation: int) -> None:
    # By the standard, orientation n says where the stored row 0 and column 0 are in the upright image.
    upright = np.asarray(picture())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),  # must be turned clockwise for display
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    loaded = pixels_of(path)
    assert loaded.shape == upright.shape
    inner = (slice(4, None, 8), slice(4, None, 8))  # colours bleed where quarters meet
    np.testing.assert_allclose(loaded[inner], upright[inner].astype(int), atol=12)


def test_broken_exif_does_not_cost_the_pixels(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    picture().save(path, exif=b"Exif\0\0garbage that is no TIFF header")
    assert load_image(path).size == (32, 64)


def test_palettes_grey_and_cmyk_become_rgb(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    picture().quantize(4).save(path)
    np.testing.assert_allclose(pixels_of(path), np.asarray(picture()).astype(int), atol=3)
    Image.new("L", (4, 4), 77).save(path)
    assert (pixels_of(path) == 77).all()
    Image.new("1", (4, 4), 1).save(path)
    assert (pixels_of(path) == 255).all()
    jpeg = tmp_path / "x.jpg"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(jpeg)
    np.testing.assert_allclose(pixels_of(jpeg)[4, 4], (255, 0, 0), atol=4)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 2, 4))
    path = tmp_path / "x.png"
    image.convert(mode).save(path)
    loaded = pixels_of(path)
    assert (loaded[:, :2] == 0).all()
    assert (loaded[:, 2:] == 255).all()


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path: Path, suffix: str) -> None:
    grey = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 255
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(grey).save(path)
    assert (pixels_of(path)[..., 0] == np.arange(256).reshape(16, 16)).all()


def test_pixels_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiff"
    for pixels in (np.full((4, 4), 0.5, np.float32), np.full((4, 4), 70_000, np.int32)):
        Image.fromarray(pixels).save(path)
        with pytest.raises(DataError, match="32-bit pixels"):
            load_image(path)


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert tuple(pixels_of(path)[0, 0]) == (255, 0, 0)


def test_box_is_cut_and_clipped(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    picture().save(path)
    whole = np.asarray(picture())
    assert (pixels_of(path, box=(3, 5, 10, 20)) == whole[5:20, 3:10]).all()
    assert (pixels_of(path, box=(-4, 10, 100, 100)) == whole[10:]).all()


@pytest.mark.parametrize("box", [(32, 0, 40, 4), (5, 5, 5, 9), (9, 3, 4, 8), (-9, -9, 0, 0)])
def test_box_without_pixels_is_refused(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    path = tmp_path / "x.png"
    picture().save(path)
    with pytest.raises(DataError, match=r"x\.png: box .* holds no pixel of the 32 x 64 image"):
        load_image(path, box=box)


def test_box_counts_in_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "x.jpg"
    picture().rotate(90, expand=True).save(path, exif=exif)
    np.testing.assert_allclose(pixels_of(path, box=(2, 3, 12, 28)), [[(250, 0, 0)] * 10] * 25, atol=8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("GIF", {}),
    ],
)
def test_no_prefix_of_an_image_passes_for_an_image(
    tmp_path: Path, image_format: str, options: dict[str, object]
) -> None:
    whole = encoded(noise(), image_format, **options)
    path = tmp_path / "cut.jpg"
    # The last bytes of PNG and GIF are end marks and checksums, after the pixels; 4 bytes tell every format.
    for length in [*range(4, len(whole) - 24, 23), len(whole) - 24]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.jpg is truncated or damaged \(.+\); copy it again"):
            load_image(path)
    path.write_bytes(whole)
    load_image(path)


def test_each_fault_has_its_own_words(tmp_path: Path) -> None:
    def message(path: Path, **options: int) -> str:
        with pytest.raises(DataError) as caught:
            load_image(path, **options)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "missing: there is no such file" in message(tmp_path / "none.jpg")
    assert "is a folder" in message(tmp_path)
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert "is empty (0 bytes)" in message(empty)
    text = tmp_path / "text.jpg"
    text.write_text("dear diary")
    assert "is not an image: it begins with b'dear diary'" in message(text)
    postscript = tmp_path / "page.jpg"
    postscript.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert "is PostScript, which is not read here" in message(postscript)


def test_an_open_file_that_cannot_be_read_is_told_and_a_stream_is_read_through(tmp_path: Path) -> None:
    class Stream:
        """As of a library that has no ``seekable``."""

        def __init__(self, content: bytes) -> None:
            self._file = io.BytesIO(content)

        def read(self, count: int = -1) -> bytes:
            return self._file.read(count)

    content = encoded(picture(), "JPEG")
    (tmp_path / "a.jpg").write_bytes(content)
    with (
        (tmp_path / "a.jpg").open() as file,
        pytest.raises(DataError, match="open as text; open it in binary"),
    ):
        load_image(file)  # type: ignore[arg-type]
    with (tmp_path / "a.jpg").open("rb") as file:
        pass
    with pytest.raises(DataError, match=r"a\.jpg is closed; give it while it is open"):
        load_image(file)
    assert load_image(Stream(content)).size == picture().size  # type: ignore[arg-type]


def test_a_large_image_names_its_size_and_the_option(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.new("1", (9_000, 8_000)).save(path)
    with pytest.raises(DataError, match=r"9000 x 8000 = 72,000,000 pixels.*64,000,000.*--max-pixels"):
        load_image(path)
    assert load_image(path, max_pixels=72_000_000).size == (9_000, 8_000)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = encoded(Image.new("1", (1, 1)), "BMP")
    bomb = header[:18] + (60_000).to_bytes(4, "little") * 2 + header[26:]
    path = tmp_path / "bomb.bmp"
    path.write_bytes(bomb)
    with pytest.raises(DataError, match=r"bomb\.bmp has 3,600,000,000 pixels, over the limit of 64,000,000"):
        load_image(path)


def test_an_image_of_300_million_pixels_is_refused_at_little_cost(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.new("1", (30_000, 10_000)).save(path)
    with pytest.raises(DataError, match=r"scan\.png has 300,000,000 pixels.*REIDKIT_MAX_PIXELS"):
        load_image(path)


def test_the_environment_raises_the_limit_and_pillows_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)  # so that Pillow refuses more than 2,000
    path = tmp_path / "x.png"
    Image.new("RGB", (60, 50)).save(path)
    monkeypatch.setenv("REIDKIT_MAX_PIXELS", "900")
    with pytest.raises(DataError, match=r"has 3,000 pixels, over the limit of 900"):
        load_image(path)
    monkeypatch.setenv("REIDKIT_MAX_PIXELS", "3000")
    assert load_image(path).size == (60, 50)
    monkeypatch.setenv("REIDKIT_MAX_PIXELS", "3e8")
    with pytest.raises(ConfigError, match="REIDKIT_MAX_PIXELS is '3e8'; give a number of pixels"):
        load_image(path)


def test_the_command_line_raises_the_limit_for_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REIDKIT_MAX_PIXELS", "")  # put back after the test
    for number in range(2):
        (tmp_path / f"{number}").mkdir()
        Image.new("RGB", (60, 50 + number)).save(tmp_path / f"{number}/a.png")
    check = ["check", "folder", str(tmp_path), "--json"]
    refused = CliRunner().invoke(cli, ["--max-pixels", "3000", *check])
    assert refused.exit_code == 1
    assert "60 x 51 = 3,060 pixels, over the limit of 3,000" in refused.stdout
    accepted = CliRunner().invoke(cli, ["--max-pixels", "3060", *check])
    assert accepted.exit_code == 0, accepted.output


def test_listing_is_deep_sorted_and_leaves_hidden_files(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/10.jpg", "b-c/1.png", "a.webp", "notes.txt", "._a.jpg", ".cache/x.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a.webp", "b-c/1.png", "b/10.jpg", "b/2.JPG"]
    files = [path.relative_to(tmp_path).as_posix() for path in list_files(str(tmp_path))]
    assert files == ["._a.jpg", *found, "notes.txt"]


def test_listing_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/1.jpg").touch()
    (tmp_path / "root/sub").mkdir(parents=True)
    (tmp_path / "root/linked").symlink_to(tmp_path / "real")
    (tmp_path / "root/sub/loop").symlink_to(tmp_path / "root")
    assert list_images(tmp_path / "root") == [tmp_path / "root/linked/1.jpg"]


def test_listing_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot list folder .*gone: No such file"):
        list_images(tmp_path / "gone")
