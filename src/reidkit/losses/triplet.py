"""Triplet loss over all valid triplets of the batch."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses._tuple_sums import num_triplets, triplet_hinges
from reidkit.ops import check_number, pairwise_distances, positive_mask, prepare_batch
from reidkit.registry import register


@register("loss", "triplet")
class TripletLoss(nn.Module):
    """Triplet loss, the mean over all valid triplets of the batch.

    Eq. 1 in Xiao et al. 2017 (MSML, arXiv 1710.00478)::

        L = mean over triplets (a, p, n) of [ d(a, p) - d(a, n) + margin ]+

    ``d`` is the Euclidean distance; p shares the identity of a, n does not. The mean counts triplets that
    meet the margin as 0. No triplet is ever built: sorting finds how many of them each distance is active
    in, O(N^2 log N) time and O(N^2) memory.

    Use with: batches of P identities x K images where hard mining is too harsh: many wrong labels, the
    first epochs from scratch.

    Pitfalls: nearly all triplets meet the margin after a while, and the mean goes to 0 while hard ones
    remain. Images of large identities are in many more triplets than others.

    The improved triplet loss of Cheng et al. (CVPR 2016, MCP) has squared distances and a bound on those
    within an identity: ``squared=True, margin=1.0, intra_weight=0.002`` (beta and tau 2 of the paper; its
    tau 1 is the margin, and shifts the value alone). Its second term is the mean over positive pairs of
    ``[d(a, p) - intra_bound]+``.

    See also: :class:`BatchHardTripletLoss`, the hardest triplet of each anchor; :class:`QuadrupletLoss`.

    Args:
        margin: distance that negatives must keep beyond positives.
        squared: take squared distances.
        intra_weight: of the bound on distances within an identity.
        intra_bound: that distance; squared where the others are.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if there is no
    triplet.

    Raises:
        ConfigError: a negative margin, weight or bound.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> TripletLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.2500)
    """

    reads: ClassVar[str] = "metric"

    added_later: ClassVar[dict[str, Any]] = {"squared": False, "intra_weight": 0.0, "intra_bound": 0.01}

    def __init__(
        self,
        margin: float = 0.3,
        *,
        squared: bool = False,
        intra_weight: float = 0.0,
        intra_bound: float = 0.01,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_number("margin", margin)
        check_number("intra_weight", intra_weight)
        check_number("intra_bound", intra_bound)
        self.margin = margin
        self.squared = squared
        self.intra_weight = intra_weight
        self.intra_bound = intra_bound
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distances = pairwise_distances(embeddings)
        if self.squared:
            distances = distances.square()
        value = triplet(distances, labels, margin=self.margin)
        if self.intra_weight:
            value = value + self.intra_weight * beyond_bound(distances, labels, bound=self.intra_bound)
        return value

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin}, squared={self.squared}, intra_weight={self.intra_weight}, "
            f"intra_bound={self.intra_bound}, normalize={self.normalize}"
        )


def triplet(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""
    hinges = triplet_hinges(distances, labels, margin=margin).sum()
    return (hinges / num_triplets(labels).clamp_min(1)).to(distances.dtype)


def beyond_bound(distances: Tensor, labels: Tensor, *, bound: float) -> Tensor:
    """Mean over positive pairs of what their distance has beyond the bound, (N, N) and (N,); 0 of none."""
    positive = positive_mask(labels)
    beyond = F.relu(distances - bound).masked_fill(~positive, 0.0)
    return beyond.sum() / positive.sum().clamp_min(1)
