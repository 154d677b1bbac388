"""Masks of positives and negatives, and the hardest partners of each anchor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from reidkit.ops.blocks import nearness_blocks
from reidkit.ops.distances import distances_to, pairwise_distances
from reidkit.ops.tensors import can_look_at_values, is_traced


def positive_mask(labels: Tensor) -> Tensor:
    """Pairs of one identity, without each image's pair with itself: (N,) -> bool (N, N)."""
    same = labels[:, None] == labels
    same.diagonal().fill_(False)  # PyTorch 2.6 compiles fill_diagonal_ for one length of the batch only
    return same


def negative_mask(labels: Tensor) -> Tensor:
    """Pairs of two identities: (N,) -> bool (N, N)."""
    return labels[:, None] != labels


class Identities(NamedTuple):
    """The images of each identity, listed by sorting: equal labels of all pairs would be N x N numbers.

    All (N,): ``order``, the images identity by identity; for each image ``start``, where in that order its
    identity begins, and ``num_images`` of it, the image itself among them. ``most`` is the largest identity's
    number of images or, where a look would cost something, all.
    """

    order: Tensor
    start: Tensor
    num_images: Tensor
    most: int

    def columns(self, rows: slice) -> Tensor:
        """For some images all of their identity, (b, most); the image itself fills up its row."""
        itself = torch.arange(len(self.order), device=self.order.device)
        places = itself[: self.most]
        listed = self.order[(self.start[rows, None] + places).clamp_max(len(self.order) - 1)]
        return torch.where(places < self.num_images[rows, None], listed, itself[rows, None])


def identities_of(labels: Tensor) -> Identities:
    """The images of each identity, N >= 1."""
    ordered, order = labels.sort()
    start = torch.searchsorted(ordered, labels)
    num_images = torch.searchsorted(ordered, labels, right=True) - start
    most = int(num_images.max()) if can_look_at_values(labels) else len(labels)
    return Identities(order, start, num_images, most)


def num_of_identity(labels: Tensor) -> Tensor:
    """How many images each image's identity has, itself among them: (N,) -> (N,)."""
    ordered = labels.sort().values
    return torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)


def most_positives(labels: Tensor) -> int:
    """Positives of an image of the largest identity, N >= 1; traced, where none may count, all others."""
    return len(labels) - 1 if is_traced() else int(num_of_identity(labels).max()) - 1


def has_both_partners(labels: Tensor) -> Tensor:
    """Anchors with a positive and a negative: (N,) -> bool (N,)."""
    num_same = num_of_identity(labels)
    return (num_same > 1) & (num_same < len(labels))


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; 0 with a graph where nothing is left."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


STRANDS = 8
"""Into so many strands a row is cut in a search for its largest numbers."""


def largest_indices(values: Tensor, count: int) -> Tensor:
    """Columns of the ``count`` largest numbers of each row, in any order: (b, N) -> (b, count).

    One fast pass lays the strands of a row over each other and keeps the largest number of each place. The
    ``count`` largest numbers of the row then lie in the ``count`` places with the largest of these.
    """
    width = values.shape[1] // STRANDS
    if is_traced() or values.device.type != "cpu" or values.shape[1] % STRANDS or width < 2 * count:
        return values.topk(count, dim=1, sorted=False).indices
    places = values.view(len(values), STRANDS, width).amax(dim=1).topk(count, dim=1, sorted=False).indices
    starts = torch.arange(0, values.shape[1], width, device=values.device)
    columns = (places[:, None] + starts[:, None]).flatten(1)  # (b, STRANDS * count)
    return columns.gather(1, values.gather(1, columns).topk(count, dim=1, sorted=False).indices)


class HardestPartners(NamedTuple):
    """Per anchor the batch index of its hardest partners; where it has none, the index means nothing.

    All (N,): ``positives`` and ``negatives`` indices, ``has_positive`` and ``has_negative`` bool.
    """

    positives: Tensor
    negatives: Tensor
    has_positive: Tensor
    has_negative: Tensor


class HardestDistances(NamedTuple):
    """Per anchor the distance to its furthest positive and to its nearest negative, with a graph.

    All (N,): ``positive`` and ``negative`` distances, ``has_positive`` and ``has_negative`` bool. Where an
    anchor has no such partner the distance is finite and means nothing: mask it.
    """

    positive: Tensor
    negative: Tensor
    has_positive: Tensor
    has_negative: Tensor


def hardest_partners(distances: Tensor, labels: Tensor) -> HardestPartners:
    """The furthest positive and the nearest negative of each anchor: (N, N) and (N,), N >= 1.

    Any quantity that grows with the distance within a row serves as ``distances``.
    """
    positive, negative = positive_mask(labels), negative_mask(labels)
    return HardestPartners(
        torch.where(positive, distances, -math.inf).argmax(dim=1),
        torch.where(negative, distances, math.inf).argmin(dim=1),
        positive.any(dim=1),
        negative.any(dim=1),
    )


def mine_hardest(embeddings: Tensor, labels: Tensor) -> HardestPartners:
    """The hardest partners of each anchor, found without N x N numbers in memory: (N, D) and (N,), N >= 1."""
    embeddings = embeddings.detach()
    if is_traced():  # the number of blocks would be part of the graph
        return hardest_partners(pairwise_distances(embeddings), labels)
    identities = identities_of(labels)
    of_blocks = []
    for rows, nearness in nearness_blocks(embeddings):
        own = identities.columns(rows)
        positives = furthest_of(nearness, own)
        negatives = nearness.scatter_(1, own, -math.inf).max(dim=1).indices  # faster than argmax
        of_blocks.append((positives[:, 0], negatives))
    positives, negatives = map(torch.cat, zip(*of_blocks, strict=True))
    return HardestPartners(
        positives, negatives, identities.num_images > 1, identities.num_images < len(labels)
    )


def nearest_of(nearness: Tensor, columns: Tensor) -> Tensor:
    """Of some columns of each row the nearest: (b, N) and (b, c) -> (b, 1); minus infinity is nobody."""
    return columns.gather(1, nearness.gather(1, columns).argmax(dim=1, keepdim=True))


def furthest_of(nearness: Tensor, columns: Tensor) -> Tensor:
    """The furthest, as :func:`nearest_of`."""
    near = nearness.gather(1, columns)
    near = near.masked_fill(near.isneginf(), math.inf)
    return columns.gather(1, near.argmin(dim=1, keepdim=True))


def hardest_distances(embeddings: Tensor, labels: Tensor) -> HardestDistances:
    """Distances to the hardest partners of each anchor: (N, D) and (N,), N >= 1.

    Mined on the matrix product without a graph, then computed again as ``|fi - fj|`` with one: exact at 0,
    and both passes touch N x D numbers in place of N x N.
    """
    partners = mine_hardest(embeddings, labels)
    distances = distances_to(embeddings, torch.stack((partners.positives, partners.negatives), dim=1))
    positive, negative = distances.unbind(dim=1)
    return HardestDistances(positive, negative, partners.has_positive, partners.has_negative)
