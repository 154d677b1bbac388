"""The hinge summed over all triplets and all quadruplets of a batch, which are counted and never built.

``[d(positive pair) - d(negative pair) + margin]+`` summed over many tuples is linear in the distances once it
is known which tuples are active, so each distance needs only the *number* of active tuples that it stands in.
Sorted positive distances give these numbers by binary search: O(N^2 log N) time, O(N^2) memory, and both the
value and its gradient follow from one weighted sum.

Throughout, a positive pair's *threshold* is its distance plus the margin: a tuple is active where its
negative distance lies below the threshold.

Four images on a line, of which the first two show one identity:

>>> places = torch.tensor([0.0, 1.0, 3.0, 3.5])
>>> labels = torch.tensor([0, 0, 1, 2])
>>> distances = (places[:, None] - places).abs().requires_grad_()

With a margin of 2.5 both positive distances, which are 1, have the threshold 3.5. The negatives of the first
image lie at 3 and 3.5, of which one is below the threshold; those of the second at 2 and 2.5, both below.
So three of the four triplets are active, and their hinges sum to 1 - 3 + 1 - 2 + 1 - 2.5 + 3 x 2.5 = 3: the
positive distance counts once in the first row and twice in the second, each negative one minus once.

>>> hinges = triplet_hinges(distances, labels, margin=2.5)
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

>>> quadruplet_hinges(distances, labels, margin=1.0).sum().item(), num_quadruplets(labels).item()
(1.5, 1.0)
"""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from reidkit.losses._rowwise import masks_of, of_each_anchor, with_gradients_made
from reidkit.ops import (
    Identities,
    identities_of,
    is_traced,
    most_positives,
    num_of_identity,
    row_blocks,
    widest_float,
)


