"""Multi-similarity loss: log-sum-exps of the informative pairs of each anchor."""

from __future__ import annotations

import math
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


@register("loss", "multi_similarity")
class MultiSimilarityLoss(nn.Module):
    """Soft maxima over the informative positives and negatives of each anchor, around one similarity.

    Wang, Han, Huang, Dong, Scott 2019 (arXiv 1904.06627). With the similarity s = 1 - d^2 / 2, of unit
    embeddings their cosine, P the positives less similar than the most similar negative plus
    ``mining_margin``, and Q the negatives more similar than the least similar positive minus
    ``mining_margin``::

        L = mean over a of  1/alpha log(1 + sum over P of exp(-alpha (s - base)))
                          + 1/beta  log(1 + sum over Q of exp( beta (s - base)))

    Anchors without a positive or without a negative are left out; the mean counts anchors without an
    informative pair as 0.

    Use with: batches of P identities x K images, K of 4 and more, alone or beside :class:`IdentityLoss`; a
    milder choice than batch-hard losses, as many pairs of an anchor share the gradient.

    Pitfalls: ``base`` is an absolute similarity: a network whose similarities all lie above it (from BNNeck's
    feature before the norm, after a ReLU) pushes everything apart at first. With ``beta=50`` one wrong label
    rules the negatives of its anchor.

    See also: :class:`CircleLoss`, whose weights follow each pair; :class:`BatchHardTripletLoss`, one pair of
    each kind.

    Args:
        alpha: sharpness of the soft maximum over positives.
        beta: the same over negatives.
        base: similarity that positives should be above and negatives below.
        mining_margin: how far a pair may be on the right side and still count; 2 keeps all pairs of unit
            embeddings.
        normalize: scale embeddings to unit length first, so that similarities lie in [-1, 1].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: alpha or beta not greater than 0, base not a finite number, a negative mining_margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    >>> MultiSimilarityLoss(beta=2.0)(embeddings, torch.tensor([0, 0, 1]))
    tensor(0.4089)
    """

    reads: ClassVar[str] = "metric"

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        mining_margin: float = 0.1,
        *,
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_positive("alpha", alpha)
        check_positive("beta", beta)
        check_number("base", base, low=-math.inf)
        check_number("mining_margin", mining_margin)
        self.alpha = alpha
        self.beta = beta
        self.base = base
        self.mining_margin = mining_margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        of_anchor = partial(
            multi_similarity_of_anchor,
            alpha=self.alpha,
            beta=self.beta,
            base=self.base,
            mining_margin=self.mining_margin,
        )
        terms = of_each_anchor(of_anchor, pairwise_distances(embeddings), labels)
        return mean_over(terms, has_both_partners(labels))

    def extra_repr(self) -> str:
        return (
            f"alpha={self.alpha}, beta={self.beta}, base={self.base}, mining_margin={self.mining_margin}, "
            f"normalize={self.normalize}"
        )


def multi_similarity_of_anchor(
    distances: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    alpha: float,
    beta: float,
    base: float,
    mining_margin: float,
) -> Tensor:
    """The terms of some anchors from their distances and masks, all (b, N) -> (b,)."""
    similarities = 1 - distances.square() / 2
    with torch.no_grad():
        nearest_negative = similarities.masked_fill(~negative, -math.inf).amax(dim=1, keepdim=True)
        furthest_positive = similarities.masked_fill(~positive, math.inf).amin(dim=1, keepdim=True)
        positive = positive & (similarities - mining_margin < nearest_negative)
        negative = negative & (similarities + mining_margin > furthest_positive)
    excess = similarities - base
    return _soft_sum(-alpha * excess, positive) / alpha + _soft_sum(beta * excess, negative) / beta


def _soft_sum(logits: Tensor, mask: Tensor) -> Tensor:
    """log(1 + sum over the mask of exp(logits)), without computing the powers."""
    # Not -inf: a row with an empty mask then gives no NaN.
    return F.softplus(logits.masked_fill(~mask, torch.finfo(logits.dtype).min / 4).logsumexp(dim=1))
