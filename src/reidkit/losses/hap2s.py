"""HAP2S, hard-aware point-to-set loss."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import UnknownName
from reidkit.losses._rowwise import of_each_anchor
from reidkit.ops import (
    can_look_at_values,
    check_number,
    check_positive,
    has_both_partners,
    mean_over,
    num_of_identity,
    pairwise_distances,
    prepare_batch,
)
from reidkit.registry import register

Weighting = Literal["exponential", "polynomial"]
WEIGHTINGS = ("exponential", "polynomial")

FEW = 8
"""Where pairs of one identity are less than one in so many, they are taken one by one."""


@register("loss", "hap2s")
class HardAwarePointToSetLoss(nn.Module):
    """Triplet loss between each anchor and two sets in which harder images weigh more: soft hard mining.

    Yu, Dou, Bai, Zhang, Xu, Bai 2018, HAP2S (arXiv 1807.11206)::

        L = mean over a of [ D(a, POS(a)) - D(a, NEG(a)) + margin ]+

        D(a, S) = sum over S of w(i) d(a, i)  /  sum over S of w(i)

        exponential   w+ = exp(d / sigma)      w- = exp(-d / sigma)
        polynomial    w+ = (d + 1)^alpha       w- = (d + 1)^(-2 alpha)

    ``d`` is the Euclidean distance. The gradient flows through the weights too. As sigma goes to 0, or
    alpha to infinity, the loss becomes :class:`BatchHardTripletLoss`; with alpha = 0, or as sigma goes to
    infinity, :class:`PointToSetTripletLoss`. Anchors without a positive or without a negative are left
    out; the mean counts anchors that meet the margin as 0.

    Use with: noisy labels or detections, where the hardest pair is often a mistake; anything with classes,
    not only people. The paper's network ends in the ``trinet`` neck; beside :class:`IdentityLoss` it is
    the paper's joint variant.

    Pitfalls: the paper does not print its margin, nor whether embeddings are normalised; 0.3 and unit
    length are choices made here. Without normalisation ``sigma`` must follow the scale of the distances.

    See also: :class:`BatchHardTripletLoss` and :class:`PointToSetTripletLoss`, its two limits.

    Args:
        weighting: "exponential" or "polynomial".
        sigma: of the exponential weights, in units of distance; smaller looks at harder images.
        alpha: of the polynomial weights; larger looks at harder images.
        margin: distance that the negative set must keep beyond the positive set.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].
        detach_weights: treat the weights as constants in the backward pass.

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        UnknownName: another weighting.
        ConfigError: a negative margin or alpha, sigma not greater than 0.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> HardAwarePointToSetLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.3116)
    """

    reads: ClassVar[str] = "metric"

    def __init__(
        self,
        weighting: Weighting = "exponential",
        sigma: float = 0.5,
        alpha: float = 10.0,
        margin: float = 0.3,
        *,
        normalize: bool = True,
        detach_weights: bool = False,
    ) -> None:
        super().__init__()
        if weighting not in WEIGHTINGS:
            raise UnknownName("weighting", weighting, WEIGHTINGS)
        check_positive("sigma", sigma)
        check_number("alpha", alpha)
        check_number("margin", margin)
        self.weighting = weighting
        self.sigma = sigma
        self.alpha = alpha
        self.margin = margin
        self.normalize = normalize
        self.detach_weights = detach_weights

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return hard_aware_point_to_set(
            pairwise_distances(embeddings),
            labels,
            weighting=self.weighting,
            sharpness=1 / self.sigma if self.weighting == "exponential" else self.alpha,
            margin=self.margin,
            detach_weights=self.detach_weights,
        )

    def extra_repr(self) -> str:
        return (
            f"weighting={self.weighting!r}, sigma={self.sigma}, alpha={self.alpha}, margin={self.margin}, "
            f"normalize={self.normalize}, detach_weights={self.detach_weights}"
        )


def hard_aware_point_to_set(
    distances: Tensor,
    labels: Tensor,
    *,
    weighting: Weighting,
    sharpness: float,
    margin: float,
    detach_weights: bool = False,
) -> Tensor:
    """The loss from all distances, (N, N) and (N,); ``sharpness`` is 1 / sigma or alpha."""

    def excess_of_anchor(distances: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        seen = distances.detach() if detach_weights else distances
        if weighting == "exponential":
            hardness = sharpness * seen
            nearness = -hardness
        else:
            hardness = sharpness * seen.log1p()
            nearness = -2 * hardness
        return _soft_mean(distances, hardness, positive) - _soft_mean(distances, nearness, negative)

    by_hand = None
    if can_look_at_values(labels) and FEW * int(num_of_identity(labels).sum()) < len(labels) ** 2:
        by_hand = partial(
            _excess_with_gradient,
            weighting=weighting,
            sharpness=sharpness,
            detach_weights=detach_weights,
        )
    excess = of_each_anchor(excess_of_anchor, distances, labels, with_gradient=by_hand)
    return mean_over(F.relu(excess + margin), has_both_partners(labels))


def _soft_mean(distances: Tensor, log_weights: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row over ``mask``, weighted by exp(log_weights) without computing the powers."""
    # The least number, not -inf: a row with an empty mask then gives no NaN.
    log_weights = log_weights.masked_fill(~mask, torch.finfo(log_weights.dtype).min)
    return (log_weights.softmax(dim=1) * distances).sum(dim=1)


