"""One training of a network's last layers with one loss, and what its gradients look like; on cached maps."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fixed_maps import CPU, CachedData
from reidkit.config import OptimConfig
from reidkit.encoders.autocast import autocast
from reidkit.losses import (
    BatchHardTripletLoss,
    HardAwarePointToSetLoss,
    IdentityLoss,
    MarginSampleMiningLoss,
    StructuredSparsity,
    SupportNeighborLoss,
)
from reidkit.ops import negative_mask, pairwise_distances, positive_mask
from reidkit.training.batches import class_labels
from reidkit.training.objective import Objective, Step, name_of, prepare_objectives
from reidkit.training.optim import build_optimizer, learning_rate, set_learning_rate
from reidkit.training.samplers import IdentitySampler


class HardPairsLoss(nn.Module):
    """MSML over other pairs than the hardest; all distances are of unit vectors.

    Args:
        place: the pairs of this place in the order of hardness; 1 is MSML.
        num: the mean over so many of the hardest pairs of each kind.
        soft: the soft margin.
        groups: the mean over so many parts of the batch, each with identities of its own.
    """

    reads = "metric"

    def __init__(
        self,
        *,
        margin: float = 0.3,
        place: int = 1,
        num: int = 1,
        soft: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.margin, self.place, self.num = margin, place, num
        self.soft, self.groups = soft, groups

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        parts = zip(embeddings.chunk(self.groups), labels.chunk(self.groups), strict=True)
        return torch.stack([self._of_part(*part) for part in parts]).mean()

    def _of_part(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distances = pairwise_distances(nn.functional.normalize(embeddings, dim=1))
        upper = torch.ones_like(distances, dtype=torch.bool).triu(1)
        excess = self._hardest(distances[positive_mask(labels) & upper]) + self._hardest(
            -distances[negative_mask(labels) & upper]
        )
        return nn.functional.softplus(excess) if self.soft else nn.functional.relu(excess + self.margin)

    def _hardest(self, values: Tensor) -> Tensor:
        return values.topk(self.place - 1 + self.num).values[self.place - 1 :].mean()


@dataclass(frozen=True)
class Variant:
    """What is trained, and how where it differs from the rest.

    Attributes:
        metric: the metric loss; none is the identity loss alone.
        weight: of the metric loss.
        without_identity: the metric loss alone.
        from_epoch: the first in which the metric loss counts.
        equal_norms: the gradient of each loss is scaled down to the shortest of their norms in each step.
        baseline: variant that it is compared with.
        start: variant whose weights, of the same seed, are where this one starts.
        wrong_labels: share of training images given another identity.
        neck: with "fc" both losses read one linear feature, 1024 wide.
        dropout: before the classifier.
        identities: in a batch, four images each.
        sparsity: weight of JLML's l21 of the linear layer that neck "fc" is.
    """

    metric: nn.Module | None = None
    weight: float = 1.0
    without_identity: bool = False
    from_epoch: int = 0
    epochs: int = 8
    optimizer: str = "adamw"
    lr: float = 1e-3
    equal_norms: bool = False
    baseline: str = "identity"
    start: str = ""
    wrong_labels: float = 0.0
    neck: str = "bnneck"
    dropout: float = 0.0
    identities: int = 16
    sparsity: float = 0.0
    seeds: tuple[int, ...] = (0, 1, 2)


class Training:
    """One variant and seed."""

    def __init__(self, data: CachedData, variant: Variant, seed: int, folder: Path) -> None:
        self.data, self.variant, self.seed = data, variant, seed
        self.labels = class_labels(data.data.train)
        if variant.wrong_labels:
            self.labels = with_wrong_labels(self.labels, variant.wrong_labels, seed)
        _, self.model = data.network.build(seed, neck=variant.neck)
        self.objectives = prepare_objectives(
            list(objectives_of(variant)),
            self.model,
            num_epochs=variant.epochs,
            num_identities=int(self.labels.max()) + 1,
            seed=seed,
        )
        self.step = Step(self.model, self.objectives)
        if variant.start:
            self.step.load_state_dict(torch.load(weights_file(folder, variant.start, seed)), strict=False)
        self.optim = OptimConfig(
            name=variant.optimizer,
            lr=variant.lr,
            weight_decay=5e-4 if variant.optimizer == "sgd" else 0.01,
            schedule="onecycle",
            warmup_epochs=0,
        )
        self.optimizer = build_optimizer(self.optim, [self.step])
        self.sampler = IdentitySampler(
            self.labels, identities_per_batch=variant.identities, images_per_identity=4, seed=seed
        )

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        """Maps, labels and places in the training part."""
        self.sampler.start(epoch)
        for draws in self.sampler:
            indices = np.array([draw.sample for draw in draws])
            mirrored = [draw.seed & 1 for draw in draws]
            yield self.data.batch(indices, mirrored), torch.from_numpy(self.labels[indices]), indices

    def run(self) -> dict[str, object]:
        """Train, and score."""
        began = time.perf_counter()
        chosen: dict[str, Counter[int]] = {"positive": Counter(), "negative": Counter()}
        terms_at_end: dict[str, list[float]] = {}
        num_steps = 0
        for epoch in range(self.variant.epochs):
            self.model.train()
            for maps, labels, indices in self.batches(epoch):
                rate = learning_rate(
                    self.optim,
                    num_steps,
                    steps_per_epoch=self.sampler.num_batches,
                    num_epochs=self.variant.epochs,
                )
                terms, features = self._learn(maps, labels, epoch, rate)
                num_steps += 1
                if epoch == self.variant.epochs - 1:
                    for name, value in terms.items():
                        terms_at_end.setdefault(name, []).append(value.item())
                for kind, pair in hardest_pairs(features, labels).items():
                    chosen[kind].update(indices[list(pair)].tolist())
        evaluation = self.data.evaluate(self.model)
        return {
            "mAP": 100 * evaluation.mean_average_precision,
            "rank-1": 100 * evaluation.rank(1),
            "at the end": {name: float(np.mean(values)) for name, values in terms_at_end.items()},
            "steps": num_steps,
            "seconds": time.perf_counter() - began,
            "chosen": {
                kind: sorted(counts.items(), key=lambda item: -item[1])[:376]  # 5 % of the images
                for kind, counts in chosen.items()
            },
            "average precisions": [round(float(ap), 5) for ap in evaluation.average_precisions],
        }

    def _learn(
        self, maps: Tensor, labels: Tensor, epoch: int, rate: float
    ) -> tuple[dict[str, Tensor], Tensor]:
        set_learning_rate(self.optimizer, rate)
        with autocast(CPU, torch.bfloat16):
            terms, features = self.step(maps, labels, epoch, None)
        weighted = [o.weight * terms[name_of(o)] for o in self.objectives if name_of(o) in terms]
        self.optimizer.zero_grad(set_to_none=True)
        if self.variant.equal_norms and len(weighted) > 1:
            set_with_equal_norms(weighted, learned(self.model), learned(self.step.losses))
        else:
            torch.stack(weighted).sum().backward()
        self.optimizer.step()
        metric = features.get(self.model.metric_feature, next(iter(features.values())))
        return terms, metric.detach().float()


def objectives_of(variant: Variant) -> Iterator[Objective]:
    if not variant.without_identity:
        yield Objective(IdentityLoss(label_smoothing=0.1, dropout=variant.dropout), name="identity")
    if variant.metric is not None:
        yield Objective(variant.metric, weight=variant.weight, from_epoch=variant.from_epoch, name="metric")
    if variant.sparsity:
        yield Objective(
            StructuredSparsity("l21"), weight=variant.sparsity, feature="neck.weight", name="sparsity"
        )


def learned(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def set_with_equal_norms(
    terms: Sequence[Tensor], shared: Sequence[nn.Parameter], own: Sequence[nn.Parameter]
) -> None:
    """Gradients of the sum, each term's part of the network's scaled down to the shortest of their norms."""
    parts = [
        torch.autograd.grad(term, [*shared, *own], retain_graph=True, allow_unused=True) for term in terms
    ]
    norms = [
        torch.sqrt(sum((g.float() ** 2).sum() for g in part[: len(shared)] if g is not None))
        for part in parts
    ]
    shortest = min(norms)
    for number, parameter in enumerate([*shared, *own]):
        gradients = [
            part[number] * (shortest / norm.clamp_min(1e-12) if number < len(shared) else 1)
            for part, norm in zip(parts, norms, strict=True)
            if part[number] is not None
        ]
        parameter.grad = sum(gradients) if gradients else None


@torch.no_grad()
def hardest_pairs(features: Tensor, labels: Tensor) -> dict[str, tuple[int, int]]:
    """The pair of one identity, and that of two, that MSML chooses: places in the batch."""
    distances = pairwise_distances(nn.functional.normalize(features, dim=1))
    furthest = distances.masked_fill(~positive_mask(labels), -1).argmax().item()
    nearest = distances.masked_fill(~negative_mask(labels), 9).argmin().item()
    return {"positive": divmod(furthest, len(labels)), "negative": divmod(nearest, len(labels))}


def with_wrong_labels(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of the labels replaced by other identities."""
    generator = np.random.default_rng(seed)
    wrong = generator.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    number = int(labels.max()) + 1
    changed[wrong] = (labels[wrong] + generator.integers(1, number, len(wrong))) % number
    return changed


