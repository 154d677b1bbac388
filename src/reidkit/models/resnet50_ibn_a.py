"""ResNet50-IBN-a: instance normalisation on half of the channels, for cameras not seen in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.models._non_local import add_non_local
from reidkit.models.resnet import resnet_backbone, unpad_pool
from reidkit.registry import register


class InstanceBatchNorm(nn.Module):
    """The first half of the channels instance-normalised, the rest batch-normalised. (B, C, h, w), same.

    Parameter names are those of the authors' weights files.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(num_channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(num_channels - num_channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        half = self.IN.num_features
        return torch.cat([self.IN(x[:, :half]), self.BN(x[:, half:])], dim=1)


@register("model", "resnet50_ibn_a")
def resnet50_ibn_a(
    *,
    last_stride: int = 1,
    non_local: bool = False,
    ceil_pool: bool = False,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """ResNet50 that normalises half of each block's channels within the image (Pan et al. 2018, IBN-a).

    arXiv 1807.09441: the first batch norm of every block of the first three stages. The authors' ImageNet
    weights fit ``model.backbone`` by name.

    Args:
        last_stride: 1 keeps the last stage's map at 1/16 of the image; 2 is the original 1/32.
        non_local, ceil_pool: as in FastReID's networks, see ``resnet50``.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    backbone = resnet_backbone("resnet50", pretrained=False, last_stride=last_stride)
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        for block in stage:
            block.bn1 = InstanceBatchNorm(block.bn1.num_features)
    if non_local:
        add_non_local(backbone, "resnet50")
    if ceil_pool:
        unpad_pool(backbone)
    model = SingleBranch(
        backbone,
        backbone.num_features,
        smallest_side=17,  # the third stage cannot instance-normalise a map of 1 x 1
        pooling=pooling,
        neck=neck,
        dim=dim,
    )
    model.beyond_weights = beyond_weights(
        pooling, last_stride=last_stride if last_stride == 2 else None, ceil_pool=ceil_pool
    )
    return model
