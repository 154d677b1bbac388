"""MobileNetV2 written out, so that an encoder of it loads without timm, whose import takes seconds."""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import SingleBranch

# Names of layers are those of timm's mobilenetv2_100, and so are the spreads that weights are drawn with.

_STAGES = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1))
"""Of each: how much wider the middle of its blocks is, channels, number of blocks, stride.

They are those of table 2 of the paper, but for the last stride, which is 1, as usual in re-identification.
"""


def mobilenet_v2() -> SingleBranch:
    """MobileNetV2 with batch norm neck, equal to ``timm:mobilenetv2_100`` with ``last_stride = 1``."""
    backbone = nn.Sequential(OrderedDict(network=MobileNetV2()))  # one level deeper, as networks of timm are
    return SingleBranch(backbone, MobileNetV2.width, smallest_side=9)


class MobileNetV2(nn.Module):
    """Sandler et al. 2018 (arXiv 1801.04381). Images (B, 3, H, W) -> map (B, 1280, H / 16, W / 16)."""

    width = 1280

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False)
        self.bn1 = NormReLU6(32)
        stages, channels = [nn.Sequential(SeparableBlock(32, 16))], 16
        for expansion, num_out, num_blocks, stride in _STAGES:
            blocks = [InvertedResidual(channels, num_out, expansion, stride)]
            blocks += [InvertedResidual(num_out, num_out, expansion, 1) for _ in range(num_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = num_out
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(channels, self.width, 1, bias=False)
        self.bn2 = NormReLU6(self.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0, sqrt(2 / (fan_out // module.groups)))

    def forward(self, images: Tensor) -> Tensor:
        feature_map = self.blocks(self.bn1(self.conv_stem(images)))
        last: Tensor = self.bn2(self.conv_head(feature_map))
        return last


class NormReLU6(nn.BatchNorm2d):
    """Batch norm, then what is not within 0..6 is cut off."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return F.relu6(super().forward(feature_map), inplace=True)


class SeparableBlock(nn.Module):
    """A convolution of each channel by itself, then one of each place by itself."""

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(num_in, num_in, 3, padding=1, groups=num_in, bias=False)
        self.bn1 = NormReLU6(num_in)
        self.conv_pw = nn.Conv2d(num_in, num_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(num_out)

    def forward(self, feature_map: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv_pw(self.bn1(self.conv_dw(feature_map))))
        return out


class InvertedResidual(nn.Module):
    """Widened, convolved channel by channel, narrowed; added to what came in where shapes agree."""

    def __init__(self, num_in: int, num_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        middle = num_in * expansion
        self.conv_pw = nn.Conv2d(num_in, middle, 1, bias=False)
        self.bn1 = NormReLU6(middle)
        self.conv_dw = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, groups=middle, bias=False)
        self.bn2 = NormReLU6(middle)
        self.conv_pwl = nn.Conv2d(middle, num_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(num_out)
        self.adds = stride == 1 and num_in == num_out

    def forward(self, feature_map: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.conv_dw(self.bn1(self.conv_pw(feature_map))))
        out = self.bn3(self.conv_pwl(out))
        return out + feature_map if self.adds else out
