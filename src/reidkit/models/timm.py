"""Any backbone of timm by its name: ``timm:convnext_tiny``, ``timm:mobilenetv3_small_100``, ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError, UnknownName
from reidkit.models.embedder import SingleBranch
from reidkit.registry import register


class TimmBackbone(nn.Module):
    """A timm network without its head, whatever layout its last features have, as (B, C, h, w).

    Attributes:
        image_size: (height, width) of the only images it takes, or None.
        smallest_side: pixels.
    """

    def __init__(self, name: str, *, pretrained: bool, image_size: Sequence[int] | None) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise UnknownName("timm model", name, timm.list_models())
        network = _create(name, pretrained=pretrained, image_size=image_size)
        self.network = network
        self.width = int(network.num_features)
        self.image_size = _only_size(network, image_size)
        self.smallest_side = _smallest_side(network) if self.image_size is None else 1
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        if features.ndim == 3:  # tokens (B, prefix + N, C) of a transformer
            patches = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            grid = self._grid(patches.shape[1])
            return patches.transpose(1, 2).reshape(-1, self.width, *grid)  # (B, C, h, w)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def _grid(self, num_patches: int) -> tuple[int, int]:
        """How the patches lie in the image; one below the other where the network does not say."""
        height, width = getattr(getattr(self.network, "patch_embed", None), "grid_size", None) or (0, 0)
        return (height, width) if height * width == num_patches else (num_patches, 1)


@register("model", "timm")
def timm_model(
    backbone: str,
    *,
    pretrained: bool = False,
    image_size: Sequence[int] | None = None,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """A timm backbone with reidkit's pooling and neck.

    Args:
        backbone: timm's name; ``timm.list_models()`` has them all.
        pretrained: start from timm's weights, downloaded by timm.
        image_size: [height, width] of images, as in ``transform``, for transformers, which are built for one
            size; pretrained position embeddings are resampled to it. Left out, it is that of timm's weights.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    body = TimmBackbone(backbone, pretrained=pretrained, image_size=image_size)
    data = body.network.pretrained_cfg
    return SingleBranch(
        body,
        body.width,
        smallest_side=body.smallest_side,
        image_size=body.image_size,
        pooling=pooling,
        neck=neck,
        dim=dim,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _create(name: str, *, pretrained: bool, image_size: Sequence[int] | None) -> Any:
    if image_size is None:
        return timm.create_model(name, pretrained=pretrained, num_classes=0)
    if len(image_size) != 2 or min(image_size) < 1:
        raise ConfigError(f"image_size = {list(image_size)} is not [height, width] in pixels")
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=0, img_size=tuple(image_size))
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ConfigError(f"timm:{name} takes images of any size; leave image_size out") from None
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    if image_size[0] % patch[0] or image_size[1] % patch[1]:
        raise ConfigError(
            f"image_size = {list(image_size)} does not divide into timm:{name}'s patches of "
            f"{patch[0]} x {patch[1]} pixels; give multiples of these"
        )
    return network


def _only_size(network: Any, image_size: Sequence[int] | None) -> tuple[int, int] | None:
    """The size that a network was built for, if it was built for one."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if size is None and network.pretrained_cfg.get("fixed_input_size"):
        size = image_size or network.pretrained_cfg["input_size"][1:]
    return None if size is None else (int(size[0]), int(size[1]))


def _smallest_side(network: Any) -> int:
    """Where layers pad their maps, the least of which none has to halve one row; else the whole stride."""
    stride = int(network.feature_info[-1]["reduction"])
    images = torch.zeros(1, 3, stride // 2 + 1, stride // 2 + 1)
    network.eval()
    try:
        with torch.no_grad():
            network.forward_features(images)
        return stride // 2 + 1
    except RuntimeError:
        return stride
    finally:
        network.train()
