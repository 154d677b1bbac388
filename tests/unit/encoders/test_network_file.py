import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import reidkit as rk
from reidkit.encoders.network_file import load_network
from reidkit.errors import CheckpointError, ConfigError, MissingExtra

pytestmark = pytest.mark.alone  # OpenVINO is loaded here

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
openvino = pytest.importorskip("openvino", reason="openvino is not installed")

HEIGHT, WIDTH, DIM = 8, 4, 5
WEIGHTS = np.random.default_rng(0).normal(size=(3, DIM)).astype(np.float32)
PLAIN = {"color": "rgb", "scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}


def make(path, *, batch="batch", steps=(), outputs=1, size=(HEIGHT, WIDTH), metadata=None, weights=WEIGHTS):
    """A network that multiplies the mean colour of an image by WEIGHTS, then takes further steps."""
    node, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
        node("MatMul", ["colour", "weights"], ["step0"]),
        *(node(kind, [f"step{i}", *more], [f"step{i + 1}"]) for i, (kind, *more) in enumerate(steps)),
        node("Identity", [f"step{len(steps)}"], ["embedding"]),
    ]
    constants = {
        "axes": np.array([2, 3]),
        "weights": weights,
        "one_row": np.array([1, DIM]),
        "four_dims": np.array([-1, DIM, 1, 1]),
        "rows": np.array([0]),
        "first_axis": np.array(0),
    }
    given = [value("embedding", onnx.TensorProto.FLOAT, None), value("colour", onnx.TensorProto.FLOAT, None)]
    graph = onnx.helper.make_graph(
        nodes,
        "made-up",
        [value("images", onnx.TensorProto.FLOAT, [batch, 3, *size])],
        given[:outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def make_openvino(path, **options):
    model = openvino.Core().read_model(make(path.with_suffix(".onnx"), **options))
    if "metadata" in options:
        model.set_rt_info(options["metadata"]["reidkit"], "reidkit")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


@pytest.fixture(params=[(make, "net.onnx"), (make_openvino, "net.xml")], ids=["onnx", "openvino"])
def make_file(request, tmp_path):
    maker, name = request.param
    return lambda **options: maker(tmp_path / name, **options)


def images(count=3):
    pixels = np.random.default_rng(1).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return [np.broadcast_to(colour, (HEIGHT, WIDTH, 3)).copy() for colour in pixels]


def by_hand(image, *, color, scale, mean, std):
    """The embedding of an image of one colour."""
    colour = image[0, 0].astype(float) / 255 * scale
    colour = colour if color == "rgb" else colour[::-1]
    embedding = (colour - mean) / std @ WEIGHTS
    return embedding / np.linalg.norm(embedding)


@pytest.mark.parametrize(
    "preprocessing",
    [
        PLAIN,
        {"color": "bgr", "scale": 255, "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]},
        {"color": "rgb", "scale": 1, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        {"color": "bgr", "scale": 1, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.4, 0.3]},
    ],
)
@pytest.mark.parametrize("batch", ["batch", 1, 2])
def test_preprocessing_reaches_the_network_whatever_batch_it_takes(make_file, preprocessing, batch):
    encoder = rk.load_encoder(make_file(batch=batch), preprocessing=preprocessing)
    assert (encoder.dim, encoder.height, encoder.width) == (DIM, HEIGHT, WIDTH)
    expected = [by_hand(image, **preprocessing) for image in images()]
    np.testing.assert_allclose(encoder.encode(images()), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(images()[0]), expected[:1], atol=1e-5)
    assert encoder.encode([]).shape == (0, DIM)


def test_paths_and_samples_are_read_and_resized_as_asked(tmp_path):
    path = make(tmp_path / "net.onnx", size=(1, 1))
    Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 9, 9]]], np.uint8)).save(
        tmp_path / "image.png"
    )
    nearest = rk.load_encoder(path, preprocessing={**PLAIN, "interpolation": "nearest"})
    area = rk.load_encoder(path, preprocessing={**PLAIN, "interpolation": "area"})
    cut = rk.Sample(tmp_path / "image.png", 1, 2, 0, box=(0, 0, 1, 1))
    red = WEIGHTS[0] / np.linalg.norm(WEIGHTS[0])
    np.testing.assert_allclose(nearest.features((cut,)).embeddings[0], red, atol=1e-5)
    assert nearest.features((cut,)).identities.tolist() == [1]
    np.testing.assert_allclose(
        area.encode(tmp_path / "image.png")[0], by_hand(np.full((1, 1, 3), 66), **PLAIN), atol=0.01
    )


