"""SN, support neighbor loss."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from reidkit.errors import UnknownName
from reidkit.losses._rowwise import with_gradients_made
from reidkit.ops import (
    check_count,
    check_number,
    check_positive,
    distances_between,
    distances_to,
    furthest_of,
    identities_of,
    is_traced,
    largest_indices,
    mean_over,
    nearest_of,
    nearness_blocks,
    pairwise_distances,
    prepare_batch,
)
from reidkit.registry import register

Squeeze = Literal["range", "nearest", "pair"]
SQUEEZES = ("range", "nearest", "pair")
Ties = Literal["exclude", "include"]
TIES = ("exclude", "include")


@register("loss", "sn")
class SupportNeighborLoss(nn.Module):
    """Support neighbor loss: each anchor's neighbours of its identity against those of all others.

    Li, Ding, Li, Zhang, Fu, ACM MM 2018, SN (arXiv 1808.06030), mechanics from the authors' code. Of the
    anchor's nearest ``num_neighbors`` images, P are those of its identity (its nearest positive where
    there is none), Q those of others::

        separation = -log( sum over P of exp(-scale d)  /  sum over P and Q of exp(-scale d) )
        squeeze    = max over P of d  -  min over P of d
        L = mean over anchors of  separation  +  squeeze_weight * squeeze

    ``d`` is the Euclidean distance. Neighbours are nearer than the (num_neighbors + 1)-th; in a smaller
    batch all images are. The separation does not change when a constant is added to all distances.
    Anchors without a positive or without a negative are left out.

    Use with: batches of P identities x K images larger than ``num_neighbors``, alone, as in the paper:
    there is no margin to choose.

    Pitfalls: ``scale`` goes with unit embeddings; without normalisation a distance of 1 already gives
    exp(-50). With K above ``num_neighbors`` the neighbours may all be positives, and nothing is pushed.
    Where all distances are equal, as when embeddings collapse, no image is nearer than the next, and the
    loss of a collapsed batch is almost 0: a low value alone is no success. ``ties="include"`` shows it.

    See also: :class:`BatchHardTripletLoss`, one neighbour of each kind; with ``squeeze_weight=0`` this is
    the KNN-softmax loss.

    Args:
        num_neighbors: k, how many neighbours make up the two support sets.
        scale: of the distances in the exponent.
        squeeze_weight: of the squeeze term.
        squeeze: "range", above (the one distance where P holds one image); "nearest", the smallest distance
            in P, which the released code computes; "pair", the distance between the nearest and the
            furthest of *all* the anchor's positives, which the abstract describes (0 for one positive).
        ties: "exclude", above; "include", neighbours are as near as the num_neighbors-th: the same but where
            distances are equal, at the cost of an N x N matrix more.
        normalize: scale embeddings to unit length first, so that distances lie in [0, 2].

    Shapes: embeddings (N, D), labels (N,) integers; returns a scalar, float32 or float64; 0 if no anchor
    has both partners.

    Raises:
        UnknownName: another squeeze or ties.
        ConfigError: num_neighbors below 1, scale not greater than 0, a negative squeeze_weight.
        DataError: embeddings and labels that do not make a batch.

    >>> import torch
    >>> embeddings = torch.tensor([[0.0], [1.0], [3.0], [3.5]])
    >>> loss = SupportNeighborLoss(scale=1.0, normalize=False)
    >>> loss(embeddings, torch.tensor([0, 0, 1, 1]))
    tensor(0.3493)
    """

    reads: ClassVar[str] = "metric"

    def __init__(
        self,
        num_neighbors: int = 10,
        scale: float = 50.0,
        squeeze_weight: float = 0.1,
        squeeze: Squeeze = "range",
        *,
        ties: Ties = "exclude",
        normalize: bool = True,
    ) -> None:
        super().__init__()
        check_count("num_neighbors", num_neighbors)
        check_positive("scale", scale)
        check_number("squeeze_weight", squeeze_weight)
        if squeeze not in SQUEEZES:
            raise UnknownName("squeeze", squeeze, SQUEEZES)
        if ties not in TIES:
            raise UnknownName("ties", ties, TIES)
        self.num_neighbors = num_neighbors
        self.scale = scale
        self.squeeze_weight = squeeze_weight
        self.squeeze = squeeze
        self.ties = ties
        self.normalize = normalize

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        mined = mine_support(
            embeddings.detach(),
            labels,
            num_neighbors=self.num_neighbors,
            ties=self.ties,
            furthest=self.squeeze == "pair",
        )
        # The few chosen are computed again, exact at 0 and with a graph.
        chosen = distances_to(embeddings, torch.cat((mined.neighbors, mined.nearest_positive), dim=1))
        weight = 0.0 if self.squeeze == "pair" else self.squeeze_weight
        terms = support_terms(
            chosen, *support_sets(chosen, mined), scale=self.scale, kind=self.squeeze, squeeze_weight=weight
        )
        if self.squeeze == "pair":
            terms = terms + self.squeeze_weight * pair_squeeze(embeddings, mined)
        return mean_over(terms, mined.usable)

    def extra_repr(self) -> str:
        return (
            f"num_neighbors={self.num_neighbors}, scale={self.scale}, squeeze_weight={self.squeeze_weight}, "
            f"squeeze={self.squeeze!r}, ties={self.ties!r}, normalize={self.normalize}"
        )


class Support(NamedTuple):
    """Batch indices of the images that may be in the support sets of each anchor.

    ``neighbors`` (N, k + 1) in any order, (N, N - 1) in a smaller batch; ``nearest_positive`` and
    ``furthest_positive`` (N, 1), without meaning where an anchor has no positive, the latter empty unless
    asked for; ``same`` whether each neighbour is a positive; ``num_positive`` (N,) in the batch; ``bounded``
    whether the furthest neighbour is only the bound of the others, or, with ties, ``neighbors`` are all
    others, of which those as near as the ``num_with_ties``-th count; ``usable`` (N,).
    """

    neighbors: Tensor
    nearest_positive: Tensor
    furthest_positive: Tensor
    same: Tensor
    num_positive: Tensor
    bounded: bool
    usable: Tensor
    num_with_ties: int = 0


def mine_support(
    embeddings: Tensor,
    labels: Tensor,
    *,
    num_neighbors: int,
    ties: Ties = "exclude",
    furthest: bool = False,
) -> Support:
    """Candidates from a batch, (N, D) without a graph, and (N,), N >= 1; ``furthest`` mines that, too."""
    num_candidates = len(labels) - 1 if ties == "include" else min(num_neighbors + 1, len(labels) - 1)
    identities = identities_of(labels)
    of_blocks = [
        _mine_rows(nearness, identities.columns(rows), num_candidates=num_candidates, furthest=furthest)
        for rows, nearness in _nearness(embeddings)
    ]
    neighbors, nearest, furthest_positive = map(torch.cat, zip(*of_blocks, strict=True))
    return Support(
        neighbors=neighbors,
        nearest_positive=nearest,
        furthest_positive=furthest_positive,
        same=labels[neighbors] == labels[:, None],
        num_positive=identities.num_images - 1,
        bounded=len(labels) - 1 > num_neighbors,
        usable=(identities.num_images > 1) & (identities.num_images < len(labels)),
        num_with_ties=num_neighbors if ties == "include" else 0,
    )


def _nearness(embeddings: Tensor) -> Iterable[tuple[slice, Tensor]]:
    """As :func:`nearness_blocks`; where the code is traced, of all rows at once."""
    if not is_traced():
        return nearness_blocks(embeddings)
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return [(slice(None), pairwise_distances(embeddings).neg().masked_fill(itself, -math.inf))]


def _mine_rows(
    nearness: Tensor, own: Tensor, *, num_candidates: int, furthest: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Of some anchors: neighbours, nearest positive, furthest positive.

    Nearness (b, N), -inf of an image to itself, and the columns of their identity, (b, c).
    """
    nearest = nearest_of(nearness, own)
    far = furthest_of(nearness, own) if furthest else nearest[:, :0]
    return largest_indices(nearness, num_candidates), nearest, far


