"""The checks and casts that every loss begins with."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from reidkit.errors import DataError
from reidkit.ops.distances import normalized
from reidkit.ops.tensors import at_least_float32, can_look_at_values

Loss = TypeVar("Loss")


def prepare_batch(
    forward: Callable[[Loss, Tensor, Tensor], Tensor],
) -> Callable[[Loss, Tensor, Tensor], Tensor]:
    """Decorator for ``forward(self, embeddings, labels)`` of a loss: what the contract asks of all of them.

    Checks the batch; raises half types to float32 and leaves float64 alone; scales embeddings to unit length
    where ``self.normalize`` is true; makes labels int64, since PyTorch does not sort integers of every type.
    Turns autocast off, which would make ``f @ f.T`` bfloat16 inside the loss (an error of 1e-3 in the
    distances). Answers an empty batch with 0 that has a graph.
    """

    @functools.wraps(forward)
    def prepared(self: Loss, embeddings: Tensor, labels: Tensor) -> Tensor:
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            if len(embeddings) == 0:
                return (embeddings * 0).sum()
            if getattr(self, "normalize", False):
                embeddings = normalized(embeddings)
            else:
                _check_size(embeddings, can_normalize=hasattr(self, "normalize"))
            return forward(self, embeddings, labels.long())

    return prepared


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Raise :class:`DataError` unless embeddings are floating (N, D) and labels integers (N,).

    Values that are not finite are an error too, in eager mode on the CPU only: elsewhere the look would
    break the compiled graph or make the GPU wait, and the loss comes out as NaN.
    """
    for name, tensor in (("embeddings", embeddings), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise DataError(f"{name} are a {type(tensor).__name__}; expected a tensor")
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise DataError(
            f"embeddings have shape {tuple(embeddings.shape)} and type {embeddings.dtype}; "
            "expected floating-point (N, D)"
        )
    if labels.shape != embeddings.shape[:1]:
        raise DataError(
            f"labels have shape {tuple(labels.shape)}, but there are {len(embeddings)} embeddings; "
            f"expected ({len(embeddings)},)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels have type {labels.dtype}; expected integers, the identity of each image")
    if labels.device != embeddings.device:
        raise DataError(
            f"labels are on {labels.device}, embeddings on {embeddings.device}; move them to one device"
        )
    if can_look_at_values(embeddings) and not _stay_below(embeddings, torch.inf):
        row = int((~embeddings.isfinite()).any(dim=1).nonzero()[0])
        raise DataError(
            f"embeddings hold NaN or infinity, first in row {row}; "
            "look for a learning rate too high, a half-precision overflow or a damaged image"
        )


def _check_size(embeddings: Tensor, *, can_normalize: bool) -> None:
    """Raise :class:`DataError` where squares and products would overflow; where it costs nothing to look."""
    most = math.sqrt(torch.finfo(embeddings.dtype).max) / 1e3
    if can_look_at_values(embeddings) and not _stay_below(embeddings, most):
        raise DataError(
            f"embeddings hold values of {_largest(embeddings):.3g}, whose squares overflow; scale them below "
            f"{most:.1g}" + (", or let the loss normalise them (normalize=true)" if can_normalize else "")
        )


def _stay_below(embeddings: Tensor, most: float) -> bool:
    """Whether all absolute values do. The length of all together is cheaper to have, and no less than any."""
    whole = float(torch.linalg.vector_norm(embeddings.detach()))
    return whole < most or _largest(embeddings) < most


def _largest(embeddings: Tensor) -> float:
    """The largest absolute value, NaN if one is; 0 of nothing."""
    return float(embeddings.detach().abs().amax()) if embeddings.numel() else 0.0
