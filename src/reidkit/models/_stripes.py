"""Horizontal parts of a map."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor


def cut_stripes(feature_map: Tensor, num_stripes: int) -> list[Tensor]:
    """Rows round(j h / m) to round((j + 1) h / m) of (B, C, h, w), for each of m stripes."""
    height = feature_map.shape[2]
    edges = [round(j * height / num_stripes) for j in range(num_stripes + 1)]
    return [feature_map[:, :, top:bottom] for top, bottom in pairwise(edges)]
