"""Statistics of a batch, for a trainer to log."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from reidkit.ops.batch import check_batch
from reidkit.ops.distances import distances_between, normalized, pairwise_distances
from reidkit.ops.mining import hardest_partners, negative_mask, positive_mask
from reidkit.ops.tensors import at_least_float32

COLLAPSE_SHARE = 0.05
"""A batch whose root mean square distance is below this share of the margin counts as collapsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatistics:
    """How a batch of embeddings lies, as a batch-hard loss sees it. ``None``: the batch has no such pair.

    Attributes:
        num_images: N.
        num_identities: different labels.
        num_anchors_without_partner: images without a positive or without a negative.
        mean_positive_distance: over all pairs of one identity.
        mean_negative_distance: over all pairs of two identities.
        hardest_positive_distance: the furthest pair of one identity in the batch.
        hardest_negative_distance: the nearest pair of two identities in the batch.
        hardest_pairs_share_identity: whether the identity of the hardest positive pair is in the hardest
            negative pair too: MSML's relative case (true) or absolute case (false).
        margin_violation_share: of the anchors with both partners, the share whose furthest positive plus
            the margin is further than their nearest negative.
        intra_identity_variance: mean squared distance of an image from the mean of its identity.
        inter_identity_variance: mean squared distance, over images, of their identity's mean from the mean
            of the batch. The two variances add up to the variance of the batch.
        collapsed: two or more identities whose embeddings lie on one point: the root mean square distance
            of two images is below 5 % of the margin (of 1 where the margin is 0 or soft). Every batch-hard
            loss then sits at its margin with a gradient near 0.
    """

    num_images: int
    num_identities: int
    num_anchors_without_partner: int
    mean_positive_distance: float | None = None
    mean_negative_distance: float | None = None
    hardest_positive_distance: float | None = None
    hardest_negative_distance: float | None = None
    hardest_pairs_share_identity: bool | None = None
    margin_violation_share: float | None = None
    intra_identity_variance: float | None = None
    inter_identity_variance: float | None = None
    collapsed: bool = False

    def as_dict(self) -> dict[str, float | bool | None]:
        """The fields by name, for a log."""
        return asdict(self)


@torch.no_grad()
def batch_statistics(
    embeddings: Tensor, labels: Tensor, *, margin: float | None = 0.3, normalize: bool = True
) -> BatchStatistics:
    """Statistics of a batch, (N, D) and (N,), to be called when something is logged, not at each step.

    ``margin`` and ``normalize`` are those of the loss. With ``margin`` 0 or None (a soft margin) an anchor
    violates it where its furthest positive is further than its nearest negative.
    """
    check_batch(embeddings, labels)
    if len(embeddings) == 0:
        return BatchStatistics(num_images=0, num_identities=0, num_anchors_without_partner=0)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings = at_least_float32(embeddings)
        if normalize:
            embeddings = normalized(embeddings)
        distances = pairwise_distances(embeddings)
    positives, negatives, has_positive, has_negative = hardest_partners(distances, labels)
    furthest = distances_between(embeddings, embeddings[positives]).masked_fill(~has_positive, -math.inf)
    nearest = distances_between(embeddings, embeddings[negatives]).masked_fill(~has_negative, math.inf)
    usable = has_positive & has_negative
    violating = furthest - nearest + (margin or 0.0) > 0

    # The identity of the hardest positive pair, and the two of the hardest negative pair.
    negative_anchor = nearest.argmin()
    identity = labels[furthest.argmax()]
    others = labels[torch.stack((negative_anchor, negatives[negative_anchor]))]

    num_identities, intra, inter = _variances(embeddings, labels)
    root_mean_square_distance = math.sqrt(2 * (intra + inter))
    return BatchStatistics(
        num_images=len(labels),
        num_identities=num_identities,
        num_anchors_without_partner=int((~usable).sum()),
        mean_positive_distance=_mean(distances[positive_mask(labels)]),
        mean_negative_distance=_mean(distances[negative_mask(labels)]),
        hardest_positive_distance=float(furthest.amax()) if has_positive.any() else None,
        hardest_negative_distance=float(nearest.amin()) if has_negative.any() else None,
        hardest_pairs_share_identity=bool((identity == others).any()) if usable.any() else None,
        margin_violation_share=_mean(violating[usable].float()),
        intra_identity_variance=intra,
        inter_identity_variance=inter,
        collapsed=bool(has_negative.any() and root_mean_square_distance < COLLAPSE_SHARE * (margin or 1.0)),
    )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def _variances(embeddings: Tensor, labels: Tensor) -> tuple[int, float, float]:
    """Number of identities, variance within them and between them; N >= 1."""
    identities, identity_of, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(identities), embeddings.shape[1]).index_add_(0, identity_of, embeddings)
    means = (sums / counts[:, None])[identity_of]  # (N, D): the mean of each image's identity
    intra = (embeddings - means).square().sum(dim=1).mean()
    inter = (means - embeddings.mean(dim=0)).square().sum(dim=1).mean()
    return len(identities), float(intra), float(inter)
