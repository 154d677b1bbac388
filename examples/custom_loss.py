"""A loss of your own in reidkit's training: any module that is called with embeddings and labels.

    python examples/custom_loss.py data/market1501 runs/tight

The loss is an object here. A recipe names it by module and class, `kind = "custom_loss:TightClusters"`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import Tensor, nn

import reidkit as rk
from reidkit.ops import pairwise_distances, positive_mask, prepare_batch


class TightClusters(nn.Module):
    """Mean squared distance of two images of one identity, 0 with a graph where there are no two.

    It pulls only, so that it needs a loss beside it that pushes.
    """

    reads = "metric"  # the feature before the neck, as metric losses do
    normalize = True

    @prepare_batch  # checked, at least float32, of unit length
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        squared = pairwise_distances(embeddings).square()
        positive = positive_mask(labels)
        return (squared * positive).sum() / positive.sum().clamp(min=1)


def main(root: Path, out: Path, model: str = "resnet18", epochs: int = 10) -> rk.Encoder:
    """Train with the identity loss and a tenth of the new one; the encoder."""
    data = rk.load_dataset("market1501", root)
    losses = [rk.losses.IdentityLoss(), rk.Objective(TightClusters(), weight=0.1)]
    trainer = rk.Trainer(
        rk.build_model(model), data, losses, out=out, epochs=epochs, identities_per_batch=8, num_workers=0
    )
    trainer.fit()
    return rk.load_encoder(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="Market-1501's folder")
    parser.add_argument("out", type=Path, help="run folder")
    main(**vars(parser.parse_args()))