def test_preprocessing_is_found_beside_the_file_then_in_its_metadata(make_file):
    inside = {"color": "bgr", "scale": 255, "mean": [1, 2, 3], "std": [4, 5, 6]}
    path = make_file(metadata={"reidkit": json.dumps(inside)})
    encoder = rk.load_encoder(path)
    expected = [by_hand(image, **inside) for image in images()]
    np.testing.assert_allclose(encoder.encode(images()), expected, atol=1e-5)
    path.with_suffix(".toml").write_text('color = "rgb"\nscale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n')
    beside = rk.load_encoder(path)
    np.testing.assert_allclose(beside.encode(images()), [by_hand(i, **PLAIN) for i in images()], atol=1e-5)
    given = path.with_name("other.toml")
    given.write_text('color = "bgr"\nscale = 255\nmean = [1, 2, 3]\nstd = [4, 5, 6]\n')
    np.testing.assert_allclose(
        rk.load_encoder(path, preprocessing=given).encode(images()), expected, atol=1e-5
    )
    assert beside.card["external"]["preprocessing"]["color"] == "rgb"


def test_the_fingerprint_tells_files_and_preprocessings_apart(tmp_path):
    path = make(tmp_path / "net.onnx")
    fingerprint = rk.load_encoder(path, preprocessing=PLAIN).fingerprint
    assert rk.load_encoder(path, preprocessing=PLAIN).fingerprint == fingerprint
    assert rk.load_encoder(path, preprocessing={**PLAIN, "color": "bgr"}).fingerprint != fingerprint
    make(path, weights=2 * WEIGHTS)
    assert rk.load_encoder(path, preprocessing=PLAIN).fingerprint != fingerprint


def test_a_network_that_cannot_take_two_images_is_asked_one_at_a_time(make_file):
    encoder = rk.load_encoder(make_file(batch=1, steps=[("Reshape", "one_row")]), preprocessing=PLAIN)
    assert encoder.model.batch == 1
    np.testing.assert_allclose(
        encoder.encode(images()), [by_hand(image, **PLAIN) for image in images()], atol=1e-5
    )


def test_openvino_frees_the_batch_of_one(tmp_path):
    assert load_network(make_openvino(tmp_path / "net.xml", batch=1), preprocessing=PLAIN).batch is None


def test_outputs_with_sides_of_one_are_embeddings_too(make_file):
    encoder = rk.load_encoder(make_file(steps=[("Reshape", "four_dims")]), preprocessing=PLAIN)
    assert encoder.encode(images()).shape == (3, DIM)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.zeros((3, DIM), np.float32)}, "the same embedding for two made-up images"),
        ({"steps": [("Abs",), ("Neg",), ("Sqrt",)]}, "not finite for 2 of 2 images .*made-up images"),
        ({"weights": np.ones((3, 1), np.float32)}, "the same embedding for two made-up images"),
        ({"steps": [("ReduceSum", "rows")]}, r"output 'embedding' is \(1, 5\) for 2 images"),
        ({"steps": [("CumSum", "first_axis")]}, "differently when another is beside it"),
    ],
)
def test_outputs_that_are_no_embeddings_are_refused(make_file, options, message):
    with pytest.raises(CheckpointError, match=message):
        rk.load_encoder(make_file(**options), preprocessing=PLAIN)


def test_a_width_that_was_not_promised_is_refused(make_file):
    path = make_file()
    assert rk.load_encoder(path, preprocessing={**PLAIN, "dim": DIM}).dim == DIM
    with pytest.raises(CheckpointError, match="its output has 5 values an image, but 7 are promised"):
        rk.load_encoder(path, preprocessing={**PLAIN, "dim": 7})


def test_inputs_outputs_and_sizes_are_chosen_by_name(tmp_path):
    path = make(tmp_path / "net.onnx", outputs=2, size=("h", "w"))
    with pytest.raises(
        CheckpointError, match=r"has 2 outputs; choose one with output = \"NAME\": 'embedding'"
    ):
        rk.load_encoder(path, preprocessing=PLAIN)
    with pytest.raises(CheckpointError, match="has no output 'color'; did you mean 'colour'"):
        rk.load_encoder(path, preprocessing={**PLAIN, "output": "color"})
    with pytest.raises(CheckpointError, match="takes images of any height; give height = PIXELS"):
        rk.load_encoder(path, preprocessing={**PLAIN, "output": "colour"})
    sizes = {"output": "colour", "input": "images", "height": 6, "width": 3}
    encoder = rk.load_encoder(path, preprocessing={**PLAIN, **sizes})
    assert (encoder.dim, encoder.height, encoder.width) == (3, 6, 3)
    with pytest.raises(CheckpointError, match="takes images of width 4, not 3; leave width out"):
        rk.load_encoder(make(tmp_path / "fixed.onnx"), preprocessing={**PLAIN, "width": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r'there is no net.toml beside it; write one, with color = "rgb" or "bgr"'),
        ('colour = "rgb"', r"unknown key 'colour'; did you mean 'color'"),
        ('color = "rgb"\nscale = 1\nmean = [0, 0, 0]', "net.toml: the key 'std' is missing"),
        (
            'color = "grey"\nscale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]',
            "color: .*'rgb' or 'bgr', not 'grey'",
        ),
        ('color = "rgb"\nscale = 2\nmean = [0, 0, 0]\nstd = [1, 1, 1]', "scale: .*1 or 255, not 2"),
        ('color = "rgb"\nscale = 1\nmean = [0, 0, 0]\nstd = [0, 1, 1]', "std.0: .*greater than 0, not 0"),
        ('color = "rgb"\nscale = 1\nmean = [nan, 0, 0]\nstd = [1, 1, 1]', "mean.*finite"),
        ('color = "rgb"\nscale = 1\nmean = [0, 0]\nstd = [1, 1, 1]', "mean"),
        ('color = "rgb"\nheight = -1\nscale = 1\nmean = [0, 0, 0]\nstd = [1, 1, 1]', "height: .*not -1"),
        ('color = rgb"', "net.toml is not TOML"),
    ],
)
def test_preprocessing_that_cannot_be_used_is_explained(tmp_path, text, message):
    path = make(tmp_path / "net.onnx")
    if text is not None:
        path.with_suffix(".toml").write_text(text)
    with pytest.raises((ConfigError, CheckpointError), match=message):
        rk.load_encoder(path)


