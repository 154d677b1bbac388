"""Losses: ``loss(embeddings (N, D), labels (N,)) -> scalar``, one file each.

A loss is a module registered with ``@register("loss", NAME)``, whose ``forward`` is decorated with
:func:`reidkit.ops.prepare_batch` and whose ``extra_repr`` shows every option. Its class attribute
``reads`` says what it looks at: ``"classification"`` for the feature after the neck, ``"metric"`` for the
one before it. With ``"weight"`` it is a penalty of a layer's weights, ``loss(weight) -> scalar``. A loss
whose sizes come from the data has ``fill(num_identities=..., dim=...)``, which the trainer calls before
anything else. The contract tests find a new file by themselves; they ask for a loop reference of the same
name in ``tests/reference_losses.py``.

You have identities to classify, as in every re-id set: start from ``IdentityLoss``. You want embeddings
that rank well: add ``BatchHardTripletLoss``, or ``MarginSampleMiningLoss`` for the hardest pairs only.
"""

from reidkit.losses.arcface import ArcFaceLoss
from reidkit.losses.center import CenterLoss
from reidkit.losses.centroid_triplet import CentroidTripletLoss
from reidkit.losses.circle import CircleLoss
from reidkit.losses.contrastive import ContrastiveLoss
from reidkit.losses.hap2s import HardAwarePointToSetLoss
from reidkit.losses.identity import IdentityLoss
from reidkit.losses.msml import MarginSampleMiningLoss
from reidkit.losses.multi_similarity import MultiSimilarityLoss
from reidkit.losses.p2s import PointToSetTripletLoss
from reidkit.losses.quadruplet import QuadrupletLoss
from reidkit.losses.smooth_ap import SmoothAveragePrecisionLoss
from reidkit.losses.sn import SupportNeighborLoss
from reidkit.losses.sparsity import StructuredSparsity
from reidkit.losses.trihard import BatchHardTripletLoss
from reidkit.losses.triplet import TripletLoss
from reidkit.losses.verification import VerificationLoss

__all__ = [
    "ArcFaceLoss",
    "BatchHardTripletLoss",
    "CenterLoss",
    "CentroidTripletLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "HardAwarePointToSetLoss",
    "IdentityLoss",
    "MarginSampleMiningLoss",
    "MultiSimilarityLoss",
    "PointToSetTripletLoss",
    "QuadrupletLoss",
    "SmoothAveragePrecisionLoss",
    "StructuredSparsity",
    "SupportNeighborLoss",
    "TripletLoss",
    "VerificationLoss",
]
