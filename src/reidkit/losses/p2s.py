"""Point-to-set triplet loss with uniform weights."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import (
    check_number,
    has_both_partners,
    mean_over,
    pairwise_distances,
    prepare_batch,
)
from reidkit.registry import register


@register("loss", "p2s")
class PointToSetTripletLoss(nn.Module):
    """Triplet loss between each anchor and the two sets of all its positives and all its negatives.

    Eq. 4 in Yu et al. 2018 (HAP2S, arXiv 1807.11206), with uniform weights::

        L = mean over a of [ mean over POS(a) of d(a, p)  -  mean over NEG(a) of d(a, n)  +  margin ]+

    ``d`` is the Euclidean distance. Anchors without a positive or without a negative are left out; the
    mean counts anchors that meet the margin as 0.

    Use with: a baseline that shows what averages achieve without hard mining.

    Pitfalls: the mean over negatives is ruled by images that are far away already, so the loss soon goes
    to 0 while the hardest negatives are still nearer than the positives.

    See also: :class:`HardAwarePointToSetLoss`, which weighs hard images more.

    Args:
        margin: distance that the mean negative must keep beyond the mean positive.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> PointToSetTripletLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.1875)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 0.3, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return point_to_set_triplet(pairwise_distances(embeddings), labels, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def point_to_set_triplet(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""

    def excess_of_anchor(distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        to_positives = torch.where(positive, distances, 0.0).sum(dim=1) / positive.sum(dim=1).clamp_min(1)
        to_negatives = torch.where(negative, distances, 0.0).sum(dim=1) / negative.sum(dim=1).clamp_min(1)
        return to_positives - to_negatives

    excess = of_each_anchor(excess_of_anchor, distances, labels)
    return mean_over(F.relu(excess + margin), has_both_partners(labels))
