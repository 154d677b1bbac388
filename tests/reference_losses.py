"""Slow, obvious loop references of every loss, and how the tests build the losses they compare.

A reference has the registry name of its loss and is called ``reference(loss, embeddings, labels)`` with
float64 embeddings; it reads options and parameters from the loss. :data:`VARIANTS` lists the options worth
testing besides the defaults.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reidkit import registry

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "identity": [{"label_smoothing": 0.1, "bias": True}],
    "trihard": [{"margin": 1.0}, {"margin": None}, {"margin": 0.5, "normalize": False}],
    "msml": [
        {"margin": 0.0},
        {"margin": 1.0},
        {"margin": 0.5, "normalize": False},
        {"temperature": 0.1, "margin": 1.0},
        {"temperature": 2.0, "normalize": False},
    ],
    "contrastive": [{"margin": 0.4}, {"margin": 2.0, "normalize": False}],
    "verification": [{"normalize": False}],
    "triplet": [
        {"margin": 1.0},
        {"margin": 0.5, "normalize": False},
        {"margin": 1.0, "squared": True, "intra_weight": 0.5, "intra_bound": 0.2},
    ],
    "quadruplet": [{"margin": 1.0, "second_margin": 0.7}, {"normalize": False}],
    "p2s": [{"margin": 1.0}, {"margin": 0.5, "normalize": False}],
    "hap2s": [
        {"weighting": "polynomial"},
        {"sigma": 0.1, "margin": 1.0, "detach_weights": True},
        {"weighting": "polynomial", "alpha": 3.0, "normalize": False},
    ],
    "sn": [
        {"num_neighbors": 3},
        {"num_neighbors": 3, "ties": "include"},
        {"num_neighbors": 3, "squeeze": "nearest", "scale": 5.0, "squeeze_weight": 1.0},
        {"num_neighbors": 4, "squeeze": "pair", "squeeze_weight": 1.0},
        {"num_neighbors": 1, "scale": 2.0, "normalize": False},
    ],
    "arcface": [
        {"scale": 4.0, "sub_centers": 3},
        {"margin_on": "cosine", "margin": 0.35},
    ],
    "circle": [{"margin": 0.4, "scale": 8.0}, {"scale": 4.0, "normalize": False}],
    "centroid_triplet": [{"margin": 1.0}, {"margin": 0.5, "normalize": False}],
    "multi_similarity": [
        {"mining_margin": 2.0, "beta": 5.0},
        {"alpha": 1.0, "beta": 2.0, "base": -1.0, "normalize": False},
    ],
    "smooth_ap": [{"temperature": 0.3}, {"temperature": 2.0, "normalize": False}],
    "sparsity": [{"norm": "l12", "groups": 3}, {"norm": "l12", "groups": 1}],
}

WEIGHT_LOSSES = [name for name in registry.names("loss") if registry.get("loss", name).reads == "weight"]
BATCH_LOSSES = [name for name in registry.names("loss") if name not in WEIGHT_LOSSES]

CASES = [(name, options) for name in BATCH_LOSSES for options in [{}, *VARIANTS.get(name, [])]]


def case_name(case: tuple[str, dict[str, Any]]) -> str:
    name, options = case
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


def build(case: tuple[str, dict[str, Any]], *, num_identities: int, dim: int) -> nn.Module:
    """The loss, with sizes filled in and parameters large enough to matter."""
    name, options = case
    loss = registry.build("loss", name, options)
    if hasattr(loss, "fill"):
        loss.fill(num_identities=num_identities, dim=dim)
    generator = torch.Generator().manual_seed(0)
    for parameter in loss.parameters():
        nn.init.normal_(parameter, generator=generator)
    return loss


def reference_of(name: str) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    reference = globals().get(name)
    assert reference is not None, f"loss {name!r} has no loop reference: write {name}() in {__file__}"
    return reference


# --- what references are made of -----------------------------------------------------------------------


def distance_table(loss: nn.Module, embeddings: Tensor) -> list[list[Tensor]]:
    """d(i, j) for all i and j, after normalisation where the loss asks for it."""
    rows = list(embeddings)
    if loss.normalize:
        rows = [row / row.norm() if row.norm() > 0 else row for row in rows]
    return [[((a - b) ** 2).sum().clamp(min=1e-12).sqrt() for b in rows] for a in rows]


def positives_of(anchor: int, labels: list[int]) -> list[int]:
    return [j for j in range(len(labels)) if j != anchor and labels[j] == labels[anchor]]


def negatives_of(anchor: int, labels: list[int]) -> list[int]:
    return [j for j in range(len(labels)) if labels[j] != labels[anchor]]


def hinge(value: Tensor) -> Tensor:
    return value if value > 0 else value * 0


def zero_of(embeddings: Tensor) -> Tensor:
    return (embeddings * 0).sum()


# --- references ----------------------------------------------------------------------------------------


def identity(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        logits = [(row * x).sum() for row in loss.classifier.weight]
        if loss.bias:
            logits = [logit + b for logit, b in zip(logits, loss.classifier.bias, strict=True)]
        log_total = torch.stack(logits).exp().sum().log()
        smooth = loss.label_smoothing / len(logits)
        target = [smooth + (1 - loss.label_smoothing) * (k == y) for k in range(len(logits))]
        terms.append(sum(t * (log_total - logit) for t, logit in zip(target, logits, strict=True)))
    return sum(terms) / len(terms) if terms else zero_of(embeddings)


def trihard(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = trihard_terms(loss, embeddings, labels)
    return sum(terms) / len(terms) if terms else zero_of(embeddings)


def trihard_terms(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> list[Tensor]:
    d, y = distance_table(loss, embeddings), labels.tolist()
    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            excess = max(d[a][p] for p in positives_of(a, y)) - min(d[a][n] for n in negatives_of(a, y))
            terms.append((1 + excess.exp()).log() if loss.margin is None else hinge(excess + loss.margin))
    return terms


def msml(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()
    pairs = [(i, j) for i in range(len(y)) for j in range(i)]
    positive = [d[i][j] for i, j in pairs if y[i] == y[j]]
    negative = [-d[i][j] for i, j in pairs if y[i] != y[j]]
    if not positive or not negative:
        return zero_of(embeddings)

    def most(values: list[Tensor]) -> Tensor:
        if not loss.temperature:
            return max(values)
        powers = [torch.exp(value / loss.temperature) for value in values]
        return loss.temperature * torch.log(sum(powers) / len(powers))

    return hinge(most(positive) + most(negative) + loss.margin)


def pairs_of(labels: list[int]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Positive and negative pairs, each once."""
    pairs = list(itertools.combinations(range(len(labels)), 2))
    same = [(i, j) for i, j in pairs if labels[i] == labels[j]]
    return same, [pair for pair in pairs if pair not in same]


