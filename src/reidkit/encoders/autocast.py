"""Half precision for networks: ``torch.autocast``, and what it gets wrong on some CPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


@contextmanager
def autocast(device: torch.device, kind: torch.dtype) -> Iterator[None]:
    """Inside it, networks multiply in ``kind``; ``torch.autocast`` alone is wrong or slow on some CPUs."""
    with torch.autocast(device.type, kind, enabled=kind != torch.float32), some_in_float32():
        yield


def some_in_float32() -> AbstractContextManager[Any]:
    """What :func:`autocast` adds to ``torch.autocast``, for passes that begin outside it; else nothing."""
    return _SomeInFloat32() if torch.is_autocast_enabled("cpu") else nullcontext()


class _SomeInFloat32(TorchFunctionMode):
    """Computes two kinds of convolutions in float32, not in half types; all else keeps its speed.

    Those with a stride and one column of output: on CPUs with AMX, oneDNN 3.13 reads memory there that nobody
    has written: outputs and gradients of weights are right, wrong by their own size, or not finite, by
    chance. In common networks only the last stage is so narrow, for images of 32 columns or less. Transposed
    convolutions are the same computation backwards, with one column of input.

    Depthwise ones with a stride, or kernels of more than 3 x 3, that will be differentiated: oneDNN's
    gradients of these in half types take 5 to 300 times those in float32, which made a step of
    EfficientNet-Lite0 twice as long as in float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        is_better = _BETTER_IN_FLOAT32.get(func)
        if is_better is None or not torch.is_autocast_enabled("cpu") or not is_better(*args, **kwargs):
            return func(*args, **kwargs)
        kind = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            output = func(
                *map(_in_float32, args), **{key: _in_float32(value) for key, value in kwargs.items()}
            )
        return output.to(kind)


def _is_narrow_or_slow(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> bool:
    if input.dtype == torch.float64:  # autocast leaves that alone
        return False
    step = _of_columns(stride)
    depthwise = groups > 1 and weight.shape[1] == 1
    if depthwise and (step > 1 or weight.shape[-1] > 3) and _is_learned_through(input, weight):
        return True
    if step == 1:
        return False
    margin = 0 if isinstance(padding, str) else _of_columns(padding)  # "same" knows no stride
    reach = _of_columns(dilation) * (weight.shape[-1] - 1)
    return (input.shape[-1] + 2 * margin - reach - 1) // step == 0


def _is_learned_through(input: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (input.requires_grad or weight.requires_grad)


def _is_narrow_transposed(input: Tensor, *args: Any, **kwargs: Any) -> bool:
    return input.shape[-1] == 1 and input.dtype != torch.float64


_BETTER_IN_FLOAT32: dict[Callable[..., Any], Callable[..., bool]] = {
    torch.conv1d: _is_narrow_or_slow,
    torch.conv2d: _is_narrow_or_slow,
    torch.conv3d: _is_narrow_or_slow,
    torch.conv_transpose1d: _is_narrow_transposed,
    torch.conv_transpose2d: _is_narrow_transposed,
    torch.conv_transpose3d: _is_narrow_transposed,
}


def _of_columns(option: int | Sequence[int]) -> int:
    return option if isinstance(option, int) else option[-1]


def _in_float32(argument: Any) -> Any:
    return argument.float() if isinstance(argument, Tensor) else argument
