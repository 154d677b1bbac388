"""Floating types of tensors, and whether the code that sees them is being traced."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

DEVICES_WITHOUT_FLOAT64 = {"mps"}


def can_look_at_values(tensor: Tensor) -> bool:
    """Whether reading values costs nothing: eager mode on the CPU."""
    return tensor.device.type == "cpu" and not is_traced()


def is_traced() -> bool:
    """Whether code is compiled, or under a transform of ``torch.func``, which see plain operations best."""
    return torch.compiler.is_compiling() or is_transformed()


def is_transformed() -> bool:
    """Whether code is differentiated in a way that takes plain operations only.

    That is under a transform of ``torch.func``, or forwards (``torch.autograd.forward_ad``).
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def is_batched(gradient: Tensor) -> bool:
    """Whether a backward pass is made for several gradients at once (``is_grads_batched=True``).

    The graph was recorded without any transform; only the gradient that comes in tells.
    """
    return bool(torch._C._functorch.is_legacy_batchedtensor(gradient))


def widest_float(like: Tensor) -> torch.dtype:
    """The type for long sums on a tensor's device: float64 but on Apple's GPUs, which have none."""
    return torch.float32 if like.device.type in DEVICES_WITHOUT_FLOAT64 else torch.float64


def at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
