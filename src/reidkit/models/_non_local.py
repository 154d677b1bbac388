"""Non-local blocks: every place of a map looks at all the others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# FastReID's WITH_NL: of stage 2 the last two blocks, of stage 3 the last three (nine in a ResNet-101).
_BLOCKS = {"resnet50": {"layer2": 2, "layer3": 3}, "resnet101": {"layer2": 2, "layer3": 9}}
ARCHITECTURES = tuple(_BLOCKS)
"""Networks that have a place for non-local blocks."""


class NonLocal(nn.Module):
    """``z_i = x_i + BN(W(1/N sum_j <theta(x_i), phi(x_j)> g(x_j)))`` over all N places. (B, C, h, w), same.

    Wang et al. 2018 (arXiv 1711.07971, equation 4: dot product), with one inner channel and a batch norm
    that starts at 0, as in FastReID, whose names the parameters have.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.g = nn.Conv2d(num_channels, 1, 1)
        self.theta = nn.Conv2d(num_channels, 1, 1)
        self.phi = nn.Conv2d(num_channels, 1, 1)
        norm = nn.BatchNorm2d(num_channels)
        nn.init.zeros_(norm.weight)
        self.W = nn.Sequential(nn.Conv2d(1, num_channels, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        # The sum over j does not depend on i, so no N x N matrix is needed.
        theta, phi, g = (layer(x).flatten(2) for layer in (self.theta, self.phi, self.g))  # (B, 1, N)
        mean = (phi * g).mean(dim=2, keepdim=True)
        result: Tensor = x + self.W((theta * mean).view_as(x[:, :1]))
        return result


class _Stage(nn.Sequential):
    """A stage of a ResNet, its last blocks each followed by a non-local one; names of its blocks stay."""

    def __init__(self, stage: Any, num_non_local: int) -> None:
        super().__init__(*stage)
        self.num_blocks = len(stage)
        width = stage[-1].conv3.out_channels
        self.non_local = nn.ModuleList(NonLocal(width) for _ in range(num_non_local))

    def forward(self, x: Tensor) -> Tensor:
        plain = self.num_blocks - len(self.non_local)
        for i in range(self.num_blocks):
            x = self[i](x)
            if i >= plain:
                x = self.non_local[i - plain](x)
        return x


def add_non_local(backbone: nn.Module, architecture: str) -> None:
    """Put FastReID's non-local blocks into a ResNet."""
    for stage, count in _BLOCKS[architecture].items():
        setattr(backbone, stage, _Stage(getattr(backbone, stage), count))
