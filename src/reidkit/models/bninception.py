"""BN-Inception, also called Inception-v2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import SingleBranch, beyond_weights
from reidkit.registry import register

# Widths of each block: 1x1; reduction and 3x3; reduction and double 3x3; projection of the pool.
_BLOCKS: dict[str, tuple[int, tuple[int, int], tuple[int, int], int]] = {
    "3a": (64, (64, 64), (64, 96), 32),
    "3b": (64, (64, 96), (64, 96), 64),
    "3c": (0, (128, 160), (64, 96), 0),
    "4a": (224, (64, 96), (96, 128), 128),
    "4b": (192, (96, 128), (96, 128), 128),
    "4c": (160, (128, 160), (128, 160), 128),
    "4d": (96, (128, 192), (160, 192), 128),
    "4e": (0, (128, 192), (192, 256), 0),
    "5a": (352, (192, 320), (160, 224), 128),
    "5b": (352, (192, 320), (192, 224), 128),
}
_HALVING = ("3c", "4e")  # blocks of stride 2: no 1x1, and the pool passes through as it is


@register("model", "bninception")
def bninception(*, pooling: str = "average", neck: str = "bnneck", dim: int | None = None) -> SingleBranch:
    """BN-Inception (Ioffe, Szegedy 2015, arXiv 1502.03167, figure 5), 1024 wide; MSML's Inception-v2.

    Names and widths of layers are those of the ImageNet weights in use since Caffe: their 4c and 4d
    give 608 channels, where the paper's table says 576. Those weights want images in BGR, 0..255, less
    (104, 117, 128); this network wants what every other one here wants, so their first layer has to be
    turned round and scaled.

    Args:
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`.
    """
    # 17 pixels are the least of which no stage has to halve a single row or column.
    model = SingleBranch(BNInception(), 1024, smallest_side=17, pooling=pooling, neck=neck, dim=dim)
    model.beyond_weights = beyond_weights(pooling)
    return model


class BNInception(nn.Module):
    """Images (B, 3, H, W) -> map (B, 1024, H / 32, W / 32)."""

    def __init__(self) -> None:
        super().__init__()
        self._add("conv1_7x7_s2", 3, 64, 7, stride=2)
        self._add("conv2_3x3_reduce", 64, 64, 1)
        self._add("conv2_3x3", 64, 192, 3)
        num_channels = 192
        for name in _BLOCKS:
            num_channels = self._add_block(name, num_channels)

    def forward(self, images: Tensor) -> Tensor:
        x = _halve(self._convolve("conv1_7x7_s2", images))
        x = _halve(self._convolve("conv2_3x3", self._convolve("conv2_3x3_reduce", x)))
        for name in _BLOCKS:
            x = self._convolve_block(name, x)
        return x

    def _add_block(self, name: str, num_in: int) -> int:
        """Make a block's layers; returns its width."""
        width_1x1, (reduced, width_3x3), (double_reduced, width_double), projected = _BLOCKS[name]
        block, stride = f"inception_{name}", 2 if name in _HALVING else 1
        self._add(f"{block}_3x3_reduce", num_in, reduced, 1)
        self._add(f"{block}_3x3", reduced, width_3x3, 3, stride=stride)
        self._add(f"{block}_double_3x3_reduce", num_in, double_reduced, 1)
        self._add(f"{block}_double_3x3_1", double_reduced, width_double, 3)
        self._add(f"{block}_double_3x3_2", width_double, width_double, 3, stride=stride)
        if name in _HALVING:
            return width_3x3 + width_double + num_in
        self._add(f"{block}_1x1", num_in, width_1x1, 1)
        self._add(f"{block}_pool_proj", num_in, projected, 1)
        return width_1x1 + width_3x3 + width_double + projected

    def _convolve_block(self, name: str, x: Tensor) -> Tensor:
        block = f"inception_{name}"
        simple = self._convolve(f"{block}_3x3", self._convolve(f"{block}_3x3_reduce", x))
        double = self._convolve(f"{block}_double_3x3_1", self._convolve(f"{block}_double_3x3_reduce", x))
        double = self._convolve(f"{block}_double_3x3_2", double)
        if name in _HALVING:
            return torch.cat([simple, double, _halve(x)], dim=1)
        if name == "5b":
            pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        else:
            pooled = F.avg_pool2d(x, 3, stride=1, padding=1)
        projected = self._convolve(f"{block}_pool_proj", pooled)
        return torch.cat([self._convolve(f"{block}_1x1", x), simple, double, projected], dim=1)

    def _add(self, name: str, num_in: int, num_out: int, size: int, *, stride: int = 1) -> None:
        """A convolution and its batch norm. The bias does nothing there, but the public weights have it."""
        convolution = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.add_module(name, convolution)
        self.add_module(f"{name}_bn", nn.BatchNorm2d(num_out))

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(f"{name}_bn")(self.get_submodule(name)(x)))


def _halve(x: Tensor) -> Tensor:
    """Maximum of 3x3 windows that start at even rows and columns; the map is not negative, so zeros pad it.

    Equal to the original's pooling of even sizes; odd ones are rounded up, as convolutions of stride 2 do.
    """
    return F.max_pool2d(F.pad(x, (0, 2, 0, 2)), 3, stride=2)
