"""MSML, margin sample mining loss."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.ops import (
    HardestDistances,
    check_number,
    hardest_distances,
    negative_mask,
    pairwise_distances,
    positive_mask,
    prepare_batch,
)
from reidkit.registry import register

# Between these a smooth maximum of float32 distances of unit embeddings is right to four digits.
_LEAST_TEMPERATURE, _MOST_TEMPERATURE = 1e-6, 10.0


@register("loss", "msml")
class MarginSampleMiningLoss(nn.Module):
    """Quadruplet loss over the hardest positive pair and the hardest negative pair of the batch, MSML.

    Xiao, Luo, Zhang 2017 (arXiv 1710.00478)::

        L = [ max over positive pairs of d(a, a')  -  min over negative pairs of d(c, b)  +  margin ]+

    ``d`` is the Euclidean distance. The two pairs may or may not share an identity, so the loss compares
    distances across anchors too: one threshold must serve the whole batch. At equal margin the paper's loss
    is at least as large as every term of the batch-hard triplet loss.

    Use with: :class:`IdentityLoss`, weights 1 : 1, batches of P identities x K images (P = 32, K = 4); with
    ``temperature=0.1, margin=1.0`` where training takes hours or less.

    Pitfalls: each batch has another two pairs, whose gradient points elsewhere and is larger than that of the
    identity loss. In trainings of about a thousand steps the paper's loss lowers accuracy or, at a small
    weight, leaves it as it is, from ImageNet weights too; from the middle of a training on (``from_epoch``)
    it adds a little. The hardest pairs are bad boxes first of all, and one wrong label can be the hardest
    pair for an epoch. Like every batch-hard loss it sits at its margin without a gradient once all embeddings
    have fallen onto one point.

    See also: :class:`BatchHardTripletLoss`, which gives every anchor a say.

    Args:
        margin: distance between the furthest positive and the nearest negative pair; 0.3 in the paper, 0.6
            in code of its second author.
        temperature: above 0 and below 10, smooth maxima over all pairs of each kind, ``t log(mean of
            exp(d / t))``, take the place of the two hardest, so that every pair has a say and the hardest the
            most. Of n pairs they lie between the mean and the hardest, at most ``t log(n)`` from that, and
            want a wider margin. Not the paper's loss, which is the limit of 0.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if the batch
    has no positive or no negative pair.

    Raises:
        ConfigError: a negative margin; a temperature that is negative, all but 0, or far above all distances.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> MarginSampleMiningLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(1.)
    """

    reads: ClassVar[str] = "metric"
    added_later: ClassVar[dict[str, float]] = {"temperature": 0.0}  # by which it is what it was before

    def __init__(self, margin: float = 0.3, *, temperature: float = 0.0, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        check_number(
            "temperature", temperature, high=_MOST_TEMPERATURE, also="; 0 for the two hardest pairs alone"
        )
        if 0 < temperature < _LEAST_TEMPERATURE:
            raise ConfigError(
                f"temperature is {temperature!r}, at which powers overflow; give {_LEAST_TEMPERATURE:g} or "
                "more, or 0 for the two hardest pairs alone"
            )
        self.margin = margin
        self.temperature = temperature
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.temperature:
            distances = pairwise_distances(embeddings)
            return smooth_sample_mining(distances, labels, margin=self.margin, temperature=self.temperature)
        return margin_sample_mining(hardest_distances(embeddings, labels), margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, temperature={self.temperature}, normalize={self.normalize}"


def margin_sample_mining(hardest: HardestDistances, *, margin: float) -> Tensor:
    """The loss from each anchor's hardest distances: the batch's hardest pairs are among them."""
    furthest = hardest.positive.masked_fill(~hardest.has_positive, 0.0).amax()
    nearest = hardest.negative.amin()  # an image without a negative: all are one identity, no pair at all
    has_pairs = hardest.has_positive.any() & hardest.has_negative.any()
    return torch.where(has_pairs, F.relu(furthest - nearest + margin), 0.0)


def smooth_sample_mining(distances: Tensor, labels: Tensor, *, margin: float, temperature: float) -> Tensor:
    """The loss with smooth maxima over all pairs (N, N) of each kind."""
    positive, negative = positive_mask(labels), negative_mask(labels)
    furthest = _smooth_maximum(distances, positive, temperature)
    nearest = -_smooth_maximum(-distances, negative, temperature)
    return torch.where(positive.any() & negative.any(), F.relu(furthest - nearest + margin), 0.0)


def _smooth_maximum(values: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """``t log(mean of exp(v / t))``: the maximum of the chosen values for small t, their mean for large t."""
    chosen = chosen | ~chosen.any()  # nothing chosen: anything finite will do
    scaled = (values / temperature).masked_fill(~chosen, -torch.inf)
    return temperature * (scaled.flatten().logsumexp(0) - chosen.sum(dtype=values.dtype).log())
