"""Norms of a layer's weights."""

from __future__ import annotations

from torch import Tensor

from reidkit.errors import DataError
from reidkit.ops.distances import SQUARED_FLOOR


def l21(weight: Tensor) -> Tensor:
    """Sum over inputs of the length of their column, (out, in) -> scalar."""
    # Inside the root, so that a column of zeros has a finite gradient.
    return (weight.square().sum(dim=0) + SQUARED_FLOOR).sqrt().sum()


def l12(weight: Tensor, *, groups: int) -> Tensor:
    """Sum over outputs and stripes of the squared sum of absolute weights, (out, in) -> scalar.

    Raises :class:`DataError` where ``in`` is no multiple of ``groups``, the number of stripes.
    """
    return striped(weight, groups).abs().sum(dim=2).square().sum()


def striped(weight: Tensor, groups: int) -> Tensor:
    """(out, in) -> (out, groups, in / groups)."""
    num_outputs, num_inputs = weight.shape
    if num_inputs % groups:
        raise DataError(f"{num_inputs} inputs cannot be cut into {groups} equal stripes; change groups")
    return weight.view(num_outputs, groups, -1)
