"""Miners and losses of pytorch-metric-learning beside ours: both take embeddings and labels.

    pip install pytorch-metric-learning
    python examples/metric_learning_parts.py

In a recipe they are named by their dotted paths; see docs/losses/README.md.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner, MultiSimilarityMiner

from reidkit.losses import BatchHardTripletLoss, MultiSimilarityLoss


def main(steps: int = 40) -> dict[str, float]:
    """Move 32 free embeddings by each combination; the share whose nearest neighbour is then right."""
    labels = torch.arange(8).repeat_interleave(4)
    miner, theirs = BatchHardMiner(), TripletMarginLoss(margin=0.3)
    pairs = MultiSimilarityMiner()
    combinations = {
        "their miner, their loss": lambda e: theirs(e, labels, miner(e, labels)),
        "our batch-hard triplets": lambda e: BatchHardTripletLoss(margin=0.3)(e, labels),
        "their pairs, their loss": lambda e: theirs(e, labels, pairs(e, labels)),
        "our multi-similarity, which mines by itself": lambda e: MultiSimilarityLoss()(e, labels),
    }
    found = {}
    for name, loss in combinations.items():
        embeddings = torch.randn(32, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        optimiser = torch.optim.Adam([embeddings], lr=0.05)
        for _ in range(steps):
            optimiser.zero_grad()
            loss(embeddings).backward()
            optimiser.step()
        unit = torch.nn.functional.normalize(embeddings.detach())
        nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(dim=1)
        found[name] = (labels[nearest] == labels).float().mean().item()
        print(f"{100 * found[name]:5.1f} %  {name}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    main(**vars(parser.parse_args()))
