"""Slow, obvious loop references of every loss, and how the tests build the losses they compare.

A reference has the registry name of its loss and is called ``reference(loss, embeddings, labels)`` with
float64 embeddings; it reads options and parameters from the loss. :data:`VARIANTS` lists the options worth
testing besides the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reidkit import registry

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "identity": [{"label_smoothing": 0.1, "bias": True}],
    "trihard": [{"margin": 1.0}, {"margin": None}, {"margin": 0.5, "normalize": False}],
    "msml": [{"margin": 0.0}, {"margin": 1.0}, {"margin": 0.5, "normalize": False}],
}

BATCH_LOSSES = [
    name
    for name in registry.names("loss")
    if getattr(registry.get("loss", name), "reads", None) in ("classification", "metric")
]

CASES = [(name, options) for name in BATCH_LOSSES for options in [{}, *VARIANTS.get(name, [])]]


def case_name(case: tuple[str, dict[str, Any]]) -> str:
    name, options = case
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


def build(case: tuple[str, dict[str, Any]], *, num_identities: int, dim: int) -> nn.Module:
    """The loss, with sizes filled in and parameters large enough to matter."""
    name, options = case
    loss = registry.build("loss", name, options)
    if hasattr(loss, "fill"):
        loss.fill(num_identities=num_identities, dim=dim)
    generator = torch.Generator().manual_seed(0)
    for parameter in loss.parameters():
        nn.init.normal_(parameter, generator=generator)
    return loss


def reference_of(name: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    reference = globals().get(name)
    assert reference is not None, f"loss {name!r} has no loop reference: write {name}() in {__file__}"
    return reference


# --- what references are made of -----------------------------------------------------------------------


def distance_table(loss: nn.Module, embeddings: Tensor) -> list[list[Tensor]]:
    """d(i, j) for all i and j, after normalisation where the loss asks for it."""
    rows = list(embeddings)
    if loss.normalize:
        rows = [row / row.norm() if row.norm() > 0 else row for row in rows]
    return [[((a - b) ** 2).sum().clamp(min=1e-12).sqrt() for b in rows] for a in rows]


def positives_of(anchor: int, labels: list[int]) -> list[int]:
    return [j for j in range(len(labels)) if j != anchor and labels[j] == labels[anchor]]


def negatives_of(anchor: int, labels: list[int]) -> list[int]:
    return [j for j in range(len(labels)) if labels[j] != labels[anchor]]


def hinge(value: Tensor) -> Tensor:
    return value if value > 0 else value * 0


def zero_of(embeddings: Tensor) -> Tensor:
    return (embeddings * 0).sum()


# --- references ----------------------------------------------------------------------------------------


def identity(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        logits = [(row * x).sum() for row in loss.classifier.weight]
        if loss.bias:
            logits = [logit + b for logit, b in zip(logits, loss.classifier.bias, strict=True)]
        log_total = torch.stack(logits).exp().sum().log()
        smooth = loss.label_smoothing / len(logits)
        target = [smooth + (1 - loss.label_smoothing) * (k == y) for k in range(len(logits))]
        terms.append(sum(t * (log_total - logit) for t, logit in zip(target, logits, strict=True)))
    return sum(terms) / len(terms) if terms else zero_of(embeddings)


def trihard(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = trihard_terms(loss, embeddings, labels)
    return sum(terms) / len(terms) if terms else zero_of(embeddings)


def trihard_terms(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> list[Tensor]:
    d, y = distance_table(loss, embeddings), labels.tolist()
    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            excess = max(d[a][p] for p in positives_of(a, y)) - min(d[a][n] for n in negatives_of(a, y))
            terms.append((1 + excess.exp()).log() if loss.margin is None else hinge(excess + loss.margin))
    return terms


def msml(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()
    pairs = [(i, j) for i in range(len(y)) for j in range(i)]
    furthest = max((d[i][j] for i, j in pairs if y[i] == y[j]), default=None)
    nearest = min((d[i][j] for i, j in pairs if y[i] != y[j]), default=math.inf)
    if furthest is None or nearest == math.inf:
        return zero_of(embeddings)
    return hinge(furthest - nearest + loss.margin)
