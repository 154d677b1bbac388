"""The hinge summed over all triplets and all quadruplets of a batch, which are counted and never built.

``[d(positive pair) - d(negative pair) + margin]+`` summed over many tuples is linear in the distances once it
is known which tuples are active, so each distance needs only the *number* of active tuples that it stands in.
Sorted positive distances give these numbers by binary search: O(N^2 log N) time, O(N^2) memory, and both the
value and its gradient follow from one weighted sum.

Throughout, a positive pair's *threshold* is its distance plus the margin: a tuple is active where its
negative distance lies below the threshold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.ops import negative_mask, positive_mask


class ActiveTuples(NamedTuple):
    """How often each distance stands in an active tuple.

    ``counts`` (N, N): positive where the pair is the positive one of its tuples, negative where it is the
    negative one; ``num_active`` and ``num_valid`` scalars. All of the type of the distances but the last two,
    which are float64: a batch of 4096 has more triplets than float32 can count.
    """

    counts: Tensor
    num_active: Tensor
    num_valid: Tensor


def mean_hinge(distances: Tensor, tuples: ActiveTuples, *, margin: float) -> Tensor:
    """Mean over the valid tuples of ``[d(positive) - d(negative) + margin]+``, 0 if there is none.

    (N, N) distances with a graph -> scalar with a graph.
    """
    total = (tuples.counts * distances).sum(dtype=torch.float64) + margin * tuples.num_active
    return (total / tuples.num_valid.clamp_min(1)).to(distances.dtype)


@torch.no_grad()
def active_triplets(distances: Tensor, labels: Tensor, *, margin: float) -> ActiveTuples:
    """Triplets (a, p, n) with ``d(a, n) < d(a, p) + margin``: (N, N) and (N,), N >= 1."""
    positive, negative = positive_mask(labels), negative_mask(labels)
    num_positives = positive.sum(dim=1)
    # Compiled, the width cannot depend on the labels: there all columns are sorted.
    width = len(labels) if torch.compiler.is_compiling() else int(num_positives.max())
    furthest, partners = distances.where(positive, -math.inf).topk(width, dim=1)  # (N, width), descending
    thresholds = (furthest + margin).flip(1).contiguous()

    # Per negative the number of thresholds beyond it; per threshold the number of negatives before it: the
    # k-th highest threshold lies beyond those negatives that have k or more beyond them.
    num_beyond = width - torch.searchsorted(
        thresholds, distances.where(negative, math.inf), right=True, out_int32=True
    )
    histogram = distances.new_zeros(len(labels), width + 1).scatter_add_(
        1, num_beyond.long(), distances.new_ones(()).expand_as(distances)
    )
    num_before = histogram.flip(1).cumsum(1).flip(1)[:, 1:]  # (N, width)
    return ActiveTuples(
        counts=(-num_beyond).to(distances.dtype).scatter_add_(1, partners, num_before),
        num_active=num_before.sum(dtype=torch.float64),
        num_valid=(num_positives * negative.sum(dim=1)).sum().double(),
    )


@torch.no_grad()
def active_quadruplets(distances: Tensor, labels: Tensor, *, margin: float) -> ActiveTuples:
    """Quadruplets (a, p, c, n) of three identities with ``d(c, n) < d(a, p) + margin``.

    (N, N) and (N,), N >= 1. The pairs {a, p} and {c, n} are counted once, not once a direction; each
    direction of a negative pair bears half of its count, so that the order of the batch does not matter.
    """
    num_images, negative = len(labels), negative_mask(labels)
    identity = (~negative).int().argmax(dim=1)  # (N,): an identity is named by its first image
    anchors, partners = _positive_pairs(labels)
    thresholds = (distances + margin).where(positive_mask(labels), -math.inf)[anchors, partners]
    thresholds, order = thresholds.sort()
    anchors, partners = anchors[order], partners[order]
    num_pairs = len(thresholds)

    # The place of each distance among all thresholds: those from that place on lie beyond it.
    place = torch.searchsorted(  # (N, N), 0..M; M where the pair is not negative: nothing lies beyond
        thresholds, distances.where(negative, math.inf), right=True, out_int32=True
    )
    # And its place among the thresholds of the row's own identity, in a list sorted by (identity, place).
    first_key = identity * (num_pairs + 1)
    keys, places = (first_key[anchors] + torch.arange(num_pairs, device=labels.device)).sort()
    own_place = torch.searchsorted(keys, first_key[:, None] + place, out_int32=True)  # (N, N), 0..M
    own_start, own_end = torch.searchsorted(keys, first_key), torch.searchsorted(keys, first_key + num_pairs)

    # Per negative pair the thresholds beyond it, without those of its two identities.
    own_beyond = own_end[:, None].int() - own_place
    num_beyond = num_pairs - place - own_beyond - own_beyond.T
    # Per threshold the negative pairs before it, both directions counted, without those that touch its
    # identity y. Of these one direction starts in y, and the other ends there. Adding the identity keeps the
    # end of one identity's part of the list apart from the start of the next.
    num_before_all = torch.bincount(place.flatten(), minlength=num_pairs + 1).cumsum(0)[places]
    own_bins = torch.bincount((own_place + identity[:, None]).flatten(), minlength=num_pairs + num_images + 1)
    num_up_to = F.pad(own_bins.cumsum(0), (1, 0))  # [i]: entries in bins before i
    anchors, partners = anchors[places], partners[places]  # in the order of the list
    own = identity[anchors]
    num_before_own = (
        num_up_to[torch.arange(num_pairs, device=labels.device) + own + 1]
        - num_up_to[own_start[anchors] + own]
    )
    num_before = num_before_all - 2 * num_before_own  # (M,)

    sizes = (~negative).sum(dim=1).double()
    num_negative_pairs = negative.sum() / 2
    num_untouched = num_negative_pairs - sizes * (num_images - sizes)
    counts = num_beyond.to(distances.dtype).div_(-2)
    return ActiveTuples(
        counts=counts.index_put_((anchors, partners), num_before.to(distances.dtype) / 2, accumulate=True),
        num_active=num_before.sum().double() / 2,
        num_valid=((sizes - 1) / 2 * num_untouched).sum(),
    )


def _positive_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (M,) and (M,) of the pairs of one identity, each once; compiled, of all pairs."""
    if torch.compiler.is_compiling():
        rows, columns = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    else:
        rows, columns = positive_mask(labels).triu().nonzero(as_tuple=True)
    return rows, columns
