"""The hinge summed over all triplets and all quadruplets of a batch, which are counted and never built.

``[d(positive pair) - d(negative pair) + margin]+`` summed over many tuples is linear in the distances once it
is known which tuples are active, so each distance needs only the *number* of active tuples that it stands in.
Sorted positive distances give these numbers by binary search: O(N^2 log N) time, O(N^2) memory, and both the
value and its gradient follow from one weighted sum.

Throughout, a positive pair's *threshold* is its distance plus the margin: a tuple is active where its
negative distance lies below the threshold.

Four images on a line, of which the first two show one identity:

>>> from reidkit.ops import negative_mask
>>> places = torch.tensor([0.0, 1.0, 3.0, 3.5])
>>> labels = torch.tensor([0, 0, 1, 2])
>>> distances = (places[:, None] - places).abs().requires_grad_()

With a margin of 2.5 both positive distances, which are 1, have the threshold 3.5. The negatives of the first
image lie at 3 and 3.5, of which one is below the threshold; those of the second at 2 and 2.5, both below.
So three of the four triplets are active, and their hinges sum to 1 - 3 + 1 - 2 + 1 - 2.5 + 3 x 2.5 = 3: the
positive distance counts once in the first row and twice in the second, each negative one minus once.

>>> hinges = triplet_hinges(distances, positive_mask(labels), negative_mask(labels), margin=2.5)
>>> hinges.tolist()
[0.5, 2.5, 0.0, 0.0]
>>> hinges.sum().backward()
>>> distances.grad[:2].int()  # the counts
tensor([[ 0,  1, -1,  0],
        [ 2,  0, -1, -1]], dtype=torch.int32)
>>> num_triplets(labels).item()
4.0

There is one quadruplet: the positive pair, 1 apart, and the pair of the other two identities, 0.5 apart. With
a margin of 1 its hinge is 1 - 0.5 + 1:

>>> quadruplet_hinges(distances, labels, margin=1.0).item(), num_quadruplets(labels).item()
(1.5, 1.0)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.ops import is_traced, positive_mask, row_blocks, widest_float


def triplet_hinges(distances: Tensor, positive: Tensor, negative: Tensor, *, margin: float) -> Tensor:
    """Sum over the triplets of each anchor: (b, N) and two masks -> (b,), of the widest float there is.

    A triplet (a, p, n) is active where ``d(a, n) < d(a, p) + margin``.
    """
    with torch.no_grad():
        # Traced, the width cannot depend on the labels: there all columns are sorted.
        width = distances.shape[1] if is_traced() else int(positive.sum(dim=1).max())
        furthest, partners = distances.where(positive, -math.inf).topk(width, dim=1)  # (b, width), descending
        thresholds = (furthest + margin).flip(1).contiguous()
        # Per negative the number of thresholds beyond it; per threshold the number of negatives before it:
        # the k-th highest threshold lies beyond those negatives that have k or more beyond them.
        candidates = distances.where(negative, math.inf)
        num_beyond = width - torch.searchsorted(thresholds, candidates, right=True)
        histogram = distances.new_zeros(len(distances), width + 1).scatter_add_(
            1, num_beyond, distances.new_ones(()).expand_as(distances)
        )
        num_before = histogram.flip(1).cumsum(1).flip(1)[:, 1:]  # (b, width)
        counts = (-num_beyond).to(distances.dtype).scatter_add_(1, partners, num_before)
    return (counts * distances).sum(dim=1, dtype=widest_float(distances)) + margin * num_before.sum(dim=1)


def num_triplets(labels: Tensor) -> Tensor:
    """Valid triplets of a batch, a scalar of the widest float there is."""
    num_same = (labels[:, None] == labels).sum(dim=1).to(widest_float(labels))
    return ((num_same - 1) * (len(labels) - num_same)).sum()


def quadruplet_hinges(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Sum over the quadruplets of a batch: (N, N) and (N,), N >= 1 -> a scalar, as of :func:`triplet_hinges`.

    A quadruplet (a, p, c, n) of three identities is active where ``d(c, n) < d(a, p) + margin``.
    """
    counts, num_active = _count_quadruplets(distances, labels, margin)
    return (counts * distances).sum(dtype=widest_float(distances)) + margin * num_active


