"""MCP: one column for the whole body, one for each of four body parts, joined."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import Embedder
from reidkit.models._stripes import cut_stripes
from reidkit.registry import register

_WIDTH, _NUM_PARTS = 32, 4
_WHOLE, _PART = (9, 3), (7, 9)  # rows and columns of the last maps for images of 230 x 80


@register("model", "mcp")
class MCP(Embedder):
    """Multi-channel parts-based network (Cheng, Gong, Zhou, Wang, Zheng, CVPR 2016).

    One convolution (7 x 7, stride 3, 32 filters) of the whole image; above it a column for the whole body,
    which ends in 400 values, and four columns for equal horizontal parts of it, which end in 100 each; the
    800 together go through a last linear layer. The paper's images are 230 x 80, its loss is
    :class:`reidkit.losses.TripletLoss` with ``squared`` and ``intra_weight``.

    Features: ``embedding`` (B, 800).

    Chosen here, where the paper is silent or could not be read: a pooling of 3 x 3 before and after the
    5 x 5 convolution of the whole, one before the 3 x 3 convolution of a part, and batch norm after each
    convolution, without which the network learns very slowly from random weights. For images of another size
    the last maps are resampled to those of 230 x 80, so that weights go with any size.
    """

    def __init__(self) -> None:
        width = 400 + 100 * _NUM_PARTS
        super().__init__(
            {"embedding": width},
            metric_feature="embedding",
            classification_feature="embedding",
            embedding_feature="embedding",
            smallest_side=17,  # four rows of the first map, one for every part
        )
        self.beyond_weights = {}
        self.conv1 = _convolution(3, 7, stride=3, padding=0)
        self.whole = _convolution(_WIDTH, 5)
        self.parts = nn.ModuleList(_convolution(_WIDTH, 3) for _ in range(_NUM_PARTS))
        self.whole_feature = _feature(_WHOLE, 400)
        self.part_features = nn.ModuleList(_feature(_PART, 100) for _ in range(_NUM_PARTS))
        self.joined = nn.Linear(width, width)

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        low = self.conv1(images)  # (B, 32, (H - 4) / 3, (W - 4) / 3)
        found = [self.whole_feature(_resampled(_pooled(self.whole(_pooled(low))), _WHOLE))]
        stripes = cut_stripes(low, _NUM_PARTS)
        for stripe, part, feature in zip(stripes, self.parts, self.part_features, strict=True):
            found.append(feature(_resampled(part(_pooled(stripe)), _PART)))
        return {"embedding": self.joined(torch.cat(found, dim=1))}


def _convolution(num_in: int, size: int, *, stride: int = 1, padding: int | None = None) -> nn.Sequential:
    padding = size // 2 if padding is None else padding
    convolution = nn.Conv2d(num_in, _WIDTH, size, stride=stride, padding=padding, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(_WIDTH), nn.ReLU())


def _feature(grid: tuple[int, int], width: int) -> nn.Sequential:
    """A map (B, 32, *grid) -> (B, width)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(_WIDTH * grid[0] * grid[1], width), nn.ReLU())


def _pooled(feature_map: Tensor) -> Tensor:
    return F.max_pool2d(feature_map, 3, stride=3, ceil_mode=True)


def _resampled(feature_map: Tensor, grid: tuple[int, int]) -> Tensor:
    if feature_map.shape[2:] == grid:
        return feature_map
    return F.interpolate(feature_map, size=grid, mode="bilinear", align_corners=False)
