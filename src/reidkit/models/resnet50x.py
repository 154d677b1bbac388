"""ResNet50-X: ResNet50 with Xception cells in place of its 3x3 convolutions."""

from __future__ import annotations

from torch import nn

from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.models.resnet import resnet_backbone
from reidkit.registry import register


@register("model", "resnet50x")
def resnet50x(
    *,
    last_stride: int = 2,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """ResNet50 with each 3x3 convolution replaced by a 3x3 depthwise and a 1x1 convolution.

    Zhang et al. 2017 (AlignedReID, arXiv 1711.08184, section 4.2) say so much; nothing stands between the two
    convolutions, a choice of ours. No public weights exist.

    Args:
        last_stride: 2 as in the paper, or 1, which keeps the last stage's map at 1/16 of the image.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    backbone = resnet_backbone("resnet50", pretrained=False, last_stride=last_stride)
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        for block in stage:
            block.conv2 = _xception_cell(block.conv2)
    model = SingleBranch(
        backbone,
        backbone.num_features,
        smallest_side=8 * last_stride + 1,
        pooling=pooling,
        neck=neck,
        dim=dim,
    )
    model.beyond_weights = beyond_weights(pooling, last_stride=last_stride if last_stride == 1 else None)
    return model


def _xception_cell(convolution: nn.Conv2d) -> nn.Sequential:
    """Depthwise 3x3, then 1x1, between the same channels and with the same stride."""
    width, stride = convolution.in_channels, convolution.stride[0]
    depthwise = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
    pointwise = nn.Conv2d(width, convolution.out_channels, 1, bias=False)
    for layer in (depthwise, pointwise):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(depthwise, pointwise)
