import os
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

import reidkit as rk
from reidkit.encoders.foreign_names import FASTREID, PLAIN, REIDKIT, STRONG_BASELINE, toolkit_of
from reidkit.encoders.foreign_weights import import_weights, locate, read_weights
from reidkit.errors import CheckpointError, DataError
from tests.published_weights import (
    batch_norm,
    made_up,
    resnet50,
    resnet50_ibn_a,
    torchreid_osnet,
    torchreid_osnet_ain,
)

FILES = {
    "torchvision": ({**resnet50(), "fc.weight": (1000, 2048), "fc.bias": (1000,)}, PLAIN, 2, {}),
    "torchreid": ({**resnet50(), "classifier.weight": (751, 2048), "classifier.bias": (751,)}, PLAIN, 2, {}),
    "torchreid_fc512": (
        {**resnet50(), "fc.0.weight": (512, 2048), "fc.0.bias": (512,), **batch_norm("fc.1", 512),
         "classifier.weight": (751, 512), "classifier.bias": (751,)},
        PLAIN, 2, {"neck": "osnet", "dim": 512},
    ),
    "strong_baseline": (
        {**resnet50("base."), **batch_norm("bottleneck", 2048), "classifier.weight": (751, 2048)},
        STRONG_BASELINE, 1, {},
    ),
    "fastreid": (
        {**resnet50("backbone."), **batch_norm("heads.bottleneck.0", 2048), "heads.weight": (751, 2048)},
        FASTREID, 1, {},
    ),
    "fastreid_gem": (
        {**resnet50("backbone."), **batch_norm("heads.bottleneck.0", 2048), "heads.pool_layer.p": (1,),
         "heads.classifier.weight": (751, 2048)},
        FASTREID, 1, {"pooling": "gem"},
    ),
    "fastreid_0.1": (
        {**resnet50("backbone."), **batch_norm("heads.bnneck", 2048), "heads.classifier.weight": (751, 2048)},
        FASTREID, 1, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_weight_of_a_documented_resnet50_finds_its_place(name, tmp_path):
    shapes, toolkit, num_dropped, options = FILES[name]
    file = made_up(shapes)
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in file.items()}}, tmp_path / "f.pth.tar"
    )
    model = rk.build_model("resnet50", **options)
    report = import_weights(model, tmp_path / "f.pth.tar")
    assert toolkit_of(file) is toolkit
    assert not report.wrong_shape
    assert not report.left_over
    assert len(report.dropped) == num_dropped
    has_neck = name not in ("torchvision", "torchreid")
    assert (not report.missing) == has_neck
    assert report.untrained == ()
    assert report.backbone == (265, 265)
    own = model.state_dict()
    before = {"fastreid": "backbone.", "strong": "base."}.get(name.split("_")[0], "")
    for part in ("conv1.weight", "layer4.2.bn3.running_var", "layer2.0.downsample.1.bias"):
        assert torch.equal(own[f"backbone.{part}"], file[before + part])
    necks = {
        "strong_baseline": "bottleneck.",
        "fastreid": "heads.bottleneck.0.",
        "fastreid_0.1": "heads.bnneck.",
    }
    if name in necks:
        for part in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(own[f"neck.{part}"], file[necks[name] + part])
    if name == "fastreid_gem":
        assert own["pooling.p"] == file["heads.pool_layer.p"][0]
    if name == "torchreid_fc512":
        assert torch.equal(own["neck.0.weight"], file["fc.0.weight"])
        assert torch.equal(own["neck.1.running_mean"], file["fc.1.running_mean"])


OSNETS = {
    "osnet_x1_0": torchreid_osnet(64, 256, 384, 512),
    "osnet_x0_75": torchreid_osnet(48, 192, 288, 384),
    "osnet_x0_5": torchreid_osnet(32, 128, 192, 256),
    "osnet_x0_25": torchreid_osnet(16, 64, 96, 128),
    "osnet_ibn_x1_0": torchreid_osnet(64, 256, 384, 512, ibn=True),
    "osnet_ain_x1_0": torchreid_osnet_ain(),
}


