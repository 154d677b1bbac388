"""Centroid triplet loss: each anchor between the mean of its identity and that of the nearest other."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.ops import (
    check_number,
    distances_between,
    has_both_partners,
    identities_of,
    mean_over,
    prepare_batch,
)
from reidkit.registry import register


@register("loss", "centroid_triplet")
class CentroidTripletLoss(nn.Module):
    """Triplet loss between each anchor and the means of identities: of its own, and the nearest other one.

    Wieczorek, Rychalska, Dabrowski 2021 (arXiv 2104.13643)::

        L = mean over a of [ d(a, mean of POS(a)) - min over other identities of d(a, its mean) + margin ]+

    ``d`` is the Euclidean distance. The anchor is no part of its own identity's mean. The paper squares the
    distances; here they are not, so that the margin is that of the other losses. Anchors without a positive
    or without a negative are left out; the mean counts anchors that meet the margin as 0.

    Use with: searches for a person by several images, or galleries that keep one mean a person; noisy images,
    as one bad box moves a mean little. K of 4 and more; beside :class:`IdentityLoss` and, as in the paper,
    :class:`BatchHardTripletLoss`.

    Pitfalls: an identity with two faces (front and back) has its mean where none of its images is. With
    K = 2 the mean is one image.

    See also: :class:`PointToSetTripletLoss`, means of distances in place of distances to means;
    :class:`CenterLoss`, with learned means.

    Args:
        margin: distance that the other mean must keep beyond the own one.
        normalize: scale embeddings to unit length first; the means are not scaled.

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> CentroidTripletLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.1875)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float = 0.3, *, normalize: bool = True) -> None:
        super().__init__()
        check_number("margin", margin)
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        own, all_means = means_of_identities(embeddings, labels)
        nearest = nearest_other_mean(embeddings.detach(), all_means.detach(), labels)
        to_own = distances_between(embeddings, own)
        to_other = distances_between(embeddings, all_means[nearest])
        return mean_over(F.relu(to_own - to_other + self.margin), has_both_partners(labels))

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def means_of_identities(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each image the mean of its identity without it, and with it: (N, D) and (N,) -> twice (N, D).

    The former means nothing where there is no other image.
    """
    identities = identities_of(labels)
    identity, num_same = identities.start, identities.num_images[:, None]
    sums = torch.zeros_like(embeddings).index_add(0, identity, embeddings)[identity]
    return (sums - embeddings) / (num_same - 1).clamp_min(1), sums / num_same


def nearest_other_mean(embeddings: Tensor, means: Tensor, labels: Tensor) -> Tensor:
    """Index (N,) of an image whose identity's mean is the nearest of all others, without meaning for one."""
    nearness = embeddings @ means.T - means.square().sum(dim=1) / 2  # falls as the distance grows
    return nearness.masked_fill(labels[:, None] == labels, -math.inf).max(dim=1).indices
