"""Structured sparsity: feature selection of JLML."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.ops import at_least_float32, can_look_at_values, check_count, l12, l21, striped
from reidkit.registry import register

Norm = Literal["l21", "l12"]
NORMS = ("l21", "l12")


@register("loss", "sparsity")
class StructuredSparsity(nn.Module):
    """Regulariser of a feature layer that selects whole inputs (l21), or inputs within stripes (l12).

    Li, Zhu, Gong 2017, JLML (arXiv 1705.04724). For the weights W of a layer, out x in::

        l21:  L = sum over inputs i of  || W[:, i] ||_2
        l12:  L = sum over outputs o and stripes j of  ( || W[o, stripe j] ||_1 )^2

    l21 switches off inputs for all outputs at once: the global branch. l12 keeps every stripe of the body
    in use, as a group that is all 0 costs nothing more, but makes the inputs of one stripe compete: the
    local branch.

    Use with: the feature layers of the ``jlml`` network, weight 5e-4, where ``feature`` names the layer's
    weights ("global_feature.weight", "local_feature.weight"), beside one :class:`IdentityLoss` a branch.

    Pitfalls: it grows with the layer. PyTorch's default start gives l12 of 512 x 1024 weights 16.4 after
    its factor 5e-4, against a cross-entropy of 6; the jlml network starts from N(0, 0.01) instead.
    Sub-gradients bring groups near 0, not to it: see :func:`share_of_small_groups`.

    See also: :class:`IdentityLoss`.

    Args:
        norm: "l21" or "l12".
        groups: stripes of l12, in the order in which their features were joined; or "stripes", as many as
            the network has, which the trainer fills in.

    Shapes: weight (out, in), ``in`` a multiple of ``groups`` for l12; returns a scalar, float32 or float64.

    Raises:
        UnknownName: another norm.
        ConfigError: groups below 1, or "stripes" without a trainer that fills it in.
        DataError: weights that are not 2-D, cannot be cut into ``groups`` equal stripes, or are not finite
            (looked for in eager mode on the CPU).

    >>> import torch
    >>> weight = torch.tensor([[3.0, 0.0, 1.0, -1.0], [4.0, 0.0, 0.0, 2.0]])
    >>> StructuredSparsity("l21")(weight)
    tensor(8.2361)
    >>> StructuredSparsity("l12", groups=2)(weight)
    tensor(33.)
    """

    reads: ClassVar[str] = "weight"

    def __init__(self, norm: Norm = "l21", groups: int | Literal["stripes"] = 4) -> None:
        super().__init__()
        if norm not in NORMS:
            raise UnknownName("norm", norm, NORMS)
        if groups != "stripes":
            check_count("groups", groups, also=', or "stripes"')
        self.norm = norm
        self.groups = groups

    def fill(self, *, groups: int) -> None:
        """Set the number of groups where it was left to the network."""
        if self.groups == "stripes":
            self.groups = groups

    def forward(self, weight: Tensor) -> Tensor:
        if not isinstance(weight, Tensor) or weight.ndim != 2 or not weight.is_floating_point():
            found = f"shape {tuple(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise DataError(f"the weights have {found}; expected floating-point (out, in)")
        if self.groups == "stripes":
            raise ConfigError('groups is "stripes" and no trainer has filled it in; give their number')
        with torch.autocast(weight.device.type, enabled=False):
            weight = at_least_float32(weight)
            value = l21(weight) if self.norm == "l21" else l12(weight, groups=self.groups)
        if can_look_at_values(value) and not value.isfinite():
            raise DataError(
                "the weights hold NaN, infinity or values whose squares overflow; look for a learning rate "
                "too high"
            )
        return value

    def extra_repr(self) -> str:
        return f"norm={self.norm!r}, groups={self.groups!r}"


def share_of_small_groups(weight: Tensor, *, norm: Norm, groups: int = 4, below: float = 1e-3) -> float:
    """Share of groups whose root mean square weight is below ``below``: columns (l21) or stripes (l12)."""
    parts = weight.T if norm == "l21" else striped(weight, groups)
    return float((parts.detach().square().mean(dim=-1).sqrt() < below).float().mean())
