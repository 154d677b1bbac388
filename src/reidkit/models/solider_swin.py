"""SOLIDER's Swin transformers, whose stages are told how much semantics to look at."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reidkit.errors import ConfigError, shown
from reidkit.models._embedder import Normalisation, SingleBranch, beyond_weights
from reidkit.registry import register

_WINDOW, _SHIFT = 7, 3  # patches; every other block shifts its windows
_PATCH = 4  # pixels
_USUAL_WEIGHT = 0.2  # of the authors' re-identification
_HALVES = (0.5, 0.5, 0.5)
_WIDTH, _HEADS = 96, (3, 6, 12, 24)
_DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2)}


class WindowAttention(nn.Module):
    """Attention among the patches of a window, with a bias by their offset. (windows, 49, C), same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * _WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows: Tensor, apart: Tensor | None) -> Tensor:
        """``apart`` (windows of an image, 49, 49): true where two patches may not look at each other."""
        count, places, width = windows.shape
        q, k, v = self.qkv(windows).view(count, places, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1) + self._bias(windows.device)
        if apart is not None:
            penalty = -100.0 * apart.to(scores.dtype)[:, None]
            scores = scores.view(-1, len(apart), self.heads, places, places) + penalty
            scores = scores.view(count, self.heads, places, places)
        out: Tensor = self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(count, places, width))
        return out

    def _bias(self, device: torch.device) -> Tensor:
        """(heads, 49, 49), by the rows and columns from one patch to the other."""
        place = torch.arange(_WINDOW, device=device)
        away = place[:, None] - place + _WINDOW - 1  # (7, 7), of rows as of columns
        offset = (2 * _WINDOW - 1) * away[:, None, :, None] + away[None, :, None, :]
        size = _WINDOW * _WINDOW
        return self.relative_position_bias_table[offset.reshape(-1)].view(size, size, -1).permute(2, 0, 1)