def _excess_with_gradient(
    distances: Tensor,
    labels: Tensor,
    rows: slice,
    *,
    weighting: Weighting,
    sharpness: float,
    detach_weights: bool,
) -> tuple[Tensor, Tensor]:
    """The excess of some anchors, (b,), and its gradient by their distances (b, N), both without a graph.

    With weights w that sum to 1, the gradient of a weighted mean D is ``w (1 + (log w)'(d) (d - D))``. All
    steps over (b, N) are for negatives; positives are few, and put into their places at the end.
    """
    anchors, partners = (labels[rows, None] == labels).nonzero(as_tuple=True)  # itself among them
    itself = partners == anchors + rows.start
    to_positives, gradient_of_positives = _mean_over_pairs(
        distances[anchors, partners],
        anchors,
        ~itself,
        num_rows=len(distances),
        weighting=weighting,
        sharpness=sharpness,
        detach_weights=detach_weights,
    )
    if weighting == "exponential":
        log_weights = distances * -sharpness
    else:
        log_weights = distances.log1p().mul_(-2 * sharpness)
    log_weights[anchors, partners] = torch.finfo(distances.dtype).min
    weights = log_weights.softmax(dim=1)
    to_negatives = torch.mul(weights, distances, out=log_weights).sum(dim=1, keepdim=True)
    if detach_weights:
        gradient = weights.neg_()
    elif weighting == "exponential":
        gradient = torch.sub(distances, to_negatives + 1 / sharpness, out=log_weights)
        gradient.mul_(weights).mul_(sharpness)
    else:
        # (d - D) / (d + 1) as 1 - (D + 1) / (d + 1)
        gradient = torch.add(distances, 1, out=log_weights).reciprocal_()
        gradient.mul_(-2 * sharpness * (to_negatives + 1)).add_(2 * sharpness - 1).mul_(weights)
    gradient[anchors, partners] = gradient_of_positives
    return to_positives - to_negatives[:, 0], gradient


def _mean_over_pairs(
    distances: Tensor,
    anchors: Tensor,
    counts: Tensor,
    *,
    num_rows: int,
    weighting: Weighting,
    sharpness: float,
    detach_weights: bool,
) -> tuple[Tensor, Tensor]:
    """Weighted mean over the positives of each anchor, (b,), and its gradient (M,), from M listed pairs.

    ``anchors`` (M,) are places from 0 to b - 1; pairs that do not count get no weight.
    """
    log_weights = sharpness * (distances if weighting == "exponential" else distances.log1p())
    largest = distances.new_zeros(num_rows).scatter_reduce_(0, anchors, log_weights, "amax")
    weights = (log_weights - largest[anchors]).exp_() * counts
    total = distances.new_zeros(num_rows).index_add_(0, anchors, weights)
    weights /= torch.where(total == 0, 1.0, total)[anchors]
    means = distances.new_zeros(num_rows).index_add_(0, anchors, weights * distances)
    if detach_weights:
        return means, weights
    slopes = sharpness * (distances - means[anchors])
    if weighting == "polynomial":
        slopes /= distances + 1
    return means, weights * (1 + slopes)
