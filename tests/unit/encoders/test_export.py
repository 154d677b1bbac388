"""Export to ONNX: what is written, and what is refused. Every model is exported by the contract tests."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import reidkit as rk
from reidkit.encoders import export
from reidkit.encoders.export import ExportError, to_onnx
from reidkit.errors import MissingExtra, UnknownName

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24, device="cpu")


def test_the_file_says_how_images_are_prepared_and_loads_as_an_encoder(encoder, tmp_path):
    file = to_onnx(encoder, tmp_path / "folder" / "model.onnx")
    metadata = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["reidkit"]) == {
        "color": "rgb",
        "scale": 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "height": 48,
        "width": 24,
        "dim": 96,
    }
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (50, 30, 3), dtype=np.uint8)) for _ in range(3)]
    exported = rk.load_encoder(file)
    np.testing.assert_allclose(exported.encode(images), encoder.encode(images), atol=1e-5)
    with pytest.raises(ExportError, match="read from a network file itself"):
        to_onnx(exported, tmp_path / "again.onnx")


def test_exporting_changes_nothing(encoder, tmp_path):
    model = encoder.model.to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    to_onnx(encoder, tmp_path / "model.onnx")
    assert model.backbone.network.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_weights_that_give_nan_are_refused(encoder, tmp_path):
    with torch.no_grad():
        encoder.model.neck.weight[0] = float("nan")
    with pytest.raises(ExportError, match="not finite; its weights are unusable"):
        to_onnx(encoder, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(encoder, tmp_path, monkeypatch):
    real = torch.onnx.export

    def wrong(network, *arguments, **options):
        with torch.no_grad():
            network.model.neck.weight[::2] *= -1
        return real(network, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(ExportError, match="does not compute what the network does"):
        to_onnx(encoder, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_named(encoder, tmp_path, monkeypatch):
    def without_onnxscript(name):
        raise ImportError(name)

    monkeypatch.setattr(export, "import_module", without_onnxscript)
    with pytest.raises(MissingExtra, match=r"needs onnx: pip install \"reidkit\[export\]\""):
        to_onnx(encoder, tmp_path / "model.onnx")


def test_formats_are_named(encoder, tmp_path):
    with pytest.raises(UnknownName, match="unknown format 'onx'; did you mean 'onnx'"):
        rk.export(encoder, tmp_path / "model.onnx", to="onx")
    assert not list(tmp_path.iterdir())
    encoder.save(tmp_path / "net.safetensors")
    path = rk.export(tmp_path / "net.safetensors", tmp_path / "model.onnx")
    assert rk.load_encoder(path).dim == encoder.dim