def probe(data: CachedData, name: str, seed: int, folder: Path, num_batches: int = 40) -> dict[str, object]:
    """How the gradients of the losses agree from batch to batch at the weights that a variant ended with.

    Of each loss: the mean norm of its gradient by the network's weights, and the mean cosine of two batches.
    """
    training = Training(data, Variant(epochs=1), seed, folder)
    if name:
        training.step.load_state_dict(torch.load(weights_file(folder, name, seed)), strict=False)
    losses: dict[str, nn.Module] = {
        "identity": training.objectives[0].loss,
        "TriHard": BatchHardTripletLoss(),
        "MSML": MarginSampleMiningLoss(),
        "smooth MSML, T = 0.1": MarginSampleMiningLoss(temperature=0.1),
        "mean of the 32 hardest pairs": HardPairsLoss(num=32),
        "10th hardest pair": HardPairsLoss(place=10),
        "HAP2S E": HardAwarePointToSetLoss(weighting="exponential"),
        "SN": SupportNeighborLoss(),
    }
    model, parameters = training.model, learned(training.model)
    rows: dict[str, list[Tensor]] = {loss: [] for loss in losses}
    model.train()
    for maps, labels, _ in islice(training.batches(1000), num_batches):
        features = model(maps)
        for loss, function in losses.items():
            read = model.classification_feature if loss == "identity" else model.metric_feature
            value = function(features[read], labels)
            gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
            rows[loss].append(torch.cat([g.flatten() for g in gradients if g is not None and g.ndim > 1]))
    return {
        loss: {
            "norm": float(torch.stack([g.norm() for g in found]).mean()),
            "between batches": mean_cosine(found),
        }
        for loss, found in rows.items()
    }


def mean_cosine(gradients: Sequence[Tensor]) -> float:
    """Of all pairs."""
    units = torch.stack([g / g.norm().clamp_min(1e-12) for g in gradients])
    products = units @ units.T
    number = len(units)
    return float((products.sum() - products.diagonal().sum()) / (number * (number - 1)))


def weights_file(folder: Path, name: str, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return folder / f"{plain}-{seed}.pt"
