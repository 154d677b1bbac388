"""Export: what is written, and what is refused. Every model is exported to ONNX by the contract tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from timm.models import SwinTransformer

import reidkit as rk
from reidkit.analysis.calibration import Calibration
from reidkit.cli import cli
from reidkit.encoders import agreement, export_files, quantise
from reidkit.encoders import export as exporting
from reidkit.encoders.agreement import Agreement, ExportError, compare_embeddings
from reidkit.encoders.export import SUFFIX_OF, default_path, drawn_people, export, export_encoder
from reidkit.errors import CheckpointError, ConfigError, DataError, MissingExtra, UnknownName
from reidkit.models import SingleBranch, build_model
from reidkit.models.timm import TimmBackbone
from reidkit.types import Sample

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.alone  # OpenVINO is loaded here

HEIGHT, WIDTH = 48, 24
CALIBRATION = Calibration(
    scores=(-1.0, 1.0),
    log_likelihood_ratios=(-3.0, 3.0),
    false_match_rates=(0.01, 0.1),
    thresholds=(0.9, 0.5),
    true_match_rates=(0.5, 0.9),
    threshold_intervals=((0.8, 1.0), (0.4, 0.6)),
    equal_error_rate=0.1,
    num_positive=100,
    num_negative=1000,
    num_identities=10,
)


def new_encoder() -> rk.Encoder:
    torch.manual_seed(0)
    card = {"data": {"name": "made-up"}, "epoch": 3}
    encoder = rk.Encoder(
        rk.build_model("timm:test_resnet"), height=HEIGHT, width=WIDTH, device="cpu", card=card
    )
    encoder.calibrate(CALIBRATION)
    return encoder


@pytest.fixture(scope="module")
def encoder() -> rk.Encoder:
    return new_encoder()


@pytest.fixture(scope="module")
def crops() -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in drawn_people(HEIGHT, WIDTH)[:-2]]


@pytest.fixture
def traced_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds; what it gave once will do again."""
    monkeypatch.setattr(exporting, "onnx_program", lambda encoder: onnx.load(file))


@pytest.fixture(scope="module")
def file(encoder: rk.Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(encoder, tmp_path_factory.mktemp("exported") / "folder" / "model.onnx")


def check_equal(exported: rk.Encoder, encoder: rk.Encoder, crops: list[Image.Image]) -> None:
    np.testing.assert_allclose(exported.encode(crops), encoder.encode(crops), atol=1e-4)
    assert exported.fingerprint == encoder.fingerprint
    assert exported.card["epoch"] == 3
    assert exported.calibration == CALIBRATION


def test_a_file_is_the_encoder_with_its_preprocessing_card_and_calibration(encoder, file, crops):
    metadata = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["reidkit"]) == {
        "color": "rgb",
        "scale": 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "height": HEIGHT,
        "width": WIDTH,
        "dim": 96,
    }
    exported = rk.load_encoder(file)
    check_equal(exported, encoder, crops)
    assert list(file.parent.iterdir()) == [file]
    with pytest.raises(ExportError, match="read from a network file itself"):
        export(exported, file.with_name("again.onnx"))
    with pytest.raises(ExportError, match="is a network file itself; use it as it is, or export the run"):
        export(file, file.with_name("again.onnx"))


def test_a_file_tells_nothing_of_the_machine_that_made_it(file):
    assert str(Path(rk.__file__).parent).encode() not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()


def test_galleries_take_a_file_for_the_encoder_that_it_was_exported_from(encoder, file, crops, tmp_path):
    with rk.open_gallery(tmp_path / "people.gallery", encoder=encoder.origin) as gallery:
        gallery.add(encoder.encode(crops))
    with rk.open_gallery(tmp_path / "people.gallery", encoder=rk.load_encoder(file).origin) as gallery:
        assert len(gallery) == len(crops)


