"""Point-to-set triplet loss with uniform weights."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.ops import (
    check_number,
    full_precision,
    mean_over,
    negative_mask,
    normalized,
    pairwise_distances,
    positive_mask,
)
from reidkit.registry import register


@register("loss", "p2s")
class PointToSetTripletLoss(nn.Module):
    """Triplet loss between each anchor and the two sets of all its positives and all its negatives.

    Eq. 4 in Yu et al. 2018 (HAP2S, arXiv 1807.11206), with uniform weights::

        L = mean over a of [ mean over POS(a) of d(a, p)  -  mean over NEG(a) of d(a, n)  +  margin ]+

    ``d`` is the Euclidean distance. Anchors without a positive or without a negative are left out; the
    mean counts anchors that meet the margin as 0.

    Use with: labels that are often wrong, since one image is only a small part of a mean; a first look at
    how far averages alone go.

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

    @full_precision
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.normalize:
            embeddings = normalized(embeddings)
        return point_to_set_triplet(pairwise_distances(embeddings), labels, margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def point_to_set_triplet(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""
    positive, negative = positive_mask(labels), negative_mask(labels)
    num_positives, num_negatives = positive.sum(dim=1), negative.sum(dim=1)
    # One matrix of weights gives both means: +1 / |POS(a)| for a positive, -1 / |NEG(a)| for a negative.
    of_positive, of_negative = (
        1 / num.clamp_min(1)[:, None].to(distances) for num in (num_positives, num_negatives)
    )
    weights = torch.where(positive, of_positive, -of_negative).fill_diagonal_(0)
    excess = (weights * distances).sum(dim=1)
    return mean_over(F.relu(excess + margin), (num_positives > 0) & (num_negatives > 0))