@pytest.mark.parametrize("name", OSNETS)
def test_every_weight_of_a_documented_osnet_finds_its_place(name, tmp_path):
    file = made_up(OSNETS[name])
    torch.save(file, tmp_path / "f.pth")
    model = rk.build_model(name)
    report = import_weights(model, tmp_path / "f.pth")
    assert (report.missing, report.wrong_shape, report.left_over) == ({}, {}, {})
    assert list(report.dropped) == ["classifier.weight", "classifier.bias"]
    own = model.state_dict()
    assert torch.equal(own["backbone.conv3.1.gate.fc2.bias"], file["conv3.1.gate.fc2.bias"])
    assert torch.equal(own["neck.0.weight"], file["fc.0.weight"])
    assert torch.equal(own["neck.1.running_var"], file["fc.1.running_var"])


@pytest.mark.parametrize("file", [name for name in OSNETS if name not in ("osnet_x1_0", "osnet_ibn_x1_0")])
def test_an_osnet_is_not_taken_for_another(file, tmp_path):
    torch.save(made_up(OSNETS[file]), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=r"f.pth does not fit .*osnet_x1_0"):
        import_weights(rk.build_model("osnet_x1_0"), tmp_path / "f.pth")


def test_an_osnet_ibn_shows_by_what_an_osnet_lacks(tmp_path):
    """They differ in 6 of 500 tensors: enough to start training from, not to embed by."""
    torch.save(made_up(OSNETS["osnet_ibn_x1_0"]), tmp_path / "f.pth")
    report = import_weights(rk.build_model("osnet_x1_0"), tmp_path / "f.pth")
    assert report.untrained == ("backbone.conv1.bn.running_mean", "backbone.conv1.bn.running_var")
    assert set(report.left_over) == {f"conv2.{i}.IN.{part}" for i in (0, 1) for part in ("weight", "bias")}


def test_timm_files_and_our_own_find_their_place(tmp_path):
    model = rk.build_model("timm:test_resnet")
    network = model.backbone.network.state_dict()
    torch.save(
        {**network, "fc.weight": torch.zeros(1000, 96), "fc.bias": torch.zeros(1000)}, tmp_path / "t.pth"
    )
    report = import_weights(rk.build_model("timm:test_resnet"), tmp_path / "t.pth")
    assert report.backbone[0] == report.backbone[1] > 20
    safetensors.torch.save_file(model.state_dict(), tmp_path / "own.safetensors")
    again = rk.build_model("timm:test_resnet")
    report = import_weights(again, tmp_path / "own.safetensors")
    assert toolkit_of(model.state_dict()) is REIDKIT
    assert (report.missing, report.left_over) == ({}, {})
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def small():
    """A network's weights under torchvision's names, as another toolkit would save them."""
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=7).state_dict()


def test_the_report_reads_well_and_names_what_is_untrained(small, tmp_path):
    without = {name: value for name, value in small.items() if not name.startswith("layer4.1.conv2")}
    torch.save({**without, "extra": torch.zeros(3)}, tmp_path / "f.pth")
    report = import_weights(rk.build_model("resnet18", neck="fc", dim=8), tmp_path / "f.pth")
    assert report.backbone == (99, 100)
    assert report.used == (99, 100)
    assert report.untrained == ("backbone.layer4.1.conv2.weight", "neck.weight")
    text = str(report)
    assert "99 of 100 backbone weights matched" in text
    assert "missing in the file (3): backbone.layer4.1.conv2.weight (512, 512, 3, 3), neck.weight" in text
    assert "left over (1): extra (3,)" in text
    assert "classifier, left out (2): fc.weight (7, 512), fc.bias (7,)" in text


def changed(state, model):
    return any(not torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["resnet34", "resnet50", "timm:test_vit"])
def test_a_checkpoint_for_another_architecture_is_refused_and_changes_nothing(small, architecture, tmp_path):
    torch.save(small, tmp_path / "resnet18.pth")
    model = rk.build_model(architecture)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"resnet18.pth does not fit .*must be 90% or more"):
        import_weights(model, tmp_path / "resnet18.pth")
    assert not changed(before, model)


def test_a_deeper_network_that_holds_all_of_ours_is_another_one(tmp_path):
    torch.save(torchvision.models.resnet34().state_dict(), tmp_path / "f.pth")
    with pytest.raises(
        CheckpointError, match=r"100 of its own 180 have a place there.*left over 'layer1.2.conv1"
    ):
        import_weights(rk.build_model("resnet18"), tmp_path / "f.pth")