def test_a_network_that_was_changed_since_is_not_taken_for_the_encoder(encoder, file, tmp_path):
    model = onnx.load(file)
    weight = next(tensor for tensor in model.graph.initializer if tensor.dims[1:])
    weight.CopyFrom(onnx.numpy_helper.from_array(1.5 * onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save(model, tmp_path / "changed.onnx")
    changed = rk.load_encoder(tmp_path / "changed.onnx")
    assert not {*changed.fingerprints} & {*encoder.fingerprints, *rk.load_encoder(file).fingerprints}
    assert changed.calibration is None
    assert list(changed.card) == ["external"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{", "'reidkit_encoder' is not JSON"),
        ("[1]", "does not describe an encoder"),
        ('{"file": "x", "fingerprints": [1]}', "does not describe an encoder"),
        ('{"file": "x", "fingerprints": [], "card": {"calibration": 7}}', "calibration is 7, no table"),
    ],
)
def test_what_a_file_says_of_its_encoder_is_checked(file, tmp_path, entry, message):
    model = onnx.load(file)
    kept = {prop.key: prop.value for prop in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, "reidkit_encoder": entry})
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(CheckpointError, match=message):
        rk.load_encoder(tmp_path / "damaged.onnx")


@pytest.mark.usefixtures("traced_once")
def test_openvino_is_two_files_that_are_the_encoder(encoder, crops, tmp_path):
    pytest.importorskip("openvino", reason="openvino is not installed")
    (tmp_path / "model.bin").write_text("weights of another network")
    exported = export_encoder(encoder, tmp_path / "model.xml", to="openvino", images=crops)
    assert exported.files == (tmp_path / "model.xml", tmp_path / "model.bin")
    assert sorted(tmp_path.iterdir()) == sorted(exported.files)
    assert (exported.agreement.num_images, exported.agreement.drawn) == (len(crops), False)
    check_equal(rk.load_encoder(tmp_path / "model.xml"), encoder, crops)


def test_torchscript_is_written_and_not_read(encoder, crops, tmp_path):
    (tmp_path / "no.jpg").write_text("no image")
    exported = export_encoder(
        encoder, tmp_path / "model.PT", to="torchscript", images=[tmp_path / "no.jpg", *crops]
    )
    assert exported.agreement.num_images == len(crops)
    assert "cannot be read: 1; the first: " in exported.notes[0]
    path = exported.files[0]
    texts = {"reidkit.json": ""}
    network = torch.jit.load(str(path), _extra_files=texts)
    assert json.loads(texts["reidkit.json"])["height"] == HEIGHT
    pixels = np.stack([encoder.prepare(crop) for crop in crops])
    embeddings = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).detach().numpy()
    np.testing.assert_allclose(embeddings, encoder.encode(crops), atol=1e-4)
    with pytest.raises(CheckpointError, match="a TorchScript archive, that is, a program"):
        rk.load_encoder(path)


