"""Every registered model keeps the contract: named features, unit embeddings, no surprise in the batch."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import reidkit as rk
from reidkit import registry
from reidkit.encoders.autocast import autocast
from reidkit.encoders.export import export
from reidkit.errors import ConfigError, UnknownName

HEIGHT, WIDTH = 64, 32
TRANSFORMER = {"image_size": [HEIGHT, WIDTH]}
# Of SOLIDER's two the larger is three times as deep and nothing else.
LEFT_OUT = ("timm", "solider_swin_small")
MODELS = {name: {} for name in registry.names("model") if name not in LEFT_OUT} | {
    "timm:test_resnet": {},
    "timm:test_vit": TRANSFORMER,
    "timm:swin_tiny_patch4_window7_224": TRANSFORMER,
    "timm:convnext_atto": {},
    "timm:mobilenetv3_small_050": {},
}
# An export takes seconds, more for more layers: here one of each architecture, without layers that repeat the
# one before; all networks in slow tests, as they are.
EXPORTED_IN_EVERY_RUN = {
    "resnet18": {},
    "osnet_ain_x1_0": {},
    "bninception": {},
    "jlml": {"stripes": 2},
    "timm:test_vit": TRANSFORMER,
}


def images(count=3):
    """People, roughly: patches of colour and a little noise."""
    generator = torch.Generator().manual_seed(0)
    patches = F.interpolate(torch.randn(count, 3, 8, 4, generator=generator), (HEIGHT, WIDTH))
    return patches + 0.1 * torch.randn(count, 3, HEIGHT, WIDTH, generator=generator)


def awaken(model):
    """Let every layer count: some start as zero, and batch norm starts with statistics of nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
            if not module.weight.any():
                nn.init.constant_(module.weight, 0.2)
    with torch.no_grad():
        model.train()(images(16))


@pytest.fixture(scope="module", params=MODELS)
def named_model(request):
    torch.manual_seed(0)
    model = rk.build_model(request.param, **MODELS[request.param])
    awaken(model)
    return request.param, model


def test_features_have_the_promised_names_and_widths_in_training_and_in_use(named_model):
    _, model = named_model
    for training in (True, False):
        features = model.train(training)(images())
        assert {key: value.shape for key, value in features.items()} == {
            key: (3, width) for key, width in model.features.items()
        }
    assert {model.metric_feature, model.classification_feature, model.embedding_feature} <= set(
        model.features
    )


