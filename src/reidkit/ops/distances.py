"""Distances between embeddings, with backward passes that hold few N x N matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from reidkit.ops.tensors import is_transformed

SQUARED_FLOOR = 1e-12
"""Under the root of a squared length, so that the gradient at 0 is 0 and not infinite."""

DISTANCE_FLOORS = {
    dtype: torch.tensor(1e-12, dtype=dtype).sqrt().item() for dtype in (torch.float32, torch.float64)
}

SMALL_BATCH = 1024
"""Images up to which chosen distances are computed at once: call overhead weighs more than memory."""


def normalized(embeddings: Tensor) -> Tensor:
    """Rows of unit length, (N, D). A row of zeros stays 0 and keeps a finite gradient.

    Any other row is scaled before it is squared, since squares of 1e20 and of 1e-30 are infinite and 0.
    """
    if embeddings.shape[1] == 0:
        return embeddings
    # A constant to autograd, rightly: rows of any scale have the same direction.
    scale = embeddings.detach().abs().amax(dim=1, keepdim=True)
    usual = (scale == 0) | ((scale > 1e-12) & (scale < 1e12))  # left alone, to the last digit
    embeddings = embeddings / torch.where(usual, 1.0, scale)
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    return embeddings / torch.where(norms == 0, 1.0, norms)


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
        distances = squared.fill_diagonal_(0).clamp_min_(SQUARED_FLOOR).sqrt_()
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

    Holds neither N x k x D numbers nor, in the forward pass, N x N.
    """
    if is_transformed():
        return distances_between(embeddings[partners], embeddings[:, None])
    distances: Tensor = _DistancesTo.apply(embeddings, partners)
    return distances


class _DistancesTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, partners: Tensor) -> Tensor:
        num_rows, dim = embeddings.shape
        distances = embeddings.new_empty(partners.shape)
        # Rows at a time: a quarter of an N x N matrix, or all where the batch is small.
        num_differences = max(num_rows**2 // 4, SMALL_BATCH**2)
        step = max(1, num_differences // max(partners.shape[1] * dim, 1))
        for rows in (slice(start, start + step) for start in range(0, num_rows, step)):
            differences = embeddings[partners[rows]].sub_(embeddings[rows, None])  # (b, k, D)
            torch.linalg.vector_norm(differences, dim=2, out=distances[rows])
        distances.clamp_min_(DISTANCE_FLOORS[distances.dtype])
        ctx.save_for_backward(embeddings, partners, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        embeddings, partners, distances = ctx.saved_tensors
        chosen = _over_distance(gradient, distances)  # (N, k)
        weights = chosen.new_zeros(len(chosen), len(chosen)).scatter_add_(1, partners, chosen)
        weights = weights + weights.T  # as in _PairwiseDistances
        return torch.addmm(weights.sum(dim=1, keepdim=True) * embeddings, weights, embeddings, alpha=-1), None
