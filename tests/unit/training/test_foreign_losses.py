"""Losses from elsewhere: every one of pytorch-metric-learning by dotted path, and ones that cannot work."""

from __future__ import annotations

import functools
import inspect

import pytest
import torch
from torch import nn

from reidkit import registry, trust
from reidkit.errors import ConfigError
from reidkit.models import Embedder
from reidkit.training.foreign_losses import build_loss, checked, reads
from reidkit.training.objective import Objective, feature_of, prepare_objectives

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # theirs

LOSSES, MINERS = "pytorch_metric_learning.losses", "pytorch_metric_learning.miners"
CONTRASTIVE, BATCH_HARD = f"{LOSSES}:ContrastiveLoss", f"{MINERS}:BatchHardMiner"
NUM_IDENTITIES, METRIC, CLASSIFICATION = 4, 16, 24

CLASSIFIERS = {
    *("ArcFaceLoss", "CosFaceLoss", "LargeMarginSoftmaxLoss", "NormalizedSoftmaxLoss", "P2SGradLoss"),
    *("ProxyAnchorLoss", "ProxyNCALoss", "SoftTripleLoss", "SphereFaceLoss", "SubCenterArcFaceLoss"),
}
# What must be given, where there is no sensible default.
NEEDED = {
    "CrossBatchMemory": {"loss": {"kind": CONTRASTIVE}, "memory_size": 24},
    "HistogramLoss": {"n_bins": 20},
    "MultipleLosses": {"losses": [{"kind": CONTRASTIVE}], "miners": [{"kind": BATCH_HARD}]},
    "RankedListLoss": {"margin": 0.4, "Tn": 10},
}
# Abstract ones, those of pairs of views, and one that takes no labels: no batch of embeddings and labels.
NOT_OF_A_BATCH = {
    "BaseLossWrapper": {"loss": {"kind": CONTRASTIVE}},
    "BaseMetricLossFunction": {},
    "GenericPairLoss": {"mat_based_loss": True},
    "ManifoldLoss": {"l": METRIC},
    "SelfSupervisedLoss": {"loss": {"kind": CONTRASTIVE}},
    "VICRegLoss": {},
}


def catalogue(module: str) -> list[str]:
    """Names of the classes there, but for those that only lend parts to others."""
    try:
        found = vars(__import__(module, fromlist=["losses"]))
    except ImportError:
        return []
    classes = (name for name, thing in found.items() if inspect.isclass(thing))
    return [name for name in classes if not name.endswith("Mixin")]


@pytest.fixture(autouse=True)
def _allowed():
    with trust.allow_code("pytorch_metric_learning", __name__):
        yield


@pytest.fixture
def model():
    names = {"metric_feature": "pooled", "classification_feature": "neck", "embedding_feature": "neck"}
    return Embedder({"pooled": METRIC, "neck": CLASSIFICATION}, **names)


def batch(width):
    labels = torch.arange(12) % NUM_IDENTITIES
    return torch.randn(12, width, generator=torch.Generator().manual_seed(0)).requires_grad_(), labels


def built(model, kind, feature=None, **options):
    return build_loss(kind, options, model=model, feature=feature, num_identities=NUM_IDENTITIES)


@pytest.mark.parametrize("name", [name for name in catalogue(LOSSES) if name not in NOT_OF_A_BATCH])
def test_every_loss_of_pytorch_metric_learning_reads_its_feature_and_learns(model, name):
    loss = built(model, f"{LOSSES}:{name}", **NEEDED.get(name, {}))
    assert reads(loss) == ("classification" if name in CLASSIFIERS else "metric")
    feature = feature_of(model, Objective(loss))
    assert feature == ("neck" if name in CLASSIFIERS else "pooled")
    embeddings, labels = batch(model.features[feature])
    value = checked(name, loss, embeddings, labels)
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    wants_classes = [
        p for p in ("num_classes", "embedding_size", "descriptors_dim") if getattr(loss, p, None)
    ]
    assert all(getattr(loss, p) in (NUM_IDENTITIES, CLASSIFICATION, METRIC) for p in wants_classes)


@pytest.mark.parametrize("name", [name for name in catalogue(LOSSES) if name in NOT_OF_A_BATCH])
def test_one_that_needs_another_input_is_told_so(model, name):
    with pytest.raises(ConfigError, match=name):
        checked(name, built(model, f"{LOSSES}:{name}", **NOT_OF_A_BATCH[name]), *batch(METRIC))


