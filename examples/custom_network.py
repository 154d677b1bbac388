"""A network of your own, trained and saved as an encoder.

    PYTHONPATH=examples python examples/custom_network.py data/market1501 runs/halves

An encoder's file names the network by its module: whoever loads it says that this module may be imported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

import reidkit as rk
from reidkit.config import TransformConfig
from reidkit.models import Embedder


class Halves(Embedder):
    """A few convolutions; the upper and the lower half of the map are pooled apart.

    Args:
        width: channels of the map.
        dim: width of each half's feature.
    """

    def __init__(self, *, width: int = 32, dim: int = 64) -> None:
        super().__init__(
            {"upper": dim, "lower": dim, "whole": 2 * dim},
            metric_feature="whole",
            classification_feature="whole",
            embedding_feature="whole",
            smallest_side=16,
        )
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=4, padding=2),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.upper, self.lower = nn.Linear(width, dim), nn.Linear(width, dim)

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> features (B, dim), (B, dim), (B, 2 dim)."""
        top, bottom = self.layers(images).chunk(2, dim=2)
        upper, lower = self.upper(top.mean((2, 3))), self.lower(bottom.mean((2, 3)))
        return {"upper": upper, "lower": lower, "whole": torch.cat((upper, lower), dim=1)}


def main(root: Path, out: Path, epochs: int = 20) -> rk.Encoder:
    """Train it on a set in Market-1501's layout, print how good it is; the encoder."""
    data = rk.load_dataset("market1501", root)
    trainer = rk.Trainer(
        rk.build_model("custom_network:Halves", dim=32),
        data,
        [rk.losses.IdentityLoss(), rk.losses.BatchHardTripletLoss()],
        out=out,
        epochs=epochs,
        identities_per_batch=8,
        transform=TransformConfig(height=64, width=32),
        num_workers=0,
    )
    trainer.fit()
    encoder = rk.load_encoder(out, allow_code=["custom_network"])
    print(rk.evaluate(encoder, data))
    return encoder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("root", type=Path, help="Market-1501's folder")
    parser.add_argument("out", type=Path, help="run folder")
    main(**vars(parser.parse_args()))
