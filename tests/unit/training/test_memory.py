"""Embeddings of past batches beside those of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import reidkit as rk
from reidkit.errors import ConfigError
from reidkit.losses import ArcFaceLoss, BatchHardTripletLoss, CenterLoss, ContrastiveLoss, IdentityLoss
from reidkit.training.memory import BatchMemory
from reidkit.training.objective import Objective, Step
from tests.trainings import Stop, assert_same_weights, make_trainer, stopper, weights


def test_it_holds_what_a_list_of_the_last_would() -> None:
    memory, kept = BatchMemory(5, 2), []
    generator = torch.Generator().manual_seed(0)
    for number, size in enumerate((2, 3, 1, 7, 4, 2)):
        batch = torch.randn(size, 2, generator=generator)
        labels = torch.full((size,), number)
        seen, seen_labels = memory.beside(batch, labels)
        expected = {tuple(row) for row in kept}
        assert {
            (*row, float(label)) for row, label in zip(seen[size:].tolist(), seen_labels[size:], strict=True)
        } == expected
        assert torch.equal(seen[:size], batch)
        memory.remember(batch, labels)
        kept = (kept + [(*row, float(number)) for row in batch.tolist()])[-5:]


def test_what_is_remembered_are_partners_without_a_gradient() -> None:
    memory, loss = BatchMemory(4, 3), ContrastiveLoss()
    first, second = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 0, 1, 1])
    memory.remember(first, labels)
    second.requires_grad_()
    value = loss(*memory.beside(second, labels))
    memory.remember(second, labels)  # changes nothing in the graph
    value.backward()
    both = torch.cat((second.detach(), first)).requires_grad_()
    loss(both, labels.repeat(2)).backward()
    torch.testing.assert_close(second.grad, both.grad[:4])


def test_it_counts_from_its_epoch_on() -> None:
    model = rk.build_model("timm:test_resnet")
    objective = Objective(BatchHardTripletLoss(), memory=64, memory_from_epoch=1)
    step = Step(model.eval(), [objective])
    images, labels = torch.randn(2, 4, 3, 48, 24), torch.tensor([0, 0, 1, 1])
    _, second = (step(batch, labels, 0)[0] for batch in images)
    alone = Step(model, [Objective(BatchHardTripletLoss())])(images[1], labels, 0)[0]
    assert torch.equal(second["BatchHardTripletLoss"], alone["BatchHardTripletLoss"])
    later = step(images[1], labels, 1)[0]
    assert not torch.equal(later["BatchHardTripletLoss"], second["BatchHardTripletLoss"])


def test_a_run_with_a_memory_that_was_stopped_ends_as_one_that_was_not(
    tiny_market: Path, tmp_path: Path
) -> None:
    def run(name: str, memory: int | None = 40, **options: Any) -> rk.Trainer:
        losses = [Objective(BatchHardTripletLoss(), memory=memory)]
        return make_trainer(tiny_market, tmp_path / name, losses=losses, checkpoint_minutes=1e-9, **options)

    run("whole").fit()
    with pytest.raises(Stop):
        run("stopped", trackers=[stopper(11)]).fit()
    run("stopped").fit()
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")
    run("without", memory=None).fit()
    of_runs = (
        {name: weight for name, weight in weights(tmp_path / run).items() if name.startswith("model.")}
        for run in ("whole", "without")
    )
    assert not all(map(torch.equal, *(found.values() for found in of_runs)))


def test_it_goes_with_losses_of_pairs_only() -> None:
    for loss in (IdentityLoss(), CenterLoss(), ArcFaceLoss()):
        with pytest.raises(ConfigError, match="compares no pairs"):
            Objective(loss, memory=10)
    with pytest.raises(ConfigError, match="memory is 0"):
        Objective(BatchHardTripletLoss(), memory=0)
    with pytest.raises(ConfigError, match="memory_from_epoch and no memory"):
        Objective(BatchHardTripletLoss(), memory_from_epoch=1)
    assert "memory" not in Objective(BatchHardTripletLoss()).describe()
