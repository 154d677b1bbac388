"""Smooth-AP: the average precision of each anchor's ranking, with soft ranks."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import (
    check_positive,
    has_both_partners,
    mean_over,
    most_positives,
    pairwise_distances,
    prepare_batch,
)
from reidkit.registry import register


@register("loss", "smooth_ap")
class SmoothAveragePrecisionLoss(nn.Module):
    """One minus the average precision of ranking the batch for each anchor, with sigmoids for ranks.

    Brown, Xie, Kalogeiton, Zisserman 2020 (arXiv 2007.12163). With the similarity s = 1 - d^2 / 2, of unit
    embeddings their cosine, and the sigmoid of a difference for "ranks before"::

        rank(p, S) = 1 + sum over j in S other than p of  1 / (1 + exp( -(s(a, j) - s(a, p)) / temperature ))

        L = mean over a of  1 - mean over p in POS(a) of  rank(p, POS(a)) / rank(p, POS(a) and NEG(a))

    As the temperature goes to 0 it becomes one minus the mean average precision of the batch. The anchor
    itself is in no ranking, whereas code of the authors counts it as its own first match. Anchors without a
    positive or without a negative are left out.

    Use with: large batches of P identities x K images, K of 4 and more: it trains what evaluation measures,
    order and not distance. Beside :class:`IdentityLoss`.

    Pitfalls: its gradient lives where similarities differ by a few temperatures: at random weights, where
    all are alike, it is strong, and between clusters that are far in the wrong order it vanishes. A low batch
    loss says little about a gallery of thousands. Time and memory grow with N x N x K; compiled, or under
    transforms of ``torch.func``, with N x N x N.

    See also: :class:`BatchHardTripletLoss`, whose gradient does not vanish; :class:`CircleLoss`.

    Args:
        temperature: of the sigmoids, in units of similarity; smaller is nearer to ranks.
        normalize: scale embeddings to unit length first, so that similarities lie in [-1, 1].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: temperature not greater than 0.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> loss = SmoothAveragePrecisionLoss(temperature=1.0, normalize=False)
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.0989)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, temperature: float = 0.01, *, normalize: bool = True) -> None:
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        most = most_positives(labels)
        of_anchor = partial(one_minus_average_precision, temperature=self.temperature, most=most)
        terms = of_each_anchor(of_anchor, pairwise_distances(embeddings), labels, width=len(labels) * most)
        return mean_over(terms, has_both_partners(labels))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, normalize={self.normalize}"


def one_minus_average_precision(
    distances: Tensor, positive: Tensor, negative: Tensor, *, temperature: float, most: int
) -> Tensor:
    """The terms of some anchors from their distances and masks, all (b, N) -> (b,).

    No anchor has more positives than ``most``.
    """
    similarities = (1 - distances.square() / 2) / temperature
    places = positive.to(distances.dtype).topk(most, dim=1).indices  # (b, most): positives first
    is_positive = positive.gather(1, places)
    before = torch.sigmoid(similarities[:, None] - similarities.gather(1, places)[:, :, None])  # (b, most, N)
    ranks = [
        # Its own sigmoid is 1/2, and should be 1.
        0.5 + (before * among[:, None]).sum(dim=2)
        for among in (positive, positive | negative)
    ]
    precision = torch.where(is_positive, ranks[0] / ranks[1], 0.0).sum(dim=1)
    return 1 - precision / is_positive.sum(dim=1).clamp_min(1)
