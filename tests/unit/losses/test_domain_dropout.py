"""Domain guided dropout: impacts of values, and what is kept of each data set."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.errors import ConfigError
from reidkit.losses import IdentityLoss
from reidkit.losses._domain_dropout import guided_values, impact_of_values
from tests.trainings import load, trainer_of

SETS = torch.tensor([0, 0, 1, 1])


def batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    return embeddings, torch.arange(4).repeat(2), weight, torch.randn(4, generator=generator).double()


def test_impacts_are_the_second_order_expansion_of_the_loss() -> None:
    embeddings, labels, weight, bias = batch()

    def loss(embedding: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(embedding, weight, bias)[None], label[None])

    expected = []
    for embedding, label in zip(embeddings, labels, strict=True):
        slope = torch.func.grad(loss)(embedding, label)
        curvature = torch.func.hessian(loss)(embedding, label).diagonal()
        expected.append(-embedding * slope + embedding**2 / 2 * curvature)
    torch.testing.assert_close(impact_of_values(embeddings, labels, weight, bias), torch.stack(expected))


def test_small_values_have_the_impact_that_leaving_them_out_has() -> None:
    embeddings, labels, weight, bias = batch()
    embeddings = embeddings / 100
    whole = F.cross_entropy(F.linear(embeddings, weight, bias), labels, reduction="none")
    impact = impact_of_values(embeddings, labels, weight, bias)
    for place in range(embeddings.shape[1]):
        without = embeddings.clone()
        without[:, place] = 0
        loss = F.cross_entropy(F.linear(without, weight, bias), labels, reduction="none")
        torch.testing.assert_close(impact[:, place], loss - whole, rtol=1e-3, atol=1e-7)


def test_each_data_set_keeps_what_helps_on_the_mean_of_its_images() -> None:
    embeddings, labels, weight, bias = batch()
    kept = guided_values(embeddings, labels, weight, bias, SETS, 0.0)
    impact = impact_of_values(embeddings, labels, weight, bias)
    for number in (0, 1):
        own = [row for row in range(8) if SETS[labels[row]] == number]
        expected = (impact[own].mean(dim=0) > 0).double()
        assert all(torch.equal(kept[row], expected) for row in own)
    torch.manual_seed(0)
    drawn = torch.stack([guided_values(embeddings, labels, weight, bias, SETS, 1.0) for _ in range(2000)])
    chance = torch.stack([(impact[SETS[labels] == SETS[label]].mean(dim=0)).sigmoid() for label in labels])
    torch.testing.assert_close(drawn.mean(dim=0), chance, atol=0.05, rtol=0)


def test_it_is_for_training_and_needs_the_data_sets() -> None:
    embeddings, labels, *_ = batch()
    loss = IdentityLoss(4, 6, domain_dropout="deterministic", init_std=0.5)
    with pytest.raises(ConfigError, match="needs the data set of each identity"):
        loss(embeddings, labels)
    loss.fill_sets(SETS.tolist())
    usual = IdentityLoss(4, 6)
    usual.load_state_dict(loss.state_dict())
    assert not torch.equal(loss(embeddings, labels), usual(embeddings, labels))
    torch.testing.assert_close(loss.eval()(embeddings, labels), usual(embeddings, labels))


def test_a_trainer_tells_it_the_data_sets(tiny_market: Path, tmp_path: Path) -> None:
    loss = IdentityLoss(domain_dropout="stochastic")
    trainer_of(load(tiny_market, 0), tmp_path / "run", [loss], epochs=1).fit()
    assert loss.sets is not None
    assert set(loss.sets.tolist()) == {0}
