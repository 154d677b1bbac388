"""What is minimised: losses with their weights, the features they read, the epochs in which they count."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reidkit import logs
from reidkit.errors import ConfigError, did_you_mean
from reidkit.models import Embedder, Penalty
from reidkit.ops import at_least_float32, check_count, check_number
from reidkit.training import distributed
from reidkit.training.foreign_losses import checked
from reidkit.training.foreign_losses import reads as reads
from reidkit.training.gradient_cache import embed_in_pieces
from reidkit.training.memory import BatchMemory

logger = logs.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Objective:
    """One term of what is minimised.

    Args:
        loss: ``loss(embeddings (N, D), labels (N,)) -> scalar``; a pytorch-metric-learning loss will do.
            One whose ``reads`` is "weight" is a penalty, ``loss(weight) -> scalar``: the trainer makes it
            one of ``model.regularizers()``.
        weight: factor in the sum.
        feature: feature of the model that it reads; None is the model's usual one for this kind of loss.
            Of a penalty, the name of the weights: "local_feature.weight".
        from_epoch, until_epoch: epochs (from 0) in which it counts; until is exclusive.
        name: what it is called in logs; the class's name if left out.
        schedule: (epoch, factor), by ascending epochs: the weight is times the factor, linear between two
            epochs, the first one's before and the last one's after; empty leaves the weight as it is.
        memory: how many embeddings of past batches it compares with, besides the batch
            (:class:`reidkit.training.memory.BatchMemory`); for losses of pairs. None is the batch alone.
        memory_from_epoch: first epoch (from 0) in which it does; before, they are only remembered. While the
            network changes fast, what it gave some batches ago says little.

    Raises:
        ConfigError: a weight or a factor that is no number of at least 0; a schedule whose epochs do not
            ascend; a memory for a loss that compares no pairs.
    """

    loss: nn.Module
    weight: float = 1.0
    feature: str | None = None
    from_epoch: int = 0
    until_epoch: int | None = None
    name: str | None = None
    schedule: Sequence[tuple[int, float]] = ()
    memory: int | None = None
    memory_from_epoch: int = 0

    def __post_init__(self) -> None:
        check_number(f"weight of loss {name_of(self)!r}", self.weight)
        for point in self.schedule:
            for number in point:
                check_number(f"a number in the schedule of loss {name_of(self)!r}", number)
        epochs = [epoch for epoch, _ in self.schedule]
        if any(later <= earlier for earlier, later in pairwise(epochs)):
            raise ConfigError(
                f"the schedule of loss {name_of(self)!r} has the epochs {epochs}; give [epoch, factor] in "
                "ascending order of epochs, each once"
            )
        if self.memory is None and self.memory_from_epoch:
            raise ConfigError(
                f"loss {name_of(self)!r} has memory_from_epoch and no memory; give memory, say 1024"
            )
        if self.memory is not None:
            check_count("memory", self.memory, also=", or None for the batch alone")
        compares_pairs = reads(self.loss) == "metric" and not hasattr(self.loss, "fill")
        if self.memory is not None and not compares_pairs:
            raise ConfigError(
                f"loss {name_of(self)!r} has a memory of past batches and compares no pairs; leave memory out"
            )

    def weight_in(self, epoch: int) -> float:
        """The factor in the sum of an epoch (from 0)."""
        if not self.schedule:
            return self.weight
        epochs, factors = zip(*self.schedule, strict=True)
        return self.weight * float(np.interp(epoch, epochs, factors))

    def counts_in(self, epoch: int) -> bool:
        return self.from_epoch <= epoch and (self.until_epoch is None or epoch < self.until_epoch)

    def describe(self) -> dict[str, Any]:
        """Everything about it as plain values, to compare two runs by.

        What runs of before could not choose is left out where it is as it was then, so that they still go on:
        a schedule, and options that a loss names in ``added_later``, with the values that change nothing.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["loss"] = repr(self.loss)
        for option, neutral in getattr(self.loss, "added_later", {}).items():
            if (value := getattr(self.loss, option)) == neutral:
                fields["loss"] = fields["loss"].replace(f"{option}={value!r}, ", "")
        fields["schedule"] = [list(point) for point in self.schedule]
        if not self.schedule:
            del fields["schedule"]
        if self.memory is None:
            del fields["memory"], fields["memory_from_epoch"]
        return {**fields, "name": name_of(self)}


# Between the seeds of two streams: generators take 32 bits of a seed, in which multiples of the golden ratio
# stay further apart than a run has steps.
_APART = 0x9E3779B1
_OF_LOSSES = -1  # the stream that all processes share; the others are numbered by process


