"""What the losses are made of: distances, masks, the hardest partners of a batch, and its statistics.

Everything here takes a batch as ``embeddings`` (N, D) and ``labels`` (N,), works for any class histogram
and any N >= 0, and holds no state.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from reidkit.errors import ConfigError, DataError

SQUARED_FLOOR = 1e-12
"""Under the root of a squared length, so that the gradient at 0 is 0 and not infinite."""

DISTANCE_FLOORS = {
    dtype: torch.tensor(1e-12, dtype=dtype).sqrt().item() for dtype in (torch.float32, torch.float64)
}

SMALL_BATCH = 1024
"""Images up to which chosen distances are computed at once: call overhead weighs more than memory."""

DEVICES_WITHOUT_FLOAT64 = {"mps"}

COLLAPSE_SHARE = 0.05
"""A batch whose root mean square distance is below this share of the margin counts as collapsed."""

Loss = TypeVar("Loss")


# --- the frame of every loss ---------------------------------------------------------------------------


def prepare_batch(
    forward: Callable[[Loss, Tensor, Tensor], Tensor],
) -> Callable[[Loss, Tensor, Tensor], Tensor]:
    """Decorator for ``forward(self, embeddings, labels)`` of a loss: what the contract asks of all of them.

    Checks the batch; raises half types to float32 and leaves float64 alone; scales embeddings to unit length
    where ``self.normalize`` is true. Turns autocast off, which would make ``f @ f.T`` bfloat16 inside the
    loss (an error of 1e-3 in the distances). Answers an empty batch with 0 that has a graph.
    """

    @functools.wraps(forward)
    def prepared(self: Loss, embeddings: Tensor, labels: Tensor) -> Tensor:
        check_batch(embeddings, labels)
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = at_least_float32(embeddings)
            if len(embeddings) == 0:
                return (embeddings * 0).sum()
            if getattr(self, "normalize", False):
                embeddings = normalized(embeddings)
            return forward(self, embeddings, labels)

    return prepared


def check_batch(embeddings: Tensor, labels: Tensor) -> None:
    """Raise :class:`DataError` unless embeddings are floating (N, D) and labels integers (N,).

    Values that are not finite are an error too, in eager mode on the CPU only: elsewhere the look would
    break the compiled graph or make the GPU wait, and the loss comes out as NaN.
    """
    for name, tensor in (("embeddings", embeddings), ("labels", labels)):
        if not isinstance(tensor, Tensor):
            raise DataError(f"{name} are a {type(tensor).__name__}; expected a tensor")
    if embeddings.ndim != 2 or not embeddings.is_floating_point():
        raise DataError(
            f"embeddings have shape {tuple(embeddings.shape)} and type {embeddings.dtype}; "
            "expected floating-point (N, D)"
        )
    if labels.shape != embeddings.shape[:1]:
        raise DataError(
            f"labels have shape {tuple(labels.shape)}, but there are {len(embeddings)} embeddings; "
            f"expected ({len(embeddings)},)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels have type {labels.dtype}; expected integers, the identity of each image")
    if labels.device != embeddings.device:
        raise DataError(
            f"labels are on {labels.device}, embeddings on {embeddings.device}; move them to one device"
        )
    if can_look_at_values(embeddings) and not embeddings.isfinite().all():
        row = int((~embeddings.isfinite()).any(dim=1).nonzero()[0])
        raise DataError(
            f"embeddings hold NaN or infinity, first in row {row}; "
            "look for a learning rate too high, a half-precision overflow or a damaged image"
        )


def can_look_at_values(tensor: Tensor) -> bool:
    """Whether reading values costs nothing: eager mode on the CPU."""
    return tensor.device.type == "cpu" and not is_traced()


def is_traced() -> bool:
    """Whether code is compiled, or under a transform of ``torch.func``, which see plain operations best."""
    return torch.compiler.is_compiling() or _is_transformed()


def _is_transformed() -> bool:
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def check_number(
    name: str, value: object, *, low: float = 0.0, high: float = math.inf, also: str = ""
) -> None:
    """Raise :class:`ConfigError` unless ``low <= value < high``; ``also`` names what else is allowed."""
    if not (_is_number(value) and low <= value < high):  # type: ignore[operator]
        below = "" if high == math.inf else f" and below {high:g}"
        raise ConfigError(f"{name} is {value!r}; expected a finite number of at least {low:g}{below}{also}")


def check_positive(name: str, value: object) -> None:
    """Raise :class:`ConfigError` unless ``value`` is finite and greater than 0."""
    if not (_is_number(value) and 0 < value < math.inf):  # type: ignore[operator]
        raise ConfigError(f"{name} is {value!r}; expected a finite number greater than 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_count(name: str, value: object, *, also: str = "") -> None:
    """Raise :class:`ConfigError` unless ``value`` is an integer of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} is {value!r}; expected an integer of at least 1{also}")


