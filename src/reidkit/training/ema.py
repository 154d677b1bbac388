"""The exponential moving average of a network's weights over the steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """``average = d average + (1 - d) weights`` after each step, batch-norm statistics included.

    d is ``decay``, and less in the first steps (``(1 + step) / (10 + step)``), so that the weights that
    training began with are soon forgotten.

    Args:
        model: whose weights are averaged.
        decay: d; 0.999 looks back over about a thousand steps.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model, self.decay = model, decay
        self.average = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after that step (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = self.model.state_dict()
        learned = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[n] for n in learned], [state[n] for n in learned], 1 - decay)
        for name in state.keys() - set(learned):  # counters
            self.average[name].copy_(state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averages inside, and its own weights again afterwards."""
        own = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Tensor]:
        return self.average

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self.average.items():
            tensor.copy_(state[name])
