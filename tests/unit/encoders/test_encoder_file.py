"""Encoder files whose headers, or weights, are anybody's: each is one line that names file and key."""

import json

import pytest
import safetensors.torch
import torch

import reidkit as rk
from reidkit.encoders.encoder_file import MOST_PIXELS, load_weights, parse_description, save_weights
from reidkit.errors import CheckpointError, ReidError

NAME = {"name": "timm:test_resnet"}
GOOD = {"model": NAME, "transform": {"height": 48, "width": 24}, "card": {}}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return rk.build_model("timm:test_resnet").state_dict()


def refusal(path):
    """The one line with which a file is refused."""
    with pytest.raises(ReidError) as error:
        rk.load_encoder(path)
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


HEADERS = [
    ({}, "model is missing; transform is missing"),
    ({**GOOD, "extra": 1}, "unknown key 'extra'; Known: model, transform, card, feature"),
    ({**GOOD, "model": "resnet18"}, "model: input should be a valid dictionary, not 'resnet18'"),
    ({**GOOD, "model": {}}, "model.name is missing"),
    ({**GOOD, "model": {"name": 3}}, "model.name: 3 is no text"),
    ({**GOOD, "model": {"name": "x" * 100_000}}, "unknown model 'xxx"),
    ({**GOOD, "model": {**NAME, "nek": "x"}}, "has no option 'nek'; did you mean 'neck'?"),
    ({**GOOD, "model": {**NAME, "neck": {}}}, "neck is {}; expected a text"),
    ({**GOOD, "model": {"name": "jlml", "stripes": True}}, "stripes is True; expected a whole number"),
    ({**GOOD, "model": {"name": "jlml", "stripes": 10**30}}, "; expected a whole number of at most 64 bits"),
    ({**GOOD, "transform": {"height": 48}}, "transform.width is missing"),
    ({**GOOD, "transform": []}, "transform: "),
    ({**GOOD, "transform": {"height": 48, "width": 24, "device": "cuda"}}, "unknown key 'transform.device'"),
    (
        {**GOOD, "transform": {"height": True, "width": 24}},
        "transform.height: input should be a valid integer",
    ),
    ({**GOOD, "transform": {"height": 10**9, "width": 1}}, "less than or equal to 4096"),
    ({**GOOD, "transform": {"height": 4096, "width": 4096}}, f"more than {MOST_PIXELS:,} pixels"),
    ({**GOOD, "card": [1]}, "card: "),
    ({**GOOD, "card": {"data": 3}}, "card.data: 3 is no table"),
    ({**GOOD, "card": {"calibration": [1]}}, "card.calibration: [1] is no table"),
    ({**GOOD, "feature": 3}, "feature: input should be a valid string, not 3"),
    ({**GOOD, "feature": "nobody"}, "unknown feature of its network 'nobody'"),
]


@pytest.mark.parametrize(("header", "said"), HEADERS)
def test_a_header_is_validated_as_a_whole(weights, tmp_path, header, said):
    path = tmp_path / "e.safetensors"
    save_weights(path, weights, header)
    assert said in refusal(path)


NO_OBJECTS = ["", "{", "[]", "null", "\0", "[" * 100_000, '{"card": ' + "[" * 200 + "]" * 200 + "}"]


@pytest.mark.parametrize("text", [*NO_OBJECTS, '{"model": 1, "model": 2}', '{"a": ' + "1" * 5000 + "}"])
def test_a_header_is_a_json_object_of_sensible_depth(tmp_path, text):
    path = tmp_path / "e.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"reidkit": text})
    refusal(path)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "jlml", "stripes": 16},
        {"name": "timm:test_resnet", "neck": "fc", "dim": 10**6},
        {"name": "timm:vit_giant_patch14_224"},
    ],
)
def test_a_network_that_the_file_does_not_hold_is_not_built(weights, tmp_path, options):
    """Nor is memory taken for it, however large: it is first built without."""
    path = tmp_path / "e.safetensors"
    save_weights(path, weights, {**GOOD, "model": options})
    assert "names a network" in (message := refusal(path)) or "does not fit" in message


def test_weights_must_agree_in_name_shape_and_kind(weights, tmp_path):
    path = tmp_path / "e.safetensors"
    first = next(iter(weights))
    for changed, said in (
        (
            {name: tensor for name, tensor in weights.items() if name != first},
            f"weights are missing (1, such as {first!r})",
        ),
        ({**weights, "more": torch.zeros(1)}, "left over (1, such as 'more')"),
        ({**weights, first: weights[first][:1]}, f"of another shape (1, such as {first!r})"),
        ({**weights, first: weights[first].long()}, f"of another type (1, such as {first!r})"),
        ({**weights, first: weights[first].to(torch.float8_e4m3fn)}, "of another type (1,"),
    ):
        save_weights(path, changed, GOOD)
        assert said in refusal(path)


def test_weights_in_half_precision_are_taken(weights, tmp_path):
    path = tmp_path / "e.safetensors"
    save_weights(path, {n: t.half() if t.is_floating_point() else t for n, t in weights.items()}, GOOD)
    assert rk.load_encoder(path).model.state_dict()["neck.weight"].dtype == torch.float32


def test_nothing_is_fetched_for_a_network_whose_weights_are_there(weights, tmp_path):
    path = tmp_path / "e.safetensors"
    save_weights(path, weights, {**GOOD, "model": {**NAME, "pretrained": True}})
    again = rk.load_encoder(path).save(tmp_path / "again.safetensors")
    with safetensors.safe_open(again, "pt") as file:
        assert json.loads(file.metadata()["reidkit"])["model"] == {**NAME, "pretrained": True}


@pytest.mark.parametrize(
    "name", ["resnet18", "osnet_x0_25", "jlml", "timm:test_vit", "timm:test_efficientnet"]
)
def test_networks_are_built_without_memory_for_their_weights(name):
    with torch.device("meta"):
        outline = rk.build_model(name)
    shapes = {name: tensor.shape for name, tensor in outline.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in rk.build_model(name).state_dict().items()}


def test_files_of_the_first_version_are_read(tmp_path):
    """Which had no further key than these."""
    card = {"data": {"name": "x"}, "epoch": 9, "validation": {}, "calibration": None, "recipe": {"epochs": 9}}
    header = {**GOOD, "card": card, "feature": "pooled"}
    described = parse_description(header, tmp_path / "e.safetensors")
    assert (described.card, described.feature, described.transform.height) == (card, "pooled", 48)
    with pytest.raises(CheckpointError):
        parse_description([], tmp_path)


def test_weights_travel_with_their_description(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, {"a": torch.arange(6.0).view(2, 3).T}, {"model": {"name": "x"}})
    tensors, description = load_weights(path)
    assert torch.equal(tensors["a"], torch.arange(6.0).view(2, 3).T)
    assert description == {"model": {"name": "x"}}


def test_bad_weights_files_are_told_apart(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(path)
    save_weights(path, {"a": torch.zeros(100)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        load_weights(path)
    save_weights(path, {"a": torch.tensor([1.0, float("nan")])}, {})
    with pytest.raises(CheckpointError, match="weight 'a' is not finite everywhere"):
        load_weights(path)
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="was not saved by reidkit"):
        load_weights(path)


def test_headers_that_are_no_json_objects_are_told(tmp_path):
    import safetensors.torch

    path = tmp_path / "w.safetensors"
    for text, said in {"{": "not JSON", "[1]": "expected a JSON object", "[" * 100_000: "nested"}.items():
        safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"reidkit": text})
        with pytest.raises(CheckpointError, match=said):
            load_weights(path)
