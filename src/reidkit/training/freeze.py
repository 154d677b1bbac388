"""Parts of a network that stay as they are while the rest learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidkit.errors import ConfigError, did_you_mean
from reidkit.models import Embedder
from reidkit.training.objective import Objective, feature_of, is_penalty, name_of


class TrainingMode:
    """Sets a network's modules for training: what learns in an epoch, and what stays as it is.

    Args:
        model: the network.
        freeze_statistics: batch norms normalise by the running statistics that they have at the start.
        freeze_epochs: first epochs in which the backbone stays as it is, batch norm's statistics included,
            while neck and losses learn.
        freeze_until: by the name of a part of the network, of its backbone or of the whole, the first epoch
            in which it learns.

    Raises:
        ConfigError: freeze_epochs with a network that has no part named backbone; a part that there is not.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        freeze_statistics: bool,
        freeze_epochs: int,
        freeze_until: Mapping[str, int] | None = None,
    ) -> None:
        self.model, self.freeze_statistics = model, freeze_statistics
        self.frozen_until = [(_part(model, name), epoch) for name, epoch in (freeze_until or {}).items()]
        if freeze_epochs:
            backbone = getattr(model, "backbone", None)
            if backbone is None:
                raise ConfigError(
                    "optim.freeze_epochs goes with networks of backbone and neck, and "
                    f"{type(model).__name__} has no backbone; set it to 0"
                )
            self.frozen_until.append((backbone, freeze_epochs))
        self.learned = {
            p for part, _ in self.frozen_until for p in part.parameters() if p.requires_grad
        }  # what never learns stays so

    def start(self, epoch: int) -> None:
        """To be called before an epoch's first step."""
        self.model.train()
        for parameter in self.learned:
            parameter.requires_grad_(True)
        for part, until in self.frozen_until:
            if epoch < until:
                part.eval()
                for parameter in part.parameters():
                    parameter.requires_grad_(False)
        for module in self.model.modules():
            if self.freeze_statistics and isinstance(module, _BatchNorm):
                module.eval()


def check_something_learns(
    mode: TrainingMode,
    model: Embedder,
    objectives: Sequence[Objective],
    *,
    num_epochs: int,
    image_size: tuple[int, int],
) -> None:
    """Raise :class:`ConfigError` where all that the losses of an epoch read is frozen in it.

    Triplets of the backbone's own feature teach nothing while the backbone is frozen. What a feature depends
    on only the network knows: two black images, (height, width), are embedded for it.
    """
    if not mode.frozen_until:
        return
    frozen_before = max(until for _, until in mode.frozen_until)
    learning: dict[tuple[bool, ...], set[str]] = {}
    for epoch in range(min(frozen_before, num_epochs)):
        frozen = tuple(epoch < until for _, until in mode.frozen_until)
        if frozen not in learning:
            mode.start(epoch)
            learning[frozen] = _learning_features(model, image_size)
        counting = [o for o in objectives if o.counts_in(epoch)]
        if counting and not any(_teaches(o, model, learning[frozen]) for o in counting):
            raise ConfigError(
                f"nothing would learn in epoch {epoch}: what its losses read "
                f"({', '.join(name_of(o) for o in counting)}) is frozen by optim.freeze_epochs or "
                "optim.freeze_until; lower these, or add a loss with weights of its own, as IdentityLoss"
            )
    mode.start(frozen_before)


def _learning_features(model: Embedder, image_size: tuple[int, int]) -> set[str]:
    """Names of the features that depend on a weight that learns."""
    weight = next(model.parameters())
    images = torch.zeros(2, 3, *image_size, dtype=weight.dtype, device=weight.device)
    model.eval()  # statistics stay as they are
    features = model.forward(images)  # not compiled, which takes minutes
    return {name for name, feature in features.items() if feature.requires_grad}


def _teaches(objective: Objective, model: Embedder, learning: set[str]) -> bool:
    if is_penalty(objective):  # of weights that join stripes, which only a network without a backbone has
        return True
    return feature_of(model, objective) in learning or any(True for _ in objective.loss.parameters())


_WITHIN = ("backbone.network.", "backbone.", "")  # where a name is looked for; timm's networks are the first


def _part(model: nn.Module, name: str) -> nn.Module:
    """A part of the network, by its name within the backbone or within the whole."""
    parts: dict[str, nn.Module] = dict(model.named_modules())
    for place in _WITHIN:
        if name and place + name in parts:
            found: nn.Module = parts[place + name]
            return found
    known = {part.removeprefix("backbone.").removeprefix("network.") for part in parts} - {""}
    largest = sorted(part for part in known if "." not in part)
    raise ConfigError(
        f"optim.freeze_until names {name!r}, which the network does not have;{did_you_mean(name, known)} "
        f"It has {', '.join(largest)}, and what is inside of them, with dots between"
    )
