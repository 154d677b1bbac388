"""Counted triplets and quadruplets against those built one by one, at sizes where loops would be slow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reidkit.losses._tuple_sums import num_quadruplets, num_triplets, quadruplet_hinges
from reidkit.losses.triplet import triplet
from reidkit.ops import negative_mask, pairwise_distances, positive_mask

LABELS = {
    "four images each": torch.arange(32) // 4,
    "one large identity": torch.cat((torch.zeros(20, dtype=torch.int64), torch.arange(1, 9))),
    "shuffled and ragged": torch.tensor([5, 1, 1, 9, 5, 5, 2, 9, 9, 9, 5, 1, 7, 2, 5, 9]),
    "no positives": torch.arange(6),
    "one identity": torch.zeros(6, dtype=torch.int64),
    "one image": torch.zeros(1, dtype=torch.int64),
}
every_batch = pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)


def distances_of(labels: Tensor, *, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(labels), 3, generator=generator, dtype=torch.float64).to(dtype)
    return pairwise_distances(embeddings).requires_grad_()


def built_triplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """All N^3 hinges, then the mean of the valid ones."""
    valid = positive_mask(labels)[:, :, None] & negative_mask(labels)[:, None, :]
    hinges = (distances[:, :, None] - distances[:, None, :] + margin).clamp_min(0)
    return torch.where(valid, hinges, 0).sum() / valid.sum().clamp_min(1)


def built_quadruplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Every positive pair against every negative pair, each once."""
    a, p = positive_mask(labels).triu().nonzero(as_tuple=True)
    c, n = negative_mask(labels).triu().nonzero(as_tuple=True)
    valid = (labels[a][:, None] != labels[c]) & (labels[a][:, None] != labels[n])
    hinges = (distances[a, p][:, None] - distances[c, n] + margin).clamp_min(0)
    return torch.where(valid, hinges, 0).sum() / valid.sum().clamp_min(1)


def counted_quadruplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    hinges = quadruplet_hinges(distances, labels, margin=margin).sum()
    return (hinges / num_quadruplets(labels).clamp_min(1)).to(distances.dtype)


def counted_triplets(distances: Tensor, labels: Tensor, margin: float) -> Tensor:
    return triplet(distances, labels, margin=margin)


both = pytest.mark.parametrize(
    ("count", "build"), [(counted_triplets, built_triplets), (counted_quadruplets, built_quadruplets)]
)


@every_batch
@both
@pytest.mark.parametrize("margin", [0.0, 0.3, 100.0])
def test_counting_equals_building(labels, margin, count, build):
    distances = distances_of(labels)
    found, expected = count(distances, labels, margin), build(distances, labels, margin)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(loss, distances)[0] for loss in (found, expected)]
    # A pair stands twice in the matrix, and the loss may weigh either place.
    torch.testing.assert_close(*(g + g.T for g in gradients), rtol=1e-12, atol=1e-12)


@both
@pytest.mark.parametrize("num_images", [120, 400])
def test_float32_is_as_good_as_its_distances(count, build, num_images):
    """Millions of terms whose sums nearly cancel: prefix sums in float32 would lose them."""
    labels = torch.arange(num_images) // 3
    distances = distances_of(labels, dtype=torch.float32)
    found = count(distances, labels, 0.01)
    if num_images > 120:  # too many to build: the same counts in float64
        build = count
    expected = build(distances.detach().double(), labels, 0.01)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_equal_distances_are_not_active_without_a_margin():
    labels = torch.tensor([0, 0, 1, 1, 2])
    distances = torch.ones(5, 5, dtype=torch.float64, requires_grad=True)
    for count, num_valid in [(counted_triplets, num_triplets), (counted_quadruplets, num_quadruplets)]:
        loss = count(distances, labels, 0.0)
        loss.backward()
        assert loss == 0
        assert num_valid(labels) > 0
        assert distances.grad.eq(0).all()