def num_quadruplets(labels: Tensor) -> Tensor:
    """Valid quadruplets of a batch, pairs counted once, not once a direction: a scalar, as above."""
    num_same = (labels[:, None] == labels).sum(dim=1).to(widest_float(labels))
    num_negative_pairs = (len(labels) - num_same).sum() / 2
    num_untouched = num_negative_pairs - num_same * (len(labels) - num_same)
    return ((num_same - 1) / 2 * num_untouched).sum()


@torch.no_grad()
def _count_quadruplets(distances: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Active quadruplets that each distance stands in, (N, N), negative for negative pairs; and their number.

    The pairs {a, p} and {c, n} are counted once, not once a direction; each direction of a negative pair
    bears half of its count, so that the order of the batch does not matter.
    """
    num_images = len(labels)
    identity = (labels[:, None] == labels).int().argmax(dim=1)  # an identity is named by its first image
    anchors, partners = _positive_pairs(labels)
    same = labels[anchors] == labels[partners]
    thresholds, order = (distances[anchors, partners] + margin).where(same, -math.inf).sort()
    anchors, partners = anchors[order], partners[order]
    num_pairs = len(thresholds)  # M
    all_pairs = torch.arange(num_pairs, device=labels.device)
    # The thresholds once more, in a list sorted by (identity, place among all thresholds).
    first_key = identity * (num_pairs + 1)
    keys, place_of_listed = (first_key[anchors] + all_pairs).sort()
    own_start, own_end = torch.searchsorted(keys, first_key), torch.searchsorted(keys, first_key + num_pairs)

    # Per negative pair the thresholds beyond it: those from its place on, without those of its own two
    # identities. Here the identity of the row, below that of the column.
    beyond, own_beyond = (torch.empty_like(distances, dtype=torch.int32) for _ in range(2))
    places_found = keys.new_zeros(num_pairs + 1)
    own_places_found = keys.new_zeros(num_pairs + num_images + 1)
    for rows in row_blocks(num_images, num_images, labels.device):
        candidates = distances[rows].where(labels[rows, None] != labels, math.inf)
        place = torch.searchsorted(thresholds, candidates, right=True)  # (b, N), 0..M
        own_place = torch.searchsorted(keys, first_key[rows, None] + place)  # (b, N), 0..M
        own_beyond[rows] = (own_end[rows, None] - own_place).int()
        beyond[rows] = (num_pairs - place).int() - own_beyond[rows]
        places_found += torch.bincount(place.flatten(), minlength=num_pairs + 1)
        # Adding the identity keeps the end of one identity's part of the list from the start of the next.
        bins = (own_place + identity[rows, None]).flatten()
        own_places_found += torch.bincount(bins, minlength=num_pairs + num_images + 1)
    beyond -= own_beyond.T
    del own_beyond

    # Per threshold the negative pairs before it, both directions counted, without those that touch its
    # identity: of these one direction starts there, and the other ends there.
    anchors, partners = anchors[place_of_listed], partners[place_of_listed]
    own = identity[anchors]
    before_all = places_found.cumsum(0)[place_of_listed]
    before_bin = F.pad(own_places_found.cumsum(0), (1, 0))
    before_own = before_bin[all_pairs + own + 1] - before_bin[own_start[anchors] + own]
    before = before_all - 2 * before_own  # (M,)

    counts = beyond.to(distances.dtype).div_(-2)
    counts.index_put_((anchors, partners), before.to(distances.dtype) / 2, accumulate=True)
    return counts, before.sum().to(widest_float(distances)) / 2


def _positive_pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (M,) and (M,) of the pairs of one identity, each once; traced, of all pairs."""
    if is_traced():
        rows, columns = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    else:
        rows, columns = positive_mask(labels).triu().nonzero(as_tuple=True)
    return rows, columns
