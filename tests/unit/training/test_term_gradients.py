"""The gradient of each loss term, and weights that follow a schedule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.losses import BatchHardTripletLoss, IdentityLoss
from reidkit.training.precision import Precision
from reidkit.training.term_gradients import gradients_of_terms
from reidkit.training.trackers import read_metrics
from tests.trainings import assert_same_weights, make_trainer


def test_norms_and_cosines_are_those_of_the_gradients():
    model = nn.Linear(2, 1, bias=False)
    terms = {
        "along": (model.weight * torch.tensor([[3.0, 4.0]])).sum(),
        "across": 2 * (model.weight * torch.tensor([[4.0, -3.0]])).sum(),
        "against": -(model.weight * torch.tensor([[3.0, 4.0]])).sum(),
        "nothing": (model.weight * 0).sum(),
        "elsewhere": torch.zeros(()),
    }
    found = gradients_of_terms(terms, model, Precision("float32", torch.device("cpu")))
    norms = {"along": 5, "across": 10, "against": 5, "nothing": 0, "elsewhere": 0}
    assert {name: found.pop(f"norm/{name}") for name in norms} == pytest.approx(norms)
    cosines = {"cosine/along,across": 0, "cosine/along,against": -1, "cosine/across,against": 0}
    assert found == pytest.approx(cosines, abs=1e-6)
    sum(terms.values()).backward()  # the graph is still there
    assert model.weight.grad.tolist() == [[8, -6]]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_measuring_gradients_leaves_the_run_as_it_is(tiny_market, tmp_path, accumulate):
    options = {"epochs": 1, "accumulate": accumulate}
    make_trainer(tiny_market, tmp_path / "plain", **options).fit()
    make_trainer(tiny_market, tmp_path / "measured", gradients_every=4, **options).fit()
    assert_same_weights(tmp_path / "plain", tmp_path / "measured")
    records = read_metrics(tmp_path / "measured" / "metrics.jsonl")
    found = [record for record in records if record["kind"] == "gradients"]
    assert [record["step"] for record in found] == [4, 8]
    names = {"norm/IdentityLoss", "norm/BatchHardTripletLoss", "cosine/IdentityLoss,BatchHardTripletLoss"}
    assert all(names <= record.keys() for record in found)
    assert all(-1 <= record["cosine/IdentityLoss,BatchHardTripletLoss"] <= 1 for record in found)


def test_a_weight_follows_its_schedule():
    objective = rk.Objective(BatchHardTripletLoss(), weight=2.0, schedule=[(2, 0.0), (4, 1.0), (10, 0.5)])
    assert [objective.weight_in(epoch) for epoch in (0, 2, 3, 4, 7, 10, 99)] == [0, 0, 1, 2, 1.5, 1, 1]
    assert rk.Objective(BatchHardTripletLoss(), weight=2.0).weight_in(5) == 2
    assert "schedule" not in rk.Objective(BatchHardTripletLoss()).describe(), "as runs of before have it"
    assert objective.describe()["schedule"] == [[2, 0.0], [4, 1.0], [10, 0.5]]
    with pytest.raises(
        ConfigError, match=r"schedule of loss 'x' has the epochs \[3, 3\]; give \[epoch, factor\]"
    ):
        rk.Objective(BatchHardTripletLoss(), name="x", schedule=[(3, 1.0), (3, 0.0)])


def test_a_schedule_weighs_the_loss_in_training(tiny_market, tmp_path):
    def losses(**of_metric):
        return [IdentityLoss(), rk.Objective(BatchHardTripletLoss(), **of_metric)]

    make_trainer(tiny_market, tmp_path / "scheduled", losses=losses(schedule=[(0, 0.25)]), epochs=1).fit()
    make_trainer(tiny_market, tmp_path / "weighed", losses=losses(weight=0.25), epochs=1).fit()
    assert_same_weights(tmp_path / "scheduled", tmp_path / "weighed")
