"""Batches too large for memory: embedded in pieces, while the losses still see the whole batch.

A loss over pairs is not a sum over pieces of the batch, so it cannot be computed piece by piece. Instead,
each piece is embedded without a graph, the losses are computed over all embeddings, and the backward pass
embeds the pieces again with a graph, one at a time (the gradient cache of Gao et al. 2021, arXiv
2101.06983). A step costs one more forward pass.

Dropout draws the same numbers in both passes. A batch norm normalises each piece by the piece's own
statistics, so the step equals that of the whole batch only where its statistics are frozen or there is none;
its running statistics are updated once per piece, in the first pass only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from reidkit.encoders.autocast import some_in_float32
from reidkit.errors import ConfigError


def check_pieces(num_pieces: int, num_images: int, *, smallest: int = 2) -> None:
    """Raise :class:`ConfigError` where pieces would have less images than ``smallest``.

    Batch norms that learn need 2, frozen ones 1. Without accumulation the batch of a process is the piece.
    """
    if num_images < smallest:
        raise ConfigError(
            f"a process has {num_images} image of each batch, and batch norm needs {smallest}; choose a "
            "larger sampler.identities_per_batch or images_per_identity, or fewer processes"
        )
    if num_images < smallest * num_pieces:
        raise ConfigError(
            f"accumulate = {num_pieces} leaves pieces of less than {smallest} of the {num_images} images "
            f"that a process has of a batch; choose {num_images // smallest} or less"
        )


def embed_in_pieces(model: nn.Module, images: Tensor, num_pieces: int) -> dict[str, Tensor]:
    """Named features (B, ...) of images (B, ...), as ``model(images)`` gives them, at a piece's memory."""

    def passes() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _Again(model, some_in_float32())

    pieces = [
        checkpoint(model, piece, use_reentrant=False, context_fn=passes)
        for piece in images.tensor_split(num_pieces)  # chunk() may leave a last piece of one image
    ]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}


class _Again(AbstractContextManager[None]):
    """Later passes compute as the first did; autocast itself is seen to. Each backward pass enters it."""

    def __init__(self, model: nn.Module, computing: AbstractContextManager[Any]) -> None:
        self.model, self.computing = model, computing

    def __enter__(self) -> None:
        self._inside = ExitStack()
        self._inside.enter_context(_running_statistics_kept(self.model))
        self._inside.enter_context(self.computing)

    def __exit__(self, *error: Any) -> None:
        self._inside.close()


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, but learn nothing from what they see."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, _, num_batches in before:
        norm.momentum = 0.0
        if num_batches is not None:  # counted in vain, as synchronised batch norms insist on counting
            norm.num_batches_tracked = torch.zeros_like(num_batches)
    try:
        yield
    finally:
        for norm, momentum, num_batches in before:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches
