"""Every registered model keeps the contract: named features, unit embeddings, no surprise in the batch."""

import inspect

import pytest
import torch

import reidkit as rk
from reidkit import registry
from reidkit.errors import ConfigError, UnknownName

MODELS = [*(name for name in registry.names("model") if name != "timm"), "timm:test_resnet", "timm:test_vit"]
SIZES = {"timm:test_vit": (160, 160)}  # a ViT is built for one size


def images(name, count=3):
    height, width = SIZES.get(name, (96, 48))
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=MODELS)
def named_model(request):
    torch.manual_seed(0)
    return request.param, rk.build_model(request.param)


def test_features_have_the_promised_names_and_widths_in_training_and_in_use(named_model):
    name, model = named_model
    for training in (True, False):
        features = model.train(training)(images(name))
        assert {key: value.shape for key, value in features.items()} == {
            key: (3, width) for key, width in model.features.items()
        }
    assert {model.metric_feature, model.classification_feature, model.embedding_feature} <= set(
        model.features
    )


def test_embeddings_are_unit_float32_and_do_not_depend_on_the_batch(named_model):
    name, model = named_model
    model.eval()
    batch = images(name)
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


def test_bfloat16_gives_nearly_the_same_embedding(named_model):
    name, model = named_model
    model.eval()
    with torch.inference_mode():
        exact = model.embed(images(name))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.embed(images(name))
    assert rough.dtype == torch.float32
    assert (exact * rough).sum(dim=1).min() > 0.999


def test_the_description_builds_an_equal_model(named_model):
    name, model = named_model
    description = dict(model.description)
    again = rk.build_model(description.pop("name"), **description)
    again.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(again.eval().embed(images(name)), model.eval().embed(images(name)))


@pytest.mark.parametrize("name", registry.names("model"))
def test_constructors_are_documented(name):
    constructor = registry.get("model", name)
    assert inspect.getdoc(getattr(constructor, "func", constructor))


def test_last_stride_one_keeps_a_map_of_a_sixteenth_by_strides_not_by_dilation():
    torch.manual_seed(0)
    one, two = rk.build_model("resnet18", last_stride=1), rk.build_model("resnet18", last_stride=2)
    x = torch.randn(1, 3, 128, 64)
    assert one.backbone(x).shape == (1, 512, 8, 4)
    assert two.backbone(x).shape == (1, 512, 4, 2)
    assert {m.dilation for m in one.modules() if isinstance(m, torch.nn.Conv2d)} == {(1, 1)}
    assert one.state_dict().keys() == two.state_dict().keys(), "the same weights fit both"


@pytest.mark.parametrize(
    ("options", "features", "metric_feature"),
    [
        ({"neck": "plain"}, {"pooled": 512, "neck": 512}, "neck"),
        ({"neck": "bnneck"}, {"pooled": 512, "neck": 512}, "pooled"),
        ({"neck": "fc"}, {"pooled": 512, "neck": 1024}, "neck"),
        ({"neck": "fc", "dim": 64}, {"pooled": 512, "neck": 64}, "neck"),
    ],
)
def test_necks(options, features, metric_feature):
    model = rk.build_model("resnet18", **options)
    assert model.features == features
    assert model.metric_feature == metric_feature
    if options["neck"] == "bnneck":
        assert not model.neck.bias.requires_grad


def test_generalised_mean_lies_between_average_and_maximum():
    from reidkit.models.embedder import GeneralizedMeanPooling

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
    with pytest.raises(ConfigError, match="dim = 64 goes with neck = 'fc'"):
        rk.build_model("resnet18", dim=64)
    with pytest.raises(UnknownName, match="unknown model 'resnet5'; did you mean 'resnet50'"):
        rk.build_model("resnet5")
    with pytest.raises(UnknownName, match="unknown timm model 'convnext_tni'; did you mean 'convnext_tiny'"):
        rk.build_model("timm:convnext_tni")
