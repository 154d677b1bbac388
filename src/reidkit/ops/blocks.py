"""Rows of a batch taken some at a time, so that N x N numbers never stand in memory together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**17
"""Numbers in a block on a CPU: half a megabyte of float32, so that a few of them stay in its cache."""

BLOCK_ELSEWHERE = 2**24
"""On other devices, where a call costs more than memory."""


def row_blocks(num_rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of ``num_rows`` rows of ``width`` numbers each, about a block in size."""
    size = BLOCK if device.type == "cpu" else BLOCK_ELSEWHERE
    step = max(1, size // max(width, 1))
    return (slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step))


def nearness_blocks(embeddings: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows (b,) and, for each, how near all images are to it, (b, N): a number that falls with the distance.

    It is ``f_i . f_j - |f_j|^2 / 2``, which orders a row as distances do and takes one matrix product. An
    image's nearness to itself is minus infinity.
    """
    half_squares = embeddings.square().sum(dim=1) / 2
    for rows in row_blocks(len(embeddings), len(embeddings), embeddings.device):
        nearness = torch.addmm(half_squares, embeddings[rows], embeddings.T, beta=-1)
        nearness.diagonal(rows.start).fill_(-torch.inf)
        yield rows, nearness
