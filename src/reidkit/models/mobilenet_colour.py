"""MobileNetV2 and the colours of stripes, side by side: the network of the encoder ``reidkit-small``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.models._embedder import Embedder, LastMap, Normalisation
from reidkit.models._mobilenet_v2 import mobilenet_v2
from reidkit.models._options import MAX_DIM, check_whole
from reidkit.models.timm import timm_model
from reidkit.ops import at_least_float32
from reidkit.registry import register

MOST_COLOURS = 1024
MOST_STRIPES = 64


class ColoursByHeight(nn.Module):
    """How much of each of some colours there is in each horizontal stripe, in numbers free of the lighting.

    The image's brightness and contrast are made the same, and half of its cast is taken away. Each pixel is
    shared among the colours by a softmax, pixels at the sides count less, and of the shares the root is
    taken (Hellinger's distance). What is learned are the colours, as a 1 x 1 convolution: the logits of
    ``-|pixel - colour|^2 / temperature`` are linear in the pixel, but for a term that is the same for all.
    Histograms of stripes are the usual hand-made features of re-identification (Gray and Tao 2008).

    Args:
        colours, stripes: how many.
        normalisation: of the images that come in.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, colours: int, stripes: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.palette = nn.Conv2d(3, colours, 1)
        self.stripes = stripes
        for name, values in zip(("mean", "std"), normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> (B, colours * stripes)."""
        with torch.autocast(images.device.type, enabled=False):  # near colours differ in the fourth digit
            shares = self.palette(self.evened(images)).softmax(dim=1)  # (B, colours, h, w)
            width = shares.shape[3]
            sideways = torch.linspace(-1, 1, width, device=shares.device, dtype=shares.dtype)
            rows = (shares * torch.exp(-2 * sideways**2)).sum(dim=3)
            found = F.adaptive_avg_pool1d(rows, self.stripes)  # (B, colours, stripes)
            found = found / found.sum(dim=1, keepdim=True)
            return (found + 1e-6).sqrt().flatten(1)

    def evened(self, images: Tensor) -> Tensor:
        """The image at half its size, evened out: brightness, contrast and half of the cast. (B, 3, h, w)."""
        pixels = F.avg_pool2d(at_least_float32(images) * self.std + self.mean, 2)
        pixels = pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)
        pixels = pixels / (pixels.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 0.02)
        return pixels - 0.5 * pixels.mean(dim=(2, 3), keepdim=True)


class MobileNetColour(Embedder):
    """MobileNetV2 and colours by height; a projection of each, of unit length, is half of the embedding.

    Features: ``pooled`` and ``neck`` of MobileNetV2 with batch norm neck (1280 each), ``colour``
    (colours x stripes), their projections ``shape`` (of the neck) and ``hue`` (of the colours), and the
    embedding ``joined``. Losses read the first two, as of any backbone; palette and projections are fitted
    afterwards, to people that the backbone did not learn from.
    """

    def __init__(self, *, pretrained: bool | str, dim: int, colours: int, stripes: int) -> None:
        network = mobilenet_v2()
        if pretrained:
            network.load_state_dict(timm_model("mobilenetv2_100", pretrained=pretrained).state_dict())
        normalisation = Normalisation(network.mean, network.std)
        width = colours * stripes
        super().__init__(
            {**network.features, "colour": width, "shape": dim, "hue": dim, "joined": 2 * dim},
            metric_feature=network.metric_feature,
            classification_feature=network.classification_feature,
            embedding_feature="joined",
            smallest_side=network.smallest_side,
            normalisation=normalisation,
        )
        self.network = network
        self.colour = ColoursByHeight(colours, stripes, normalisation)
        self.to_shape = nn.Linear(network.embedding_dim, dim)
        self.to_hue = nn.Linear(width, dim)

    @property
    def last_maps(self) -> Sequence[LastMap]:
        return self.network.last_maps

    def embedding_parts(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        if self.embedding_feature != "joined":
            return super().embedding_parts(features)
        return [features["shape"], features["hue"]]

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        features = self.network.named_features(images)
        colour = self.colour(images)
        shape, hue = self.to_shape(_unit(features["neck"])), self.to_hue(_unit(colour))
        joined = torch.cat([_unit(shape), _unit(hue)], dim=1)
        return {**features, "colour": colour, "shape": shape, "hue": hue, "joined": joined}


def _unit(values: Tensor) -> Tensor:
    return F.normalize(at_least_float32(values), dim=1)


@register("model", "mobilenet_colour")
def mobilenet_colour(
    *, pretrained: bool | str = False, dim: int = 128, colours: int = 32, stripes: int = 8
) -> MobileNetColour:
    """MobileNetV2 and the colours of horizontal stripes, side by side; ``reidkit-small`` is one.

    Args:
        pretrained: ImageNet weights of MobileNetV2, as ``timm:mobilenetv2_100`` takes them:
            "package:mobilenetv2" without a hub.
        dim: width of each half of the embedding.
        colours, stripes: how many colours are told apart, in how many stripes.
    """
    check_whole("dim", dim, least=1, most=MAX_DIM, what="the width of half of the embedding")
    check_whole("colours", colours, least=2, most=MOST_COLOURS, what="how many colours are told apart")
    check_whole("stripes", stripes, least=1, most=MOST_STRIPES, what="how many horizontal stripes there are")
    return MobileNetColour(pretrained=pretrained, dim=dim, colours=colours, stripes=stripes)
