"""ResNet-18, -34, -50 and -101, with the last stage at stride 1 or 2."""

from __future__ import annotations

import functools

import torch
from torch import nn

from reidkit.errors import ConfigError
from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.models._hub import hub_told
from reidkit.models._non_local import ARCHITECTURES, add_non_local
from reidkit.models._options import check_whole
from reidkit.models._packages import is_package
from reidkit.models.residual import ResNet
from reidkit.registry import register


def resnet(
    architecture: str,
    *,
    pretrained: bool | str = False,
    last_stride: int = 1,
    non_local: bool = False,
    ceil_pool: bool = False,
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
        non_local: five blocks (eleven in a ResNet-101) that look at the whole map, in stages 2 and 3, as in
            FastReID's SBS and AGW; ``resnet50`` and ``resnet101`` only.
        ceil_pool: the first pooling without padding, as in FastReID's networks.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    from_hub = bool(pretrained) and not is_package(pretrained, architecture)  # no package has a ResNet
    backbone = resnet_backbone(architecture, pretrained=from_hub, last_stride=last_stride)
    if non_local:
        if architecture not in ARCHITECTURES:
            raise ConfigError(f"non_local goes with {' and '.join(ARCHITECTURES)}, not with {architecture}")
        add_non_local(backbone, architecture)
    if ceil_pool:
        unpad_pool(backbone)
    model = SingleBranch(
        backbone,
        backbone.num_features,
        smallest_side=8 * last_stride + 1,  # or the last halving would see a map of one row or column
        pooling=pooling,
        neck=neck,
        dim=dim,
    )
    model.beyond_weights = beyond_weights(
        pooling, last_stride=last_stride if last_stride == 2 else None, ceil_pool=ceil_pool
    )
    return model


def resnet_backbone(architecture: str, *, pretrained: bool, last_stride: int) -> ResNet:
    """A ResNet without its head, with the last stage at that stride."""
    check_whole("last_stride", last_stride, least=1, most=2, what="the stride of the last stage")
    backbone = _pretrained(architecture) if pretrained else ResNet(architecture)
    if last_stride == 1:
        _unstride(backbone.layer4)
    return backbone


def _pretrained(architecture: str) -> ResNet:
    """With timm's ImageNet weights."""
    import timm  # here, since it takes seconds, and nothing else of a ResNet needs it

    with hub_told(architecture, asked=True):
        weights = timm.create_model(architecture, pretrained=True, num_classes=0, global_pool="").state_dict()
    with torch.device("meta"):  # no weights are drawn twice
        backbone = ResNet(architecture)
    backbone.load_state_dict(weights, assign=True)
    return backbone


def unpad_pool(backbone: ResNet) -> None:
    """Let the first pooling's windows start at the map's edge, not one pixel before; sizes stay."""
    backbone.maxpool = nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _unstride(stage: nn.Module) -> None:
    """Set every stride of a stage to 1. Dilation, timm's own way to keep resolution, is another network."""
    for module in stage.modules():
        if isinstance(module, nn.Conv2d | nn.AvgPool2d) and module.stride != 1:
            module.stride = (1, 1)


for _architecture in ("resnet18", "resnet34", "resnet50", "resnet101"):
    register("model", _architecture)(functools.partial(resnet, _architecture))
