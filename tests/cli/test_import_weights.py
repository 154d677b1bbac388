"""``reid import-weights`` and networks made elsewhere, as a user runs them."""

import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner

import reidkit as rk
from reidkit.cli import cli
from reidkit.errors import CheckpointError, ConfigError, ReidError, UnknownName


def reid(*words):
    return CliRunner().invoke(cli, ["import-weights", *map(str, words)])


def refused(*words):
    error = reid(*words).exception
    assert isinstance(error, ReidError), error
    return error


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A network as a training script of today would save it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("elsewhere") / "someone.pth.tar-60"
    state = {f"module.{k}": v for k, v in torchvision.models.resnet18(num_classes=9).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 60, "rank1": np.float64(0.9)}, path)
    return path


def test_a_file_becomes_an_encoder_that_embeds(file, tmp_path):
    out = tmp_path / "e.safetensors"
    result = reid(
        file, "--model", "resnet18", "model.last_stride=2", "--height", 64, "--width", 32, "--out", out
    )
    assert result.exit_code == 0, result.output
    assert "100 of 100 backbone weights matched" in result.stdout
    assert "classifier, left out (2): fc.weight (9, 512), fc.bias (9,)" in result.stdout
    encoder = rk.load_encoder(out)
    assert f"wrote {out}: 512 values an embedding, fingerprint {encoder.fingerprint}" in result.stderr
    assert (encoder.height, encoder.width) == (64, 32)
    assert encoder.model.description == {"name": "resnet18", "last_stride": 2}
    assert encoder.card["weights"]["source"] == str(file)
    # Without its classifier, and with the neck as it starts, it is torchvision's own network.
    theirs = torchvision.models.resnet18(num_classes=9)
    content = torch.load(file, weights_only=False)["state_dict"]
    theirs.load_state_dict({name.removeprefix("module."): value for name, value in content.items()})
    theirs.fc = torch.nn.Identity()
    image = np.random.default_rng(0).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    pixels = torchvision.transforms.functional.normalize(
        torch.from_numpy(image).permute(2, 0, 1) / 255, encoder.model.mean, encoder.model.std
    )
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(theirs.eval()(pixels[None]))
    np.testing.assert_allclose(encoder.encode(image), expected, atol=1e-5)


def test_json_holds_every_name(file, tmp_path):
    words = ("--model", "resnet18", "model.neck=plain", "--out", tmp_path / "e.safetensors", "--json")
    told = json.loads(reid(file, *words).stdout)
    assert told["toolkit"] == "torchvision, timm or Torchreid"
    assert len(told["matched"]) == 100
    assert told["matched"]["backbone.conv1.weight"] == [64, 3, 7, 7]
    assert told["missing"] == told["left_over"] == told["wrong_shape"] == {}
    assert told["dropped"] == {"fc.weight": [9, 512], "fc.bias": [9]}
    assert told["backbone"] == told["used"] == [100, 100]


def test_the_encoder_is_named_after_the_file(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert reid(file, "--model", "resnet18", "--height", 64, "--width", 32).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["someone.safetensors"]
    error = refused("someone.safetensors", "--model", "resnet18")
    assert "someone.safetensors is the file to read; give out another name" in str(error)


def test_what_cannot_be_imported_is_refused_and_nothing_written(file, tmp_path):
    out = ("--out", tmp_path / "e.safetensors")
    error = refused(file, "--model", "resnet34", *out)
    assert isinstance(error, CheckpointError)
    assert "does not fit {'name': 'resnet34'}" in str(error)
    error = refused(file, "--model", "resnet18", "model.neck=fc", *out)
    assert (
        "does not give 1 of the weights of resnet18, which would embed by chance: the file has no neck.weight"
        in str(error)
    )
    error = refused(file, "--model", "resnet81", *out)
    assert isinstance(error, UnknownName)
    error = refused(file, "--model", "resnet18", "model.last_strid=2", *out)
    assert isinstance(error, ConfigError)
    assert "did you mean 'last_stride'" in str(error)
    error = refused(file, "--model", "resnet18", "last_stride=2", *out)
    assert "only options of the model can be set, model.OPTION=VALUE" in str(error)
    error = refused(file, "--model", "resnet18", "model=3", *out)
    assert "model = 3: give options of the model, model.OPTION=VALUE" in str(error)
    error = refused(file, "--model", "resnet18", "model.name=resnet34", *out)
    assert "model.name: the network is named by --model" in str(error)
    error = refused(tmp_path / "missing.pth", "--model", "resnet18", "--out", file)
    assert "missing.pth: no such file" in str(error)
    error = refused(file, "--model", "resnet18", "--height", 8, "--width", 4, *out)
    assert "too small for model 'resnet18'" in str(error)
    error = refused("http://example.org/f.pth", "--model", "resnet18", *out)
    assert "only https addresses are read" in str(error)
    assert not out[1].exists()


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_malicious_file_ends_in_one_line_and_nothing_runs(tmp_path):
    marker, path = tmp_path / "executed", tmp_path / "f.pth"
    torch.save({"a": torch.ones(2), "b": Malicious(marker)}, path)
    result = subprocess.run(
        [sys.executable, "-m", "reidkit", "import-weights", path, "--model", "resnet18"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {path} was not read")
    assert len(result.stderr.splitlines()) == 1
    path.write_bytes(pickle.dumps(Malicious(marker)))
    assert "it is a plain pickle" in str(refused(path, "--model", "resnet18"))
    assert not marker.exists()


def test_a_checkpoint_given_as_encoder_is_answered_with_the_way(file, tmp_path):
    checkpoint = tmp_path / "f.pth"
    checkpoint.write_bytes(file.read_bytes())
    with pytest.raises(CheckpointError, match=r"`reid import-weights .*f.pth --model NAME`"):
        rk.load_encoder(checkpoint)
