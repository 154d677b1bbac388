"""Optimisers, and learning rates as a pure function of the step: nothing to save, nothing to drift."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from reidkit.config import OptimConfig


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """An optimiser over all parameters that learn.

    Weight decay is applied to matrices and convolutions only: shrinking a normalisation layer's scale or a
    bias does not simplify the function that is learned.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=(config.momentum, 0.999), fused=True)


def learning_rate(config: OptimConfig, step: int, *, steps_per_epoch: int, num_epochs: int) -> float:
    """Learning rate of a step (from 0)."""
    num_steps = steps_per_epoch * num_epochs
    if config.schedule == "onecycle":
        return config.lr * _one_cycle(step / num_steps)
    num_warmup = round(config.warmup_epochs * steps_per_epoch)
    warmup = min(1.0, 0.1 + 0.9 * step / num_warmup) if num_warmup else 1.0
    return config.lr * warmup * _decay(config, step, steps_per_epoch, num_steps, num_warmup)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _one_cycle(progress: float, *, rise: float = 0.3, start: float = 1 / 25, end: float = 1e-5) -> float:
    """Smith & Topin 2017: cosine from ``start`` to 1 over the first part, then cosine down to ``end``."""
    if progress < rise:
        return _cosine(start, 1.0, progress / rise)
    return _cosine(1.0, end, (progress - rise) / (1 - rise))


def _decay(config: OptimConfig, step: int, steps_per_epoch: int, num_steps: int, num_warmup: int) -> float:
    if config.schedule == "multistep":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return config.gamma**passed
    if config.schedule == "cosine":
        return _cosine(1.0, 0.0, max(0, step - num_warmup) / max(1, num_steps - num_warmup))
    return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
