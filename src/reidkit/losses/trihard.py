"""TriHard, the batch-hard triplet loss."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.ops import (
    HardestDistances,
    check_number,
    hardest_distances,
    mean_over,
    prepare_batch,
)
from reidkit.registry import register


@register("loss", "trihard")
class BatchHardTripletLoss(nn.Module):
    """Triplet loss over the hardest positive and the hardest negative of each anchor, TriHard.

    Hermans, Beyer, Leibe 2017 (arXiv 1703.07737); eq. 4 in Xiao et al. 2017 (arXiv 1710.00478)::

        L = mean over a of [ max over POS(a) of d(a, p)  -  min over NEG(a) of d(a, n)  +  margin ]+

    ``d`` is the Euclidean distance. With ``margin=None``, the soft margin, ``[z + margin]+`` becomes
    ``log(1 + exp(z))``, which goes on pulling after the margin is met. Anchors without a positive or
    without a negative are left out; the mean counts anchors that meet the margin as 0.

    Use with: batches of P identities x K images (K = 4), as the default metric loss, alone or beside
    :class:`IdentityLoss`; ``normalize=False`` with ``margin=None`` is the original paper's setting.

    Pitfalls: with a learning rate too high or no warm-up all embeddings fall onto one point and the loss
    stays at its margin without a gradient (``collapsed`` in :class:`reidkit.ops.BatchStatistics`). A wrong
    label is always the hardest pair of some anchor.

    See also: :class:`MarginSampleMiningLoss`, one pair of each kind for the whole batch.

    Args:
        margin: distance that negatives must keep beyond positives, or None for the soft margin ("soft" in
            recipes, where nothing can be None).
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        ConfigError: a negative margin.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> BatchHardTripletLoss(margin=2.0, normalize=False)(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.3750)
    """

    reads: ClassVar[str] = "metric"

    def __init__(self, margin: float | Literal["soft"] | None = 0.3, *, normalize: bool = True) -> None:
        super().__init__()
        if margin == "soft":
            margin = None
        if margin is not None:
            check_number("margin", margin, also=", or None for the soft margin")
        self.margin = margin
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return batch_hard_triplet(hardest_distances(embeddings, labels), margin=self.margin)

    def extra_repr(self) -> str:
        return f"margin={self.margin}, normalize={self.normalize}"


def batch_hard_triplet(hardest: HardestDistances, *, margin: float | None) -> Tensor:
    """The loss from each anchor's hardest distances."""
    excess = hardest.positive - hardest.negative
    terms = F.softplus(excess) if margin is None else F.relu(excess + margin)
    return mean_over(terms, hardest.has_positive & hardest.has_negative)
