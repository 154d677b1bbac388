"""OSNet-AIN: OSNet with instance normalisation inside the blocks where a search put it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.models.osnet import (
    ChannelGate,
    ConvLayer,
    LightConv3x3,
    affine_instance_norm,
    initialize,
    shortcut,
    transition,
)
from reidkit.registry import register

# Parameter names are those of Torchreid's weights files, which differ from OSNet's.


@register("model", "osnet_ain_x1_0")
def osnet_ain_x1_0(*, pooling: str = "average", neck: str = "osnet", dim: int | None = None) -> SingleBranch:
    """OSNet for cameras not seen in training (Zhou et al. 2021, arXiv 1910.06827).

    Torchreid's weights fit by name.

    Args:
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`; neck "osnet" is the paper's.
    """
    # The last block normalises within its map of 1/16, which must be more than 1 x 1.
    model = SingleBranch(OSNetAIN(), 512, smallest_side=29, pooling=pooling, neck=neck, dim=dim)
    model.beyond_weights = beyond_weights(pooling)
    return model


class OSNetAIN(nn.Module):
    """Images (B, 3, H, W) -> map (B, 512, H / 16, W / 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvLayer(3, 64, 7, stride=2, norm=affine_instance_norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(
            AINBlock(64, 256, instance_norm=True), AINBlock(256, 256, instance_norm=True)
        )
        self.pool2 = transition(256)
        self.conv3 = nn.Sequential(AINBlock(256, 384), AINBlock(384, 384, instance_norm=True))
        self.pool3 = transition(384)
        self.conv4 = nn.Sequential(AINBlock(384, 512, instance_norm=True), AINBlock(512, 512))
        self.conv5 = ConvLayer(512, 512, 1)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        feature_map = self.maxpool(self.conv1(images))  # 1/4 of the image
        feature_map = self.pool2(self.conv2(feature_map))
        feature_map = self.pool3(self.conv3(feature_map))
        last: Tensor = self.conv5(self.conv4(feature_map))
        return last


class AINBlock(nn.Module):
    """OSNet's block; with ``instance_norm`` its last convolution is normalised within each image."""

    def __init__(self, num_in: int, num_out: int, *, instance_norm: bool = False) -> None:
        super().__init__()
        width = num_out // 4
        self.conv1 = ConvLayer(num_in, width, 1)
        self.conv2 = nn.ModuleList(_Stream(width, depth) for depth in (1, 2, 3, 4))
        self.gate = ChannelGate(width)
        # The sum's branch is normalised once: by image, or by batch.
        self.conv3 = ConvLayer(
            width, num_out, 1, norm=nn.Identity if instance_norm else nn.BatchNorm2d, relu=False
        )
        self.IN = affine_instance_norm(num_out) if instance_norm else nn.Identity()
        self.downsample = shortcut(num_in, num_out)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        gated = sum(self.gate(stream(reduced)) for stream in self.conv2)
        return F.relu(self.IN(self.conv3(gated)) + self.downsample(x))


class _Stream(nn.Module):
    """``depth`` light convolutions."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(LightConv3x3(width) for _ in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result
