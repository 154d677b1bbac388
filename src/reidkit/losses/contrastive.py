"""Contrastive loss over all pairs."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import check_number, pairwise_distances, prepare_batch
from reidkit.registry import register


@register("loss", "contrastive")
class ContrastiveLoss(nn.Module):
    """Contrastive loss: pulls every positive pair to one point, pushes negatives beyond a margin.

    Hadsell, Chopra, LeCun 2006, without its factor 1/2::

        L = mean over pairs i < j of  d(i, j)^2                    if i and j share an identity
                                      [ margin - d(i, j) ]+^2      otherwise

    ``d`` is the Euclidean distance. One mean over all pairs: in a batch of P identities x K images
    positives are (K - 1) / (P K - 1) of them.

    Use with: batches with few identities, or few images at all, where every pair should have its say;
    verification of pairs by a fixed threshold.

    Pitfalls: the more identities in a batch, the less the positives weigh; the mean is ruled by pairs
    that are easy already. It pulls all images of an identity to one point, whatever their pose.

    See also: :class:`VerificationLoss`, whose threshold is learned and whose positives and negatives weigh
    the same; :class:`BatchHardTripletLoss`, which looks at hard pairs only.

    Args:
        margin: distance beyond which a negative pair is left alone; on unit embeddings 1.0 is an angle of
            60 degrees.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if the batch
    has no pair.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [1.5]])
    >>> ContrastiveLoss(margin=1.0, normalize=False)(embeddings, torch.tensor([0, 0, 1]))
    tensor(0.4167)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 1.0, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return contrastive(pairwise_distances(embeddings), labels, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def contrastive(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,). Each pair stands twice in the matrix."""

    def of_anchor(distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        pulled = torch.where(positive, distances, 0.0)
        pushed = torch.where(negative, F.relu(margin - distances), 0.0)
        return (pulled.square() + pushed.square()).sum(dim=1)

    num_pairs = max(len(labels) * (len(labels) - 1), 1)
    return of_each_anchor(of_anchor, distances, labels).sum() / num_pairs
