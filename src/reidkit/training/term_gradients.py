"""The gradient of each loss term: how strong it is, and whether two of them pull one way."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
from torch import Tensor, nn

from reidkit.training import distributed
from reidkit.training.precision import Precision


def gradients_of_terms(
    terms: Mapping[str, Tensor], model: nn.Module, precision: Precision
) -> dict[str, float]:
    """Norms of the gradients of weighted terms for the network's weights, and the cosine of each two.

    It takes a backward pass a term and leaves the graph and all gradients as they are. Classifiers inside of
    losses do not count: no other loss reads them.

    Args:
        terms: scalars by name, times their weights.
        model: the network that they were computed with.
        precision: of the backward pass.

    Returns:
        ``norm/NAME`` of each term, and ``cosine/NAME,OTHER`` of two, unless one of them is 0.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = {name: _gradient(term, parameters, precision) for name, term in terms.items()}
    norms = {name: gradient.norm() for name, gradient in found.items()}
    cosines = {
        f"cosine/{a},{b}": float(found[a] @ found[b] / (norms[a] * norms[b]))
        for a, b in combinations(found, 2)
        if norms[a] * norms[b] > 0
    }
    return {f"norm/{name}": float(norm) for name, norm in norms.items()} | cosines


def _gradient(term: Tensor, parameters: list[nn.Parameter], precision: Precision) -> Tensor:
    """All parameters' gradients joined, float32, of the global batch."""
    joined = torch.zeros(sum(parameter.numel() for parameter in parameters), device=term.device)
    if term.requires_grad and parameters:
        gradients = precision.gradients(term, parameters)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        joined = torch.cat([part.float().flatten() for part in parts])
    return distributed.mean_over_processes(joined)
