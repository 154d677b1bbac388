"""What each anchor makes of its distances, computed for blocks of anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reidkit.ops import negative_mask, positive_mask

NUM_BLOCKS, SMALLEST_BLOCK = 8, 2**17
"""Blocks that a large matrix is cut into, and distances below which it is not cut further."""

OfAnchor = Callable[..., Tensor]
"""``(distances (b, N), positive (b, N), negative (b, N), *columns (b,)) -> (b,)``: plain, differentiable."""


def of_each_anchor(function: OfAnchor, distances: Tensor, labels: Tensor, *columns: Tensor) -> Tensor:
    """``function`` of each row of the distances and the masks of its positives and negatives: (N,).

    The function is differentiated block by block, as it is computed. What it makes on the way then never
    stands in memory for all N x N distances: only its gradient does.

    Args:
        function: of rows; no row may look at another.
        distances: (N, N), with a graph or without.
        labels: (N,).
        columns: further values of each anchor, (N,), with a graph or without.
    """
    if torch.compiler.is_compiling():  # the compiler plans memory by itself
        return function(distances, positive_mask(labels), negative_mask(labels), *columns)
    values: Tensor = _OfEachAnchor.apply(function, distances, labels, *columns)
    return values


def blocks(num_anchors: int) -> Iterator[slice]:
    """Slices of anchors, small enough that a few dozen N-wide rows cost little memory."""
    num_distances = max(num_anchors * num_anchors // NUM_BLOCKS, SMALLEST_BLOCK)
    step = max(1, num_distances // max(num_anchors, 1))
    return (slice(start, min(start + step, num_anchors)) for start in range(0, num_anchors, step))


def masks_of(labels: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Positives and negatives of some anchors, both (b, N)."""
    same = labels[rows, None] == labels
    negative = ~same
    same.diagonal(rows.start).fill_(False)
    return same, negative


class _OfEachAnchor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: OfAnchor, distances: Tensor, labels: Tensor, *columns: Tensor) -> Tensor:
        inputs = (distances, *columns)
        gradients = [torch.empty_like(tensor) for tensor in inputs] if any(ctx.needs_input_grad) else []
        values = []
        for rows in blocks(len(labels)):
            with torch.set_grad_enabled(bool(gradients)):
                block = [tensor[rows].detach().requires_grad_(bool(gradients)) for tensor in inputs]
                of_block = function(block[0], *masks_of(labels, rows), *block[1:])
            if gradients:
                of_inputs = torch.autograd.grad(of_block, block, torch.ones_like(of_block))
                for gradient, of_input in zip(gradients, of_inputs, strict=True):
                    gradient[rows] = of_input
            values.append(of_block.detach())
        ctx.save_for_backward(*gradients)
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        of_distances, *of_columns = ctx.saved_tensors
        gradient = gradient.to(of_distances.dtype)
        return None, gradient[:, None] * of_distances, None, *(gradient * column for column in of_columns)
