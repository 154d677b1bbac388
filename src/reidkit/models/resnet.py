"""ResNet-18, -34, -50 and -101, with the last stage at stride 1 or 2."""

from __future__ import annotations

import functools
from typing import Any

import timm
from torch import nn

from reidkit.errors import ConfigError
from reidkit.models.embedder import SingleBranch
from reidkit.registry import register


def resnet(
    architecture: str,
    *,
    pretrained: bool = False,
    last_stride: int = 1,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """ResNet (He et al. 2016), the backbone of most re-identification papers.

    Args:
        architecture: timm's name, "resnet50".
        pretrained: start from ImageNet weights, downloaded by timm.
        last_stride: 1 keeps the last stage's map at 1/16 of the image (16 x 8 for 256 x 128), which helps
            re-identification; 2 is the original 1/32 and costs less.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    backbone = resnet_backbone(architecture, pretrained=pretrained, last_stride=last_stride)
    return SingleBranch(
        backbone,
        backbone.num_features,
        smallest_side=8 * last_stride + 1,  # or the last halving would see a map of one row or column
        pooling=pooling,
        neck=neck,
        dim=dim,
    )


def resnet_backbone(architecture: str, *, pretrained: bool, last_stride: int) -> Any:
    """timm's ResNet without its head, with the last stage at that stride."""
    if last_stride not in (1, 2):
        raise ConfigError(f"last_stride = {last_stride} is not possible; it is 1 or 2")
    backbone: Any = timm.create_model(architecture, pretrained=pretrained, num_classes=0, global_pool="")
    if last_stride == 1:
        _unstride(backbone.layer4)
    return backbone


def _unstride(stage: nn.Module) -> None:
    """Set every stride of a stage to 1. Dilation, timm's own way to keep resolution, is another network."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d | nn.AvgPool2d) and module.stride != 1:
            module.stride = (1, 1)


for _architecture in ("resnet18", "resnet34", "resnet50", "resnet101"):
    register("model", _architecture)(functools.partial(resnet, _architecture))
