"""Parameters and multiply-adds against counts by hand."""

from __future__ import annotations

import torch
from torch import nn

import reidkit as rk
from reidkit.models import SingleBranch
from reidkit.models._cost import Complexity, complexity


def test_counts_of_a_small_network_by_hand():
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),  # 8 x 4 places
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    )
    model = SingleBranch(backbone, 8, smallest_side=1, neck="fc", dim=5)
    parameters = (27 * 8 + 8) + 2 * 8 + 9 * 8 + (8 * 5 + 5)
    multiply_adds = 8 * 4 * (27 * 8 + 9 * 8) + 8 * 5
    assert complexity(model, height=16, width=8) == Complexity(parameters, multiply_adds)


def test_counting_changes_nothing():
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    complexity(model, height=48, width=24)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
