"""Dropout in the step that processes take together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit import distributed
from reidkit.objectives import Objective, Step


class Dropping(nn.Module):
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
