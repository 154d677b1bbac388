"""DGD's network: a small Inception for people, to be trained on several data sets at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import Embedder, LastMap
from reidkit.registry import register

_STEM = 32
_BLOCKS = (("4a", 64), ("4b", 64), ("5a", 128), ("5b", 128), ("6a", 256), ("6b", 256))
_HALVING = ("4b", "5b", "6b")


@register("model", "dgd")
class DGD(Embedder):
    """The network of domain guided dropout (Xiao, Li, Ouyang, Wang, CVPR 2016, arXiv 1604.07528, Table 2).

    Three 3 x 3 convolutions of 32 filters, a pooling, and six Inception blocks with 64, 64, 128, 128, 256 and
    256 filters in each of their branches, batch norm after every convolution; then 256 values. Its images are
    144 x 56. It is trained with one identity loss on the union of data sets, with ``dropout = 0.5`` first and
    with ``domain_dropout`` then (:class:`reidkit.losses.IdentityLoss`).

    Features: ``pooled`` (B, 1536) and ``embedding`` (B, 256), after batch norm and ReLU.

    Chosen here, where the paper is silent or could not be read: the average over the last map, and strides
    in the last convolution of each branch.
    """

    def __init__(self) -> None:
        width = 256
        super().__init__(
            {"pooled": 1536, "embedding": width},
            metric_feature="embedding",
            classification_feature="embedding",
            embedding_feature="embedding",
            smallest_side=9,  # four halvings, none of a single row or column
        )
        self.beyond_weights = {}
        self.stem = nn.Sequential(
            _convolution(3, _STEM, 3), _convolution(_STEM, _STEM, 3), _convolution(_STEM, _STEM, 3)
        )
        blocks: list[nn.Module] = []
        num_channels = _STEM
        for name, filters in _BLOCKS:
            block = Inception(num_channels, filters, halving=name in _HALVING)
            blocks.append(block)
            num_channels = block.width
        self.blocks = nn.Sequential(*blocks)
        self.fc7 = nn.Sequential(nn.Linear(num_channels, width), nn.BatchNorm1d(width), nn.ReLU())

    @property
    def last_maps(self) -> list[LastMap]:
        return [LastMap(self.blocks)]

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        low = F.max_pool2d(self.stem(images), 2, ceil_mode=True)
        pooled = self.blocks(low).mean(dim=(2, 3))
        return {"pooled": pooled, "embedding": self.fc7(pooled)}


class Inception(nn.Module):
    """1 x 1, 3 x 3, two 3 x 3 and a pooling, side by side.

    Of stride 2 it has no 1 x 1, and the pool passes through as it is. (B, C, h, w) -> (B, width, ...).
    """

    def __init__(self, num_in: int, filters: int, *, halving: bool) -> None:
        super().__init__()
        stride = 2 if halving else 1
        self.halving = halving
        self.simple = nn.Sequential(
            _convolution(num_in, filters, 1), _convolution(filters, filters, 3, stride=stride)
        )
        self.twice = nn.Sequential(
            _convolution(num_in, filters, 1),
            _convolution(filters, filters, 3),
            _convolution(filters, filters, 3, stride=stride),
        )
        self.width = 2 * filters + (num_in if halving else 2 * filters)
        if not halving:
            self.single = _convolution(num_in, filters, 1)
            self.projected = _convolution(num_in, filters, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = [self.simple(x), self.twice(x)]
        if self.halving:
            # After a ReLU, zeros never are the maximum.
            found.append(F.max_pool2d(x, 3, stride=2, padding=1))
        else:
            found += [self.single(x), self.projected(F.avg_pool2d(x, 3, stride=1, padding=1))]
        return torch.cat(found, dim=1)


def _convolution(num_in: int, num_out: int, size: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(num_out), nn.ReLU())
