"""Training the last layers of a network from ImageNet weights on maps that are computed once.

All that lies before is fixed, its maps kept as float16 for each image and its mirror image, so that a step
costs what the last layers cost: tens of milliseconds where the whole network takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import reidkit as rk
from reidkit.encoders.autocast import autocast
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.features import label_features
from reidkit.images.cache import read
from reidkit.images.transforms import normalize
from reidkit.models import build_model
from reidkit.types import Dataset, Evaluation, Split

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Network:
    """A network of timm with the weights of a package, and what of it is fixed.

    Attributes:
        fixed_blocks: stages, counted from the image, that keep their weights.
        height, width: of the images, in pixels.
        last_stride: 1 or 2.
    """

    name: str
    package: str
    height: int
    width: int
    fixed_blocks: int
    last_stride: int = 1

    def build(self, seed: int, *, neck: str = "bnneck") -> tuple[nn.Module, nn.Module]:
        """The fixed layers, and a model that takes their maps in place of images."""
        torch.manual_seed(seed)
        model = build_model(
            f"timm:{self.name}",
            pretrained=f"package:{self.package}",
            last_stride=self.last_stride,
            neck=neck,
        )
        whole = model.backbone.network
        fixed = nn.Sequential(whole.conv_stem, whole.bn1, *whole.blocks[: self.fixed_blocks]).eval()
        model.backbone = nn.Sequential(*whole.blocks[self.fixed_blocks :], whole.conv_head, whole.bn2)
        model.smallest_side = 1
        _as_products(model)
        return fixed.to(memory_format=torch.channels_last), model.to(memory_format=torch.channels_last)

    def maps(self, split: Split, folder: Path, part: str, *, mirrored: bool) -> np.ndarray:
        """(N, 1 or 2, C, h, w) float16, read from ``folder`` where an earlier call has written them."""
        file = folder / f"{self.package}-{self.height}-{self.fixed_blocks}-{self.last_stride}-{part}.npy"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fixed, model = self.build(0)
            written = np.concatenate(
                [
                    self._of_batch(fixed, model, split[start : start + 64], mirrored=mirrored)
                    for start in range(0, len(split), 64)
                ]
            )
            with file.with_suffix(".part").open("wb") as stream:
                np.save(stream, written)
            file.with_suffix(".part").rename(file)
        return np.load(file, mmap_mode="r")

    @torch.no_grad()
    def _of_batch(self, fixed: nn.Module, model: nn.Module, split: Split, *, mirrored: bool) -> np.ndarray:
        images = torch.stack([read(sample, height=self.height, width=self.width) for sample in split])
        inputs = normalize(images, model.mean, model.std).to(memory_format=torch.channels_last)
        sides = [inputs, inputs.flip(3)] if mirrored else [inputs]
        with autocast(CPU, torch.bfloat16):
            maps = torch.stack([fixed(side) for side in sides], dim=1)
        return maps.half().numpy()


class Product(nn.Module):
    """A convolution of single points as a matrix product: on maps of a few places several times as fast."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1))

    def forward(self, maps: Tensor) -> Tensor:
        return nn.functional.linear(maps.permute(0, 2, 3, 1), self.weight).permute(0, 3, 1, 2)


def _as_products(model: nn.Module) -> None:
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            model.set_submodule(path, Product(layer))


class CachedData:
    """A data set as a network's fixed layers see it.

    Attributes:
        data: the data set.
        train: (N, 2, C, h, w) maps of the training images and their mirror images.
    """

    def __init__(self, data: Dataset, network: Network, folder: Path) -> None:
        self.data, self.network = data, network
        self.train = network.maps(data.train, folder, "train", mirrored=True)
        self._tested = [
            (split, network.maps(split, folder, part, mirrored=False))
            for part, split in (("query", data.query), ("gallery", data.gallery))
        ]

    def batch(self, indices: Sequence[int], mirrored: Sequence[int]) -> Tensor:
        """float32 (B, C, h, w)."""
        maps = torch.from_numpy(self.train[np.asarray(indices), np.asarray(mirrored)])
        return maps.float().to(memory_format=torch.channels_last)

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Score a model that takes the maps, by the data set's own protocol."""
        model.eval()
        query, gallery = (label_features(embed(model, maps[:, 0]), split) for split, maps in self._tested)
        return evaluate_features(
            query, gallery, protocol=self.data.protocol, camera_filter=self.data.camera_filter
        )


@torch.no_grad()
def embed(model: nn.Module, maps: np.ndarray) -> np.ndarray:
    """Unit embeddings (N, D) of maps (N, C, h, w)."""
    rows = []
    for start in range(0, len(maps), 256):
        with autocast(CPU, torch.bfloat16):
            rows.append(model.embed(torch.from_numpy(np.array(maps[start : start + 256])).float()))
    return torch.cat(rows).numpy()


def load(root: Path) -> Dataset:
    """Market-1501, or a part of it in the same layout."""
    return rk.load_dataset("market1501", root)
