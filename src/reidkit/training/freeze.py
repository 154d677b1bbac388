"""Parts of a network that stay as they are while the rest learns."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidkit.errors import ConfigError


class TrainingMode:
    """Sets a network's modules for training: what learns in an epoch, and what stays as it is.

    Args:
        model: the network.
        freeze_statistics: batch norms normalise by the running statistics that they have at the start.
        freeze_epochs: first epochs in which the backbone stays as it is, batch norm's statistics included,
            while neck and losses learn.

    Raises:
        ConfigError: freeze_epochs with a network that has no part named backbone.
    """

    def __init__(self, model: nn.Module, *, freeze_statistics: bool, freeze_epochs: int) -> None:
        self.model, self.freeze_statistics, self.freeze_epochs = model, freeze_statistics, freeze_epochs
        self.backbone = getattr(model, "backbone", None)
        if freeze_epochs and self.backbone is None:
            raise ConfigError(
                "optim.freeze_epochs goes with networks of backbone and neck, and "
                f"{type(model).__name__} has no backbone; set it to 0"
            )
        self.learned = [p for p in self.backbone.parameters() if p.requires_grad] if self.backbone else []

    def start(self, epoch: int) -> None:
        """To be called before an epoch's first step."""
        self.model.train()
        frozen = epoch < self.freeze_epochs
        for parameter in self.learned:
            parameter.requires_grad_(not frozen)
        if frozen and self.backbone is not None:
            self.backbone.eval()
        for module in self.model.modules():
            if self.freeze_statistics and isinstance(module, _BatchNorm):
                module.eval()