class ShiftedWindows(nn.Module):
    """Cuts a map (B, h, w, C) into windows and back. It is filled up with zeros first and shifted then.

    timm's Swin shifts first: of maps that do not divide into windows, as all of a person's crop, it computes
    something else.
    """

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.shift = shift
        self.w_msa = WindowAttention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        x = F.pad(x, (0, 0, 0, -width % _WINDOW, 0, -height % _WINDOW))
        rows, columns = x.shape[1], x.shape[2]
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = x.view(batch, rows // _WINDOW, _WINDOW, columns // _WINDOW, _WINDOW, channels)
        windows = x.transpose(2, 3).reshape(-1, _WINDOW * _WINDOW, channels)
        windows = self.w_msa(windows, _apart(rows, columns, self.shift, x.device) if self.shift else None)
        x = windows.view(batch, rows // _WINDOW, columns // _WINDOW, _WINDOW, _WINDOW, channels)
        x = x.transpose(2, 3).reshape(batch, rows, columns, channels)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :height, :width]


def _apart(rows: int, columns: int, shift: int, device: torch.device) -> Tensor:
    """(windows, 49, 49): which patches of a window the shift has brought together from two ends of a map."""
    parts = []
    for size in (rows, columns):
        place = torch.arange(size, device=device)
        parts.append((place >= size - _WINDOW).long() + (place >= size - shift).long())
    part = 3 * parts[0][:, None] + parts[1]
    part = part.view(rows // _WINDOW, _WINDOW, columns // _WINDOW, _WINDOW).transpose(1, 2)
    part = part.reshape(-1, _WINDOW * _WINDOW)
    return part[:, None] != part[:, :, None]


class Block(nn.Module):
    """Attention in windows, then two linear layers, each around itself. (B, h, w, C), same."""

    def __init__(self, width: int, heads: int, shift: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = ShiftedWindows(width, heads, shift)
        self.ffn = nn.Module()
        inner = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU())
        self.ffn.layers = nn.Sequential(inner, nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn.layers(self.norm2(x))  # type: ignore[operator]
        return out


class Merging(nn.Module):
    """Four neighbouring patches become one of twice the width. (B, h, w, C) -> (B, h / 2, w / 2, 2 C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 5, 2, 4)
        out: Tensor = self.reduction(self.norm(x.flatten(3)))
        return out


class Stage(nn.Module):
    """Blocks, and the merging that follows all but the last stage's."""

    def __init__(self, width: int, heads: int, depth: int, *, merges: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(width, heads, _SHIFT * (i % 2)) for i in range(depth)))
        self.downsample = Merging(width) if merges else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(self.blocks(x))
        return out


class SoliderSwin(nn.Module):
    """Swin (Liu et al. 2021) with a semantic controller behind each merging. (B, 3, H, W) -> (B, C, h, w).

    Names of weights are the authors'. What of theirs no output depends on is left out: norms of the maps of
    inner stages, and the controller behind the last stage.

    Args:
        size: "tiny" or "small".
        semantic_weight: from 0 to 1.
    """

    def __init__(self, size: str, semantic_weight: float) -> None:
        super().__init__()
        self.semantic_weight = semantic_weight
        widths = [_WIDTH * 2**stage for stage in range(4)]
        self.num_features = widths[-1]
        self.patch_embed = nn.Module()
        self.patch_embed.projection = nn.Conv2d(3, _WIDTH, _PATCH, stride=_PATCH)
        self.patch_embed.norm = nn.LayerNorm(_WIDTH)
        self.stages = nn.ModuleList(
            Stage(width, heads, depth, merges=width != widths[-1])
            for width, heads, depth in zip(widths, _HEADS, _DEPTHS[size], strict=True)
        )
        self.norm3 = nn.LayerNorm(widths[-1])
        self.semantic_embed_w = nn.ModuleList(nn.Linear(2, width) for width in widths[1:])
        self.semantic_embed_b = nn.ModuleList(nn.Linear(2, width) for width in widths[1:])
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # As in the authors' training on people: the controller stays as it was pre-trained.
        self.semantic_embed_w.requires_grad_(False)
        self.semantic_embed_b.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        images = F.pad(images, (0, -images.shape[3] % _PATCH, 0, -images.shape[2] % _PATCH))
        patches = self.patch_embed.projection(images)  # type: ignore[operator]
        x: Tensor = self.patch_embed.norm(patches.permute(0, 2, 3, 1))  # type: ignore[operator]
        shares = torch.tensor([self.semantic_weight, 1 - self.semantic_weight], device=x.device)
        for stage, scale, shift in zip(
            self.stages, self.semantic_embed_w, self.semantic_embed_b, strict=False
        ):
            x = stage(x) * F.softplus(scale(shares)) + shift(shares)
        out: Tensor = self.norm3(self.stages[-1](x))
        return out.permute(0, 3, 1, 2)


def solider_swin(
    size: str,
    *,
    semantic_weight: float = _USUAL_WEIGHT,
    pooling: str = "average",
    neck: str = "bnneck",
    dim: int | None = None,
) -> SingleBranch:
    """Swin transformer of SOLIDER (Chen et al. 2023), for its weights, learned from people without labels.

    arXiv 2303.17602. Images of any size; the authors' are 384 x 128.

    Args:
        size: "tiny" or "small".
        semantic_weight: from 0, all appearance, to 1, all semantics; the authors take 0.2 to tell people
            apart.
        pooling, neck, dim: see :class:`reidkit.models.SingleBranch`; the authors' scores are of "plain".
    """
    if not 0 <= semantic_weight <= 1:
        raise ConfigError(f"semantic_weight = {shown(semantic_weight, 40)} is not possible; give 0 to 1")
    backbone = SoliderSwin(size, semantic_weight)
    model = SingleBranch(
        backbone,
        backbone.num_features,
        smallest_side=_PATCH,
        pooling=pooling,
        neck=neck,
        dim=dim,
        normalisation=Normalisation(mean=_HALVES, std=_HALVES),
    )
    usual = semantic_weight == _USUAL_WEIGHT
    model.beyond_weights = beyond_weights(pooling, semantic_weight=None if usual else str(semantic_weight))
    return model


for _size in _DEPTHS:
    register("model", f"solider_swin_{_size}")(functools.partial(solider_swin, _size))
