"""Mixed precision: the type of matrix products, and scaling against vanishing gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from reidkit.encoders.autocast import autocast
from reidkit.encoders.devices import has_native_bfloat16
from reidkit.errors import ConfigError

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Precision:
    """The type that autocast multiplies in, and for float16 a scaler of gradients.

    Weights, losses and optimiser stay float32. Gradients below 6e-8 vanish in float16, so the loss is scaled
    up and the gradients down again; a step whose gradients overflow is left out and the scale halved.

    Args:
        name: "float32", "bfloat16", "float16", or "auto": bfloat16 where the hardware supports it natively.
        device: the device that training runs on.

    Raises:
        ConfigError: another name.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "auto":
            name = "bfloat16" if has_native_bfloat16(device) else "float32"
        if name not in _TYPES:
            raise ConfigError(f"precision = {name!r} is not known; it is auto, float32, bfloat16 or float16")
        self.name, self.device = name, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Inside it, networks multiply in that type."""
        with autocast(self.device, _TYPES[self.name]):
            yield

    def backward(self, total: Tensor) -> None:
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]

    def gradients(self, term: Tensor, parameters: list[torch.nn.Parameter]) -> list[Tensor | None]:
        """Gradients of one term, which leave its graph as it is; None where it does not reach."""
        found = torch.autograd.grad(self.scaler.scale(term), parameters, retain_graph=True, allow_unused=True)
        scale = self.scaler.get_scale()
        return [None if gradient is None else gradient / scale for gradient in found]

    def step(self, optimizer: torch.optim.Optimizer, *, clip_norm: float | None) -> None:
        """One step of the optimiser, gradients clipped to ``clip_norm`` first if given."""
        if clip_norm is not None:
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
