"""Several views of an image: their sum, and an embedding space of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.agreement import ExportError
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.views import VIEWS
from reidkit.errors import CheckpointError, DataError, UnknownName

HEIGHT, WIDTH = 48, 24


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(rk.build_model("timm:test_resnet"), height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3)).astype(np.uint8)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_flip_is_the_sum_of_the_image_and_its_mirror(encoder: Encoder, images: NDArray[np.uint8]) -> None:
    own = [np.asarray(encoder.encode(list(some))) for some in (images, images[:, :, ::-1].copy())]
    found = encoder.with_views("flip").encode(list(images))
    np.testing.assert_allclose(found, unit(own[0] + own[1]), atol=1e-5)
    mirrored = encoder.with_views("flip").encode(list(images[:, :, ::-1].copy()))
    np.testing.assert_allclose(found, mirrored, atol=1e-5)


def test_crops_are_ten_views_within_the_image(encoder: Encoder, images: NDArray[np.uint8]) -> None:
    views = list(VIEWS["crops"](images))
    assert [view.shape for view in views] == [images.shape] * 10
    own = sum(np.asarray(encoder.encode(list(view))) for view in views)
    np.testing.assert_allclose(encoder.with_views("crops").encode(list(images)), unit(own), atol=1e-5)
    grey = np.full((1, HEIGHT, WIDTH, 3), 99, np.uint8)
    assert all((view == grey).all() for view in VIEWS["crops"](grey))
    corners = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    corners[:, 0, 0] = 255
    assert [bool(view.max()) for view in VIEWS["crops"](corners)] == [True] * 4 + [False] * 6


def test_they_are_another_space(encoder: Encoder, images: NDArray[np.uint8], tmp_path: Path) -> None:
    spaces = [encoder.with_views(views).fingerprint for views in VIEWS]
    assert len(set(spaces)) == len(VIEWS)
    assert encoder.with_views("flip").with_views("whole").fingerprint == encoder.fingerprint
    with rk.open_gallery(tmp_path / "g") as gallery:
        gallery.add(encoder.encode(list(images)), sources=["a", "b", "c"])
        with pytest.raises(DataError):
            gallery.search(encoder.with_views("flip").encode(images[0]))


def test_views_are_kept_with_the_encoder(encoder: Encoder, images: NDArray[np.uint8], tmp_path: Path) -> None:
    path = encoder.with_views("flip").save(tmp_path / "e.safetensors")
    loaded = rk.load_encoder(path)
    assert loaded.views == "flip"
    np.testing.assert_allclose(
        loaded.encode(list(images)), encoder.with_views("flip").encode(list(images)), atol=1e-5
    )
    assert rk.load_encoder(path, views="whole").fingerprint == encoder.fingerprint
    assert "views" not in encoder.save(tmp_path / "plain.safetensors").read_bytes()[:2000].decode("latin-1")


def test_what_does_not_go_is_one_line(encoder: Encoder, tmp_path: Path) -> None:
    path = encoder.with_views("flip").save(tmp_path / "e.safetensors")
    with pytest.raises(UnknownName, match="unknown views 'flips'; did you mean 'flip'"):
        rk.load_encoder(path, views="flips")
    with pytest.raises(ExportError, match="embeds several views of an image"):
        rk.export(path, tmp_path / "e.onnx")
    content = path.read_bytes().replace(b'\\"flip\\"', b'\\"flop\\"')
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="views"):
        rk.load_encoder(tmp_path / "bad.safetensors")


def test_the_command_takes_views(encoder: Encoder, images: NDArray[np.uint8], tmp_path: Path) -> None:
    from PIL import Image

    path = encoder.save(tmp_path / "e.safetensors")
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    arguments = [
        "encode",
        str(path),
        str(tmp_path / "a.png"),
        "--views",
        "flip",
        "--out",
        str(tmp_path / "f.npz"),
    ]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "f.npz") as held:
        np.testing.assert_allclose(
            held["embeddings"], encoder.with_views("flip").encode(images[0]), atol=1e-5
        )
