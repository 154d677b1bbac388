"""What each anchor makes of its distances, computed for blocks of anchors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reidkit.ops import is_traced, negative_mask, positive_mask, row_blocks

OfAnchor = Callable[..., Tensor]
"""``(distances (b, N), positive (b, N), negative (b, N), *columns (b,)) -> (b,)``: plain, differentiable."""

WithGradient = Callable[[Tensor, Tensor, slice], tuple[Tensor, Tensor]]
"""``(distances (b, N), labels (N,), rows) -> values (b,) and their gradients by the distances (b, N)``."""

OfInputs = Callable[..., Tensor]
"""``(*inputs (N, ...)) -> (N,)``: plain, differentiable; no value reads another row."""

MakeBoth = Callable[..., tuple[Tensor, list[Tensor]]]
"""``(*inputs) -> values (N,) and, like each input, the gradient of its row's value``, without a graph."""


def of_each_anchor(
    function: OfAnchor,
    distances: Tensor,
    labels: Tensor,
    *columns: Tensor,
    width: int | None = None,
    with_gradient: WithGradient | None = None,
) -> Tensor:
    """``function`` of each row of the distances and the masks of its positives and negatives: (N,).

    The function is differentiated block by block, as it is computed. What it makes on the way then never
    stands in memory for all N x N distances: only its gradient does. A gradient of the gradient takes that
    memory.

    Args:
        function: of rows; no row may look at another.
        distances: (N, N), with a graph or without.
        labels: (N,).
        columns: further values of each anchor, (N,), with a graph or without.
        width: numbers that the function makes of one row at a time, by which blocks are cut; N if left out.
        with_gradient: the same function without columns, which makes its gradient too, in fewer steps than
            autograd does.
    """
    inputs = (distances, *columns)
    if is_traced():  # a compiler plans memory by itself
        return _of_all_anchors(function, labels, *inputs)
    if not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
        with torch.no_grad():  # also for copies of the rows
            parts = [_of_rows(function, labels, rows, inputs) for rows in _blocks(labels, width)]
        return torch.cat([values for values, _ in parts])
    return with_gradients_made(
        partial(_of_all_anchors, function, labels),
        partial(_in_blocks, function, with_gradient, width, labels),
        *inputs,
    )


def with_gradients_made(plain: OfInputs, make: MakeBoth, *inputs: Tensor) -> Tensor:
    """``plain(*inputs)``, (N,), by ``make``, which finds its first derivatives on the way.

    A gradient of the gradient goes through the plain function, and so does all traced code.
    """
    if is_traced() or not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in inputs):
        return plain(*inputs)
    values: Tensor = _GradientsMade.apply(plain, make, *inputs)
    return values


def masks_of(labels: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Positives and negatives of some anchors, both (b, N)."""
    same = labels[rows, None] == labels
    negative = ~same
    same.diagonal(rows.start).fill_(False)
    return same, negative


def _blocks(labels: Tensor, width: int | None) -> Iterator[slice]:
    return row_blocks(len(labels), width or len(labels), labels.device)


def _of_all_anchors(function: OfAnchor, labels: Tensor, distances: Tensor, *columns: Tensor) -> Tensor:
    return function(distances, positive_mask(labels), negative_mask(labels), *columns)


def _of_rows(
    function: OfAnchor, labels: Tensor, rows: slice, inputs: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The values of some anchors, and the rows of the inputs that they were computed from."""
    block = [tensor[rows].detach().requires_grad_(torch.is_grad_enabled()) for tensor in inputs]
    return function(block[0], *masks_of(labels, rows), *block[1:]), block


def _in_blocks(
    function: OfAnchor,
    with_gradient: WithGradient | None,
    width: int | None,
    labels: Tensor,
    *inputs: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Values and gradients of all anchors, one block of them after another."""
    gradients = [torch.empty_like(tensor) for tensor in inputs]
    values = []
    for rows in _blocks(labels, width):
        if with_gradient is not None:
            of_block, gradients[0][rows] = with_gradient(inputs[0][rows], labels, rows)
            values.append(of_block)
            continue
        with torch.enable_grad():
            of_block, block = _of_rows(function, labels, rows, inputs)
        of_inputs = torch.autograd.grad(of_block, block, torch.ones_like(of_block))
        for gradient, of_input in zip(gradients, of_inputs, strict=True):
            gradient[rows] = of_input
        values.append(of_block.detach())
    return torch.cat(values), gradients


class _GradientsMade(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: OfInputs, make: MakeBoth, *inputs: Tensor) -> Tensor:
        values, gradients = make(*inputs)
        ctx.plain = plain
        ctx.save_for_backward(*inputs, *gradients)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        num_inputs = len(ctx.saved_tensors) // 2
        inputs, gradients = ctx.saved_tensors[:num_inputs], ctx.saved_tensors[num_inputs:]
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for, and these are constants
            needed = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(ctx.plain(*inputs), needed, gradient, create_graph=True))
            return None, None, *(next(found) if tensor.requires_grad else None for tensor in inputs)
        gradient = gradient.to(gradients[0].dtype)
        return None, None, *(_by_rows(gradient, of_input) for of_input in gradients)


def _by_rows(factors: Tensor, rows: Tensor) -> Tensor:
    return factors.view(-1, *[1] * (rows.ndim - 1)) * rows
