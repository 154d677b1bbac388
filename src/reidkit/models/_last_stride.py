"""The stride of the last stage, changed in a network that does not know of it.

Dilation, timm's own way to keep resolution (``output_stride``), computes something else with equal weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError


def unstride_last_stage(network: Any, name: str) -> None:
    """Let the last layers that halve the map keep its size, on all paths around each other.

    Which they are, a map tells that is sent through: depthwise convolutions, those of a residual block and
    of its shortcut, pooling.

    Args:
        network: timm's, (B, 3, H, W) -> (B, C, H / reduction, W / reduction); changed.
        name: of the model, for messages.

    Raises:
        ConfigError: the map is made smaller by something else; the network is of no use then.
    """
    problem = ConfigError(
        f"last_stride = 1: the last stage of {name} cannot keep the size of its map, which is not halved by "
        "convolutions with padding or by pooling; leave last_stride out"
    )
    # Maps of 4 x 4 at the end: halved ones are told from those that were small before.
    side = 4 * int(network.feature_info[-1]["reduction"])
    try:
        before, halving = _halving_last(network, side)
        for path in halving:
            _unstride(network, path)
        after, _ = _halving_last(network, side)
    except (RuntimeError, AssertionError):
        raise problem from None
    if not halving or after != (2 * before[0], 2 * before[1]):
        raise problem
    network.feature_info[-1]["reduction"] = side // 8  # of 4 places, now 8


def _halving_last(network: Any, side: int) -> tuple[tuple[int, int], list[str]]:
    """Size of the last map for images of ``side`` pixels; and the layers that make that of its double."""
    seen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    handles = [
        module.register_forward_hook(lambda m, i, o, path=path: seen.update({path: _sizes(i, o)}))
        for path, module in network.named_modules()
        if hasattr(module, "stride") and not any(module.children())
    ]
    network.eval()
    try:
        with torch.no_grad():
            last: Tensor = network.forward_features(torch.zeros(1, 3, side, side))
    finally:
        network.train()
        for handle in handles:
            handle.remove()
    if last.ndim != 4:
        raise RuntimeError("no map")
    size = (int(last.shape[2]), int(last.shape[3]))
    double = (2 * size[0], 2 * size[1])
    return size, [path for path, sizes in seen.items() if sizes == (double, size)]


def _sizes(inputs: tuple[Tensor, ...], output: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of the maps that go into a layer and come out of it, (height, width) each."""
    return tuple(inputs[0].shape[2:]), tuple(output.shape[2:])


def _unstride(network: nn.Module, path: str) -> None:
    layer: Any = network.get_submodule(path)
    pools = isinstance(layer, nn.AvgPool2d | nn.MaxPool2d)
    if pools and layer.kernel_size in (layer.stride, (layer.stride, layer.stride)):
        network.set_submodule(path, nn.Identity())  # windows side by side, of one place each
    else:
        layer.stride = 1 if isinstance(layer.stride, int) else (1, 1)
