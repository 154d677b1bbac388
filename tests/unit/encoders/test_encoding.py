"""Any number of images into a file or folder: stopped and gone on with, with bad images, by one encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders import encoding
from reidkit.encoders.encoding import check_encoding_target, encode_images
from reidkit.errors import ConfigError, DataError


def new_encoder(seed: int = 0) -> rk.Encoder:
    torch.manual_seed(seed)
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24, device="cpu")


@pytest.fixture(scope="module")
def encoder() -> rk.Encoder:
    return new_encoder()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "photos").mkdir()
    made = [tmp_path / "photos" / f"{number:02}.png" for number in range(10)]
    rng = np.random.default_rng(0)
    for path in made:
        Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(path)
    return made


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_BLOCK", 3)


class Stopped(Exception):
    """Stands for whatever ends the work in its middle."""


def stop_after(number: int):
    def progress(done: int, total: int) -> None:
        if done >= number:
            raise Stopped

    return progress


def check_rows(out: Path, encoder: rk.Encoder, paths: list[Path]) -> None:
    features, _ = rk.load_features(out)
    assert np.load(out / "paths.npy").tolist() == [str(path) for path in paths]
    np.testing.assert_allclose(features.embeddings, encoder.encode(paths), atol=1e-6)


def test_a_folder_is_read_as_features_and_mapped(encoder, paths, tmp_path):
    out = tmp_path / "features"
    paths[4].write_text("no image")
    seen = []
    encoded = encode_images(encoder, [*paths, paths[0]], out, progress=lambda *at: seen.append(at))
    assert (encoded.num_images, encoded.num_before, encoded.num_repeated) == (9, 0, 1)
    assert [str(paths[4]) in str(error) for error in encoded.left_out] == [True]
    assert seen == [(3, 10), (6, 10), (9, 10), (10, 10)]
    check_rows(out, encoder, paths[:4] + paths[5:])
    assert isinstance(rk.load_features(out)[0].embeddings, np.memmap)
    assert not [path.name for path in out.iterdir() if path.name.endswith(".unfinished")]


@pytest.mark.parametrize("name", ["features", "features.npz", "features.parquet"])
def test_what_was_stopped_goes_on(name, encoder, paths, tmp_path, monkeypatch):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    out = tmp_path / name
    with pytest.raises(Stopped):
        encode_images(encoder, paths, out, progress=stop_after(6))
    assert not (out / "embeddings.npy").exists()
    assert out.is_dir() == (name == "features")
    asked = []
    real = encoder.encode
    monkeypatch.setattr(
        encoder, "encode", lambda images, **more: asked.extend(images) or real(images, **more)
    )
    encoded = encode_images(encoder, paths, out)
    assert (encoded.num_images, encoded.num_before) == (10, 6)
    assert asked == paths[6:]
    monkeypatch.undo()
    if name == "features":
        check_rows(out, encoder, paths)
    elif name == "features.npz":
        with np.load(out) as arrays:
            np.testing.assert_allclose(arrays["embeddings"], encoder.encode(paths), atol=1e-6)
            assert arrays["paths"].tolist() == [str(path) for path in paths]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "photos"])


@pytest.mark.parametrize("torn", range(4))
def test_what_a_crash_tore_is_embedded_again(torn, encoder, paths, tmp_path):
    out = tmp_path / "features"
    with pytest.raises(Stopped):
        encode_images(encoder, paths, out, progress=stop_after(6))
    rows, lines = out / ".embeddings.npy.unfinished", out / "encoded.jsonl"
    if torn == 0:  # a row without its line
        rows.write_bytes(rows.read_bytes() + b"x" * 7)
    elif torn == 1:  # half a line
        lines.write_bytes(lines.read_bytes()[:-5])
    elif torn == 2:  # lines without rows
        rows.write_bytes(rows.read_bytes()[:-5])
    else:
        rows.unlink()
    encode_images(encoder, paths, out)
    check_rows(out, encoder, paths)


def test_a_killed_process_loses_no_more_than_a_block(encoder, paths, tmp_path):
    encoder.save(tmp_path / "net.safetensors")
    out = tmp_path / "features"
    program = f"""