def mean(terms: list[Tensor], embeddings: Tensor) -> Tensor:
    return sum(terms) / len(terms) if terms else zero_of(embeddings)


def contrastive(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d = distance_table(loss, embeddings)
    positives, negatives = pairs_of(labels.tolist())
    terms = [d[i][j] ** 2 for i, j in positives]
    terms += [hinge(loss.margin - d[i][j]) ** 2 for i, j in negatives]
    return mean(terms, embeddings)


def verification(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d = distance_table(loss, embeddings)
    positives, negatives = pairs_of(labels.tolist())
    # The chance that the pair is one person.
    same = {(i, j): torch.sigmoid(loss.offset - loss.scale * d[i][j] ** 2) for i, j in positives + negatives}
    return mean([-same[pair].log() for pair in positives], embeddings) + mean(
        [-(1 - same[pair]).log() for pair in negatives], embeddings
    )


def triplet(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()
    if getattr(loss, "squared", False):
        d = [[each**2 for each in row] for row in d]
    terms = [
        hinge(d[a][p] - d[a][n] + loss.margin)
        for a in range(len(y))
        for p in positives_of(a, y)
        for n in negatives_of(a, y)
    ]
    if weight := getattr(loss, "intra_weight", 0.0):
        pairs = [hinge(d[a][p] - loss.intra_bound) for a in range(len(y)) for p in positives_of(a, y)]
        return mean(terms, embeddings) + weight * mean(pairs, embeddings)
    return mean(terms, embeddings)


def quadruplet(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()
    positives, negatives = pairs_of(y)
    terms = [
        hinge(d[a][p] - d[c][n] + loss.second_margin)
        for a, p in positives
        for c, n in negatives
        if y[a] not in (y[c], y[n])
    ]
    return triplet(loss, embeddings, labels) + mean(terms, embeddings)


def p2s(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()
    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            to_positives = sum(d[a][p] for p in positives_of(a, y)) / len(positives_of(a, y))
            to_negatives = sum(d[a][n] for n in negatives_of(a, y)) / len(negatives_of(a, y))
            terms.append(hinge(to_positives - to_negatives + loss.margin))
    return mean(terms, embeddings)


def hap2s(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    d, y = distance_table(loss, embeddings), labels.tolist()

    def point_to_set(distances: list[Tensor], sign: int) -> Tensor:
        seen = [x.detach() if loss.detach_weights else x for x in distances]
        if loss.weighting == "exponential":
            weights = [(sign * x / loss.sigma).exp() for x in seen]
        else:
            weights = [(x + 1) ** (loss.alpha if sign > 0 else -2 * loss.alpha) for x in seen]
        return sum(w * x for w, x in zip(weights, distances, strict=True)) / sum(weights)

    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            to_positives = point_to_set([d[a][p] for p in positives_of(a, y)], +1)
            to_negatives = point_to_set([d[a][n] for n in negatives_of(a, y)], -1)
            terms.append(hinge(to_positives - to_negatives + loss.margin))
    return mean(terms, embeddings)


def sn(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = [
        separation + loss.squeeze_weight * squeeze
        for separation, squeeze in sn_terms(loss, distance_table(loss, embeddings), labels.tolist())
    ]
    return mean(terms, embeddings)


def sn_terms(loss: nn.Module, d: list[list[Tensor]], y: list[int]) -> list[tuple[Tensor, Tensor]]:
    terms = []
    for i in range(len(y)):
        if not (positives_of(i, y) and negatives_of(i, y)):
            continue
        rest = [j for j in range(len(y)) if j != i]
        in_order = sorted(d[i][j].item() for j in rest)
        bound = in_order[loss.num_neighbors] if len(rest) > loss.num_neighbors else math.inf
        neighbors = [j for j in rest if d[i][j].item() < bound]
        if loss.ties == "include":
            neighbors = [
                j for j in rest if d[i][j].item() <= in_order[min(loss.num_neighbors, len(rest)) - 1]
            ]
        by_distance = sorted(positives_of(i, y), key=lambda j: d[i][j].item())
        positives = [j for j in neighbors if y[j] == y[i]] or by_distance[:1]
        negatives = [j for j in neighbors if y[j] != y[i]]
        near = sum((-loss.scale * d[i][j]).exp() for j in positives)
        separation = -(near / (near + sum((-loss.scale * d[i][j]).exp() for j in negatives))).log()
        inside = [d[i][j] for j in positives]
        if loss.squeeze == "nearest":
            squeeze = min(inside)
        elif loss.squeeze == "range":
            squeeze = max(inside) - min(inside) if len(inside) > 1 else inside[0]
        else:
            nearest, furthest = by_distance[0], by_distance[-1]
            squeeze = d[nearest][furthest] if nearest != furthest else d[i][i] * 0
        terms.append((separation, squeeze))
    return terms


def unit(row: Tensor) -> Tensor:
    return row / row.norm() if row.norm() > 0 else row


def arcface(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    terms = []
    for x, y in zip(embeddings, labels.tolist(), strict=True):
        to_directions = [(unit(x) * unit(w)).sum() for w in loss.directions]
        cosines = [
            max(to_directions[k * loss.sub_centers : (k + 1) * loss.sub_centers])
            for k in range(loss.num_identities)
        ]
        own = cosines[y]
        if loss.margin_on == "cosine":
            own = own - loss.margin
        elif own >= math.cos(math.pi - loss.margin):
            own = (own.clamp(-1, 1).acos() + loss.margin).cos()
        else:
            own = own - loss.margin * math.sin(loss.margin)
        logits = [loss.scale * (own if k == y else cosine) for k, cosine in enumerate(cosines)]
        terms.append(torch.stack(logits).logsumexp(0) - logits[y])
    return mean(terms, embeddings)


def center(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    pairs = zip(embeddings, labels.tolist(), strict=True)
    return mean([((x - loss.centers[y]) ** 2).sum() / 2 for x, y in pairs], embeddings)


def similarity_table(loss: nn.Module, embeddings: Tensor) -> list[list[Tensor]]:
    return [[1 - d**2 / 2 for d in row] for row in distance_table(loss, embeddings)]


def circle(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    s, y = similarity_table(loss, embeddings), labels.tolist()
    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            to_positives = [
                -loss.scale
                * min(hinge(1 + loss.margin - s[a][p].detach()), 2 + loss.margin)
                * (s[a][p] - 1 + loss.margin)
                for p in positives_of(a, y)
            ]
            to_negatives = [
                loss.scale * hinge(s[a][n].detach() + loss.margin) * (s[a][n] - loss.margin)
                for n in negatives_of(a, y)
            ]
            # log(1 + sum of exponentials of all sums), without overflow
            sums = [p + n for p in to_positives for n in to_negatives]
            terms.append(torch.stack([torch.zeros_like(sums[0]), *sums]).logsumexp(0))
    return mean(terms, embeddings)


def multi_similarity(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    s, y = similarity_table(loss, embeddings), labels.tolist()

    def soft_sum(logits: list[Tensor]) -> Tensor:
        return torch.stack([torch.zeros((), dtype=torch.float64), *logits]).logsumexp(0)

    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            least = min(s[a][p] for p in positives_of(a, y))
            most = max(s[a][n] for n in negatives_of(a, y))
            positives = [p for p in positives_of(a, y) if s[a][p] - loss.mining_margin < most]
            negatives = [n for n in negatives_of(a, y) if s[a][n] + loss.mining_margin > least]
            pull = soft_sum([-loss.alpha * (s[a][p] - loss.base) for p in positives]) / loss.alpha
            push = soft_sum([loss.beta * (s[a][n] - loss.base) for n in negatives]) / loss.beta
            terms.append(pull + push)
    return mean(terms, embeddings)


def centroid_triplet(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    y = labels.tolist()
    f = [unit(row) if loss.normalize else row for row in embeddings]

    def distance_to_mean(a: int, images: list[int]) -> Tensor:
        mean_of_them = sum(f[i] for i in images) / len(images)
        return ((f[a] - mean_of_them) ** 2).sum().clamp(min=1e-12).sqrt()

    terms = []
    for a in range(len(y)):
        if positives_of(a, y) and negatives_of(a, y):
            others = [[i for i in range(len(y)) if y[i] == k] for k in set(y) - {y[a]}]
            nearest = min(distance_to_mean(a, images) for images in others)
            terms.append(hinge(distance_to_mean(a, positives_of(a, y)) - nearest + loss.margin))
    return mean(terms, embeddings)


def smooth_ap(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    s, y = similarity_table(loss, embeddings), labels.tolist()

    def rank(a: int, p: int, among: list[int]) -> Tensor:
        return 1 + sum(torch.sigmoid((s[a][j] - s[a][p]) / loss.temperature) for j in among if j != p)

    terms = []
    for a in range(len(y)):
        positives, everyone = positives_of(a, y), positives_of(a, y) + negatives_of(a, y)
        if positives and negatives_of(a, y):
            precisions = [rank(a, p, positives) / rank(a, p, everyone) for p in positives]
            terms.append(1 - sum(precisions) / len(precisions))
    return mean(terms, embeddings)


def sparsity(loss: nn.Module, weight: Tensor) -> Tensor:
    num_outputs, num_inputs = weight.shape
    if loss.norm == "l21":
        return sum(
            (sum(weight[o, i] ** 2 for o in range(num_outputs)) + 1e-12).sqrt() for i in range(num_inputs)
        )
    wide = num_inputs // loss.groups
    return sum(
        sum(weight[o, j * wide + i].abs() for i in range(wide)) ** 2
        for o in range(num_outputs)
        for j in range(loss.groups)
    )
