"""Centre loss: each image is drawn to a learned centre of its identity."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from reidkit.losses._classes import OfIdentities
from reidkit.ops import prepare_batch
from reidkit.registry import register


@register("loss", "center")
class CenterLoss(OfIdentities):
    """Squared distance of each image from a learned centre of its identity.

    Wen, Zhang, Li, Qiao 2016, "A Discriminative Feature Learning Approach for Deep Face Recognition"::

        L = mean over i of  1/2 || x(i) - c(y(i)) ||^2

    ``x`` is the embedding as it comes, not normalised. The centres learn by the optimiser's steps, where the
    paper moves them by half of their mean difference.

    Use with: :class:`IdentityLoss` and a metric loss, weight 0.0005, as in the strong baseline (Luo et al.
    2019), where the classifier alone leaves clusters long and thin.

    Pitfalls: alone it is 0 once all embeddings and centres are one point: it never pushes. It has parameters:
    give them to the optimiser. A centre learns only when its identity is in the batch, and small weights of
    the loss are small steps of the centres too (not so with Adam).

    See also: :class:`CentroidTripletLoss`, with the batch's own means and a push; :class:`IdentityLoss`.

    Args:
        num_identities: number of centres; None waits for :meth:`fill`.
        dim: width D of the embeddings; None waits for :meth:`fill`.

    Shapes: embeddings (N, dim), labels (N,) integers; returns a scalar, float32 or float64; 0 for N = 0.

    Raises:
        ConfigError: sizes that are no counts; no sizes yet at the first call.
        DataError: embeddings and labels that do not make a batch; a label outside 0..num_identities-1
            (looked for in eager mode on the CPU).

    >>> import torch
    >>> loss = CenterLoss(num_identities=2, dim=2)
    >>> loss.centers.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> loss(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([0, 1])).item()
    6.25
    """

    reads: ClassVar[str] = "metric"
    title: ClassVar[str] = "centre loss"
    part: ClassVar[str] = "table of centres"
    centers: nn.Parameter | None

    def __init__(self, num_identities: int | None = None, dim: int | None = None) -> None:
        super().__init__(num_identities, dim)
        self.centers = None
        self._build()

    def draw(self, num_identities: int, dim: int) -> None:
        self.centers = nn.Parameter(torch.empty(num_identities, dim))
        nn.init.normal_(self.centers)

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        assert self.centers is not None  # they are drawn with the sizes
        centers = self.centers.to(embeddings.dtype)[labels.long()]
        return (embeddings - centers).square().sum(dim=1).mean() / 2

    def extra_repr(self) -> str:
        return f"num_identities={self.num_identities}, dim={self.dim}"