def support_sets(distances: Tensor, mined: Support) -> tuple[Tensor, Tensor]:
    """Masks P and Q over distances (N, k + 2) to the neighbours and, last, to the nearest positive."""
    to_neighbors = distances.detach()[:, :-1]
    near = torch.ones_like(mined.same)
    if mined.bounded:
        if mined.num_with_ties:
            near = to_neighbors <= to_neighbors.kthvalue(mined.num_with_ties, dim=1, keepdim=True).values
        else:
            near = to_neighbors < to_neighbors.amax(dim=1, keepdim=True)
    positive, negative = near & mined.same, near & ~mined.same
    none = ~positive.any(dim=1, keepdim=True)  # (N, 1): the nearest positive stands in
    return torch.cat((positive, none), dim=1), torch.cat((negative, torch.zeros_like(none)), dim=1)


def support_terms(
    distances: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    scale: float,
    kind: Squeeze,
    squeeze_weight: float,
) -> Tensor:
    """Separation and weighted squeeze, of a kind that reads P alone: (N, c) and two masks -> (N,)."""

    def plain(distances: Tensor) -> Tensor:
        apart = separation(distances, positive, negative, scale=scale)
        return apart + squeeze_weight * squeeze(distances, positive, kind=kind)

    def make(distances: Tensor) -> tuple[Tensor, list[Tensor]]:
        apart, gradient = _separation_with_gradient(distances, positive, negative, scale=scale)
        if not squeeze_weight:
            return apart, [gradient]
        spread, of_spread = _squeeze_with_gradient(distances, positive, kind=kind)
        return apart.add_(spread, alpha=squeeze_weight), [gradient.add_(of_spread, alpha=squeeze_weight)]

    return with_gradients_made(plain, make, distances)


