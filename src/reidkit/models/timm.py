"""Any backbone of timm by its name: ``timm:convnext_tiny``, ``timm:mobilenetv3_small_100``, ..."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError, UnknownName
from reidkit.models._embedder import Normalisation, SingleBranch, beyond_weights
from reidkit.models._hub import hub_told
from reidkit.models._last_stride import unstride_last_stage
from reidkit.models._options import check_image_size, check_whole
from reidkit.models._packages import is_package, load_package
from reidkit.registry import register

_MAX_PATCHES = 16384  # of TransReID's images there are 210; each looks at all the others


class TimmBackbone(nn.Module):
    """A timm network without its head, whatever layout its last features have, as (B, C, h, w).

    Args:
        network: timm's, built without a classifier.
        image_size: (height, width) that it was built for, if that was asked for.
        token: give the class token, (B, C, 1, 1), in place of the map of patches.

    Attributes:
        image_size: (height, width) of the only images it takes, or None.
        smallest_side: pixels.
        has_class_token: whether it is a transformer with one.
        gives_map: whether its output shows where in the image a value comes from.
    """

    def __init__(self, network: Any, *, image_size: Sequence[int] | None, token: bool) -> None:
        super().__init__()
        self.network = network
        self.width = int(network.num_features)
        self.image_size = _only_size(network, image_size)
        self.smallest_side = _smallest_side(network) if self.image_size is None else 1
        self.has_class_token = getattr(network, "cls_token", None) is not None
        self.gives_map = not token
        self._channels_last = getattr(network, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.network.forward_features(images)
        if not self.gives_map:
            return features[:, 0, :, None, None]
        if features.ndim == 3:  # tokens (B, prefix + N, C) of a transformer
            patches = features[:, getattr(self.network, "num_prefix_tokens", 0) :]
            grid = self._grid(patches.shape[1])
            return patches.transpose(1, 2).reshape(-1, self.width, *grid)  # (B, C, h, w)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def fit_position_embedding(self, given: Tensor) -> Tensor | None:
        """Position embeddings (1, M, C) of another image size, resampled to this one as ``pretrained`` does.

        None where they cannot be: there are none here, of another width, or M patches are no square, so that
        nobody knows how they lay in the image.
        """
        own = getattr(self.network, "pos_embed", None)
        grid = getattr(getattr(self.network, "patch_embed", None), "grid_size", None)
        if own is None or grid is None or own.ndim != 3 or given.ndim != 3 or given.shape[2] != own.shape[2]:
            return None
        prefix = own.shape[1] - grid[0] * grid[1]
        patches = given.shape[1] - prefix
        if prefix < 0 or patches < 1 or isqrt(patches) ** 2 != patches:
            return None
        resampled: Tensor = _timm().layers.resample_abs_pos_embed(
            given.float(), list(grid), num_prefix_tokens=prefix
        )
        return resampled

    def _grid(self, num_patches: int) -> tuple[int, int]:
        """How the patches lie in the image; one below the other where the network does not say."""
        height, width = getattr(getattr(self.network, "patch_embed", None), "grid_size", None) or (0, 0)
        return (height, width) if height * width == num_patches else (num_patches, 1)


@register("model", "timm")
def timm_model(
    backbone: str,
    *,
    pretrained: bool | str = False,
    image_size: Sequence[int] | None = None,
    patch_stride: int | None = None,
    last_stride: int | None = None,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """A timm backbone with reidkit's pooling and neck.

    Args:
        backbone: timm's name; ``timm.list_models()`` has them all.
        pretrained: start from timm's weights, downloaded by timm; or, without a hub, from those of an
            installed Python package: "package:efficientnet-lite0", "-lite1" and "-lite2" for
            ``tf_efficientnet_lite0`` to ``2``, "package:mobilenetv2" for ``mobilenetv2_100``.
        image_size: [height, width] of images, as in ``transform``, for transformers, which are built for one
            size; pretrained position embeddings are resampled to it. Left out, it is that of timm's weights.
        patch_stride: pixels from one patch of a vision transformer to the next, where they overlap, as in
            TransReID (12 for patches of 16); needs ``image_size``.
        last_stride: 1 keeps the map of a convolutional network's last stage at the size of the one before,
            usually 1/16 of the image, as in ``resnet50``; left out or 2 is timm's own.
        pooling: as below, or "token" for the class token of a transformer that has one, which TransReID and
            most ImageNet weights are trained by.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    if not _timm().is_model(backbone):
        raise UnknownName("timm model", backbone, _timm().list_models())
    if last_stride is not None:
        check_whole("last_stride", last_stride, least=1, most=2, what="the stride of the last stage")
    packaged = is_package(pretrained, backbone)
    with hub_told(backbone, asked=bool(pretrained) and not packaged):
        network = _create(
            backbone,
            pretrained=bool(pretrained) and not packaged,
            image_size=image_size,
            patch_stride=patch_stride,
        )
    if packaged:
        load_package(network, str(pretrained), backbone)
    if last_stride == 1:
        unstride_last_stage(network, f"timm:{backbone}")
    token = pooling == "token"
    body = TimmBackbone(network, image_size=image_size, token=token)
    if token and not body.has_class_token:
        raise ConfigError(
            f"pooling = 'token': timm:{backbone} has no class token; choose average, max or gem"
        )
    data = network.pretrained_cfg
    model = SingleBranch(
        body,
        body.width,
        smallest_side=body.smallest_side,
        image_size=body.image_size,
        pooling="average" if token else pooling,  # of one token: itself
        neck=neck,
        dim=dim,
        normalisation=Normalisation(tuple(data["mean"]), tuple(data["std"])),
    )
    # Networks of equal weights may differ in activations, heads or padding; the tag behind the dot is of
    # weights.
    model.beyond_weights = beyond_weights(
        pooling,
        backbone=backbone.partition(".")[0],
        patch_stride=patch_stride,
        last_stride=last_stride if last_stride == 1 else None,
    )
    return model