def test_embeddings_are_unit_float32_and_do_not_depend_on_the_batch(named_model):
    _, model = named_model
    model.eval()
    batch = images()
    with torch.inference_mode():
        embeddings = model.embed(batch)
        assert embeddings.shape == (3, model.embedding_dim)
        assert embeddings.dtype == torch.float32
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
        torch.testing.assert_close(model.embed(batch.flip(0)).flip(0), embeddings, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(model.embed(batch[:1]), embeddings[:1], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            model.embed(batch.to(memory_format=torch.channels_last)), embeddings, atol=1e-5, rtol=1e-4
        )


def test_regularizers_are_scalars_of_weights_that_it_has(named_model):
    _, model = named_model
    values = model.regularizers()
    assert values.keys() == model.penalties.keys()
    assert {penalty.weight for penalty in model.penalties.values()} <= dict(model.named_parameters()).keys()
    for value in values.values():
        assert value.shape == ()
        assert torch.isfinite(value)
        assert value.requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_gives_nearly_the_same_embedding(name):
    torch.manual_seed(0)
    model = rk.build_model(name, **MODELS[name]).eval()
    assert cosine_in_bfloat16(model) > 0.999


def test_bfloat16_gives_nearly_the_same_embedding_when_people_are_told_apart():
    torch.manual_seed(0)
    model = rk.build_model("resnet18")
    loss = rk.losses.IdentityLoss(8, model.features["neck"])
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], 1e-3)
    people, labels = images(8), torch.arange(8).repeat_interleave(2)
    for _ in range(12):
        value = loss(model(people[labels] + 0.2 * torch.randn(16, 3, HEIGHT, WIDTH))["neck"], labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    awaken(model)
    with torch.inference_mode():
        embeddings = model.eval().embed(people)
    assert (embeddings @ embeddings.T).fill_diagonal_(0).max() < 0.7
    assert cosine_in_bfloat16(model) > 0.999


def cosine_in_bfloat16(model):
    with torch.inference_mode():
        exact = model.embed(images())
        with autocast(torch.device("cpu"), torch.bfloat16):
            rough = model.embed(images())
    assert rough.dtype == torch.float32
    return (exact * rough).sum(dim=1).min()


@pytest.mark.parametrize(("name", "options"), EXPORTED_IN_EVERY_RUN.items(), ids=str)
def test_onnx_gives_the_same_embedding(name, options, tmp_path):
    torch.manual_seed(0)
    model = rk.build_model(name, **options)
    leave_out_repetitions(model)
    check_onnx(model, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_onnx_gives_the_same_embedding_of_the_whole_network(name, tmp_path):
    torch.manual_seed(0)
    check_onnx(rk.build_model(name, **MODELS[name]), tmp_path)


def leave_out_repetitions(model):
    """Of layers with weights that follow each other and are made alike, keep the first."""
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for place in range(len(sequence) - 1, 0, -1):
            layer = sequence[place]
            if any(True for _ in layer.parameters()) and repr(layer) == repr(sequence[place - 1]):
                del sequence[place]


def check_onnx(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    awaken(model)
    file = export(rk.Encoder(model, height=HEIGHT, width=WIDTH), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    pixels = (80 * images(5) + 128).clamp(0, 255)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (model.mean, model.std))
    with torch.inference_mode():
        expected = model.eval().embed((pixels / 255 - mean) / std)
    for batch in (pixels, pixels[:1]):
        embeddings = torch.from_numpy(session.run(["embeddings"], {"images": batch.numpy()})[0])
        assert (embeddings * expected[: len(batch)]).sum(dim=1).min() > 0.9999
    assert (expected @ expected.T).fill_diagonal_(0).max() < 0.99, "other images have other embeddings"


def test_the_description_builds_an_equal_model(named_model):
    _, model = named_model
    description = dict(model.description)
    again = rk.build_model(description.pop("name"), **description)
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval().embed(images()), model.eval().embed(images()))


@pytest.mark.parametrize("name", registry.names("model"))
def test_constructors_are_documented(name):
    constructor = registry.get("model", name)
    assert inspect.getdoc(getattr(constructor, "func", constructor))


def test_small_images_are_refused_and_the_smallest_are_not(named_model):
    name, model = named_model
    if model.image_size is not None:
        with pytest.raises(
            ConfigError, match=r"images are 64 x 48 .* built for 64 x 32 only; give it image_size"
        ):
            model(torch.zeros(1, 3, 64, 48))
        return
    side = model.smallest_side
    assert torch.isfinite(model.train()(torch.randn(3, 3, side, side))[model.embedding_feature]).all()
    with pytest.raises(ConfigError) as refusal:
        model(torch.zeros(1, 3, side, side - 1))
    assert str(refusal.value) == (
        f"images are {side} x {side - 1} (height x width), too small for model {name!r}: neither side may be "
        f"under {side} pixels; raise transform.height or transform.width"
    )


def test_last_stride_one_keeps_a_map_of_a_sixteenth_by_strides_not_by_dilation():
    torch.manual_seed(0)
    one, two = rk.build_model("resnet18", last_stride=1), rk.build_model("resnet18", last_stride=2)
    x = torch.randn(1, 3, 128, 64)
    assert one.backbone(x).shape == (1, 512, 8, 4)
    assert two.backbone(x).shape == (1, 512, 4, 2)
    assert {m.dilation for m in one.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert one.state_dict().keys() == two.state_dict().keys(), "the same weights fit both"


@pytest.mark.parametrize(
    ("options", "features", "metric_feature"),
    [
        ({"neck": "plain"}, {"pooled": 512, "neck": 512}, "neck"),
        ({"neck": "bnneck"}, {"pooled": 512, "neck": 512}, "pooled"),
        ({"neck": "fc"}, {"pooled": 512, "neck": 1024}, "neck"),
        ({"neck": "fc", "dim": 64}, {"pooled": 512, "neck": 64}, "neck"),
        ({"neck": "osnet"}, {"pooled": 512, "neck": 512}, "neck"),
        ({"neck": "trinet"}, {"pooled": 512, "neck": 128}, "neck"),
        ({"neck": "trinet", "dim": 32}, {"pooled": 512, "neck": 32}, "neck"),
    ],
)
def test_necks(options, features, metric_feature):
    model = rk.build_model("resnet18", **options)
    assert model.features == features
    assert model.metric_feature == metric_feature
    if options["neck"] == "bnneck":
        assert not model.neck.bias.requires_grad


def test_the_trinet_neck_is_two_layers_of_which_the_last_starts_orthogonal():
    neck = rk.build_model("resnet18", neck="trinet").neck
    assert [type(layer) for layer in neck] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert neck[0].weight.shape == (1024, 512)
    last = neck[3].weight  # (128, 1024)
    torch.testing.assert_close(last @ last.T, torch.eye(128), atol=1e-5, rtol=0)


def test_generalised_mean_lies_between_average_and_maximum():
    from reidkit.models._embedder import GeneralizedMeanPooling

    feature_map = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(GeneralizedMeanPooling(1.0)(feature_map), feature_map.mean(dim=(2, 3)))
    torch.testing.assert_close(
        GeneralizedMeanPooling(200.0)(feature_map), feature_map.amax(dim=(2, 3)), rtol=0.03, atol=0
    )
    by_hand = (feature_map**3).mean(dim=(2, 3)) ** (1 / 3)
    torch.testing.assert_close(GeneralizedMeanPooling()(feature_map), by_hand)


def test_bad_options_are_named():
    with pytest.raises(UnknownName, match="unknown pooling 'gme'; did you mean 'gem'"):
        rk.build_model("resnet18", pooling="gme")
    with pytest.raises(UnknownName, match="unknown neck 'bneck'; did you mean 'bnneck'"):
        rk.build_model("resnet18", neck="bneck")
    with pytest.raises(ConfigError, match="last_stride = 3 is not possible"):
        rk.build_model("resnet18", last_stride=3)
    with pytest.raises(ConfigError, match="dim = 64 goes with neck = 'fc', 'osnet' or 'trinet'"):
        rk.build_model("resnet18", dim=64)
    with pytest.raises(ConfigError, match="dim = 0 is not possible"):
        rk.build_model("resnet18", neck="fc", dim=0)
    with pytest.raises(UnknownName, match="unknown model 'resnet5'; did you mean 'resnet50'"):
        rk.build_model("resnet5")
    with pytest.raises(UnknownName, match="unknown timm model 'convnext_tni'; did you mean 'convnext_tiny'"):
        rk.build_model("timm:convnext_tni")
