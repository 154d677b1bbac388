"""The plain ResNet, layer by layer as in timm, whose import takes longer than a search."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way around them. (B, C, h, w) -> (B, channels, h / stride, w / stride)."""

    expansion = 1

    def __init__(self, width: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += around
        out: Tensor = self.act2(x)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a way around them. (B, C, h, w) -> (B, 4 channels, ...)."""

    expansion = 4

    def __init__(self, width: int, channels: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.act3 = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += around
        out: Tensor = self.act3(x)
        return out


_BLOCKS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class ResNet(nn.Module):
    """ResNet (He et al. 2016) without pooling and classifier. (B, 3, H, W) -> (B, num_features, H / 32, ...).

    The stride of a stage is that of its 3x3 convolution. Names of weights are torchvision's and timm's, and
    so are the weights that it starts with: convolutions after He et al. 2015, the last norm of each block 0.

    Args:
        architecture: "resnet18", "resnet34", "resnet50" or "resnet101".
    """

    maxpool: nn.Module
    layer1: Any  # nn.Sequential of blocks, of which networks after this one change parts
    layer2: Any
    layer3: Any
    layer4: Any

    def __init__(self, architecture: str) -> None:
        super().__init__()
        block, depths = _BLOCKS[architecture]
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.act1 = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width = 64
        for stage, depth in enumerate(depths):
            channels = 64 * 2**stage
            self.add_module(f"layer{stage + 1}", _stage(block, depth, width, channels, min(stage + 1, 2)))
            width = channels * block.expansion
        self.num_features = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                nn.init.zeros_(last.weight)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.act1(self.bn1(self.conv1(images))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        out: Tensor = x
        return out


def _stage(
    block: type[BasicBlock] | type[Bottleneck], depth: int, width: int, channels: int, stride: int
) -> nn.Sequential:
    downsample = None
    if stride != 1 or width != channels * block.expansion:
        downsample = nn.Sequential(
            nn.Conv2d(width, channels * block.expansion, 1, stride=stride, bias=False),
            nn.BatchNorm2d(channels * block.expansion),
        )
    blocks = [block(width, channels, stride, downsample)]
    blocks += [block(channels * block.expansion, channels, 1, None) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)
