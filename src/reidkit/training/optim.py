"""Optimisers, and learning rates as a pure function of the step: nothing to save, nothing to drift."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from reidkit.config import OptimConfig, schedule_problems
from reidkit.errors import ConfigError


def described(config: OptimConfig) -> dict[str, Any]:
    """The table as plain values, to compare two runs by: without what runs of before could not choose."""
    values = dataclasses.asdict(config)
    if values["freeze_until"] is None:
        del values["freeze_until"]
    return values


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module]) -> torch.optim.Optimizer:
    """An optimiser over all parameters that learn.

    Weight decay is applied to matrices and convolutions only: shrinking a normalisation layer's scale or a
    bias does not simplify the function that is learned, nor does a transformer's class token or position
    embedding, which timm's networks name in ``no_weight_decay()``. Backbones learn the more slowly the
    nearer a layer is to the image, by ``layer_decay`` (:func:`layer_rates`).

    Raises:
        ConfigError: a layer decay for networks without a part named backbone.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    has_backbone = False
    for module in modules:
        rates, kept = layer_rates(module, config.layer_decay), _without_decay(module)
        has_backbone = has_backbone or bool(rates)
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad:
                continue
            rate, decayed = rates.get(name, 1.0), parameter.ndim > 1 and name not in kept
            weight_decay = config.weight_decay if decayed else 0.0
            group = {"params": [], "weight_decay": weight_decay, "rate": rate}
            groups.setdefault((rate, decayed), group)["params"].append(parameter)
    if config.layer_decay != 1 and not has_backbone:
        raise ConfigError(
            f"optim.layer_decay = {config.layer_decay:g} goes with networks of backbone and neck, and this "
            "one has no backbone; set it to 1"
        )
    # The order of groups is that of saved states: from the image up, matrices before the rest.
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key[0], not key[1]))]
    if config.name == "sgd":
        return _sgd(ordered, config)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(ordered, lr=config.lr, betas=(config.momentum, 0.999), fused=True)


def _sgd(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.SGD:
    """Fused SGD whose momentum is there, as zeros, from the start, which gives the same steps.

    Left to itself the fused kernel makes the buffers at the first step, for all parameters or none: it cannot
    take in one that begins to learn later (a frozen backbone, a late loss), and where a first step in float16
    overflows it goes on with uninitialised memory.
    """
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=True)
    if config.momentum:
        _fill_momentum(optimizer)
        optimizer.register_load_state_dict_post_hook(_fill_momentum)
    return optimizer


def _fill_momentum(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def layer_rates(module: nn.Module, decay: float) -> dict[str, float]:
    """By what the learning rate of each backbone parameter is multiplied: ``decay ** (layers above it)``.

    Layers are the blocks or stages that the backbone numbers ("layer1.0", "blocks.7"); what stands before
    the first of them is a layer, and what has no number belongs to the one before it (Bao et al. 2022,
    arXiv 2106.08254). What follows the backbone is one more layer, of rate 1, and not in the result.
    """
    layer_of: dict[str, int] = {}
    block, layer = "", 0
    for name, _ in module.named_parameters():
        inside = re.search(r"(?:^|\.)backbone\.(.*)", name)
        if not inside:
            continue
        numbered = re.match(r"(?:[^\d.][^.]*\.)*\d+(?=\.)", inside[1])
        if numbered and numbered[0] != block:
            block, layer = numbered[0], layer + 1
        layer_of[name] = layer
    return {name: decay ** (layer + 1 - number) for name, number in layer_of.items()}


def _without_decay(module: nn.Module) -> set[str]:
    """Names of parameters that a part of the module says are not to be decayed."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, part in module.named_modules()
        if callable(names := getattr(part, "no_weight_decay", None))
        for name in names()
    }


def learning_rate(config: OptimConfig, step: int, *, steps_per_epoch: int, num_epochs: int) -> float:
    """Learning rate of a step (from 0).

    Raises:
        ConfigError: the schedule does not go with the number of epochs.
    """
    if problems := schedule_problems(config, num_epochs):
        raise ConfigError(problems)
    num_steps = steps_per_epoch * num_epochs
    if config.schedule == "onecycle":
        return config.lr * _one_cycle(step / num_steps)
    num_warmup = round(config.warmup_epochs * steps_per_epoch)
    warmup = min(1.0, 0.1 + 0.9 * step / num_warmup) if num_warmup else 1.0
    return config.lr * warmup * _decay(config, step, steps_per_epoch, num_steps, num_warmup)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group's, by its share (see :func:`layer_rates`)."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def _one_cycle(progress: float, *, rise: float = 0.3, start: float = 1 / 25, end: float = 1e-5) -> float:
    """Smith & Topin 2017: cosine from ``start`` to 1 over the first part, then cosine down to ``end``."""
    if progress < rise:
        return _cosine(start, 1.0, progress / rise)
    return _cosine(1.0, end, (progress - rise) / (1 - rise))


def _decay(config: OptimConfig, step: int, steps_per_epoch: int, num_steps: int, num_warmup: int) -> float:
    if config.schedule == "multistep":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return config.gamma**passed
    if config.schedule == "exponential":  # Hermans et al. 2017, with gamma 0.001
        start = config.milestones[0] * steps_per_epoch
        return math.pow(config.gamma, max(0.0, (step - start) / (num_steps - start)))
    if config.schedule == "cosine":
        return _cosine(1.0, 0.0, max(0, step - num_warmup) / max(1, num_steps - num_warmup))
    return 1.0


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
