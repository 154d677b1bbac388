"""Options that reach a component through what its constructors hand on."""

from __future__ import annotations

import inspect
from functools import partial

import pytest
from torch import nn

from reidkit import signatures
from reidkit.errors import ConfigError
from reidkit.registry import build, option_problems
from reidkit.signatures import call, is_classifier, names_of, parameters_of, required_names, sizes_wanted


class Parent(nn.Module):
    def __init__(self, num_classes, embedding_size, margin=0.5, *, bias=False):
        super().__init__()
        self.given = num_classes, embedding_size, margin, bias


class All(Parent):
    def __init__(self, *args, scale=64, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale


class ByName(Parent):
    def __init__(self, scale=64, **kwargs):
        super().__init__(**kwargs)


class ByPosition(Parent):
    def __init__(self, scale, *args):
        super().__init__(*args)
        self.scale = scale


class GivesOneItself(Parent):
    def __init__(self, **kwargs):
        super().__init__(embedding_size=8, **kwargs)


class Between(All):
    """No constructor of its own."""


class Below(Between):
    def __init__(self, *args, depth=1, **kwargs):
        super().__init__(*args, **kwargs)


class Keeps(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.margin = kwargs["margin"]


class Mixin:
    def __init__(self, strength=1.0, **kwargs):
        super().__init__(**kwargs)


class Mixed(Mixin, Parent):
    pass


class OfOtherData(nn.Module):
    def __init__(self, num_classes=751, feat_dim=2048, weight=None):
        super().__init__()
        self.given = num_classes, feat_dim


class Optional(nn.Module):
    def __init__(self, margin=0.1, num_classes=None, dim=16):
        super().__init__()


class WantsThemByText(All):
    def __init__(self, *args, **kwargs):
        classes = kwargs.pop("num_classes")
        super().__init__(*args, num_classes=3 * classes, **kwargs)


def factory(**options):
    return Parent(**options)


@pytest.mark.parametrize(
    ("component", "known", "required"),
    [
        (Parent, {"num_classes", "embedding_size", "margin", "bias"}, {"num_classes", "embedding_size"}),
        (
            All,
            {"num_classes", "embedding_size", "margin", "bias", "scale"},
            {"num_classes", "embedding_size"},
        ),
        (ByName, {"num_classes", "embedding_size", "margin", "bias", "scale"}, set()),
        (
            ByPosition,
            {"scale", "num_classes", "embedding_size", "margin"},
            {"scale", "num_classes", "embedding_size"},
        ),
        (
            Below,
            {"num_classes", "embedding_size", "margin", "bias", "scale", "depth"},
            {"num_classes", "embedding_size"},
        ),
        (Mixed, {"strength", "num_classes", "embedding_size", "margin", "bias"}, set()),
        (partial(Parent, 5), {"embedding_size", "margin", "bias"}, {"embedding_size"}),
        (
            partial(All, num_classes=5),
            {"num_classes", "embedding_size", "margin", "bias", "scale"},
            {"embedding_size"},
        ),
        (GivesOneItself, {"num_classes", "margin", "bias"}, set()),
        (WantsThemByText, {*names_of(parameters_of(All))}, {"num_classes", "embedding_size"}),
        (Keeps, set(), set()),
        (factory, set(), set()),
    ],
)
def test_parents_options_are_options(component, known, required):
    parameters = parameters_of(component)
    assert set(names_of(parameters)) == known
    assert set(required_names(parameters)) == required
    misspelt = option_problems(component, {**dict.fromkeys(required, 1), "margn": 1}, where="it")
    assert bool(misspelt) is not signatures.takes_anything(parameters)


@pytest.mark.parametrize("component", [All, ByName, Below, Mixed, factory])
def test_options_reach_the_parent(component):
    options = {"num_classes": 5, "embedding_size": 8, "bias": True}
    assert call(component, (), options).given == (5, 8, 0.5, True)


def test_what_goes_by_position_alone_is_given_so():
    made = call(ByPosition, (), {"scale": 2, "margin": 0.1, "num_classes": 5, "embedding_size": 8})
    assert made.given == (5, 8, 0.1, False)
    assert made.scale == 2
    assert call(ByPosition, (2,), {"num_classes": 5, "embedding_size": 8}).given == (5, 8, 0.5, False)


def test_sizes_of_the_training_set_are_wanted_by_name():
    both = {"num_classes": "classes", "embedding_size": "width"}
    assert all(
        sizes_wanted(component) == both for component in (Parent, All, ByName, ByPosition, Below, Mixed)
    )
    assert sizes_wanted(OfOtherData) == {"num_classes": "classes", "feat_dim": "width"}
    assert sizes_wanted(Optional) == {}, "it works without"
    assert is_classifier(All)
    assert not is_classifier(Optional)
    assert sizes_wanted(partial(Parent, 5)) == {"embedding_size": "width"}
    assert is_classifier(partial(Parent, 5))


@pytest.mark.parametrize(
    ("classes", "width"),
    [
        *(("num_classes", "embedding_size"), ("n_cls", "embed_dim"), ("classnum", "embed_size")),
        *(("nclasses", "feat_dim"), ("classes", "in_dim"), ("num_labels", "num_features")),
        *(("out_features", "in_features"), ("NumClasses", "feature_dims"), ("cls_num", "in_channels")),
        *(("num_pids", "input_size"), ("number_of_classes", "emb_dim"), ("num_train_ids", "dim")),
    ],
)
def test_sizes_have_many_names(classes, width):
    def loss(*, n_bins, num_samples, sub_centers, centers_per_class, hidden_dim, labels, **sizes):
        """Parameters that are no sizes of a training set."""

    others = list(inspect.signature(loss).parameters.values())[:-1]
    sizes = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in (classes, width)]
    loss.__signature__ = inspect.Signature([*others, *sizes])
    assert sizes_wanted(loss) == {classes: "classes", width: "width"}


def test_a_constructor_that_refuses_its_options_is_told_with_those_it_has(monkeypatch):
    monkeypatch.setenv("REIDKIT_ALLOW_CODE", __name__)
    with pytest.raises(
        ConfigError, match=r":ByName' cannot be built .*missing .*'num_classes'.*; its options: "
    ):
        build("loss", f"{__name__}:ByName", {"embedding_size": 9})
    with pytest.raises(ConfigError, match=r"has no option 'embedding_size'"):
        build("loss", f"{__name__}:GivesOneItself", {"num_classes": 5, "embedding_size": 9})
    with pytest.raises(ConfigError, match=r"cannot be built with the options none \(KeyError: 'margin'\)"):
        build("loss", f"{__name__}:Keeps")
    with pytest.raises(ConfigError, match=r"All' needs the option 'num_classes'"):
        build("loss", f"{__name__}:All", {"embedding_size": 2})
