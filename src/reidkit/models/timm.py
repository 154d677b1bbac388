"""Any backbone of timm by its name: ``timm:convnext_tiny``, ``timm:mobilenetv3_small_100``, ..."""

from __future__ import annotations

from typing import Any

import timm
from torch import Tensor, nn

from reidkit.errors import UnknownName
from reidkit.models.embedder import Embedder
from reidkit.registry import register


class TimmBackbone(nn.Module):
    """A timm network without its head, whatever layout its last features have, as (B, C, h, w)."""

    def __init__(self, name: str, *, pretrained: bool) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise UnknownName("timm model", name, timm.list_models())
        network: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
        self.network = network
        self.width = int(network.num_features)
        self._channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:  # tokens (B, prefix + N, C) of a transformer
            patches = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            return patches.transpose(1, 2).unsqueeze(-1)  # (B, C, N, 1)
        return features.permute(0, 3, 1, 2) if self._channels_last else features


@register("model", "timm")
def timm_model(
    backbone: str,
    *,
    pretrained: bool = False,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> Embedder:
    """A timm backbone with reidkit's pooling and neck.

    Args:
        backbone: timm's name; ``timm.list_models()`` has them all.
        pretrained: start from timm's weights, downloaded by timm.
        pooling, neck, dim: see :class:`reidkit.models.Embedder`.
    """
    body = TimmBackbone(backbone, pretrained=pretrained)
    data = body.network.pretrained_cfg
    return Embedder(
        body,
        body.width,
        pooling=pooling,
        neck=neck,
        dim=dim,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
