"""What losses are made of: distances, masks, hard mining, weight norms and statistics of a batch.

Functions of a batch take ``embeddings`` (N, D) and ``labels`` (N,), work for any N >= 0 and any number of
images in each class, and hold no state.
"""

from __future__ import annotations

from reidkit.ops.batch import check_batch, prepare_batch
from reidkit.ops.blocks import nearness_blocks, row_blocks
from reidkit.ops.distances import (
    DISTANCE_FLOORS,
    SQUARED_FLOOR,
    distances_between,
    distances_to,
    normalized,
    pairwise_distances,
)
from reidkit.ops.mining import (
    HardestDistances,
    HardestPartners,
    Identities,
    furthest_of,
    hardest_distances,
    hardest_partners,
    has_both_partners,
    identities_of,
    largest_indices,
    mean_over,
    mine_hardest,
    most_positives,
    nearest_of,
    negative_mask,
    num_of_identity,
    positive_mask,
)
from reidkit.ops.numbers import check_count, check_number, check_positive
from reidkit.ops.statistics import BatchStatistics, batch_statistics
from reidkit.ops.tensors import (
    DEVICES_WITHOUT_FLOAT64,
    at_least_float32,
    can_look_at_values,
    is_traced,
    widest_float,
)
from reidkit.ops.weights import l12, l21, striped

__all__ = [
    "DEVICES_WITHOUT_FLOAT64",
    "DISTANCE_FLOORS",
    "SQUARED_FLOOR",
    "BatchStatistics",
    "HardestDistances",
    "HardestPartners",
    "Identities",
    "at_least_float32",
    "batch_statistics",
    "can_look_at_values",
    "check_batch",
    "check_count",
    "check_number",
    "check_positive",
    "distances_between",
    "distances_to",
    "furthest_of",
    "hardest_distances",
    "hardest_partners",
    "has_both_partners",
    "identities_of",
    "is_traced",
    "l12",
    "l21",
    "largest_indices",
    "mean_over",
    "mine_hardest",
    "most_positives",
    "nearest_of",
    "nearness_blocks",
    "negative_mask",
    "normalized",
    "num_of_identity",
    "pairwise_distances",
    "positive_mask",
    "prepare_batch",
    "row_blocks",
    "striped",
    "widest_float",
]
