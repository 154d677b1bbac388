"""Triplet loss over all valid triplets of the batch."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.losses._tuple_sums import num_triplets, triplet_hinges
from reidkit.ops import check_number, pairwise_distances, prepare_batch
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

    See also: :class:`BatchHardTripletLoss`, the hardest triplet of each anchor; :class:`QuadrupletLoss`.

    Args:
        margin: distance that negatives must keep beyond positives.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if there is no
    triplet.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> TripletLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.2500)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 0.3, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return triplet(pairwise_distances(embeddings), labels, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def triplet(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""
    hinges = of_each_anchor(partial(triplet_hinges, margin=margin), distances, labels)  # (N,)
    return (hinges.sum() / num_triplets(labels).clamp_min(1)).to(distances.dtype)
