"""Our losses in a plain PyTorch loop: a batch sampler, a network, a loss, an optimiser, and nothing else.

python examples/bare_loop.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

from reidkit.losses import BatchHardTripletLoss, MarginSampleMiningLoss, SupportNeighborLoss

LOSSES = {
    "msml": lambda: MarginSampleMiningLoss(margin=0.3, temperature=0.1),
    "trihard": lambda: BatchHardTripletLoss(margin=0.3),
    "sn": lambda: SupportNeighborLoss(num_neighbors=5),
}


def toy_images(num_identities: int = 16, each: int = 8) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 16) of made-up identities, a colour each, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_identities).repeat_interleave(each)
    colours = torch.rand(num_identities, 3, 1, 1, generator=generator)
    noise = 0.3 * torch.randn(len(labels), 3, 32, 16, generator=generator)
    return colours[labels] + noise, labels


def batches(labels: Tensor, num: int, *, identities: int = 8, each: int = 4) -> list[Tensor]:
    """Rows of batches with that many images of each identity: metric losses need both kinds of pairs."""
    found = []
    for _ in range(num):
        drawn = torch.randperm(int(labels.max()) + 1)[:identities]
        rows = [(labels == identity).nonzero().flatten() for identity in drawn]
        found.append(torch.cat([row[torch.randperm(len(row))[:each]] for row in rows]))
    return found


def main(loss: str = "msml", steps: int = 30) -> list[float]:
    """Train a small network; the loss at each step."""
    torch.manual_seed(0)
    images, labels = toy_images()
    network = nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 32, 32))
    criterion = LOSSES[loss]()
    optimiser = torch.optim.Adam([*network.parameters(), *criterion.parameters()], lr=1e-3)
    values = []
    for rows in batches(labels, steps):
        value = criterion(network(images[rows]), labels[rows])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    print(f"{loss}: {values[0]:.3f} at first, {values[-1]:.3f} after {steps} steps")
    return values


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--loss", choices=LOSSES, default="msml")
    parser.add_argument("--steps", type=int, default=30)
    main(**vars(parser.parse_args()))