def widest_float(like: Tensor) -> torch.dtype:
    """The type for long sums on a tensor's device: float64 but on Apple's GPUs, which have none."""
    return torch.float32 if like.device.type in DEVICES_WITHOUT_FLOAT64 else torch.float64


def at_least_float32(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))


# --- distances and masks -------------------------------------------------------------------------------


def normalized(embeddings: Tensor) -> Tensor:
    """Rows of unit length, (N, D). A row of zeros stays 0 and keeps a finite gradient.

    Any other row is scaled before it is squared, since squares of 1e20 and of 1e-30 are infinite and 0.
    """
    if embeddings.shape[1] == 0:
        return embeddings
    # A constant to autograd, rightly: rows of any scale have the same direction.
    scale = embeddings.detach().abs().amax(dim=1, keepdim=True)
    usual = (scale == 0) | ((scale > 1e-12) & (scale < 1e12))  # left alone, to the last digit
    embeddings = embeddings / torch.where(usual, 1.0, scale)
    norms = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    return embeddings / torch.where(norms == 0, 1.0, norms)


def pairwise_distances(embeddings: Tensor) -> Tensor:
    """Euclidean distances of all pairs, (N, D) -> (N, N), from one matrix product, and one more backward.

    In float32 the product form gives identical unit vectors distances up to 1e-3; where few pairs are
    chosen, compute those again with :func:`distances_to`. The diagonal is set to the floor, 1e-6.
    """
    if _is_transformed():  # by torch.func, which takes plain operations only
        return _product_distances(embeddings)
    distances: Tensor = _PairwiseDistances.apply(embeddings)
    return distances


def _product_distances(embeddings: Tensor) -> Tensor:
    squared_norms = embeddings.square().sum(dim=1)
    squared = torch.addmm(squared_norms, embeddings, embeddings.T, alpha=-2).add(squared_norms[:, None])
    itself = torch.eye(len(embeddings), dtype=torch.bool, device=embeddings.device)
    return squared.masked_fill(itself, 0).clamp_min(SQUARED_FLOOR).sqrt()