def _timm() -> Any:
    """timm, imported when a network of it is built: that takes seconds, and other networks do without."""
    with torch._C.DisableTorchFunction():  # a network may be being built on the meta device
        import timm

    return timm


def _create(
    name: str, *, pretrained: bool, image_size: Sequence[int] | None, patch_stride: int | None
) -> Any:
    if image_size is None:
        if patch_stride is not None:
            raise ConfigError(f"patch_stride = {patch_stride} needs image_size = [height, width]")
        return _timm().create_model(name, pretrained=pretrained, num_classes=0)
    check_image_size(image_size)
    if patch_stride is not None:
        return _create_overlapping(name, pretrained, (image_size[0], image_size[1]), patch_stride)
    network = _create_for_size(name, pretrained, image_size)
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", (1, 1))
    if image_size[0] % patch[0] or image_size[1] % patch[1]:
        raise ConfigError(
            f"image_size = {list(image_size)} does not divide into timm:{name}'s patches of "
            f"{patch[0]} x {patch[1]} pixels; give multiples of these"
        )
    return network


def _create_for_size(name: str, pretrained: bool, image_size: Sequence[int]) -> Any:
    try:
        return _timm().create_model(name, pretrained=pretrained, num_classes=0, img_size=tuple(image_size))
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        raise ConfigError(f"timm:{name} takes images of any size; leave image_size out") from None
    except AssertionError as error:
        raise ConfigError(
            f"timm:{name} cannot be built for image_size = {list(image_size)}: {error}"
        ) from None


def _create_overlapping(name: str, pretrained: bool, image_size: tuple[int, int], stride: int) -> Any:
    """A vision transformer whose patches overlap, built as one with as many patches side by side."""
    plain = _create_for_size(name, False, image_size)
    if not isinstance(plain, _timm().models.VisionTransformer):
        raise ConfigError(f"patch_stride goes with vision transformers (ViT, DeiT), not with timm:{name}")
    height, width = plain.patch_embed.patch_size
    check_whole("patch_stride", stride, least=1, most=min(height, width), what="pixels between two patches")
    grid = (image_size[0] - height) // stride + 1, (image_size[1] - width) // stride + 1
    if min(grid) < 1:
        raise ConfigError(f"image_size = {list(image_size)} is smaller than a patch, {height} x {width}")
    if grid[0] * grid[1] > _MAX_PATCHES:
        raise ConfigError(
            f"patch_stride = {stride} gives {grid[0] * grid[1]:,} patches of an image; at most "
            f"{_MAX_PATCHES:,} are possible"
        )
    network = _create_for_size(name, pretrained, (grid[0] * height, grid[1] * width))
    network.patch_embed.proj.stride = (stride, stride)
    network.patch_embed.img_size, network.patch_embed.strict_img_size = image_size, True
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