def test_exporting_changes_nothing(file, tmp_path):
    encoder = new_encoder()
    model = encoder.model.to(memory_format=torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(encoder, tmp_path / "model.pt", to="torchscript")
    assert model.backbone.network.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_weights_that_give_nan_are_refused(to, tmp_path):
    encoder = new_encoder()
    with torch.no_grad():
        encoder.model.neck.weight[0] = float("nan")
    with pytest.raises(ExportError, match=r"not finite.*its weights are unusable"):
        export(encoder, tmp_path / f"model{'.onnx' if to == 'onnx' else '.pt'}", to=to)
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    trace = torch.jit.trace

    def wrong(network, *arguments, **options):
        with torch.no_grad():
            network.model.neck.weight[::2] *= -1
        return trace(network, *arguments, **options)

    monkeypatch.setattr(torch.jit, "trace", wrong)
    (tmp_path / "model.pt").write_text("before")
    with pytest.raises(ExportError, match="does not compute what the network does"):
        export(new_encoder(), tmp_path / "model.pt", to="torchscript")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_what_is_missing_is_named(encoder, tmp_path, monkeypatch):
    def without_onnxscript(name):
        raise ImportError(name)

    monkeypatch.setattr(export_files, "import_module", without_onnxscript)
    with pytest.raises(MissingExtra, match=r"needs onnx: pip install \"reidkit\[export\]\""):
        export(encoder, tmp_path / "model.onnx")


def test_requests_are_checked_first(encoder, tmp_path):
    with pytest.raises(UnknownName, match="unknown format 'onx'; did you mean 'onnx'"):
        export(encoder, tmp_path / "model.onnx", to="onx")
    with pytest.raises(ConfigError, match=r"a file for openvino ends in \.xml"):
        export(encoder, tmp_path / "model.onnx", to="openvino")
    with pytest.raises(ConfigError, match="int8 needs images"):
        export(encoder, tmp_path / "model.onnx", int8=True)
    with pytest.raises(ConfigError, match="torchscript files are not quantised"):
        export(encoder, tmp_path / "model.pt", to="torchscript", int8=True, images=tmp_path)
    with pytest.raises(DataError, match="no images were given"):
        export(encoder, tmp_path / "model.onnx", images=[])
    (tmp_path / "no.jpg").write_text("no image")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        export(encoder, tmp_path / "model.onnx", images=[tmp_path / "no.jpg"])
    assert [path.name for path in tmp_path.iterdir()] == ["no.jpg"]


def test_files_are_named_after_runs():
    assert default_path(Path("runs/mine"), "onnx") == Path("mine.onnx")
    assert default_path(Path("v1.2.safetensors"), "openvino", int8=True) == Path("v1.2-int8.xml")


def some_people(num_people: int, folder: Path) -> list[Sample]:
    """Two images of each, by two cameras: the same crop with noise."""
    rng = np.random.default_rng(0)
    samples = []
    for identity in range(num_people):
        person = rng.integers(0, 256, (HEIGHT // 6, WIDTH // 6, 3)).repeat(6, axis=0).repeat(6, axis=1)
        for camera in (1, 2):
            path = folder / f"{identity}_{camera}.png"
            pixels = (person + rng.normal(0, 40, person.shape)).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            samples.append(Sample(path, identity, camera, len(samples)))
    return samples


@pytest.mark.usefixtures("traced_once")
def test_int8_is_an_encoder_of_its_own(encoder, tmp_path):
    samples = some_people(20, tmp_path)
    exported = export_encoder(encoder, tmp_path / "model.onnx", int8=True, images=samples)
    before, after = exported.agreement.mean_average_precisions
    assert 0.3 < before - 0.005 <= after
    quantised = rk.load_encoder(tmp_path / "model.onnx")
    cosines = (quantised.encode(samples) * encoder.encode(samples)).sum(axis=1)
    assert 0.97 < cosines.min() < 0.999999
    assert cosines.min() == pytest.approx(exported.agreement.min_cosine, abs=1e-4)
    assert not {*quantised.fingerprints} & {*encoder.fingerprints}
    assert quantised.calibration is None
    assert quantised.card["data"] == {"name": "made-up"}
    kinds = {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    assert "DequantizeLinear" in kinds
    assert any("calibration is left out" in note for note in exported.notes)


@pytest.mark.usefixtures("traced_once")
def test_int8_that_costs_too_much_is_tried_with_float_ends_and_refused(encoder, tmp_path, monkeypatch):
    tried = []
    real = quantise._quantised

    def spoiled(prepared, pixels, *, operators, leaving_out):
        tried.append(len(leaving_out))
        model = real(prepared, pixels, operators=operators, leaving_out=leaving_out)
        for tensor in model.graph.initializer:  # scales of a layer that are far too small
            if tensor.name.endswith("_scale") and tensor.dims[:]:
                values = onnx.numpy_helper.to_array(tensor) * np.linspace(0.01, 1, tensor.dims[0], dtype="f4")
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(quantise, "_quantised", spoiled)
    (tmp_path / "crops").mkdir()
    some_people(20, tmp_path / "crops")
    with pytest.raises(
        ExportError, match=r"int8 is not good enough.*one image in twenty.*export it in float"
    ):
        export(encoder, tmp_path / "model.onnx", int8=True, images=tmp_path / "crops")
    assert tried == [0, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]
    with pytest.raises(DataError, match="was given 16 images that can be read; give 32"):
        export(encoder, tmp_path / "model.onnx", int8=True, images=list(drawn_people(HEIGHT, WIDTH)[:16]))


def small_vit():
    return build_model("timm:test_vit", image_size=[64, 32])


def small_swin():
    network = SwinTransformer((64, 32), embed_dim=24, depths=(1, 2), num_heads=(2, 2), num_classes=0)
    network.pretrained_cfg = {}
    return SingleBranch(TimmBackbone(network, image_size=(64, 32), token=False), 48, smallest_side=1)


@pytest.mark.slow
@pytest.mark.parametrize(("build", "to"), [(small_vit, "onnx"), (small_swin, "openvino")])
def test_int8_of_a_transformer_leaves_the_products_of_attention_in_float(build, to, tmp_path):
    torch.manual_seed(0)
    encoder = rk.Encoder(build(), height=64, width=32)
    crops = [sample.path for sample in some_people(20, tmp_path)]
    exported = export_encoder(encoder, tmp_path / f"model{SUFFIX_OF[to]}", to=to, int8=True, images=crops)
    assert 0.995 < exported.agreement.min_cosine < 0.999999  # with these products in 8 bits about 0.95


def test_agreement_by_labels_and_without(tmp_path):
    rng = np.random.default_rng(0)
    samples = some_people(40, tmp_path)
    people = rng.normal(size=(40, 16)).repeat(2, axis=0)
    unit = people + rng.normal(0, 0.5, (80, 16))
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    turned = unit + rng.normal(0, 0.15, unit.shape)
    turned = (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)

    def compared(embeddings, images=samples, int8=True) -> Agreement:
        return compare_embeddings(unit, embeddings, images=images, drawn=False, int8=int8)

    assert compared(unit).is_enough
    assert "mAP is" in compared(turned).problem
    assert "one image in twenty" in compared(turned, images=[Path("a.jpg")] * 80).problem
    assert "less than 0.9999" in compared(turned, int8=False).problem
    assert compared(np.full_like(unit, np.nan), images=[Path("a.jpg")] * 80).problem
    assert compared(np.full_like(unit, np.nan), int8=False).problem
    assert agreement.MAX_LOSS == 0.005


def test_the_command_exports_and_says_how_near_it_is(encoder, tmp_path, monkeypatch):
    encoder.save(tmp_path / "mine.safetensors")
    some_people(20, tmp_path)
    monkeypatch.chdir(tmp_path)
    words = ["export", tmp_path / "mine.safetensors", "--to", "torchscript", "--images", tmp_path]
    result = CliRunner().invoke(cli, [*map(str, words), "--pattern", "{identity}_{camera}.png"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("mine.pt: ")
    assert "compared on 40 images: cosine of the embeddings 1.00000 at least" in result.stderr
    assert (tmp_path / "mine.pt").is_file()
    with pytest.raises(ConfigError, match="--pattern: it reads labels of --images"):
        CliRunner().invoke(cli, [*map(str, words[:4]), "--pattern", "{identity}.png"], catch_exceptions=False)


def test_what_pytorch_cannot_export_is_told_by_its_cause(encoder, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise torch.onnx.errors.OnnxExporterError("\x1b[96mReport it.\x1b[0m") from ValueError(
            "no such layer"
        )

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(
        ExportError, match=r"PyTorch 2\S+ with onnxscript \S+ cannot .*: no such layer\. Where"
    ):
        export(encoder, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
