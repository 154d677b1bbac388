"""Embeddings of past batches, for losses that compare more pairs than a batch has."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchMemory(nn.Module):
    """The embeddings that a loss read last, beside those of the batch: cross-batch memory.

    Wang, Zhang, Huang, Scott, "Cross-Batch Memory for Embedding Learning", CVPR 2020 (arXiv 1912.06798):
    a network changes slowly enough for embeddings of some batches ago to be partners of today's. They carry
    no gradient. The paper compares the batch's images with remembered ones alone; here a loss of any kind
    sees the two together, so that a mean over anchors counts remembered ones too.

    It is kept in buffers, so that checkpoints hold it and a resumed run goes on as if it had not stopped.

    Args:
        size: how many embeddings are remembered; the oldest make room.
        dim: their width.
    """

    embeddings: Tensor
    labels: Tensor
    num_seen: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embeddings", torch.zeros(size, dim))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64))

    def beside(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The batch, (N, D) and (N,), with what is remembered after it."""
        count = min(int(self.num_seen), len(self.labels))
        # Copies: what a graph holds must not change when the batch is remembered.
        remembered = self.embeddings[:count].to(embeddings.dtype, copy=True)
        return torch.cat((embeddings, remembered)), torch.cat((labels, self.labels[:count]))

    def remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """Put a batch in place of what is oldest; of a batch that is larger than the memory, its end."""
        size, num_images = len(self.labels), len(labels)
        kept = min(size, num_images)
        first = int(self.num_seen) + num_images - kept
        places = torch.arange(first, first + kept, device=labels.device) % size
        self.embeddings[places] = embeddings[num_images - kept :].detach().to(self.embeddings.dtype)
        self.labels[places] = labels[num_images - kept :]
        self.num_seen += num_images
