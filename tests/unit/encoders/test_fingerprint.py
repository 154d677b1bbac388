"""Fingerprints: of everything that decides an embedding, and of nothing else."""

import hashlib
import json

import numpy as np
import pytest
import torch

import reidkit as rk
from reidkit.models import SingleBranch
from reidkit.registry import register

pytestmark = pytest.mark.alone  # OpenVINO is loaded here


@register("model", "made_up_for_fingerprints")
def made_up(*, temperature: float = 1.0, pretrained: bool = False) -> SingleBranch:
    """A network of somebody else, with an option that no weight shows."""
    return SingleBranch(torch.nn.Conv2d(3, 4, 3), 4, smallest_side=3)


def encoder(name, *, feature=None, size=(64, 32), **options):
    torch.manual_seed(0)
    return rk.Encoder(
        rk.build_model(name, **options), height=size[0], width=size[1], feature=feature, device="cpu"
    )


def of_version_0_1_0(encoder):
    """As it was computed then."""
    settings = [encoder.height, encoder.width, *([] if encoder.feature is None else [encoder.feature])]
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name, tensor in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("resnet18", {}, {"last_stride": 2}),
        ("resnet18", {}, {"pooling": "max"}),
        ("resnet18", {}, {"ceil_pool": True}),
        ("resnet50x", {}, {"last_stride": 1}),
        ("osnet_x0_25", {}, {"pooling": "max"}),
        ("timm:test_vit", {"image_size": [64, 32]}, {"image_size": [64, 32], "pooling": "token"}),
        ("made_up_for_fingerprints", {}, {"temperature": 2.0}),
        ("jlml", {}, {"feature": "global"}),
        ("resnet18", {}, {"feature": "pooled"}),
        ("resnet18", {}, {"size": (64, 48)}),
    ],
)
def test_what_changes_an_embedding_and_no_weight_changes_the_fingerprint(name, first, second):
    one, other = encoder(name, **first), encoder(name, **second)
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    )
    assert one.fingerprint != other.fingerprint
    assert of_version_0_1_0(one) in one.fingerprints
    assert of_version_0_1_0(other) in other.fingerprints


@pytest.mark.parametrize(
    ("name", "spelled_out"),
    [
        ("resnet18", {"last_stride": 1, "pooling": "average", "neck": "bnneck", "ceil_pool": False}),
        ("resnet18", {"pretrained": False}),
        ("resnet50x", {"last_stride": 2}),
        ("jlml", {"stripes": 4, "branches": "both", "shared": True}),
        ("jlml", {"feature": "embedding"}),
        ("jlml", {"uniloss": True}),
        ("timm:test_vit", {"pooling": "average"}),
        ("made_up_for_fingerprints", {"temperature": 1.0, "pretrained": False}),
    ],
)
def test_what_is_the_default_anyway_does_not_change_it(name, spelled_out):
    size = (160, 160) if name == "timm:test_vit" else (64, 32)
    assert encoder(name, size=size).fingerprint == encoder(name, size=size, **spelled_out).fingerprint


@pytest.mark.parametrize("name", ["resnet18", "osnet_x0_25", "jlml", "bninception"])
def test_usual_networks_keep_the_fingerprint_that_they_had(name):
    made = encoder(name)
    assert made.fingerprints == (of_version_0_1_0(made),)


def test_networks_of_equal_weights_and_other_images_or_activations_differ():
    """timm's tags tell other normalisations; its names other paddings of the same layers."""
    one = encoder("timm:test_vit", image_size=[64, 32])
    one.model.mean = (0.1, 0.2, 0.3)
    assert one.fingerprint != encoder("timm:test_vit", image_size=[64, 32]).fingerprint
    same = encoder("timm:efficientnet_b0"), encoder("timm:tf_efficientnet_b0")
    assert same[0].model.state_dict().keys() == same[1].model.state_dict().keys()
    same[1].model.load_state_dict(same[0].model.state_dict())
    assert same[0].fingerprint != same[1].fingerprint


def test_weights_are_hashed_once_and_again_when_they_change(monkeypatch):
    made, hashed = encoder("resnet18"), []
    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: hashed.append(1) or real(*data))
    before = made.fingerprint
    assert made.fingerprint == before
    assert made.calibration is None
    assert len(hashed) == 1
    with torch.no_grad():
        made.model.neck.weight += 1
    assert made.fingerprint != before


def test_a_gallery_of_version_0_1_0_takes_its_encoder_and_a_new_one_no_other(tmp_path):
    one, other = encoder("resnet18"), encoder("resnet18", last_stride=2)
    rows = np.eye(512, dtype=np.float32)[:2]
    with rk.open_gallery(tmp_path / "old", encoder={"fingerprint": of_version_0_1_0(other)}) as gallery:
        gallery.add(rows)
    with rk.open_gallery(tmp_path / "old", encoder=other.origin) as gallery:
        assert len(gallery) == 2
    with rk.open_gallery(tmp_path / "new", encoder=one.origin) as gallery:
        gallery.add(rows)
    assert one.fingerprint in other.fingerprints
    with pytest.raises(rk.errors.DataError, match="was filled by"):
        rk.open_gallery(tmp_path / "new", encoder=other.origin)


