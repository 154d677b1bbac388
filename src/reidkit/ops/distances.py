"""Distances between embeddings, with backward passes that hold few N x N matrices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.ops.blocks import row_blocks
from reidkit.ops.tensors import can_look_at_values, is_batched, is_traced, is_transformed

SQUARED_FLOOR = 1e-12
"""Under the root of a squared length, so that the gradient at 0 is 0 and not infinite."""

DISTANCE_FLOORS = {
    dtype: torch.tensor(1e-12, dtype=dtype).sqrt().item() for dtype in (torch.float32, torch.float64)
}

FEW = 4
"""Partners of each row up to which a gradient is summed pair by pair."""

SPARSE = 32
"""Where partners are at most one in so many rows, a gradient is summed in bags, not by a product."""


def normalized(embeddings: Tensor) -> Tensor:
    """Rows of unit length, (N, D). A row of zeros stays 0 and keeps a finite gradient.

    Any other row is scaled before it is squared, since squares of 1e20 and of 1e-30 are infinite and 0.
    """
    if embeddings.shape[1] == 0:
        return embeddings
    if not _are_of_usual_lengths(embeddings):
        # A constant to autograd, rightly: rows of any scale have the same direction.
        scale = embeddings.detach().abs().amax(dim=1, keepdim=True)
        usual = (scale == 0) | ((scale > 1e-12) & (scale < 1e12))  # left alone, to the last digit
        embeddings = embeddings / torch.where(usual, 1.0, scale)
    if is_transformed():
        norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        return embeddings / torch.where(norms == 0, 1.0, norms)
    unit: Tensor = _Normalized.apply(embeddings)[0]
    return unit


def _are_of_usual_lengths(embeddings: Tensor) -> bool:
    """Whether it costs nothing to see that no row has squares near the ends of float32; lengths are cheap."""
    if not can_look_at_values(embeddings) or len(embeddings) == 0:
        return False
    shortest, longest = torch.linalg.vector_norm(embeddings.detach(), dim=1).aminmax()
    return bool(shortest > 1e-9) and bool(longest < 1e12)


class _Normalized(torch.autograd.Function):
    """Rows of unit length and their former lengths; autograd's own backward pass makes thrice the steps."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
        norms = norms.masked_fill_(norms == 0, 1.0)
        unit = embeddings / norms
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(unit, norms)
        return unit, norms

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, of_norms: Tensor | None) -> Tensor | None:
        unit, norms = ctx.saved_tensors
        found: Tensor | None = None
        if gradient is not None:
            along = (gradient * unit).sum(dim=1, keepdim=True)
            found = torch.addcmul(gradient, unit, along, value=-1).div_(norms)
        if of_norms is not None:  # asked for by a gradient of the gradient alone
            found = unit * of_norms if found is None else found + unit * of_norms
        return found


