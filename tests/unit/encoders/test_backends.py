"""Backends: when another library embeds, what is kept of that, and that embeddings stay the encoder's."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders import backend_choice, backends, export_files, runtimes
from reidkit.encoders.agreement import MIN_COSINE
from reidkit.encoders.export import drawn_people
from reidkit.encoders.network_file import ExternalNetwork
from reidkit.errors import ConfigError, MissingExtra, UnknownName

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("openvino", reason="openvino is not installed")
pytestmark = pytest.mark.alone  # OpenVINO is loaded here

HEIGHT, WIDTH = 48, 24
CROPS = list(drawn_people(HEIGHT, WIDTH)[:8])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet")
    place = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    return rk.Encoder(model, height=HEIGHT, width=WIDTH, device="cpu").save(place)


@pytest.fixture(scope="module")
def program(weights: Path) -> bytes:
    return export_files.onnx_program(rk.load_encoder(weights)).SerializeToString()


@pytest.fixture(scope="module")
def expected(weights: Path) -> np.ndarray:
    return np.asarray(rk.load_encoder(weights, backend="torch").encode(CROPS))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def num_exports(program: bytes, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An entry for each export. Tracing takes seconds; what it gave once will do again."""
    exports: list[str] = []

    def traced(encoder: rk.Encoder) -> object:
        exports.append(encoder.fingerprint)
        return onnx.ModelProto.FromString(program)

    monkeypatch.setattr(export_files, "onnx_program", traced)
    return exports


@pytest.fixture
def any_work_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "WORTH_OPENING", -1.0)
    monkeypatch.setattr(backends, "WORTH_MEASURING", -1.0)