import time
from pathlib import Path
import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders import encoding
encoding._BLOCK = 1
encoder = rk.load_encoder({str(tmp_path / "net.safetensors")!r}, device="cpu")
paths = sorted(Path({str(tmp_path / "photos")!r}).iterdir())
encoding.encode_images(encoder, paths, Path({str(out)!r}), progress=lambda *_: time.sleep(0.2))
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    lines, deadline = out / "encoded.jsonl", time.monotonic() + 120
    while not (lines.is_file() and lines.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(DataError):
        rk.load_features(out)
    encoded = encode_images(encoder, paths, out)
    assert 3 <= encoded.num_before < 10
    check_rows(out, encoder, paths)


def test_more_images_are_added_and_others_refused(encoder, paths, tmp_path):
    out = tmp_path / "features"
    encode_images(encoder, paths[:5], out)
    assert encode_images(encoder, paths, out).num_before == 5
    assert encode_images(encoder, paths, out).num_before == 10
    check_rows(out, encoder, paths)
    with pytest.raises(ConfigError, match=r"00\.png, which is not among the images given"):
        encode_images(encoder, paths[1:], out)
    with pytest.raises(ConfigError, match="embeddings of another encoder"):
        encode_images(new_encoder(1), paths, out)
    paths[3].write_bytes(paths[4].read_bytes() + b"\0")
    with pytest.raises(ConfigError, match=r"03\.png as it was before it was changed"):
        encode_images(encoder, paths, out)


def test_a_file_is_begun_anew_with_another_encoder(encoder, paths, tmp_path):
    out = tmp_path / "features.npz"
    with pytest.raises(Stopped):
        encode_images(encoder, paths, out, progress=stop_after(6))
    other = new_encoder(1)
    assert encode_images(other, paths, out).num_before == 0
    with np.load(out) as arrays:
        np.testing.assert_allclose(arrays["embeddings"], other.encode(paths), atol=1e-6)


def test_places_are_checked_first(encoder, paths, tmp_path):
    for place, message in [
        (tmp_path / "photos", "holds '00.png', and not embeddings"),
        (tmp_path / "features.csv", r"ending in \.npz or \.parquet"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_encoding_target(place)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        check_encoding_target(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a link"):
        check_encoding_target(tmp_path / "link")
    out = tmp_path / "features"
    encode_images(encoder, paths, out)
    (out / "encoded.jsonl").rename(tmp_path / "moved.jsonl")
    (out / "encoded.jsonl").symlink_to(tmp_path / "moved.jsonl")
    with pytest.raises(ConfigError, match="is a link, or no file"):
        encode_images(encoder, paths, out)


def test_images_named_by_themselves_must_be_read(encoder, paths, tmp_path):
    paths[4].write_text("no image")
    with pytest.raises(DataError, match=r"04\.png"):
        encode_images(encoder, paths, tmp_path / "features", wanted={paths[4]})
    with pytest.raises(DataError, match="none of the 1 images could be read"):
        encode_images(encoder, paths[4:5], tmp_path / "others")


def test_memory_does_not_grow_with_the_images(encoder, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "_BLOCK", 256)
    rows = np.ones((256, 2**12), dtype=np.float32)
    monkeypatch.setattr(encoder, "encode", lambda block, **_: rows[: len(block)])
    monkeypatch.setattr(type(encoder), "dim", 2**12)
    links = [tmp_path / "photos" / f"{number}.jpg" for number in range(5000)]
    tracemalloc.start()
    encode_images(encoder, links, tmp_path / "features.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "features.npz").stat().st_size > 80_000_000
    assert peak < 30_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("encoded.jsonl", b"[]\n", r"encoded\.jsonl: a line of it is \[\], no image"),
        ("encoded.jsonl", b'["a.jpg", 1, "2"]\n', "no image; delete the folder"),
        ("encoded.jsonl", b"[" * 5000 + b"\n", "not usable as JSON|not JSON"),
        ("encoded.jsonl", b"\xff\xfe\n", "not JSON"),
        ("encoder.json", b"[1]", "embeddings of another encoder"),
        ("encoder.json", b'{"dim": 96}', "embeddings of another encoder"),
        ("encoder.json", b"\xff", "encoder.json"),
    ],
)
def test_damaged_notes_are_told(name, content, message, encoder, paths, tmp_path):
    out = tmp_path / "features"
    encode_images(encoder, paths[:4], out)
    (out / name).write_bytes(content)
    with pytest.raises((DataError, ConfigError), match=message):
        encode_images(encoder, paths, out)


def test_the_command_lists_what_it_left_out(encoder, paths, tmp_path):
    encoder.save(tmp_path / "net.safetensors")
    paths[4].write_text("no image")
    words = ["encode", tmp_path / "net.safetensors", tmp_path / "photos", "--out", tmp_path / "features"]
    first, second = (CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False) for _ in range(2))
    assert first.stdout.startswith(f"{tmp_path / 'features'}: 9 embeddings of 96 values")
    assert "left out: 1 of 10 images, which could not be read:" in first.stderr
    assert str(paths[4]) in first.stderr
    assert "of these, 9 were there before" in second.stderr


@pytest.mark.parametrize("name", ["x.npz", "x"])
def test_where_nothing_could_be_read_nothing_is_left(name, encoder, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError):
        encode_images(encoder, [broken], tmp_path / "out" / name)
    assert not list((tmp_path / "out").glob("*"))
    assert list(tmp_path.rglob(".*")) == []
