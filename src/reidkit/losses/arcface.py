"""ArcFace and CosFace: softmax over angles to class directions, with a margin."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import UnknownName
from reidkit.losses._classes import OfIdentities
from reidkit.ops import check_count, check_number, check_positive, normalized, prepare_batch
from reidkit.registry import register

MarginOn = Literal["angle", "cosine"]
MARGINS_ON = ("angle", "cosine")
SQUARED_SINE_FLOOR = 1e-12  # under the root, so that the gradient at a class's own direction is finite


@register("loss", "arcface")
class ArcFaceLoss(OfIdentities):
    """Softmax over the angles to class directions, with a margin for the own class: ArcFace, CosFace.

    Deng, Guo, Xue, Zafeiriou 2019, ArcFace (arXiv 1801.07698); Wang et al. 2018, CosFace (arXiv 1801.09414);
    sub-centres from Deng, Guo, Liu, Gong, Zafeiriou 2020. With c(i, k) the cosine between the embedding x(i)
    and the direction of class k, of its nearest direction where it has several, and t the angle of c(i, y)::

        ArcFace  z(i) = cos(t + margin)          CosFace  z(i) = cos(t) - margin

        Z(i) = exp(scale z(i))  +  sum over k other than y of exp(scale c(i, k))

        L = mean over i of  -log( exp(scale z(i)) / Z(i) )

    Beyond the angle pi - margin, where cos(t + margin) would rise again, it is cos(t) - margin sin(margin).

    Use with: many identities; embeddings that are compared by angle, as galleries do, with a tighter cluster
    than :class:`IdentityLoss` asks for. ``model.neck=plain``, ``fc`` or ``bnneck``. ``margin_on="cosine",
    margin=0.35`` is CosFace. ``sub_centers=3`` where labels are wrong or people change clothes.

    Pitfalls: from scratch the margin may be too much at first: begin with :class:`IdentityLoss`, or a margin
    of 0.2. ``scale`` must grow with the number of identities (30 for hundreds, 64 for tens of thousands): too
    low, the loss cannot become small. It has parameters: give them to the optimiser.

    See also: :class:`IdentityLoss`, without a margin and with lengths; :class:`CircleLoss`, without classes.

    Args:
        num_identities: number of classes; None waits for :meth:`fill`.
        dim: width D of the embeddings; None waits for :meth:`fill`.
        margin: in radians, or in cosine, by ``margin_on``.
        scale: of the cosines in the exponent.
        margin_on: "angle", ArcFace; "cosine", CosFace.
        sub_centers: directions of each class, of which the nearest counts.

    Shapes: embeddings (N, dim), labels (N,) integers; returns a scalar, float32 or float64; 0 for N = 0.

    Raises:
        UnknownName: another ``margin_on``.
        ConfigError: an option out of its range; no sizes yet at the first call.
        DataError: embeddings and labels that do not make a batch; a label outside 0..num_identities-1
            (looked for in eager mode on the CPU).

    >>> import torch
    >>> loss = ArcFaceLoss(num_identities=2, dim=2, margin=0.5, scale=1.0)
    >>> loss.directions.data = torch.eye(2)
    >>> loss(torch.tensor([[3.0, 0.0]]), torch.tensor([0])).item()  # log(1 + exp(0 - cos 0.5))
    0.3476855456829071
    """

    reads: ClassVar[str] = "classification"
    title: ClassVar[str] = "ArcFace loss"
    part: ClassVar[str] = "classifier"
    normalize: ClassVar[bool] = True  # always: it compares angles
    directions: nn.Parameter | None

    def __init__(
        self,
        num_identities: int | None = None,
        dim: int | None = None,
        *,
        margin: float = 0.5,
        scale: float = 30.0,
        margin_on: MarginOn = "angle",
        sub_centers: int = 1,
    ) -> None:
        super().__init__(num_identities, dim)
        if margin_on not in MARGINS_ON:
            raise UnknownName("margin_on", margin_on, MARGINS_ON)
        check_number("margin", margin, high=math.pi if margin_on == "angle" else math.inf)
        check_positive("scale", scale)
        check_count("sub_centers", sub_centers)
        self.margin = margin
        self.scale = scale
        self.margin_on = margin_on
        self.sub_centers = sub_centers
        self.directions = None
        self._build()

    def draw(self, num_identities: int, dim: int) -> None:
        self.directions = nn.Parameter(torch.empty(num_identities * self.sub_centers, dim))
        nn.init.normal_(self.directions)

    @prepare_batch
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        self.check(embeddings, labels)
        assert self.directions is not None  # they are drawn with the sizes
        directions = normalized(self.directions.to(embeddings.dtype))
        cosines = F.linear(embeddings, directions)
        nearest = cosines.view(len(cosines), -1, self.sub_centers).amax(dim=2)  # (N, num_identities)
        return margin_softmax(
            nearest, labels, margin=self.margin, scale=self.scale, on_angle=self.margin_on == "angle"
        )

    def extra_repr(self) -> str:
        return (
            f"num_identities={self.num_identities}, dim={self.dim}, margin={self.margin}, "
            f"scale={self.scale}, margin_on={self.margin_on!r}, sub_centers={self.sub_centers}"
        )


def margin_softmax(cosines: Tensor, labels: Tensor, *, margin: float, scale: float, on_angle: bool) -> Tensor:
    """The loss from the cosines to all classes, (N, num_identities) and (N,)."""
    own = F.one_hot(labels.long(), cosines.shape[1]).bool()
    with_margin = _angle_wider_by(cosines, margin) if on_angle else cosines - margin
    return F.cross_entropy(scale * torch.where(own, with_margin, cosines), labels.long())


def _angle_wider_by(cosines: Tensor, margin: float) -> Tensor:
    """cos(t + margin) from cos(t); past its lowest point a straight line that goes on falling."""
    sines = (1 - cosines.square()).clamp_min(SQUARED_SINE_FLOOR).sqrt()
    wider = cosines * math.cos(margin) - sines * math.sin(margin)
    return torch.where(cosines >= -math.cos(margin), wider, cosines - margin * math.sin(margin))
