"""Circle loss: every similarity weighed by how far it is from where it should be."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import (
    check_number,
    check_positive,
    has_both_partners,
    mean_over,
    pairwise_distances,
    prepare_batch,
)
from reidkit.registry import register


@register("loss", "circle")
class CircleLoss(nn.Module):
    """Soft triplet loss on similarities, each pair weighed by its distance from its goal.

    Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei 2020 (arXiv 2002.10857), for labels of pairs, by anchor. With
    the similarity s = 1 - d^2 / 2, of unit embeddings their cosine::

        w+ = [1 + margin - s]+                              w- = [s + margin]+
        p  = sum over POS(a) of exp( -scale w+ (s - 1 + margin) )
        n  = sum over NEG(a) of exp(  scale w- (s - margin) )

        L = mean over a of  log(1 + p n)

    The weights are constants in the backward pass, and w+ is at most 2 + margin, as of opposite directions.
    So positives are drawn to 1 and negatives to 0, and a pair that is there already is left alone, whatever
    the other one does. Anchors without a positive or without a negative are left out.

    Use with: batches of P identities x K images, in place of :class:`BatchHardTripletLoss`, alone or beside
    :class:`IdentityLoss`; all pairs count, the hardest most.

    Pitfalls: large values are normal at first (scale times the worst pair): beside another loss give it a
    weight of 0.05 or so, or the sum is ruled by it. A wrong label is the pair with the largest weight.

    See also: :class:`MultiSimilarityLoss`, with constant weights and mining; :class:`ArcFaceLoss`, which
    compares with class directions.

    Args:
        margin: 0.25 in the paper; similarities should reach 1 - margin within an identity and stay below
            margin between two.
        scale: gamma; 128 in the paper for persons.
        normalize: scale embeddings to unit length first, so that similarities lie in [-1, 1].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: a negative margin, scale not greater than 0.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> CircleLoss(scale=1.0)(embeddings, torch.tensor([0, 0, 1]))
    tensor(0.8987)
    """

    reads: ClassVar[str] = "metric"
    has_constant_weights: ClassVar[bool] = True

    def __init__(self, margin: float = 0.25, scale: float = 128.0, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        check_positive("scale", scale)
        self.margin = margin
        self.scale = scale
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return circle(pairwise_distances(embeddings), labels, margin=self.margin, scale=self.scale)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, scale={self.scale}, normalize={self.normalize}"


def circle(distances: Tensor, labels: Tensor, *, margin: float, scale: float) -> Tensor:
    """The loss from all distances, (N, N) and (N,)."""
    terms = of_each_anchor(partial(_circle_of_anchor, margin=margin, scale=scale), distances, labels)
    return mean_over(terms, has_both_partners(labels))


def _circle_of_anchor(
    distances: Tensor, positive: Tensor, negative: Tensor, *, margin: float, scale: float
) -> Tensor:
    similarities = 1 - distances.square() / 2
    seen = similarities.detach()
    of_positives = -scale * (1 + margin - seen).clamp(0, 2 + margin) * (similarities - 1 + margin)
    of_negatives = scale * F.relu(seen + margin) * (similarities - margin)
    least = torch.finfo(distances.dtype).min / 4  # not -inf: an anchor without partners then gives no NaN
    log_sums = [
        logits.masked_fill(~mask, least).logsumexp(dim=1)
        for logits, mask in ((of_positives, positive), (of_negatives, negative))
    ]
    return F.softplus(log_sums[0] + log_sums[1])
