"""Encoders by another of the network's features, and the calibration that goes with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reidkit as rk
from reidkit.analysis.calibration import Calibration, fit_calibration
from reidkit.encoders.network_file import ExternalNetwork, Port, Preprocessing
from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.evaluation.comparison import compare
from reidkit.types import Features, Sample


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = rk.Encoder(rk.build_model("jlml"), height=48, width=24, card={"epoch": 3})
    return encoder.save(tmp_path_factory.mktemp("jlml") / "jlml.safetensors")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (60, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tuple(Sample(folder / f"{number}.png", number, 0, number) for number in range(5))


def test_every_feature_is_that_of_the_network(file: Path, split: tuple[Sample, ...]) -> None:
    whole = rk.load_encoder(file)
    paths = [sample.path for sample in split]
    encoders = {name: rk.load_encoder(file, feature=name) for name in ("global", "local", "embedding")}
    found = {name: encoder.encode(paths) for name, encoder in encoders.items()}
    assert [embeddings.shape for embeddings in found.values()] == [(5, 512), (5, 512), (5, 1024)]
    for embeddings in found.values():
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(found["embedding"], whole.encode(paths))
    # JLML's embedding is the two branches, each of unit length, one after the other.
    joined = np.hstack([found["global"], found["local"]]) / np.sqrt(2)
    np.testing.assert_allclose(found["embedding"], joined, atol=1e-6)
    together = whole.features_by_name(split)
    assert list(together) == ["global", "local", "embedding"]
    for name, features in together.items():
        np.testing.assert_allclose(features.embeddings, found[name], atol=1e-6)
        np.testing.assert_array_equal(features.identities, range(5))
    np.testing.assert_array_equal(whole.encode(paths), found["embedding"], err_msg="it is as it was before")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_of_other_numbers_embeds_what_it_does_in_float32(dtype, split: tuple[Sample, ...]) -> None:
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet")
    paths = [sample.path for sample in split]
    # Maps of the last stage are two places wide, where PyTorch's own convolutions in bfloat16 may be wrong.
    expected = rk.Encoder(model, height=48, width=24).encode(paths)
    found = rk.Encoder(model.to(dtype), height=48, width=24).encode(paths)
    np.testing.assert_allclose(found, expected, atol=1e-5 if dtype == torch.float64 else 0.05)


def test_fingerprints_tell_the_features_apart(file: Path, tmp_path: Path) -> None:
    prints = {
        name: rk.load_encoder(file, feature=name).fingerprint for name in ("global", "local", "embedding")
    }
    assert len(set(prints.values())) == 3
    assert prints["embedding"] == rk.load_encoder(file).fingerprint, "the network's own choice"
    local = rk.load_encoder(rk.load_encoder(file, feature="local").save(tmp_path / "local.safetensors"))
    assert local.feature == "local"
    assert local.fingerprint == prints["local"]
    assert local.dim == 512


def test_a_feature_that_is_not_there(file: Path) -> None:
    with pytest.raises(UnknownName, match="'globl'; did you mean 'global'"):
        rk.load_encoder(file, feature="globl")


def calibration() -> Calibration:
    rng = np.random.default_rng(0)
    identities = np.repeat(np.arange(30), 4)
    embeddings = rng.normal(size=(30, 8))[identities] + rng.normal(size=(120, 8))
    return fit_calibration(compare(Features(embeddings, identities)), source="test", num_resamples=20)


def test_a_calibration_goes_with_the_weights_and_the_feature(file: Path, tmp_path: Path) -> None:
    encoder = rk.load_encoder(file)
    assert encoder.calibration is None
    encoder.calibrate(calibration())
    saved = encoder.save(tmp_path / "calibrated.safetensors")
    again = rk.load_encoder(saved)
    assert again.calibration == calibration()
    assert again.card["epoch"] == 3
    assert again.fingerprint == rk.load_encoder(file).fingerprint
    assert rk.load_encoder(saved, feature="local").calibration is None
    with torch.no_grad():
        next(again.model.parameters()).add_(0.01)
    assert again.calibration is None, "of other weights"


def test_a_card_with_something_else_in_its_place(file: Path) -> None:
    encoder = rk.load_encoder(file)
    encoder.card["calibration"] = {"fingerprint": encoder.fingerprint}
    with pytest.raises(DataError, match="this is no calibration"):
        _ = encoder.calibration


class MeanColours:
    """What stands for a runtime's opened file."""

    runtime = "made-up"
    digest = "made-up"
    former_digest = None

    def __init__(self) -> None:
        self.inputs = {"images": Port((None, 3, 8, 4), "f32")}
        self.outputs = {"embedding": Port((None, 3), "f32")}

    def run(self, images: np.ndarray, *, input: str, output: str) -> np.ndarray:
        return images.mean(axis=(2, 3))


def test_external_networks_have_one_output(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"made-up")
    preprocessing = Preprocessing(color="rgb", scale=255, mean=(0, 0, 0), std=(1, 1, 1))
    network = ExternalNetwork(tmp_path / "network.onnx", MeanColours(), preprocessing)
    with pytest.raises(ConfigError, match="has one output, its embedding"):
        rk.Encoder(network, height=8, width=4, feature="local")
    with pytest.raises(ConfigError, match="has one output"):
        rk.Encoder(network, height=8, width=4).features_by_name(())


def test_options_of_torch_networks_are_refused_for_network_files(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"made-up")
    preprocessing = Preprocessing(color="rgb", scale=255, mean=(0, 0, 0), std=(1, 1, 1))
    network = ExternalNetwork(tmp_path / "network.onnx", MeanColours(), preprocessing)
    assert rk.Encoder(network, height=8, width=4, device="cpu").device == "cpu"
    with pytest.raises(ConfigError, match=r"device = cuda: .*network\.onnx runs on the CPU alone"):
        rk.Encoder(network, height=8, width=4, device="cuda")
    with pytest.raises(ConfigError, match=r"bfloat16: .*network\.onnx was made elsewhere"):
        rk.Encoder(network, height=8, width=4, bfloat16=True)


def test_branches_of_a_joint_loss_can_be_measured_alone(tmp_path: Path, split: tuple[Sample, ...]) -> None:
    torch.manual_seed(0)
    encoder = rk.Encoder(rk.build_model("jlml", uniloss=True), height=48, width=24, card={"epoch": 3})
    file = encoder.save(tmp_path / "uniloss.safetensors")
    paths = [sample.path for sample in split]
    whole = rk.load_encoder(file).encode(paths)
    branches = [rk.load_encoder(file, feature=name).encode(paths) for name in ("global", "local")]
    np.testing.assert_allclose(np.hstack(branches) / np.sqrt(2), whole, atol=1e-6)