class _PairwiseDistances(torch.autograd.Function):
    """Autograd's own backward pass would take two products: it does not know that the matrix is symmetric."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        squared_norms = embeddings.square().sum(dim=1)
        squared = torch.addmm(squared_norms, embeddings, embeddings.T, alpha=-2).add_(squared_norms[:, None])
        distances = squared.fill_diagonal_(0).clamp_min_(SQUARED_FLOOR).sqrt_()
        ctx.save_for_backward(embeddings, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # With w(i, j) = g(i, j) / d(i, j), the gradient of f(i) is the sum over j of
        # (w(i, j) + w(j, i)) (f(i) - f(j)); a distance at the floor has none.
        embeddings, distances = ctx.saved_tensors
        weights = _over_distance(gradient, distances)
        weights = weights + weights.T
        return torch.addmm(weights.sum(dim=1, keepdim=True) * embeddings, weights, embeddings, alpha=-1)


def _over_distance(gradient: Tensor, distances: Tensor) -> Tensor:
    return (gradient / distances).masked_fill_(distances <= DISTANCE_FLOORS[distances.dtype], 0)


def distances_between(first: Tensor, second: Tensor) -> Tensor:
    """Euclidean distance of matching rows, (..., D) and (..., D) -> (...). Exact where rows are equal."""
    return (first - second).square().sum(dim=-1).clamp_min(SQUARED_FLOOR).sqrt()


def distances_to(embeddings: Tensor, partners: Tensor) -> Tensor:
    """Distances from each row to chosen rows, (N, D) and indices (N, k) -> (N, k). Exact at 0.

    Holds neither N x k x D numbers nor, in the forward pass, N x N.
    """
    if _is_transformed():
        return distances_between(embeddings[partners], embeddings[:, None])
    distances: Tensor = _DistancesTo.apply(embeddings, partners)
    return distances


class _DistancesTo(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, partners: Tensor) -> Tensor:
        num_rows, dim = embeddings.shape
        distances = embeddings.new_empty(partners.shape)
        # Rows at a time: a quarter of an N x N matrix, or all where the batch is small.
        num_differences = max(num_rows**2 // 4, SMALL_BATCH**2)
        step = max(1, num_differences // max(partners.shape[1] * dim, 1))
        for rows in (slice(start, start + step) for start in range(0, num_rows, step)):
            differences = embeddings[partners[rows]].sub_(embeddings[rows, None])  # (b, k, D)
            torch.linalg.vector_norm(differences, dim=2, out=distances[rows])
        distances.clamp_min_(DISTANCE_FLOORS[distances.dtype])
        ctx.save_for_backward(embeddings, partners, distances)
        return distances

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        embeddings, partners, distances = ctx.saved_tensors
        chosen = _over_distance(gradient, distances)  # (N, k)
        weights = chosen.new_zeros(len(chosen), len(chosen)).scatter_add_(1, partners, chosen)
        weights = weights + weights.T  # as in _PairwiseDistances
        return torch.addmm(weights.sum(dim=1, keepdim=True) * embeddings, weights, embeddings, alpha=-1), None


def positive_mask(labels: Tensor) -> Tensor:
    """Pairs of one identity, without each image's pair with itself: (N,) -> bool (N, N)."""
    return (labels[:, None] == labels).fill_diagonal_(False)


def negative_mask(labels: Tensor) -> Tensor:
    """Pairs of two identities: (N,) -> bool (N, N)."""
    return labels[:, None] != labels


def has_both_partners(labels: Tensor) -> Tensor:
    """Anchors with a positive and a negative: (N,) -> bool (N,)."""
    num_same = (labels[:, None] == labels).sum(dim=1)  # the anchor itself among them
    return (num_same > 1) & (num_same < len(labels))


def mean_over(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask``; 0 with a graph where nothing is left."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)


# --- norms of a layer's weights ------------------------------------------------------------------------


def l21(weight: Tensor) -> Tensor:
    """Sum over inputs of the length of their column, (out, in) -> scalar."""
    # Inside the root, so that a column of zeros has a finite gradient.
    return (weight.square().sum(dim=0) + SQUARED_FLOOR).sqrt().sum()


def l12(weight: Tensor, *, groups: int) -> Tensor:
    """Sum over outputs and stripes of the squared sum of absolute weights, (out, in) -> scalar.

    Raises :class:`DataError` where ``in`` is no multiple of ``groups``, the number of stripes.
    """
    return striped(weight, groups).abs().sum(dim=2).square().sum()


def striped(weight: Tensor, groups: int) -> Tensor:
    """(out, in) -> (out, groups, in / groups)."""
    num_outputs, num_inputs = weight.shape
    if num_inputs % groups:
        raise DataError(f"{num_inputs} inputs cannot be cut into {groups} equal stripes; change groups")
    return weight.view(num_outputs, groups, -1)


# --- hard mining ---------------------------------------------------------------------------------------


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


def hardest_distances(embeddings: Tensor, labels: Tensor) -> HardestDistances:
    """Distances to the hardest partners of each anchor: (N, D) and (N,), N >= 1.

    Mined on the matrix product without a graph, then computed again as |fi - fj| with one: exact at 0,
    and the backward pass touches N x D numbers in place of N x N.
    """
    partners = hardest_partners(pairwise_distances(embeddings.detach()), labels)
    return HardestDistances(
        distances_between(embeddings, embeddings[partners.positives]),
        distances_between(embeddings, embeddings[partners.negatives]),
        partners.has_positive,
        partners.has_negative,
    )


# --- what a trainer logs -------------------------------------------------------------------------------


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