class Step(nn.Module):
    """Model and losses as one module, so that data-parallel training wraps the parameters of both.

    Every process computes every loss over the global batch: the features of all processes are gathered with
    gradients, so the hardest pair is the hardest of all.

    With ``num_pieces`` the images of a process are embedded in so many pieces, one in memory at a time.
    """

    def __init__(self, model: Embedder, objectives: Sequence[Objective], *, num_pieces: int = 1) -> None:
        super().__init__()
        self.model, self.num_pieces = model, num_pieces
        self.objectives = objectives
        self.losses = nn.ModuleList(objective.loss for objective in objectives)
        self.memory_of = {
            name_of(o): BatchMemory(o.memory, model.features[feature_of(model, o)])
            for o in objectives
            if o.memory is not None
        }
        self.memories = nn.ModuleList(self.memory_of.values())  # so that checkpoints hold them

    def forward(
        self, images: Tensor, labels: Tensor, epoch: int, seed: int | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns the unweighted terms by name, and the gathered features that were read.

        ``seed`` makes dropout depend on nothing else; without it the generators continue.
        """
        _seed_dropout(seed, distributed.rank())  # every process has different images to drop parts of
        if self.num_pieces > 1:
            features = embed_in_pieces(self.model, images, self.num_pieces)
        else:
            features = self.model(images)
        counting = [o for o in self.objectives if o.counts_in(epoch)]
        of_features = [o for o in counting if not is_penalty(o)]
        read = {feature_of(self.model, o) for o in of_features}
        gathered = {name: distributed.gather_with_gradient(features[name]) for name in sorted(read)}
        _seed_dropout(seed, _OF_LOSSES)  # every process computes every loss, and must drop the same
        # Losses from other packages would otherwise be computed in bfloat16.
        with torch.autocast(images.device.type, enabled=False):
            embeddings = {name: at_least_float32(feature) for name, feature in gathered.items()}
            terms = {
                name_of(o): self._term(o, embeddings[feature_of(self.model, o)], labels, epoch)
                for o in of_features
            }
            terms |= self.model.regularizers()
        return {name_of(o): terms[name_of(o)] for o in counting}, gathered

    def _term(self, objective: Objective, embeddings: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """The value of a loss of features, which then are remembered where it has a memory."""
        name, seen = name_of(objective), (embeddings, labels)
        if memory := self.memory_of.get(name):
            if epoch >= objective.memory_from_epoch:
                seen = memory.beside(embeddings, labels)
            memory.remember(embeddings, labels)
        return checked(name, objective.loss, *seen)


def prepare_objectives(
    losses: Sequence[nn.Module | Objective],
    model: Embedder,
    *,
    num_epochs: int,
    num_identities: int,
    seed: int,
) -> list[Objective]:
    """Objectives that can be trained with this model, their classifiers sized and drawn by ``seed``.

    Those that are penalties of weights become the model's, by the names of the objectives.

    Those that read what the model's options leave out (``Embedder.left_out``) are left out, and this is said.

    Raises:
        ConfigError: everything that cannot work.
    """
    objectives = [item if isinstance(item, Objective) else Objective(item) for item in losses]
    for objective in objectives:
        if objective.feature in model.left_out:
            logger.warning(
                f"loss {name_of(objective)!r} left out: the network has no {objective.feature} for it"
            )
    kept = [o for o in objectives if o.feature not in model.left_out]
    check_objectives(kept, model, num_epochs=num_epochs)
    _size_classifiers([o for o in kept if not is_penalty(o)], model, num_identities=num_identities, seed=seed)
    model.penalties = {name_of(o): _penalty(o, model) for o in kept if is_penalty(o)}
    return kept


def check_objectives(objectives: Sequence[Objective], model: Embedder, *, num_epochs: int) -> None:
    """Raise :class:`ConfigError` with everything that cannot work: names, features, epochs without a loss."""
    names = [name_of(objective) for objective in objectives]
    problems = [
        f"two losses are called {name!r}; give them names" for name in set(names) if names.count(name) > 1
    ]
    problems += [
        f"no loss counts in epoch {epoch}; change from_epoch or until_epoch"
        for epoch in range(num_epochs)
        if not any(objective.counts_in(epoch) for objective in objectives)
    ][:1]
    for o in objectives:
        if is_penalty(o):
            what, known = "weights", [n for n, p in model.named_parameters() if p.ndim == 2]
        else:
            what, known = "feature", list(model.features)
        if o.feature is None and what == "weights":
            problems.append(
                f"loss {name_of(o)!r} reads the weights of a layer; say which by feature: {', '.join(known)}"
            )
        elif o.feature is not None and o.feature not in known:
            problems.append(
                f"loss {name_of(o)!r} reads {what} {o.feature!r}, which the model does not give;"
                f"{did_you_mean(o.feature, known)} It gives: {', '.join(known)}"
            )
    if problems:
        raise ConfigError(problems)


def _size_classifiers(
    objectives: Sequence[Objective], model: Embedder, *, num_identities: int, seed: int
) -> None:
    """Set the sizes left open in losses that have weights; ``seed`` draws the weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for objective in objectives:
            for loss in objective.loss.modules():  # one from elsewhere may hold one of ours
                if fill := getattr(loss, "fill", None):
                    fill(num_identities=num_identities, dim=model.features[feature_of(model, objective)])


def _penalty(objective: Objective, model: Embedder) -> Penalty:
    """The penalty of weights that an objective names, told how many stripes are joined in their inputs."""
    weight = str(objective.feature)
    if fill := getattr(objective.loss, "fill", None):
        layer = model.get_submodule(weight.rpartition(".")[0])
        fill(groups=getattr(layer, "stripes", 1))
    return Penalty(weight, objective.loss)


def _seed_dropout(seed: int | None, stream: int) -> None:
    if seed is not None:
        torch.manual_seed((seed + stream * _APART) % 2**64)


def is_penalty(objective: Objective) -> bool:
    """Whether an objective is a penalty of weights, and reads no features."""
    return reads(objective.loss) == "weight"


def feature_of(model: Embedder, objective: Objective) -> str:
    """Name of the feature that an objective reads; penalties read none."""
    if objective.feature is not None:
        return objective.feature
    return model.classification_feature if reads(objective.loss) == "classification" else model.metric_feature


def name_of(objective: Objective) -> str:
    return objective.name or type(objective.loss).__name__
