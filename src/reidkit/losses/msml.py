"""MSML, margin sample mining loss."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.ops import HardestDistances, check_number, hardest_distances, prepare_batch
from reidkit.registry import register


@register("loss", "msml")
class MarginSampleMiningLoss(nn.Module):
    """Quadruplet loss over the hardest positive pair and the hardest negative pair of the batch, MSML.

    Xiao, Luo, Zhang 2017 (arXiv 1710.00478)::

        L = [ max over positive pairs of d(a, a')  -  min over negative pairs of d(c, b)  +  margin ]+

    ``d`` is the Euclidean distance. The two pairs may or may not share an identity, so the loss compares
    distances across anchors too: one threshold must serve the whole batch. At equal margin it is at least
    as large as every term of the batch-hard triplet loss.

    Use with: :class:`IdentityLoss`, weights 1 : 1, batches of P identities x K images (P = 32, K = 4).

    Pitfalls: alone it trains badly, as the gradient reaches three or four images a step, and one wrong
    label can hold it for an epoch. Like every batch-hard loss it sits at its margin without a gradient
    once all embeddings have fallen onto one point.

    See also: :class:`BatchHardTripletLoss`, which gives every anchor a say.

    Args:
        margin: distance between the furthest positive and the nearest negative pair; 0.3 in the paper, 0.6
            in code of its second author.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if the batch
    has no positive or no negative pair.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> MarginSampleMiningLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(1.)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 0.3, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return margin_sample_mining(hardest_distances(embeddings, labels), margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def margin_sample_mining(hardest: HardestDistances, *, margin: float) -> Tensor:
    """The loss from each anchor's hardest distances: the batch's hardest pairs are among them."""
    furthest = hardest.positive.masked_fill(~hardest.has_positive, 0.0).amax()
    nearest = hardest.negative.amin()  # an image without a negative: all are one identity, no pair at all
    has_pairs = hardest.has_positive.any() & hardest.has_negative.any()
    return torch.where(has_pairs, F.relu(furthest - nearest + margin), 0.0)