@pytest.mark.parametrize("name", catalogue(MINERS))
def test_every_miner_of_pytorch_metric_learning_is_a_part_of_a_loss(model, name):
    miner = registry.build("loss", f"{MINERS}:{name}", {"collect_stats": True})
    assert miner.collect_stats
    if name in ("BaseMiner", "EmbeddingsAlreadyPackagedAsTriplets"):
        return  # abstract; of batches that are triplets
    parts = {"losses": [{"kind": f"{LOSSES}:TripletMarginLoss"}], "miners": [{"kind": f"{MINERS}:{name}"}]}
    value = checked("mined", built(model, f"{LOSSES}:MultipleLosses", **parts), *batch(METRIC))
    assert value.isfinite()
    with pytest.raises(
        ConfigError, match=r"loss 'miner' gives tuple; expected a scalar .*a miner is an option"
    ):
        checked("miner", miner, *batch(METRIC))


def test_a_loss_of_parts_has_the_sizes_of_its_parts_filled_in(model):
    pytest.importorskip("pytorch_metric_learning")
    parts = [{"kind": f"{LOSSES}:CosFaceLoss", "margin": 0.2}]
    distance = {"kind": "pytorch_metric_learning.distances:CosineSimilarity"}
    loss = built(model, f"{LOSSES}:MultipleLosses", losses=parts)
    assert loss.losses[0].W.shape == (CLASSIFICATION, NUM_IDENTITIES)
    assert loss.losses[0].margin == 0.2
    assert reads(loss) == "classification"
    assert built(model, CONTRASTIVE, distance=distance, pos_margin=1).distance.is_inverted


def test_a_classifier_reads_another_feature_where_it_is_asked_to(model):
    pytest.importorskip("pytorch_metric_learning")
    assert built(model, f"{LOSSES}:CosFaceLoss", feature="pooled").W.shape == (METRIC, NUM_IDENTITIES)
    assert built(model, f"{LOSSES}:CosFaceLoss", num_classes=9).W.shape == (CLASSIFICATION, 9)


class OfWeights(nn.Module):
    """Softmax over given directions, whose constructor says nothing of classes."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, embeddings, labels):
        return nn.functional.cross_entropy(embeddings @ self.weights.T, labels)


def made_by_a_function(num_classes, embedding_size):
    return OfWeights(torch.randn(num_classes, embedding_size))


class Linear(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()
        self.layer = nn.Linear(in_features, out_features)

    def forward(self, embeddings, labels):
        return nn.functional.cross_entropy(self.layer(embeddings), labels)


class Around(nn.Module):
    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, embeddings, labels):
        return 2 * self.loss(embeddings, labels)


class Projected(nn.Module):
    """No classifier, though a layer inside of it has a number of outputs."""

    def __init__(self, in_features):
        super().__init__()
        self.layer = nn.Linear(in_features, 2)

    def forward(self, embeddings, labels):
        return self.layer(embeddings).square().mean()


partly_given = functools.partial(Linear, out_features=NUM_IDENTITIES)


@pytest.mark.parametrize(
    ("name", "options", "feature"),
    [
        ("made_by_a_function", {}, "neck"),
        ("Linear", {}, "neck"),
        ("partly_given", {}, "neck"),
        ("Around", {"loss": {"kind": f"{__name__}:made_by_a_function"}}, "neck"),
        ("Around", {"loss": {"kind": "arcface"}}, "neck"),
        ("Around", {"loss": {"kind": "identity"}}, "neck"),
        ("Around", {"loss": {"kind": "trihard"}}, "pooled"),
        ("Around", {"loss": {"kind": "center"}}, "pooled"),
        ("Projected", {}, "pooled"),
    ],
)
def test_classifiers_are_known_however_they_are_made(model, name, options, feature):
    objective = Objective(built(model, f"{__name__}:{name}", **options))
    assert feature_of(model, objective) == feature
    prepare_objectives([objective], model, num_epochs=1, num_identities=NUM_IDENTITIES, seed=0)
    assert checked(name, objective.loss, *batch(model.features[feature])).isfinite()


class Failing(nn.Module):
    def forward(self, embeddings, labels):
        raise ValueError("ref_emb is needed")


class OnePerImage(nn.Module):
    def forward(self, embeddings, labels):
        return embeddings.sum(dim=1)


def test_a_loss_that_cannot_work_is_named():
    with pytest.raises(ConfigError, match=r"loss 'x' failed with embeddings \(12, 5\) .*ref_emb is needed"):
        checked("x", Failing(), *batch(5))
    with pytest.raises(ConfigError, match=r"loss 'x' gives a tensor of shape \(12,\); expected a scalar"):
        checked("x", OnePerImage(), *batch(5))
