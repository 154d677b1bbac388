"""What a step of training changes: a network, its losses, an optimiser. What is not finite stops it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reidkit.config import OptimConfig, TrainConfig
from reidkit.errors import DataError, TrainingError
from reidkit.images.transforms import normalize
from reidkit.models import Embedder
from reidkit.training import distributed
from reidkit.training.freeze import TrainingMode, check_something_learns
from reidkit.training.objective import Objective, Step, name_of
from reidkit.training.optim import build_optimizer, set_learning_rate
from reidkit.training.precision import Precision
from reidkit.training.term_gradients import gradients_of_terms


class NotFiniteError(TrainingError):
    """A loss, an embedding or a weight is not finite; says which."""


class Learner:
    """One process's network, losses and optimiser, on the device where they compute.

    Args:
        model, objectives: what learns.
        optim, train: how; see the configuration's tables.
        device: where.
        image_size: height and width of its images, in pixels.

    Attributes:
        module: model and losses as one, to be wrapped for several processes.
        gradients: of the loss terms in the last step that measured them, by name; empty after others.

    Raises:
        ConfigError: settings that do not go with this network.
    """

    def __init__(
        self,
        model: Embedder,
        objectives: Sequence[Objective],
        *,
        optim: OptimConfig,
        train: TrainConfig,
        device: torch.device,
        image_size: tuple[int, int],
    ) -> None:
        self.model, self.objectives, self.device = model, objectives, device
        self.gradients: dict[str, float] = {}
        self.clip_norm, self.num_pieces = optim.clip_norm, train.accumulate
        self.precision = Precision(train.precision, device)
        self.memory_format = torch.channels_last if train.channels_last else torch.contiguous_format
        if train.batch_norm == "synchronised":
            distributed.synchronise_batch_norm(model, device)
        self.dtype = next(model.parameters()).dtype
        self.module = Step(model, objectives, num_pieces=self.num_pieces)
        self.module.to(device, self.dtype).to(memory_format=self.memory_format)
        self.mode = TrainingMode(
            model,
            freeze_statistics=train.batch_norm == "frozen",
            freeze_epochs=optim.freeze_epochs,
            freeze_until=optim.freeze_until,
        )
        check_something_learns(self.mode, model, objectives, num_epochs=train.epochs, image_size=image_size)
        self.optimizer = build_optimizer(optim, [self.module])
        if train.compile:
            model.compile()

    def step(
        self,
        wrapped: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        epoch: int,
        seed: int,
        rate: float,
        measure: bool = False,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Learn from a batch.

        Args:
            wrapped: :attr:`module`, as it is wrapped for several processes.
            images: uint8 (n, 3, H, W), of this process.
            labels: (n,) their classes.
            epoch: which losses count.
            seed: of dropout.
            rate: the learning rate.
            measure: find out the gradient of each loss term, for :attr:`gradients`; the step is the same.

        Returns:
            The unweighted loss terms by name; the features that were read by name, and the labels, of all
            processes.

        Raises:
            NotFiniteError: before the weights have changed.
        """
        set_learning_rate(self.optimizer, rate)
        inputs = normalize(images.to(self.device, non_blocking=True), self.model.mean, self.model.std)
        inputs = inputs.to(self.dtype, memory_format=self.memory_format)
        labels = distributed.gather_labels(labels.to(self.device))
        with self.precision.autocast():
            try:
                terms, features = wrapped(inputs, labels, epoch, seed)
            except DataError as error:  # a loss refuses embeddings that are not finite
                raise NotFiniteError(str(error)) from error
        weighted = {
            name_of(o): o.weight_in(epoch) * terms[name_of(o)] for o in self.objectives if name_of(o) in terms
        }
        self.gradients = gradients_of_terms(weighted, self.model, self.precision) if measure else {}
        total = sum(weighted.values(), torch.zeros(()))
        self.optimizer.zero_grad(set_to_none=True)
        self.precision.backward(total)
        if not torch.isfinite(total):  # only now: a GPU has the backward pass to do while we wait
            shown = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise NotFiniteError(f"the loss is not finite ({shown})")
        self.precision.step(self.optimizer, clip_norm=self.clip_norm)
        return terms, features, labels

    def check_weights(self) -> None:
        """A finite loss may have gradients that are not; what they leave behind must not be kept.

        Raises :class:`NotFiniteError`.
        """
        for name, parameter in self.module.named_parameters():
            if not torch.isfinite(parameter).all():
                raise NotFiniteError(f"weight {name!r} is not finite")

    def when_memory_is_full(self, identities_per_batch: int) -> str:
        """What to do then, in one sentence."""
        return (
            f"Raise train.accumulate (now {self.num_pieces}), which embeds the batch in smaller pieces, "
            f"lower sampler.identities_per_batch (now {identities_per_batch}), or choose train.precision = "
            f"'bfloat16' (now {self.precision.name!r}); this makes another run, in a folder of its own"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "weights": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.precision.scaler.load_state_dict(state["scaler"])