# Network files.

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
PLAIN = {"color": "rgb", "scale": 1, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


def proto(seed=0):
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weights = np.random.default_rng(seed).normal(size=(3, 300)).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            node("ReduceMean", ["images", "axes"], ["colour"], keepdims=0),
            node("MatMul", ["colour", "weights"], ["embedding"]),
        ],
        "made-up",
        [value("images", onnx.TensorProto.FLOAT, ["n", 3, 8, 4])],
        [value("embedding", onnx.TensorProto.FLOAT, None)],
        [
            onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
            onnx.numpy_helper.from_array(weights, "weights"),
        ],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def loaded(path, model, *, preprocessing=PLAIN, external=False):
    path.parent.mkdir(exist_ok=True)
    where = {"location": f"{path.name}.data", "size_threshold": 100, "save_as_external_data": True}
    onnx.save_model(model, path, **(where if external else {}))
    return rk.load_encoder(path, preprocessing=preprocessing)


def test_weights_in_a_second_file_count(tmp_path):
    """The fault that let a gallery filled by one network be searched with another."""
    one = loaded(tmp_path / "a" / "m.onnx", proto(), external=True)
    other = loaded(tmp_path / "b" / "m.onnx", proto(seed=1), external=True)
    assert (tmp_path / "a" / "m.onnx").read_bytes() == (tmp_path / "b" / "m.onnx").read_bytes()
    assert one.fingerprint != other.fingerprint
    assert one.fingerprints == (one.fingerprint,), "what version 0.1.0 said did not tell them apart"
    assert loaded(tmp_path / "c" / "m.onnx", proto()).fingerprint == one.fingerprint


def test_weights_in_a_second_file_count_whose_length_is_said_to_be_0(tmp_path):
    """By which onnxruntime means: as long as the tensor is."""
    found = []
    for seed in (0, 1):
        path = tmp_path / str(seed) / "m.onnx"
        found.append(loaded(path, proto(seed), external=True).fingerprint)
        model = onnx.load_model(path, load_external_data=False)
        for entry in model.graph.initializer[1].external_data:
            entry.value = "0" if entry.key == "length" else entry.value
        path.write_bytes(model.SerializeToString())
        assert rk.load_encoder(path, preprocessing=PLAIN).fingerprint == found[-1]
    assert found[0] != found[1]


def test_texts_and_names_do_not_count(tmp_path):
    plain = proto()
    told = proto()
    told.doc_string, told.producer_name, told.producer_version, told.domain = "text", "me", "2", "example.org"
    told.graph.doc_string, told.graph.name, told.graph.node[0].name = "text", "other", "first"
    told.graph.node[0].doc_string = told.graph.initializer[1].doc_string = "text"
    onnx.helper.set_model_props(told, {"author": "me", "reidkit": json.dumps(PLAIN)})
    one, other = loaded(tmp_path / "a.onnx", plain), loaded(tmp_path / "b.onnx", told)
    assert (
        one.fingerprint
        == other.fingerprint
        == loaded(tmp_path / "b.onnx", told, preprocessing=None).fingerprint
    )
    assert one.fingerprints[1] != other.fingerprints[1]


def test_fingerprints_of_version_0_1_0_are_known(tmp_path):
    made = loaded(tmp_path / "m.onnx", proto())
    digest = hashlib.sha256((tmp_path / "m.onnx").read_bytes()).hexdigest()
    text = (
        "Preprocessing(color='rgb', scale=1, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), height=None, "
        "width=None, interpolation='bilinear', input=None, output=None, dim=None)"
    )
    then = hashlib.sha256(b"[8, 4]_extra_state" + f"{digest} {text}".encode()).hexdigest()[:16]
    assert made.fingerprints[1] == then


@pytest.mark.parametrize(
    "same",
    [
        {"height": 8, "width": 4},
        {"interpolation": "bilinear"},
        {"input": "images", "output": "embedding", "dim": 300},
        {"scale": 255, "mean": [127.5, 102.0, 76.5], "std": [51.0, 76.5, 102.0]},
    ],
)
def test_preprocessing_that_says_the_same_in_other_words_is_the_same(same, tmp_path):
    plain = loaded(tmp_path / "m.onnx", proto()).fingerprint
    assert loaded(tmp_path / "m.onnx", proto(), preprocessing={**PLAIN, **same}).fingerprint == plain


@pytest.mark.parametrize(
    "other",
    [
        {"color": "bgr"},
        {"interpolation": "area"},
        {"mean": [0.5, 0.4, 0.31]},
        {"std": [0.2, 0.3, 0.5]},
        {"scale": 255},
    ],
)
def test_other_preprocessing_is_another_encoder(other, tmp_path):
    plain = loaded(tmp_path / "m.onnx", proto()).fingerprint
    assert loaded(tmp_path / "m.onnx", proto(), preprocessing={**PLAIN, **other}).fingerprint != plain


def test_openvino_counts_graph_and_weights_but_no_notes(tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    onnx.save_model(proto(), tmp_path / "m.onnx")
    network = openvino.convert_model(tmp_path / "m.onnx")
    openvino.save_model(network, tmp_path / "m.xml", compress_to_fp16=False)

    def fingerprint():
        return rk.load_encoder(tmp_path / "m.xml", preprocessing=PLAIN).fingerprint

    plain = fingerprint()
    network.set_rt_info("me", "author")
    openvino.save_model(network, tmp_path / "m.xml", compress_to_fp16=False)
    assert fingerprint() == plain
    held = (tmp_path / "m.bin").read_bytes()
    at = len(held) // 8 * 4
    (tmp_path / "m.bin").write_bytes(held[:at] + np.float32(3).tobytes() + held[at + 4 :])
    assert fingerprint() != plain