def test_other_normalisation_layers_make_another_network(tmp_path):
    """A ResNet50-IBN agrees with a ResNet50 in 99 % of all values, and in 80 % of its tensors."""
    torch.save(made_up(resnet50_ibn_a("base.")), tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match="it has 213 of 265 weights"):
        import_weights(rk.build_model("resnet50"), tmp_path / "f.pth")
    report = import_weights(rk.build_model("resnet50_ibn_a"), tmp_path / "f.pth")
    assert (report.wrong_shape, report.left_over) == ({}, {})
    assert report.backbone[0] == report.backbone[1]


def test_another_normalisation_of_pixels_is_refused(tmp_path):
    file = made_up({**resnet50("backbone."), **batch_norm("heads.bottleneck.0", 2048)})
    imagenet = {"pixel_mean": torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1),
                "pixel_std": torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)}  # fmt: skip
    torch.save({"model": {**file, **imagenet}}, tmp_path / "same.pth")
    assert import_weights(rk.build_model("resnet50"), tmp_path / "same.pth").left_over == {}
    torch.save({"model": {**file, "pixel_mean": torch.full((1, 3, 1, 1), 127.5)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"pixel_mean = \[127.5, .* normalises images with \[123.67"):
        import_weights(rk.build_model("resnet50"), tmp_path / "other.pth")


def test_two_weights_for_one_place_are_refused(tmp_path):
    """As in a file of two versions of FastReID at once."""
    file = made_up({**resnet50("backbone."), **batch_norm("heads.bottleneck.0", 2048)})
    torch.save({**file, "heads.bnneck.weight": torch.ones(2048)}, tmp_path / "f.pth")
    with pytest.raises(
        CheckpointError, match=r"two weights for 'neck.weight': 'heads.bottleneck.0.weight' and"
    ):
        import_weights(rk.build_model("resnet50"), tmp_path / "f.pth")


# Reading files.


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("net",), ("model", "state_dict")])
@pytest.mark.parametrize("zipped", [True, False])
def test_nests_and_prefixes_are_unwrapped(nest, zipped, tmp_path):
    content = {"module.module.a.weight": torch.arange(3.0)}
    for name in nest:
        content = {name: content, "epoch": 60, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "f.pth.tar", _use_new_zipfile_serialization=zipped)
    tensors = read_weights(tmp_path / "f.pth.tar")
    assert list(tensors) == ["a.weight"]
    assert torch.equal(tensors["a.weight"], torch.arange(3.0))


def test_scores_kept_as_numpy_numbers_do_no_harm(tmp_path):
    """Torchreid's training checkpoints hold rank-1 as one; NumPy's constructors are not called for it."""
    torch.save({"state_dict": {"a": torch.ones(2)}, "rank1": np.float32(0.9)}, tmp_path / "f.pth.tar-60")
    assert list(read_weights(tmp_path / "f.pth.tar-60")) == ["a"]


class Malicious:
    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", [os.system, eval, exec])
def test_a_malicious_pickle_is_not_executed(call, zipped, tmp_path):
    marker = tmp_path / "executed"
    text = f"touch {marker}" if call is os.system else f"open({str(marker)!r}, 'w')"
    file = tmp_path / "f.pth"
    torch.save({"a": torch.ones(2), "b": Malicious(call, text)}, file, _use_new_zipfile_serialization=zipped)
    for path in (file, file.rename(tmp_path / "f.pth.tar")):
        if path.exists():
            with pytest.raises(
                CheckpointError, match=f"f.pth.tar was not read: .*{call.__name__}'.*any code"
            ):
                read_weights(path)
    with pytest.raises(CheckpointError, match="was not read"):
        import_weights(rk.build_model("timm:test_resnet"), tmp_path / "f.pth.tar")
    assert not marker.exists()
    torch.load(tmp_path / "f.pth.tar", weights_only=False)
    assert marker.exists(), "the file is harmless, and the test shows nothing"