def separation(distances: Tensor, positive: Tensor, negative: Tensor, *, scale: float) -> Tensor:
    """``-log(sum over P / sum over P and Q)`` of ``exp(-scale d)``: (N, c) and two masks -> (N,).

    As a difference of log-sum-exps, which neither overflow nor vanish. Distances count from the row's least,
    since those of 50 d would keep too few digits for their gradient.
    """
    logits = scale * (distances.detach().amin(dim=1, keepdim=True) - distances)
    over_both = logits.masked_fill(~(positive | negative), -math.inf).logsumexp(dim=1)
    return over_both - logits.masked_fill(~positive, -math.inf).logsumexp(dim=1)


def _separation_with_gradient(
    distances: Tensor, positive: Tensor, negative: Tensor, *, scale: float
) -> tuple[Tensor, Tensor]:
    """The same, and its gradient by the distances, (N, c): a log-sum-exp's is a softmax."""
    over_both = (distances * -scale).masked_fill_(~(positive | negative), -math.inf)
    over_positive = over_both.masked_fill(negative, -math.inf)
    gradient = over_positive.softmax(dim=1).sub_(over_both.softmax(dim=1)).mul_(scale)
    return over_both.logsumexp(dim=1) - over_positive.logsumexp(dim=1), gradient


def squeeze(distances: Tensor, positive: Tensor, *, kind: Squeeze) -> Tensor:
    """The squeeze term of the two kinds that read P alone: (N, c) and its mask -> (N,)."""
    nearest = distances.masked_fill(~positive, math.inf).amin(dim=1)
    if kind == "nearest":
        return nearest
    furthest = distances.masked_fill(~positive, -math.inf).amax(dim=1)
    return torch.where(positive.sum(dim=1) > 1, furthest - nearest, furthest)


def _squeeze_with_gradient(distances: Tensor, positive: Tensor, *, kind: Squeeze) -> tuple[Tensor, Tensor]:
    """The same, and its gradient by the distances, (N, c): shared evenly between equal ones."""
    others = ~positive
    inside = distances.masked_fill(others, math.inf)
    nearest = inside.amin(dim=1, keepdim=True)
    at_nearest = _shares(inside == nearest, distances)
    if kind == "nearest":
        return nearest[:, 0], at_nearest
    inside = inside.masked_fill_(others, -math.inf)
    furthest = inside.amax(dim=1, keepdim=True)
    several = positive.sum(dim=1, keepdim=True) > 1
    spread = torch.where(several, furthest - nearest, furthest)
    return spread[:, 0], _shares(inside == furthest, distances).sub_(at_nearest * several)


def _shares(chosen: Tensor, like: Tensor) -> Tensor:
    shares = chosen.to(like.dtype)
    return shares.div_(shares.sum(dim=1, keepdim=True))


def pair_squeeze(embeddings: Tensor, mined: Support) -> Tensor:
    """The squeeze term between the ends of all positives: (N, D) -> (N,)."""
    nearest, furthest = embeddings[mined.nearest_positive[:, 0]], embeddings[mined.furthest_positive[:, 0]]
    return torch.where(mined.num_positive > 1, distances_between(nearest, furthest), 0.0)