@pytest.fixture(params=["onnx", "openvino"])
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A machine where this backend is the fastest."""
    speeds = {"torch": 10.0, "onnx": 12.0, "openvino": 12.0, request.param: 30.0}
    monkeypatch.setattr(
        backend_choice, "_speeds", lambda networks, images: {name: speeds[name] for name in networks}
    )
    return request.param


def other(encoder: rk.Encoder) -> str:
    """What embeds besides PyTorch."""
    network = encoder.network._other  # type: ignore[attr-defined]
    return network.file.runtime if isinstance(network, ExternalNetwork) else "torch"


def check_equal(embeddings: np.ndarray, expected: np.ndarray) -> None:
    assert (np.asarray(embeddings) * expected).sum(axis=1).min() > MIN_COSINE


def test_the_fastest_is_measured_once_and_kept(weights, expected, num_exports, any_work_pays, fastest, told):
    encoder = rk.load_encoder(weights)
    fingerprint = encoder.fingerprint
    check_equal(encoder.encode(CROPS, batch_size=2), expected)
    assert other(encoder) == fastest
    assert (encoder.fingerprint, len(num_exports)) == (fingerprint, 1)
    assert f"embedded by {backend_choice.NAMES[fastest]}: PyTorch 10" in told[-1]

    again = rk.load_encoder(weights)
    embeddings = again.encode(CROPS, batch_size=2)
    check_equal(embeddings, expected)
    assert (other(again), len(num_exports)) == (fastest, 1)
    assert embeddings.fingerprints == encoder.fingerprints


def test_pytorch_stays_where_nothing_gains_much(weights, num_exports, any_work_pays, monkeypatch, told):
    monkeypatch.setattr(backend_choice, "_speeds", lambda networks, images: dict.fromkeys(networks, 9.0))
    for _ in range(2):
        encoder = rk.load_encoder(weights)
        encoder.encode(CROPS, batch_size=2)
        assert other(encoder) == "torch"
    assert len(num_exports) == 1
    assert told[-1] == "embedded by PyTorch, which was found to be fastest here"


def test_nobody_waits_for_the_look_where_that_is_wished(weights, any_work_pays, monkeypatch):
    looked, may_end = threading.Event(), threading.Event()

    def slow(*asked: object) -> backend_choice.Choice:
        looked.set()
        may_end.wait(30)
        return backend_choice.Choice(None, "embedded by PyTorch")

    monkeypatch.setattr(backends, "kept", slow)
    encoder = rk.load_encoder(weights)
    encoder.network.keep_nobody_waiting()
    encoder.encode(CROPS, batch_size=2)
    assert looked.wait(30)
    assert encoder.encode(CROPS[:1]).shape == (1, encoder.dim)
    may_end.set()


def test_a_few_images_wait_for_nothing(weights, monkeypatch):
    monkeypatch.setattr(backends, "kept", lambda *_: pytest.fail("opens a file for a few images"))
    monkeypatch.setattr(backends, "measured", lambda *_: pytest.fail("exports for a few images"))
    encoder = rk.load_encoder(weights)
    encoder.encode(CROPS[0])
    encoder.encode(CROPS)


def test_what_is_to_come_counts_and_so_does_what_was(weights, num_exports, fastest, monkeypatch):
    monkeypatch.setattr(backends, "WORTH_MEASURING", 3600.0)
    encoder = rk.load_encoder(weights)
    encoder.expect(10**9)
    encoder.encode(CROPS, batch_size=2)
    assert other(encoder) == fastest
    monkeypatch.setattr(backends, "WORTH_OPENING", 0.0)
    one_by_one = rk.load_encoder(weights)
    for crop in CROPS[:3]:
        one_by_one.encode(crop)
    assert other(one_by_one) == fastest


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_one_may_be_asked_for(backend, weights, expected, num_exports):
    for _ in range(2):
        encoder = rk.load_encoder(weights, backend=backend)
        check_equal(encoder.encode(CROPS, batch_size=4), expected)
        assert other(encoder) == backend
    assert len(num_exports) == 1
    rk.load_encoder(weights)  # that is not to be fastest


def test_who_disagrees_is_left_out_and_it_is_said(
    weights, expected, any_work_pays, told, program, monkeypatch
):
    changed = onnx.ModelProto.FromString(program)
    first_layer = next(node.input[1] for node in changed.graph.node if node.op_type == "Conv")
    [kernel] = [tensor for tensor in changed.graph.initializer if tensor.name == first_layer]
    kernel.raw_data = np.random.default_rng(0).normal(size=len(kernel.raw_data) // 4).astype("<f4").tobytes()
    monkeypatch.setattr(export_files, "onnx_program", lambda encoder: changed)
    encoder = rk.load_encoder(weights)
    np.testing.assert_allclose(encoder.encode(CROPS, batch_size=2), expected, atol=1e-6)
    assert other(encoder) == "torch"
    assert "not by onnxruntime: the cosine of their embeddings is" in told[-1]


def test_a_network_that_cannot_be_exported(weights, any_work_pays, monkeypatch, told):
    def fail(encoder):
        raise ZeroDivisionError("an operator that nobody knows")

    monkeypatch.setattr(export_files, "onnx_program", fail)
    encoder = rk.load_encoder(weights)
    encoder.encode(CROPS, batch_size=2)
    assert other(encoder) == "torch"
    assert "cannot be exported: an operator that nobody knows" in told[-1]


def test_a_damaged_file_is_made_anew(weights, expected, num_exports, any_work_pays, fastest, tmp_path):
    rk.load_encoder(weights).encode(CROPS, batch_size=2)
    [folder] = (tmp_path / "cache" / "reidkit" / "backends").iterdir()
    [file] = folder.glob("network.[ox]*")
    weights_kept = file if file.suffix == ".onnx" else file.with_suffix(".bin")
    content = bytearray(weights_kept.read_bytes())
    content[len(content) // 2] ^= 0x3F
    weights_kept.write_bytes(content)
    encoder = rk.load_encoder(weights)
    check_equal(encoder.encode(CROPS, batch_size=2), expected)
    assert (other(encoder), len(num_exports)) == (fastest, 2)
    (folder / "choice.json").write_text("[]")
    rk.load_encoder(weights).encode(CROPS, batch_size=2)
    assert len(num_exports) == 3


def test_a_cache_that_cannot_be_written_is_told_once(
    weights, expected, num_exports, any_work_pays, fastest, monkeypatch, tmp_path, told
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    backend_choice._say_that_nothing_is_kept.cache_clear()
    for _ in range(2):
        encoder = rk.load_encoder(weights)
        check_equal(encoder.encode(CROPS, batch_size=2), expected)
        assert other(encoder) == fastest
    assert len(num_exports) == 2
    assert len([line for line in told if "cannot be kept" in line]) == 1


def test_of_encoders_the_latest_are_kept(weights, num_exports, any_work_pays, fastest, monkeypatch, tmp_path):
    monkeypatch.setattr(backend_choice, "MOST_KEPT", 1)
    kept_here = tmp_path / "cache" / "reidkit" / "backends"
    (kept_here / "of-before").mkdir(parents=True)
    rk.load_encoder(weights).encode(CROPS, batch_size=2)
    assert len(list(kept_here.iterdir())) == 1
    assert not (kept_here / "of-before").exists()


def test_changed_weights_are_embedded_by(weights, num_exports, any_work_pays, fastest, told):
    encoder = rk.load_encoder(weights)
    encoder.encode(CROPS, batch_size=2)
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.mul_(1.5)
    changed = rk.Encoder(encoder.model, height=HEIGHT, width=WIDTH, device="cpu")
    np.testing.assert_allclose(encoder.encode(CROPS), changed.encode(CROPS), atol=1e-6)
    assert "PyTorch from here on: its weights" in told[-1]


def test_a_runtime_that_fails_in_between(weights, expected, num_exports, any_work_pays, fastest, told):
    encoder = rk.load_encoder(weights)
    encoder.encode(CROPS, batch_size=2)

    def fail(images):
        raise RuntimeError("out of something")

    encoder.network._other.embed = fail  # type: ignore[attr-defined]
    check_equal(encoder.encode(CROPS), expected)
    assert told[-1] == "embedded by PyTorch from here on: out of something"


def test_without_the_packages(weights, any_work_pays, monkeypatch, told):
    monkeypatch.setattr(runtimes, "find_spec", lambda package: None)
    encoder = rk.load_encoder(weights)
    encoder.encode(CROPS, batch_size=2)
    assert other(encoder) == "torch"
    with pytest.raises(MissingExtra, match=r"backend = 'openvino' needs .*reidkit\[export\]"):
        rk.load_encoder(weights, backend="openvino")


def test_what_does_not_go_together(weights, tmp_path, num_exports):
    with pytest.raises(UnknownName, match="did you mean 'onnx'"):
        rk.load_encoder(weights, backend="onxx")
    with pytest.raises(ConfigError, match="runs on the CPU"):
        rk.load_encoder(weights, backend="onnx", device="meta")
    file = rk.export(weights, tmp_path / "m.onnx")
    assert rk.load_encoder(file, backend="onnx").fingerprint == rk.load_encoder(weights).fingerprint
    with pytest.raises(ConfigError, match="run by onnx only"):
        rk.load_encoder(file, backend="openvino")


def test_a_gallery_of_one_backend_is_searched_by_another(weights, num_exports, tmp_path):
    for place, crop in enumerate(CROPS):
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(crop).save(tmp_path / "photos" / f"{place}.png")
    gallery = str(tmp_path / "g")
    index = ["index", str(weights), str(tmp_path / "photos"), "--gallery", gallery, "--backend", "onnx"]
    assert CliRunner().invoke(cli, index).exit_code == 0
    query = str(shutil.copy(tmp_path / "photos" / "3.png", tmp_path / "query.png"))
    search = ["search", query, "--gallery", gallery, "--include-self", "--json", "--backend", "torch"]
    result = CliRunner().invoke(cli, search)
    assert result.exit_code == 0
    assert "3.png" in result.stdout.partition('"source"')[2][:200]
    wrong = CliRunner().invoke(cli, [*search, "--backend", "cuda"])
    assert isinstance(wrong.exception, UnknownName)