def test_a_pickled_module_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.save(torch.nn.Linear(3, 2), tmp_path / "f.pth")
    with pytest.raises(
        CheckpointError, match=r"holds 'torch.nn.modules.linear.Linear'.*convert it"
    ) as refusal:
        read_weights(tmp_path / "f.pth")
    code = str(refusal.value).partition('python -c "')[2].partition('" ')[0]
    here = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path)
    try:
        sys.argv = ["-c", "f.pth"]
        exec(code, {})
    finally:
        os.chdir(here)
    assert {name: value.shape for name, value in read_weights(tmp_path / "weights.pth").items()} == {
        "weight": (2, 3),
        "bias": (2,),
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files_are_refused(kind, share, tmp_path):
    path = tmp_path / ("f.safetensors" if kind == "safetensors" else "f.pth")
    tensors = {"a": torch.rand(100, 100), "b": torch.rand(3)}
    if kind == "safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged or no (PyTorch|safetensors) file"):
        read_weights(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(small, value, tmp_path):
    weights = {name: tensor.clone() for name, tensor in small.items()}
    weights["layer3.0.bn1.running_var"][5] = value
    torch.save(weights, tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=r"weight 'layer3.0.bn1.running_var' is not finite everywhere"):
        import_weights(rk.build_model("resnet18"), tmp_path / "f.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_whole_numbers_are_refused_where_weights_should_be(small, dtype, tmp_path):
    model = rk.build_model("resnet18")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.save({name: tensor.to(dtype) for name, tensor in small.items()}, tmp_path / "q.pth")
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"is of {kind}, where the network has float32; whole numbers"):
        import_weights(model, tmp_path / "q.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({}, "nothing"),
        ({"epoch": 3, "lr": 0.1}, "epoch, lr"),
        ([torch.ones(1)], "list"),
        (torch.ones(1), "Tensor"),
    ],
)
def test_files_without_named_weights_are_refused(content, held, tmp_path):
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match=f"holds no named weights but {held}"):
        read_weights(tmp_path / "f.pth")
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "nowhere.pth")


# Addresses.


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        self.server.asked.append(self.path)


class Broken(BaseHTTPRequestHandler):
    """Promises more than it sends, or sends on to elsewhere."""

    def do_GET(self):
        if self.path == "/elsewhere.pth":
            self.send_response(302)
            self.send_header("Location", "ftp://example.org/f.pth")
        else:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    servers = []

    def start(handler):
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server, f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_address_is_downloaded_once_and_kept(serve, small, tmp_path, told):
    (tmp_path / "web").mkdir()
    torch.save(small, tmp_path / "web" / "resnet18.pth")
    server, address = serve(partial(Quiet, directory=tmp_path / "web"))
    report = import_weights(rk.build_model("resnet18"), f"{address}/resnet18.pth")
    assert report.backbone == (100, 100)
    kept = locate(f"{address}/resnet18.pth")
    assert kept.is_relative_to(tmp_path / "cache" / "reidkit" / "weights")
    assert len(server.asked) == 1
    assert told == [
        f"{address}/resnet18.pth: {kept.stat().st_size / 1e6:.1f} MB, kept at {kept}",
        f"{address}/resnet18.pth: already at {kept}",
    ]


@pytest.mark.parametrize(
    "address", ["https://[/x.pth", "https://[::1/x", "http://example.org/x", "file:///x"]
)
def test_what_is_no_address_to_read_is_refused(address):
    with pytest.raises(DataError, match=r"is no address|only https addresses are read"):
        locate(address)


def test_addresses_that_give_no_file_are_refused_and_nothing_is_kept(serve, tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "page.pth").write_text("\n<!DOCTYPE html><html>Do you want to download?</html>")
    _, address = serve(partial(Quiet, directory=tmp_path / "web"))
    with pytest.raises(DataError, match=r"page.pth is a web page, not a file of weights"):
        locate(f"{address}/page.pth")
    with pytest.raises(DataError, match="cannot be read: File not found"):
        locate(f"{address}/nobody.pth")
    _, broken = serve(Broken)
    with pytest.raises(DataError, match=r"short.pth broke off after 10 bytes of 1,000"):
        locate(f"{broken}/short.pth")
    with pytest.raises(DataError, match=r"only https|cannot be read"):
        locate(f"{broken}/elsewhere.pth")
    with pytest.raises(DataError, match="cannot be read"):
        locate("http://127.0.0.1:9/nothing.pth")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("url", ["http://example.org/f.pth", "ftp://example.org/f.pth", "file:///etc/passwd"])
def test_addresses_that_are_not_safe_are_not_opened(url, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match="only https addresses are read"):
        locate(url)
