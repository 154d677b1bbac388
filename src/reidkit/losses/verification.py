"""Verification loss: is this pair one person? Logistic regression on squared distances."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import num_of_identity, pairwise_distances, prepare_batch
from reidkit.registry import register

START = 5.0
"""Of both parameters: the decision starts at distance 1, and unit vectors reach logits of 5 to -15."""


@register("loss", "verification")
class VerificationLoss(nn.Module):
    """Logistic loss on whether each pair of the batch shows one person.

    The pairwise loss that the SN paper (Li et al. 2018) and the JLML paper (Li et al. 2017) argue
    against. With learned ``offset`` a and ``scale`` b::

        z(i, j) = a - b d(i, j)^2

        L = mean over positive pairs of log(1 + exp(-z))  +  mean over negative pairs of log(1 + exp(z))

    ``d`` is the Euclidean distance. Positives and negatives are averaged apart, as there are far fewer
    positives; a mean without pairs is 0. Both parameters start at 5, so that the decision starts at
    distance 1.

    Use with: a threshold that must hold for all pairs ("same person?"), beside :class:`IdentityLoss`;
    ``exp`` of its logits is the odds of one person in a batch with as many positives as negatives.

    Pitfalls: its parameters must be given to the optimiser (:class:`reidkit.Trainer` does so). The mean
    over negatives is ruled by easy pairs, and with few identities it memorises them.

    See also: :class:`ContrastiveLoss`, with a fixed margin; :class:`reidkit.analysis.roc`, which fits a
    threshold after training.

    Args:
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if the batch
    has no pair.

    Raises:
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [2.0]])
    >>> VerificationLoss(normalize=False)(embeddings, torch.tensor([0, 0, 1]))
    tensor(1.0397, grad_fn=<SumBackward0>)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, *, normalize: bool = True) -> None:
        super().__init__()
        self.normalize = normalize
        self.offset = nn.Parameter(torch.tensor(START))
        self.scale = nn.Parameter(torch.tensor(START))

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        offset, scale = self.offset.to(embeddings.dtype), self.scale.to(embeddings.dtype)
        return verification(pairwise_distances(embeddings), labels, offset=offset, scale=scale)

    def extra_repr(self) -> str:
        return f"normalize={self.normalize}"


def verification(distances: Tensor, labels: Tensor, *, offset: Tensor, scale: Tensor) -> Tensor:
    """The loss from all distances, (N, N) and (N,), and the two parameters, scalars."""
    num_same = num_of_identity(labels)
    num_positive = (num_same - 1).sum().clamp_min(1)
    num_negative = (len(labels) - num_same).sum().clamp_min(1)

    def of_anchor(
        distances: Tensor, positive: Tensor, negative: Tensor, offset: Tensor, scale: Tensor
    ) -> Tensor:
        logits = offset[:, None] - scale[:, None] * distances.square()
        costs = F.softplus(torch.where(positive, -logits, logits))
        return (
            torch.where(positive, costs, 0.0).sum(dim=1) / num_positive
            + torch.where(negative, costs, 0.0).sum(dim=1) / num_negative
        )

    parameters = (parameter.expand(len(labels)) for parameter in (offset, scale))
    return of_each_anchor(of_anchor, distances, labels, *parameters).sum()
