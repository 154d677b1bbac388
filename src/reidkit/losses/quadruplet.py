"""Quadruplet loss over all valid quadruplets of the batch."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from reidkit.losses._tuple_sums import num_quadruplets, num_triplets, quadruplet_hinges, triplet_hinges
from reidkit.ops import check_number, pairwise_distances, prepare_batch
from reidkit.registry import register


@register("loss", "quadruplet")
class QuadrupletLoss(nn.Module):
    """Quadruplet loss: the triplet loss, and a second term between pairs that share no image.

    Chen, Chen, Zhang, Huang 2017; eq. 2 in Xiao et al. 2017 (MSML, arXiv 1710.00478)::

        L =   mean over triplets (a, p, n)       of [ d(a, p) - d(a, n) + margin ]+
            + mean over quadruplets (a, p, c, n) of [ d(a, p) - d(c, n) + second_margin ]+

    ``d`` is the Euclidean distance; a and p share an identity, c and n have two others. The second term
    asks that any positive pair be nearer than any negative pair anywhere in the batch. Each mean counts terms
    that meet the margin as 0; a term without a valid tuple (two identities have no quadruplet) is 0. No
    tuple is ever built: sorting finds how many of them each distance is active in.

    Use with: batches of P identities x K images, P at least 3, where one threshold must serve all people.

    Pitfalls: as with :class:`TripletLoss`, most of the N^4 quadruplets are easy, and the mean of the second
    term goes to 0 early. The second margin should be the smaller one.

    See also: :class:`MarginSampleMiningLoss`, the hardest quadruplet of the batch.

    Args:
        margin: of the triplet term, alpha in the paper.
        second_margin: of the second term, beta in the paper.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if there is no
    triplet.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> loss = QuadrupletLoss(margin=2.0, second_margin=1.0, normalize=False)
    >>> loss(embeddings, torch.tensor([0, 0, 1, 2]))
    tensor(1.8750)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 0.3, second_margin: float = 0.2, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        check_number("second_margin", second_margin)
        self.margin = margin
        self.second_margin = second_margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distances = pairwise_distances(embeddings)
        return quadruplet(distances, labels, margin=self.margin, second_margin=self.second_margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, second_margin={self.second_margin}, normalize={self.normalize}"


def quadruplet(distances: Tensor, labels: Tensor, *, margin: float, second_margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""
    # In this order, since counting quadruplets takes more memory.
    quadruplets = quadruplet_hinges(distances, labels, margin=second_margin).sum()
    triplets = triplet_hinges(distances, labels, margin=margin).sum()
    mean_quadruplet = quadruplets / num_quadruplets(labels).clamp_min(1)
    mean_triplet = triplets / num_triplets(labels).clamp_min(1)
    return (mean_triplet + mean_quadruplet).to(distances.dtype)
