"""The step that processes take together: its dropout, and the penalties of weights in it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.losses import IdentityLoss, MarginSampleMiningLoss, StructuredSparsity, TripletLoss
from reidkit.ops import l12
from reidkit.training import distributed
from reidkit.training.objective import Objective, Step, prepare_objectives


class Dropping(nn.Module):
    def regularizers(self) -> dict[str, Tensor]:
        return {}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"feature": F.dropout(images, 0.5)}


class DroppingLoss(nn.Module):
    reads = "metric"
    dropped: Tensor

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.dropped = F.dropout(torch.ones(50), 0.5)
        return embeddings.sum()


def drawn(rank, monkeypatch, *, seed=7):
    """What the network and the loss of a process drop."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    loss = DroppingLoss()
    step = Step(Dropping(), [Objective(loss, feature="feature")])
    _, features = step(torch.ones(4, 50), torch.arange(4), 0, seed)
    return features["feature"], loss.dropped


def test_each_process_drops_other_parts_of_its_images_and_the_same_in_losses(monkeypatch):
    (first, of_loss), (second, again) = drawn(0, monkeypatch), drawn(1, monkeypatch)
    assert not torch.equal(first, second)
    assert torch.equal(of_loss, again)
    assert torch.equal(drawn(1, monkeypatch)[0], second), "a step draws the same whenever it is taken"
    assert not torch.equal(drawn(1, monkeypatch, seed=8)[0], second)
    assert drawn(1, monkeypatch, seed=2**64 * 1_000_003)[0].shape == (4, 50), "any seed that a run may have"


def jlml_objectives(**of_local):
    """As in the recipes, for a network without stated stripes."""
    return [
        Objective(IdentityLoss(), feature="global", name="identity"),
        Objective(StructuredSparsity("l21"), 5e-4, "global_feature.weight", name="columns"),
        Objective(
            StructuredSparsity("l12", "stripes"), 5e-4, "local_feature.weight", name="stripes", **of_local
        ),
    ]


def prepared(model, losses):
    return prepare_objectives(losses, model, num_epochs=2, num_identities=3, seed=0)


def test_penalties_of_weights_become_the_models_by_the_names_of_their_objectives():
    model = rk.build_model("jlml", stripes=2)
    objectives = prepared(model, jlml_objectives())
    assert [o.loss.extra_repr() for o in objectives[1:]] == ["norm='l21', groups=4", "norm='l12', groups=2"]
    found = model.regularizers()
    assert found.keys() == {"columns", "stripes"}
    assert found["stripes"].equal(l12(model.local_feature.weight, groups=2))
    terms, gathered = Step(model, objectives)(torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 2]), 0)
    assert list(terms) == ["identity", "columns", "stripes"]
    assert all(terms[name].equal(value) for name, value in found.items())
    assert gathered.keys() == {"global"}, "penalties read no features"
    terms["stripes"].backward()
    assert model.local_feature.weight.grad.any()


def test_a_penalty_counts_in_its_epochs_only():
    model = rk.build_model("jlml", stripes=2)
    step = Step(model, prepared(model, jlml_objectives(from_epoch=1)))
    batch = torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 2])
    assert [set(step(*batch, epoch)[0]) - {"identity"} for epoch in (0, 1)] == [
        {"columns"},
        {"columns", "stripes"},
    ]


def test_without_penalties_among_the_losses_the_model_is_trained_without():
    model = rk.build_model("jlml", stripes=2)
    prepared(model, jlml_objectives()[:1])
    assert model.regularizers() == {}


def test_a_penalty_of_weights_that_join_no_stripes_has_one_group():
    model = rk.build_model("resnet18", neck="fc", dim=16)
    [objective] = prepared(model, [Objective(StructuredSparsity("l12", "stripes"), feature="neck.weight")])
    assert objective.loss.groups == 1
    assert model.regularizers()["StructuredSparsity"].equal(l12(model.neck.weight, groups=1))


def test_a_loss_is_described_as_in_runs_that_began_before_it_had_more_options() -> None:
    described = Objective(MarginSampleMiningLoss()).describe()
    assert described["loss"] == "MarginSampleMiningLoss(margin=0.3, normalize=True)"
    assert "schedule" not in described
    assert "temperature=0.1" in Objective(MarginSampleMiningLoss(temperature=0.1)).describe()["loss"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": math.nan}, "weight of loss 'TripletLoss' is nan; expected a finite number of at least 0"),
        ({"weight": -1.0}, "weight of loss 'TripletLoss' is -1.0"),
        ({"weight": "1"}, "weight of loss 'TripletLoss' is '1'"),
        ({"schedule": [(0, math.inf)]}, "a number in the schedule of loss 'TripletLoss' is inf"),
        ({"schedule": [(-1, 1.0)]}, "a number in the schedule of loss 'TripletLoss' is -1"),
        ({"schedule": [(3, 1.0), (1, 2.0)]}, r"has the epochs \[3, 1\]; give .* in ascending order"),
    ],
)
def test_weights_and_schedules_are_numbers_that_can_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Objective(TripletLoss(), **options)
