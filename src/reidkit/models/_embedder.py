"""An embedder turns images into named features; most are a backbone, a pooling and a neck.

Classifiers are not part of it: they live in the identity loss, so that a saved encoder knows no identities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models._options import MAX_DIM, check_choice, check_whole
from reidkit.ops import at_least_float32


class Normalisation(NamedTuple):
    """Mean and standard deviation of each channel, subtracted and divided by, in units of 0..1."""

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


IMAGENET = Normalisation()


class GeneralizedMeanPooling(nn.Module):
    """``(mean of x^p)^(1/p)`` over the map; p = 1 is the average, p to infinity the maximum.

    Radenovic, Tolias, Chum 2018. ``p`` is learned, starting at 3. (B, C, h, w) -> (B, C).
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, feature_map: Tensor) -> Tensor:
        # Powers of bfloat16 lose most of their digits.
        with torch.autocast(feature_map.device.type, enabled=False):
            values = feature_map.float().clamp(min=self.eps)
            return values.pow(self.p).mean(dim=(2, 3)).pow(1.0 / self.p)


class AveragePooling(nn.Module):
    """(B, C, h, w) -> (B, C), mean over the map."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map.mean(dim=(2, 3))


class MaxPooling(nn.Module):
    """(B, C, h, w) -> (B, C), maximum over the map."""

    def forward(self, feature_map: Tensor) -> Tensor:
        return feature_map.amax(dim=(2, 3))


_POOLINGS: dict[str, type[nn.Module]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "gem": GeneralizedMeanPooling,
}
_NECKS = ("plain", "bnneck", "fc", "osnet", "trinet")
_DIMS = {"fc": 1024, "osnet": 512, "trinet": 128}  # of the necks whose width can be chosen


class LastMap(NamedTuple):
    """A module whose map (B, C, h, w) features are pooled from.

    It shows the image from ``top`` to ``bottom``, in shares of its height.
    """

    module: nn.Module
    top: float = 0.0
    bottom: float = 1.0


class Penalty(NamedTuple):
    """A regulariser of one layer: ``function`` of the weights called ``weight``, (out, in) -> scalar."""

    weight: str
    function: Callable[[Tensor], Tensor]


class Embedder(nn.Module):
    """What a network offers to losses, trainer and encoder: named features, one of them the embedding.

    Args:
        features: name to width of every feature that the network gives.
        metric_feature, classification_feature: which of them a loss of that kind reads by default.
        embedding_feature: the one that, L2-normalised, is the embedding.
        smallest_side: pixels; images less high or wide are refused.
        image_size: (height, width) of the only images that it takes, or None.
        left_out: features, and weights by their names, that losses read with other options of this network
            and not with these: a loss that names one is left out, so that an ablation is one change.
        normalisation: of the images that the network expects.

    Attributes:
        description: name and options that :func:`reidkit.models.build_model` built it from.
        penalties: by name, what :meth:`regularizers` computes: those of the network's paper, until a trainer
            puts those that its losses name in their place.
        usual_feature: the embedding feature that it was built with.
        beyond_weights: the options that change what it computes and show neither in names nor in shapes of
            its weights, left out where they are as usual. None where a network does not say: then all its
            options count when encoders are told apart.
    """

    description: Mapping[str, Any]
    beyond_weights: Mapping[str, Any] | None

    def __init__(
        self,
        features: Mapping[str, int],
        *,
        metric_feature: str,
        classification_feature: str,
        embedding_feature: str,
        smallest_side: int = 1,
        image_size: tuple[int, int] | None = None,
        left_out: Iterable[str] = (),
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        super().__init__()
        self.features = dict(features)
        self.metric_feature = metric_feature
        self.classification_feature = classification_feature
        self.embedding_feature = self.usual_feature = embedding_feature
        self.smallest_side, self.image_size = smallest_side, image_size
        self.left_out = frozenset(left_out)
        self.mean, self.std = normalisation
        self.description, self.beyond_weights = {}, None
        self.penalties: dict[str, Penalty] = {}

    @property
    def last_maps(self) -> Sequence[LastMap]:
        """Where activation maps are taken from; a network that gives none has no such maps."""
        return []

    def embedding_parts(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """The features (B, D_p) that, each of unit length and joined, are the embedding."""
        return [features[self.embedding_feature]]

    @property
    def embedding_dim(self) -> int:
        """Width of what :meth:`embed` returns."""
        return self.features[self.embedding_feature]

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W), of a size that fits, -> named features. A network defines this."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Normalised images (B, 3, H, W) -> named features, the same names in training and evaluation.

        Raises:
            ConfigError: images of a size that the network cannot take.
        """
        self.check_image_size(*images.shape[2:])
        return self.named_features(images)

    def regularizers(self) -> dict[str, Tensor]:
        """Penalties of its weights by name, scalars with a graph, to be weighted and added to the losses."""
        return {
            name: penalty.function(at_least_float32(self.get_parameter(penalty.weight)))
            for name, penalty in self.penalties.items()
        }

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> unit embeddings (B, D), float32."""
        return F.normalize(self(images)[self.embedding_feature].float(), dim=1)

    def check_image_size(self, height: int, width: int) -> None:
        """Raise :class:`ConfigError` where the network cannot take images of this size (pixels)."""
        name = self.description.get("name", type(self).__name__)
        if self.image_size is not None and (height, width) != self.image_size:
            raise ConfigError(
                f"images are {height} x {width} (height x width), but model {name!r} was built for "
                f"{self.image_size[0]} x {self.image_size[1]} only; give it image_size = "
                f"[{height}, {width}], or resize images with transform.height and transform.width"
            )
        if min(height, width) < self.smallest_side:
            raise ConfigError(
                f"images are {height} x {width} (height x width), too small for model {name!r}: neither side "
                f"may be under {self.smallest_side} pixels; raise transform.height or transform.width"
            )


class SingleBranch(Embedder):
    """Backbone, pooling and neck.

    Features: ``pooled`` (B, width) and ``neck`` (B, dim). The embedding is the L2-normalised ``neck``. With
    ``bnneck`` metric losses read ``pooled`` by default; otherwise every loss reads ``neck``.

    ======= =============================================================== ===== ===================
    neck    what                                                            dim   source
    ======= =============================================================== ===== ===================
    plain   nothing                                                         width
    bnneck  batch norm, its bias fixed at 0                                 width Luo et al. 2019
    fc      linear                                                          1024  MSML, section 4.2
    osnet   linear, batch norm, ReLU                                        512   Zhou et al. 2019
    trinet  linear to 1024, batch norm, ReLU, linear (orthogonal at start)  128   Hermans et al. 2017
    ======= =============================================================== ===== ===================

    Args:
        backbone: (B, 3, H, W) -> (B, width, h, w). Where what it gives is no map of the image but one token
            (B, width, 1, 1), it says so by an attribute ``gives_map = False``.
        width: channels of the backbone's map.
        smallest_side, image_size: see :class:`Embedder`.
        pooling: "average", "max" or "gem".
        neck: one of the table's.
        dim: width of the neck's feature where it can be chosen ("fc", "osnet", "trinet").
        normalisation: see :class:`Embedder`.

    Raises:
        UnknownName: pooling or neck that does not exist.
        ConfigError: ``dim`` with a neck that has no such choice, or not from 1 to 65,536.
    """

    def __init__(
        self,
        backbone: nn.Module,
        width: int,
        *,
        smallest_side: int,
        image_size: tuple[int, int] | None = None,
        pooling: str = "average",
        neck: str = "bnneck",
        dim: int | None = None,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        check_choice("pooling", pooling, _POOLINGS)
        dim = _neck_dim(neck, width, dim)
        super().__init__(
            {"pooled": width, "neck": dim},
            metric_feature="pooled" if neck == "bnneck" else "neck",
            classification_feature="neck",
            embedding_feature="neck",
            smallest_side=smallest_side,
            image_size=image_size,
            normalisation=normalisation,
        )
        self.backbone = backbone
        self.pooling = _POOLINGS[pooling]()
        self.neck = _build_neck(neck, width, dim)

    @property
    def last_maps(self) -> Sequence[LastMap]:
        return [LastMap(self.backbone)] if getattr(self.backbone, "gives_map", True) else []

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        pooled = self.pooling(self.backbone(images))  # (B, width)
        return {"pooled": pooled, "neck": self.neck(pooled)}


def beyond_weights(pooling: str, **unusual: Any) -> dict[str, Any]:
    """:attr:`Embedder.beyond_weights` of a network of this package: what is None or False is as usual."""
    # A generalised mean shows by the weight that is its power.
    options = {"pooling": pooling if pooling in ("max", "token") else None, **unusual}
    return {name: value for name, value in options.items() if value not in (None, False)}


def _neck_dim(neck: str, width: int, dim: int | None) -> int:
    check_choice("neck", neck, _NECKS)
    if dim is None:
        return _DIMS.get(neck, width)
    if neck not in _DIMS:
        raise ConfigError(
            f"dim = {dim} goes with neck = 'fc', 'osnet' or 'trinet'; neck {neck!r} keeps the backbone's "
            f"width {width}"
        )
    check_whole("dim", dim, least=1, most=MAX_DIM, what="the width of the embedding")
    return dim


def _build_neck(neck: str, width: int, dim: int) -> nn.Module:
    if neck == "plain":
        return nn.Identity()
    if neck == "fc":
        return nn.Linear(width, dim)
    if neck == "osnet":
        return nn.Sequential(nn.Linear(width, dim), nn.BatchNorm1d(dim), nn.ReLU())
    if neck == "trinet":
        last = nn.Linear(1024, dim)
        nn.init.orthogonal_(last.weight)
        return nn.Sequential(nn.Linear(width, 1024), nn.BatchNorm1d(1024), nn.ReLU(), last)
    batch_norm = nn.BatchNorm1d(width)
    batch_norm.bias.requires_grad_(False)  # Luo et al. 2019: the classifier's planes pass through the origin
    return batch_norm
