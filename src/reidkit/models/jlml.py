"""JLML: a global and a local branch, each with its own identity loss, joined only for matching."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError
from reidkit.models._embedder import Embedder, LastMap, Penalty
from reidkit.models._options import check_choice, check_whole
from reidkit.models._stripes import cut_stripes
from reidkit.ops import l12, l21
from reidkit.registry import register

_BRANCHES = ("both", "global", "local")
_MAX_STRIPES = 64
_SHARED_WIDTH = 32
_GLOBAL_WIDTHS = (32, 64, 128, 256)  # inner widths of conv2_x to conv5_x; a block gives twice that
_LOCAL_WIDTHS = (16, 32, 64, 128)


class Variant(NamedTuple):
    """Features, which of them are embedded and classified, and what losses read in other variants only."""

    features: tuple[str, ...]
    embedding: str
    classified: str
    left_out: tuple[str, ...]


_VARIANTS = {  # by branches and uniloss
    ("both", False): Variant(("global", "local", "embedding"), "embedding", "embedding", ("joined",)),
    ("both", True): Variant(
        ("global", "local", "joined", "embedding"), "embedding", "joined", ("global", "local")
    ),
    ("global", False): Variant(("global",), "global", "global", ("local", "joined", "local_feature.weight")),
    ("local", False): Variant(("local",), "local", "local", ("global", "joined", "global_feature.weight")),
}
_WIDTHS = {"global": 512, "local": 512, "joined": 1024, "embedding": 1024}


@register("model", "jlml")
class JLML(Embedder):
    """JLML-ResNet39 (Li, Zhu, Gong 2017, arXiv 1705.04724, Table 1 and Figure 1).

    One convolution shared by a global branch, which sees the whole image, and a local branch of ``stripes``
    streams of equal shape with weights of their own, each of which sees one horizontal stripe. Each branch
    ends in a linear layer to 512 values without a non-linearity.

    Features: ``global`` (B, 512) and ``local`` (B, 512), and ``embedding`` (B, 1024), the two L2-normalised
    and joined. The paper's losses are an identity loss on ``global``, one on ``local``, and structured
    sparsity of ``global_feature.weight`` and ``local_feature.weight``. Its UniLoss is one identity loss on
    ``joined`` (B, 1024), the two as they are: with ``uniloss`` losses read it in place of both, which can
    still be measured. With one branch there is only that branch's feature. A recipe may name losses for all
    of these: those that the options leave nothing to read are left out.

    The paper leaves open, and chosen here: batch norm after each convolution, projection shortcuts where the
    shape changes, the stride on the first 3x3 convolution of a stage. ImageNet weights exist nowhere.

    Args:
        stripes: m, the number of local streams; stripe j is rows round(j h / m) to round((j + 1) h / m) of
            the first convolution's map.
        branches: "both", or "global" or "local" alone.
        shared: one first convolution for both branches; false gives each branch its own.
        uniloss: one feature, and so one classifier, for both branches.

    Raises:
        UnknownName: branches that do not exist.
        ConfigError: less than one stripe, or more than 64.
    """

    def __init__(
        self, *, stripes: int = 4, branches: str = "both", shared: bool = True, uniloss: bool = False
    ) -> None:
        check_choice("choice of branches", branches, _BRANCHES)
        check_whole("stripes", stripes, least=1, most=_MAX_STRIPES, what="parts that the image is cut into")
        if uniloss and branches != "both":
            raise ConfigError(f"uniloss joins two branches, but branches = {branches!r} leaves only one")
        variant = _VARIANTS[branches, uniloss]
        super().__init__(
            {name: _WIDTHS[name] for name in variant.features},
            metric_feature=variant.embedding,
            classification_feature=variant.classified,
            embedding_feature=variant.embedding,
            left_out=variant.left_out,
            # Five halvings, none of a single row or column; and a row of the first map for every stripe.
            smallest_side=17 if branches == "global" else max(17, 2 * stripes - 1),
        )
        self.branches, self.uniloss = ("global", "local") if branches == "both" else (branches,), uniloss
        self.beyond_weights = {}
        self.conv1 = _first_convolution()
        if branches == "both" and not shared:
            self.local_conv1 = _first_convolution()
        if branches != "local":
            self.global_branch = GlobalBranch()
            self.global_feature = FeatureLayer(GlobalBranch.width)
            self.penalties["sparsity_global"] = Penalty("global_feature.weight", l21)
        if branches != "global":
            self.local_branch = LocalBranch(stripes)
            self.local_feature = FeatureLayer(stripes * LocalBranch.stream_width, stripes=stripes)
            self.penalties["sparsity_local"] = Penalty("local_feature.weight", partial(l12, groups=stripes))
        _initialize_convolutions(self)

    @property
    def last_maps(self) -> list[LastMap]:
        maps = []
        if "global" in self.branches:
            maps.append(LastMap(self.global_branch.stages))
        if "local" in self.branches:
            streams = self.local_branch.streams
            maps += [
                LastMap(stream, j / len(streams), (j + 1) / len(streams)) for j, stream in enumerate(streams)
            ]
        return maps

    def embedding_parts(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        if self.embedding_feature != "embedding":
            return super().embedding_parts(features)
        return [features["global"], features["local"]]

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        features = {}
        low = self.conv1(images)  # (B, 32, H / 2, W / 2)
        if "global" in self.branches:
            features["global"] = self.global_feature(self.global_branch(low))
        if "local" in self.branches:
            local_low = self.local_conv1(images) if hasattr(self, "local_conv1") else low
            features["local"] = self.local_feature(self.local_branch(local_low))
        if len(self.branches) == 2:
            both = list(features.values())
            if self.uniloss:
                features["joined"] = torch.cat(both, dim=1)
            features["embedding"] = torch.cat([F.normalize(feature, dim=1) for feature in both], dim=1)
        return features


class GlobalBranch(nn.Module):
    """The shared map (B, 32, h, w) -> (B, 512), through conv2_x to conv5_x of the global column."""

    width = 2 * _GLOBAL_WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.stages = _stages(_GLOBAL_WIDTHS)

    def forward(self, low: Tensor) -> Tensor:
        feature_map: Tensor = self.stages(self.pool(low))  # (B, 512, h / 16, w / 16)
        return feature_map.mean(dim=(2, 3))


class LocalBranch(nn.Module):
    """The shared map (B, 32, h, w) -> (B, stripes * 256), one stream for each horizontal stripe."""

    stream_width = 2 * _LOCAL_WIDTHS[-1]

    def __init__(self, stripes: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, stride=(1, 2))
        self.streams = nn.ModuleList(_stages(_LOCAL_WIDTHS) for _ in range(stripes))

    def forward(self, low: Tensor) -> Tensor:
        stripes = cut_stripes(low, len(self.streams))
        pooled = []
        for stream, stripe in zip(self.streams, stripes, strict=True):
            # The padded row keeps the height; after a ReLU, zeros never are the maximum.
            feature_map = stream(self.pool(F.pad(stripe, (0, 0, 0, 1))))  # (B, 256, h / 8 m, w / 16)
            pooled.append(feature_map.mean(dim=(2, 3)))
        return torch.cat(pooled, dim=1)


class FeatureLayer(nn.Linear):
    """The linear layer of a branch (B, width) -> (B, 512); ``stripes`` are joined in its inputs, in order."""

    def __init__(self, width: int, *, stripes: int = 1) -> None:
        super().__init__(width, 512)
        self.stripes = stripes
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)


class Bottleneck(nn.Module):
    """[1x1, width][3x3, width][1x1, 2 width] beside a shortcut, projected where the shape changes."""

    def __init__(self, num_channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(num_channels, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride=stride),
            nn.ReLU(),
            *_convolution(width, 2 * width, 1),
        )
        same_shape = stride == 1 and num_channels == 2 * width
        self.shortcut = (
            nn.Identity()
            if same_shape
            else nn.Sequential(*_convolution(num_channels, 2 * width, 1, stride=stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.residual(x) + self.shortcut(x))


def _stages(widths: tuple[int, ...]) -> nn.Sequential:
    """conv2_x to conv5_x: three bottlenecks each; all but the first stage halve the map."""
    stages, num_channels = [], _SHARED_WIDTH
    for number, width in enumerate(widths):
        first = Bottleneck(num_channels, width, stride=1 if number == 0 else 2)
        num_channels = 2 * width
        stages.append(nn.Sequential(first, *(Bottleneck(num_channels, width, stride=1) for _ in range(2))))
    return nn.Sequential(*stages)


def _first_convolution() -> nn.Sequential:
    return nn.Sequential(*_convolution(3, _SHARED_WIDTH, 3, stride=2), nn.ReLU())


def _convolution(num_in: int, num_out: int, size: int, *, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Convolution and batch norm."""
    convolution = nn.Conv2d(num_in, num_out, size, stride=stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(num_out)


def _initialize_convolutions(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
