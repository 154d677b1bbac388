"""An embedder is a backbone, a pooling and a neck; it turns images into named features.

Classifiers are not part of it: they live in the identity loss, so that a saved encoder knows no identities.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError, UnknownName

Pooling = Literal["average", "max", "gem"]
Neck = Literal["plain", "bnneck", "fc"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class GeneralizedMeanPooling(nn.Module):
    """``(mean of x^p)^(1/p)`` over the map; p = 1 is the average, p to infinity the maximum.

    Radenovic, Tolias, Chum 2018. ``p`` is learned, starting at 3. (B, C, h, w) -> (B, C).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, feature_map: Tensor) -> Tensor:
        # Powers of bfloat16 lose most of their digits.
        with torch.autocast(feature_map.device.type, enabled=False):
            values = feature_map.float().clamp(min=self.eps)
            return values.pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class AveragePooling(nn.Module):
    """(B, C, h, w) -> (B, C), mean over the map."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map.mean(dim=(2, 3))


class MaxPooling(nn.Module):
    """(B, C, h, w) -> (B, C), maximum over the map."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map.amax(dim=(2, 3))


_POOLINGS: dict[str, type[nn.Module]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "gem": GeneralizedMeanPooling,
}
_NECKS = ("plain", "bnneck", "fc")


class Embedder(nn.Module):
    """Backbone, pooling and neck.

    Features: ``pooled`` (B, width) and ``neck`` (B, dim). Which one a loss reads by default depends on the
    neck: with ``bnneck`` metric losses read ``pooled`` and classification reads ``neck`` (Luo et al. 2019);
    with ``fc`` (a linear layer to ``dim`` values, MSML section 4.2) and ``plain`` both read ``neck``.
    The embedding is always the L2-normalised ``neck``.

    Args:
        backbone: (B, 3, H, W) -> (B, width, h, w).
        width: channels of the backbone's map.
        pooling: "average", "max" or "gem".
        neck: "plain", "bnneck" or "fc".
        dim: width of the "fc" neck; the other necks keep ``width``.
        mean, std: per-channel normalisation that the images must have had, in units of 0..1.

    Raises:
        UnknownName: pooling or neck that does not exist.
        ConfigError: ``dim`` with a neck that has no such choice.
    """

    description: Mapping[str, Any]

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        *,
        pooling: str = "average",
        neck: str = "bnneck",
        dim: int | None = None,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if pooling not in _POOLINGS:
            raise UnknownName("pooling", pooling, _POOLINGS)
        if neck not in _NECKS:
            raise UnknownName("neck", neck, _NECKS)
        if dim is not None and neck != "fc":
            raise ConfigError(
                f"dim = {dim} goes with neck = 'fc'; neck {neck!r} keeps the backbone's width {width}"
            )
        self.backbone = backbone
        self.pooling = _POOLINGS[pooling]()
        self.neck, dim = _build_neck(neck, width, dim)
        self.features = {"pooled": width, "neck": dim}
        self.metric_feature = "pooled" if neck == "bnneck" else "neck"
        self.classification_feature = "neck"
        self.embedding_feature = "neck"
        self.mean, self.std = mean, std
        self.description = {}

    @property
    def embedding_dim(self) -> int:
        """Width of what :meth:`embed` returns."""
        return self.features[self.embedding_feature]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> named features, the same names in training and evaluation."""
        pooled = self.pooling(self.backbone(images))  # (B, width)
        return {"pooled": pooled, "neck": self.neck(pooled)}

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> unit embeddings (B, D), float32."""
        return F.normalize(self(images)[self.embedding_feature].float(), dim=1)


def _build_neck(neck: str, width: int, dim: int | None) -> tuple[nn.Module, int]:
    if neck == "plain":
        return nn.Identity(), width
    if neck == "fc":
        dim = dim or 1024
        return nn.Linear(width, dim), dim
    batch_norm = nn.BatchNorm1d(width)
    batch_norm.bias.requires_grad_(False)  # Luo et al. 2019: the classifier's planes pass through the origin
    return batch_norm, width