def triplet_hinges(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Sum over the triplets of each anchor: (N, N) and (N,), N >= 1 -> (N,), of the widest float there is.

    A triplet (a, p, n) is active where ``d(a, n) < d(a, p) + margin``.
    """
    most = most_positives(labels)
    return of_each_anchor(
        partial(_triplets_of_anchors, margin=margin, most=most),
        distances,
        labels,
        with_gradient=partial(_triplets_with_gradient, margin=margin, most=most),
    )


def _triplets_of_anchors(
    distances: Tensor, positive: Tensor, negative: Tensor, *, margin: float, most: int
) -> Tensor:
    counts, num_active = _count_triplets(distances, positive, negative, margin=margin, most=most)
    return _weighed(distances, counts, num_active, margin=margin)


def _triplets_with_gradient(
    distances: Tensor, labels: Tensor, rows: slice, *, margin: float, most: int
) -> tuple[Tensor, Tensor]:
    counts, num_active = _count_triplets(distances, *masks_of(labels, rows), margin=margin, most=most)
    return _weighed(distances, counts, num_active, margin=margin), counts


def _weighed(distances: Tensor, counts: Tensor, num_active: Tensor, *, margin: float) -> Tensor:
    """Hinges of each row from the counts (b, N), which are their gradient, and the tuples counted, (b,)."""
    return (counts * distances).sum(dim=1, dtype=widest_float(distances)) + margin * num_active


@torch.no_grad()
def _count_triplets(
    distances: Tensor, positive: Tensor, negative: Tensor, *, margin: float, most: int
) -> tuple[Tensor, Tensor]:
    """Active triplets that each distance stands in, (b, N), negative for negatives; and of each row, (b,)."""
    furthest, partners = distances.where(positive, -math.inf).topk(most, dim=1)  # (b, most), descending
    thresholds = (furthest + margin).flip(1).contiguous()
    # Per negative its place among the thresholds, of which those from there on lie beyond it; per threshold
    # the number of negatives with a place before it.
    place = torch.searchsorted(thresholds, distances.where(negative, math.inf), right=True)
    histogram = distances.new_zeros(len(distances), most + 1).scatter_add_(
        1, place, distances.new_ones(()).expand_as(distances)
    )
    num_before = histogram[:, :most].cumsum(1).flip(1)  # (b, most), as the partners
    counts = place.to(distances.dtype).sub_(most).scatter_add_(1, partners, num_before)
    return counts, num_before.sum(dim=1)


def num_triplets(labels: Tensor) -> Tensor:
    """Valid triplets of a batch, a scalar of the widest float there is."""
    num_same = num_of_identity(labels).to(widest_float(labels))
    return ((num_same - 1) * (len(labels) - num_same)).sum()


def quadruplet_hinges(distances: Tensor, labels: Tensor, *, margin: float) -> Tensor:
    """Sum over the quadruplets of a batch, part by part: as :func:`triplet_hinges`.

    A quadruplet (a, p, c, n) of three identities is active where ``d(c, n) < d(a, p) + margin``. Each row's
    part is made of the pairs that begin there, so that only the sum of all has a meaning.
    """

    def make(distances: Tensor) -> tuple[Tensor, list[Tensor]]:
        counts, num_active = _count_quadruplets(distances, labels, margin)
        return _weighed(distances, counts, num_active, margin=margin), [counts]

    return with_gradients_made(lambda distances: make(distances)[0], make, distances)


def num_quadruplets(labels: Tensor) -> Tensor:
    """Valid quadruplets of a batch, pairs counted once, not once a direction: a scalar, as above."""
    num_same = num_of_identity(labels).to(widest_float(labels))
    num_negative_pairs = (len(labels) - num_same).sum() / 2
    num_untouched = num_negative_pairs - num_same * (len(labels) - num_same)
    return ((num_same - 1) / 2 * num_untouched).sum()


@torch.no_grad()
def _count_quadruplets(distances: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Active quadruplets that each distance stands in, (N, N), negative for negative pairs; and of a, (N,).

    The pairs {a, p} and {c, n} are counted once, not once a direction; each direction of a negative pair
    bears half of its count, so that the order of the batch does not matter.
    """
    num_images = len(labels)
    identities = identities_of(labels)
    identity = identities.start  # names it
    anchors, partners = _positive_pairs(identities)
    of_pairs = identity[anchors].sort().values
    own_start, own_end = (torch.searchsorted(of_pairs, identity, right=right) for right in (False, True))
    same = labels[anchors] == labels[partners]
    thresholds, order = (distances[anchors, partners] + margin).where(same, -math.inf).sort()
    anchors, partners = anchors[order], partners[order]
    num_pairs = len(thresholds)  # M
    all_pairs = torch.arange(num_pairs, device=labels.device)
    # The thresholds once more, in a list sorted by (identity, place among all thresholds).
    first_key = identity * (num_pairs + 1)
    keys, place_of_listed = (first_key[anchors] + all_pairs).sort()

    # Per negative pair the thresholds beyond it: those from its place on, without those of its own two
    # identities. Here the identity of the row, below that of the column.
    beyond, own_beyond = (torch.empty_like(distances, dtype=torch.int32) for _ in range(2))
    places_found = keys.new_zeros(num_pairs + 1)
    own_places_found = keys.new_zeros(num_pairs + num_images + 1)
    for rows in row_blocks(num_images, num_images, labels.device):
        candidates = distances[rows].where(labels[rows, None] != labels, math.inf)
        place = torch.searchsorted(thresholds, candidates, right=True, out_int32=True)  # (b, N), 0..M
        own_place = torch.searchsorted(keys, first_key[rows, None] + place, out_int32=True)  # (b, N), 0..M
        own_beyond[rows] = own_end[rows, None].int() - own_place
        beyond[rows] = (num_pairs - place).sub_(own_beyond[rows])
        places_found += _histogram(place, num_pairs + 1)
        # Adding the identity keeps the end of one identity's part of the list from the start of the next.
        bins = own_place.add_(identity[rows, None])
        own_places_found += _histogram(bins, num_pairs + num_images + 1)
    beyond -= own_beyond.T
    del own_beyond

    # Per threshold the negative pairs before it, both directions counted, without those that touch its
    # identity: of these one direction starts there, and the other ends there.
    anchors, partners = anchors[place_of_listed], partners[place_of_listed]
    own = identity[anchors]
    before_all = places_found.cumsum(0)[place_of_listed]
    before_bin = F.pad(own_places_found.cumsum(0), (1, 0))
    before_own = before_bin[all_pairs + own + 1] - before_bin[own_start[anchors] + own]
    before = (before_all - 2 * before_own) / 2  # (M,)

    counts = beyond.to(distances.dtype).div_(-2)
    counts.index_put_((anchors, partners), before.to(distances.dtype), accumulate=True)
    before = before.to(widest_float(distances))
    return counts, before.new_zeros(num_images).index_add_(0, anchors, before)


def _positive_pairs(identities: Identities) -> tuple[Tensor, Tensor]:
    """Indices (M,) and (M,) of the pairs of one identity, each once; traced, of all pairs."""
    num_images, device = len(identities.order), identities.order.device
    if is_traced():
        rows, columns = torch.triu_indices(num_images, num_images, 1, device=device)
        return rows, columns
    columns = identities.columns(slice(None))
    rows, places = (columns > torch.arange(num_images, device=device)[:, None]).nonzero(as_tuple=True)
    return rows, columns[rows, places]


def _histogram(values: Tensor, num_values: int) -> Tensor:
    """How often each integer from 0 on occurs: any shape -> (num_values,)."""
    values = values.flatten()
    if is_traced():  # bincount goes through samples one by one
        return values.new_zeros(num_values, dtype=torch.int64).scatter_add_(
            0, values.long(), values.new_ones((), dtype=torch.int64).expand_as(values)
        )
    return torch.bincount(values, minlength=num_values)