def test_files_that_cannot_be_read_are_explained(make_file):
    path = make_file()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged or no (ONNX file|OpenVINO network)"):
        rk.load_encoder(path, preprocessing=PLAIN)
    path.unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        rk.load_encoder(path, preprocessing=PLAIN)


def test_an_openvino_file_needs_its_weights(tmp_path):
    path = make_openvino(tmp_path / "net.xml")
    path.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"has no net.bin beside it; that file holds its weights"):
        rk.load_encoder(path, preprocessing=PLAIN)


def test_broken_metadata_is_explained(make_file):
    with pytest.raises(CheckpointError, match="its metadata 'reidkit' is not JSON"):
        rk.load_encoder(make_file(metadata={"reidkit": "{"}))
    with pytest.raises(ConfigError, match=r"the metadata of .*: the key 'color' is missing"):
        rk.load_encoder(make_file(metadata={"reidkit": "{}"}))


def test_what_does_not_go_with_an_external_network_is_said(tmp_path, monkeypatch):
    path = make(tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"device = cuda: .* runs on the CPU alone"):
        rk.load_encoder(path, preprocessing=PLAIN, device="cuda")
    with pytest.raises(CheckpointError, match="an external network cannot be saved; use its own file"):
        rk.load_encoder(path, preprocessing=PLAIN).save(tmp_path / "e.safetensors")
    with pytest.raises(ConfigError, match=r"preprocessing goes with .onnx and .xml files"):
        rk.load_encoder(tmp_path / "run", preprocessing=PLAIN)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtra, match=r'reading net.onnx needs onnxruntime: pip install "reidkit\[export\]"'
    ):
        rk.load_encoder(path, preprocessing=PLAIN)


def test_an_exported_network_embeds_as_the_original(tmp_path):
    torch.manual_seed(0)
    original = rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)
    path, example = tmp_path / "net.onnx", torch.zeros(1, 3, 48, 24)
    torch.onnx.export(original.model.eval(), (example,), path, dynamo=True, verbose=False)
    preprocessing = {"color": "rgb", "scale": 1, "mean": original.model.mean, "std": original.model.std}
    pooled, neck = load_outputs(path)
    again = rk.load_encoder(path, preprocessing={**preprocessing, "output": neck})
    pixels = np.random.default_rng(0).integers(0, 256, (4, 60, 30, 3), dtype=np.uint8)
    np.testing.assert_allclose(again.encode(list(pixels)), original.encode(list(pixels)), atol=1e-5)
    with pytest.raises(CheckpointError, match=f"has 2 outputs.*{pooled!r}"):
        rk.load_encoder(path, preprocessing=preprocessing)


def load_outputs(path):
    return [output.name for output in onnx.load(path).graph.output]


def test_the_real_network_says_by_itself_that_it_takes_bgr(real_data):
    name = "person-reidentification-retail-0288"
    path = real_data / "models" / name / f"{name}.xml"
    gallery = rk.load_dataset("market1501", real_data / "market1501-500").gallery[:80]

    def score(encoder):
        return rk.evaluate_features(encoder.features(gallery), camera_filter="none").mean_average_precision

    encoder = rk.load_encoder(path)
    assert (encoder.height, encoder.width, encoder.dim) == (256, 128, 256)
    assert encoder.card["external"]["preprocessing"]["color"] == "bgr"
    as_rgb = rk.load_encoder(
        path, preprocessing={"color": "rgb", "scale": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}
    )
    assert score(encoder) > max(0.8, score(as_rgb))
