"""OSNet: a light network whose blocks look at several scales at once and weigh them by channel."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.registry import register

# Parameter names are those of Torchreid's weights files.

_WIDTHS = {
    "osnet_x1_0": (64, 256, 384, 512),
    "osnet_x0_75": (48, 192, 288, 384),
    "osnet_x0_5": (32, 128, 192, 256),
    "osnet_x0_25": (16, 64, 96, 128),
    "osnet_ibn_x1_0": (64, 256, 384, 512),
}


def osnet(
    architecture: str, *, pooling: str = "average", neck: str = "osnet", dim: int | None = None
) -> SingleBranch:
    """OSNet (Zhou et al. 2019, arXiv 1905.00953), the usual light network of re-identification.

    The name holds the width of its layers, 1.0 to 0.25; "ibn" adds instance normalisation to the first
    layers, which helps on cameras not seen in training. Torchreid's weights fit by name.

    Args:
        architecture: "osnet_x1_0", "osnet_x0_75", "osnet_x0_5", "osnet_x0_25" or "osnet_ibn_x1_0".
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`; neck "osnet" is the paper's.
    """
    widths = _WIDTHS[architecture]
    backbone = OSNet(widths, instance_norm="ibn" in architecture)
    # Less than 13 pixels leave an empty map after two convolutions that round up and two that round down.
    model = SingleBranch(backbone, widths[-1], smallest_side=13, pooling=pooling, neck=neck, dim=dim)
    model.beyond_weights = beyond_weights(pooling)
    return model


for _architecture in _WIDTHS:
    register("model", _architecture)(functools.partial(osnet, _architecture))


class OSNet(nn.Module):
    """Images (B, 3, H, W) -> map (B, widths[3], H / 16, W / 16)."""

    def __init__(self, widths: tuple[int, int, int, int], *, instance_norm: bool) -> None:
        super().__init__()
        norm = affine_instance_norm if instance_norm else nn.BatchNorm2d
        self.conv1 = ConvLayer(3, widths[0], 7, stride=2, norm=norm)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv2 = nn.Sequential(
            OSBlock(widths[0], widths[1], instance_norm=instance_norm),
            OSBlock(widths[1], widths[1], instance_norm=instance_norm),
            transition(widths[1]),
        )
        self.conv3 = nn.Sequential(
            OSBlock(widths[1], widths[2]), OSBlock(widths[2], widths[2]), transition(widths[2])
        )
        self.conv4 = nn.Sequential(OSBlock(widths[2], widths[3]), OSBlock(widths[3], widths[3]))
        self.conv5 = ConvLayer(widths[3], widths[3], 1)
        initialize(self)

    def forward(self, images: Tensor) -> Tensor:
        feature_map = self.maxpool(self.conv1(images))  # 1/4 of the image
        feature_map = self.conv3(self.conv2(feature_map))  # 1/8, then 1/16
        last: Tensor = self.conv5(self.conv4(feature_map))
        return last


class OSBlock(nn.Module):
    """Four streams of 1 to 4 light convolutions, fields of 3 to 9, gated by one gate and summed."""

    def __init__(self, num_in: int, num_out: int, *, instance_norm: bool = False) -> None:
        super().__init__()
        width = num_out // 4
        self.conv1 = ConvLayer(num_in, width, 1)
        self.conv2a = LightConv3x3(width)
        self.conv2b = nn.Sequential(*(LightConv3x3(width) for _ in range(2)))
        self.conv2c = nn.Sequential(*(LightConv3x3(width) for _ in range(3)))
        self.conv2d = nn.Sequential(*(LightConv3x3(width) for _ in range(4)))
        self.gate = ChannelGate(width)
        self.conv3 = ConvLayer(width, num_out, 1, relu=False)
        self.downsample = shortcut(num_in, num_out)
        self.IN = affine_instance_norm(num_out) if instance_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        gated = sum(self.gate(stream(reduced)) for stream in streams)
        return F.relu(self.IN(self.conv3(gated) + self.downsample(x)))


class ConvLayer(nn.Module):
    """Convolution, batch norm (or another, given the width), ReLU (or none)."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        size: int,
        *,
        stride: int = 1,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)
        self.bn = norm(num_out)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.bn(self.conv(x)))
        return result


class LightConv3x3(nn.Module):
    """1x1 convolution, then 3x3 depthwise convolution, batch norm, ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv2(self.conv1(x))))


class ChannelGate(nn.Module):
    """Scales each channel by a value in 0..1 that a small network reads off all channels' means."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, width // 16, 1)
        self.fc2 = nn.Conv2d(width // 16, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)  # (B, width, 1, 1)
        gates: Tensor = self.fc2(F.relu(self.fc1(means))).sigmoid()
        return x * gates


def affine_instance_norm(width: int) -> nn.Module:
    """Normalises each channel of each image by itself, then scales and shifts it."""
    return nn.InstanceNorm2d(width, affine=True)


def transition(width: int) -> nn.Sequential:
    """1x1 convolution, then the map halved by averaging."""
    return nn.Sequential(ConvLayer(width, width, 1), nn.AvgPool2d(2))


def shortcut(num_in: int, num_out: int) -> nn.Module:
    """What stands beside a block: nothing, or a 1x1 convolution where the width changes."""
    return nn.Identity() if num_in == num_out else ConvLayer(num_in, num_out, 1, relu=False)


def initialize(network: nn.Module) -> None:
    """He initialisation of convolutions (by their outputs), zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
