"""What a network costs: its parameters, and the multiply-adds of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reidkit.models import Embedder, build_model


@dataclass(frozen=True)
class Complexity:
    """Cost of a network at one image size.

    Attributes:
        num_parameters: of everything that embeds; identity classifiers belong to the losses.
        num_multiply_adds: of one image, in convolutions and matrix products; what is counted elsewhere as
            operations (FLOPs) is twice that. Normalisation, activations and pooling are left out.
    """

    num_parameters: int
    num_multiply_adds: int


def complexity(model: Embedder, *, height: int, width: int) -> Complexity:
    """Count the parameters, and the multiply-adds of embedding one image of that size (pixels).

    Raises:
        ConfigError: a size that the model cannot take.
    """
    images = next(model.parameters()).new_zeros(1, 3, height, width)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.embed(images)
    finally:
        model.train(training)
    return Complexity(num_parameters(model), counter.get_total_flops() // 2)


def cost_of(name: str, *, height: int, width: int) -> dict[str, int]:
    """What a network with its default options costs, as plain values for a table.

    Raises as :func:`complexity` does.
    """
    model = build_model(name)
    cost = complexity(model, height=height, width=width)
    return {
        "parameters": cost.num_parameters,
        "multiply_adds": cost.num_multiply_adds,
        "embedding": model.embedding_dim,
        "height": height,
        "width": width,
    }


def num_parameters(model: nn.Module) -> int:
    """Numbers that a network learns."""
    return sum(parameter.numel() for parameter in model.parameters())