def pairwise_distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances of all pairs, (N, D) -> (N, N), from one matrix product, and one more backward.

    In float32 the product form gives identical unit vectors distances up to 1e-3; where few pairs are
    chosen, compute those again with :func:`distances_to`. The diagonal is set to the floor, 1e-6.
    """
    if is_transformed():  # by torch.func, which takes plain operations only
        return _product_distances(embeddings)
    distances: Tensor = _PairwiseDistances.apply(embeddings)
    return distances


def _product_distances(embeddings: Tensor) -> Tensor:
    squared_norms = embeddings.square().sum(dim=1)
    squared = torch.addmm(squared_norms, embeddings, embeddings.T, alpha=-2).add(squared_norms[:, None])
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return squared.masked_fill(itself, 0).clamp_min(SQUARED_FLOOR).sqrt()


class _PairwiseDistances(torch.autograd.Function):
    """Autograd's own backward pass would take two products: it does not know that the matrix is symmetric."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        squared_norms = embeddings.square().sum(dim=1)
        squared = torch.addmm(squared_norms, embeddings, embeddings.T, alpha=-2).add_(squared_norms[:, None])
        squared.diagonal().zero_()
        squared.clamp_min_(SQUARED_FLOOR)
        distances = squared.sqrt() if is_traced() else squared.sqrt_()  # see _DistancesTo
        ctx.save_for_backward(embeddings, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # With w(i, j) = g(i, j) / d(i, j), the gradient of f(i) is the sum over j of
        # (w(i, j) + w(j, i)) (f(i) - f(j)); a distance at the floor has none.
        embeddings, distances = ctx.saved_tensors
        weights = _over_distance(gradient, distances)
        weights = weights + weights.T
        return torch.addmm(weights.sum(dim=1, keepdim=True) * embeddings, weights, embeddings, alpha=-1)


def _over_distance(gradient: Tensor, distances: Tensor) -> Tensor:
    return (gradient / distances).masked_fill_(distances <= DISTANCE_FLOORS[distances.dtype], 0)


def distances_between(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of matching rows, (..., D) and (..., D) -> (...). Exact where rows are equal."""
    return (first - second).square().sum(dim=-1).clamp_min(SQUARED_FLOOR).sqrt()


def distances_to(embeddings: Tensor, partners: Tensor) -> Tensor:
    """Distances from each row to chosen rows, (N, D) and indices (N, k) -> (N, k). Exact at 0.

    Holds neither N x k x D numbers nor, where k is small, N x N.
    """
    if is_transformed():
        return distances_between(embeddings[partners], embeddings[:, None])
    distances: Tensor = _DistancesTo.apply(embeddings, partners)
    return distances


class _DistancesTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, partners: Tensor) -> Tensor:
        distances = embeddings.new_empty(partners.shape)
        for rows in row_blocks(len(embeddings), partners.shape[1] * embeddings.shape[1], embeddings.device):
            chosen = embeddings.index_select(0, partners[rows].flatten())
            differences = chosen.view(-1, partners.shape[1], embeddings.shape[1]).sub_(embeddings[rows, None])
            torch.linalg.vector_norm(differences, dim=2, out=distances[rows])
        floor = DISTANCE_FLOORS[distances.dtype]
        # Compiled, PyTorch 2.11 gives no gradient to what an operation in place made.
        distances = distances.clamp_min(floor) if is_traced() else distances.clamp_min_(floor)
        ctx.save_for_backward(embeddings, partners, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        embeddings, partners, distances = ctx.saved_tensors
        chosen = _over_distance(gradient, distances)  # (N, k)
        if not torch.is_grad_enabled() and not is_traced() and not is_batched(gradient):
            if chosen.shape[1] <= FEW:
                return _pulled_together(embeddings, partners, chosen), None
            if SPARSE * chosen.shape[1] <= len(chosen):
                return _pulled_in_bags(embeddings.detach(), partners, chosen), None
        weights = chosen.new_zeros(len(chosen), len(chosen)).scatter_add_(1, partners, chosen)
        weights = weights.scatter_add_(0, partners.T, chosen.T)  # and transposed, as in _PairwiseDistances
        return torch.addmm(weights.sum(dim=1, keepdim=True) * embeddings, weights, embeddings, alpha=-1), None


def _pulled_together(embeddings: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    """Sum over the chosen pairs (i, j) of ``w (f_i - f_j)`` at i and of its negative at j: (N, D)."""
    gradient = torch.zeros_like(embeddings)
    for of_rows, ends in zip(weights.unbind(dim=1), partners.unbind(dim=1), strict=True):
        some: Tensor | None = None
        if can_look_at_values(weights) and 2 * of_rows.count_nonzero() < len(of_rows):
            some = of_rows.nonzero()[:, 0]  # a loss of few pairs
        num_rows = len(of_rows) if some is None else len(some)
        for block in row_blocks(num_rows, embeddings.shape[1], embeddings.device):
            rows = block if some is None else some[block]
            pulls = embeddings.index_select(0, ends[rows]).sub_(embeddings[rows]).mul_(of_rows[rows, None])
            gradient[rows] -= pulls
            gradient.index_add_(0, ends[rows], pulls)
    return gradient


def _pulled_in_bags(embeddings: Tensor, partners: Tensor, weights: Tensor) -> Tensor:
    """The same; ``embedding_bag`` makes a weighted sum of rows in one pass, and without N x N numbers."""
    at_ends, order = partners.flatten().sort()  # all pairs once more, by their ends
    starts = order.div(partners.shape[1], rounding_mode="floor")
    weights_at_ends = weights.flatten()[order]
    first_pair = torch.searchsorted(at_ends, torch.arange(len(partners), device=partners.device))
    gradient = weights.sum(dim=1).index_add_(0, at_ends, weights_at_ends)[:, None] * embeddings
    gradient -= F.embedding_bag(partners, embeddings, mode="sum", per_sample_weights=weights)
    gradient -= F.embedding_bag(
        starts, embeddings, first_pair, mode="sum", per_sample_weights=weights_at_ends
    )
    return gradient
