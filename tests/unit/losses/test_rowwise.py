"""What is computed for blocks of anchors is what would be computed for all of them at once."""

from __future__ import annotations

import pytest
import torch

from reidkit.losses import _rowwise as anchors
from reidkit.losses import hap2s
from reidkit.losses.p2s import point_to_set_triplet
from reidkit.losses.triplet import triplet
from reidkit.ops import blocks, negative_mask, pairwise_distances, positive_mask

LABELS = torch.tensor([3, 0, 0, 1, 3, 2, 2, 3, 3, 5, 0, 3])


def test_masks_of_a_block_are_rows_of_the_masks_of_all():
    for rows in (slice(0, 5), slice(5, 9), slice(9, 12)):
        positive, negative = anchors.masks_of(LABELS, rows)
        assert positive.equal(positive_mask(LABELS)[rows])
        assert negative.equal(negative_mask(LABELS)[rows])


@pytest.mark.parametrize("loss", [point_to_set_triplet, triplet])
def test_blocks_change_neither_value_nor_gradient(loss, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(LABELS), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    found = []
    for size in (blocks.BLOCK, 3 * len(LABELS)):
        monkeypatch.setattr(blocks, "BLOCK", size)
        value = loss(pairwise_distances(embeddings), LABELS, margin=0.5)
        found.append((value.detach(), torch.autograd.grad(value, embeddings)[0]))
    assert len(list(blocks.row_blocks(len(LABELS), len(LABELS), LABELS.device))) == 4
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("detach_weights", [False, True])
@pytest.mark.parametrize(("weighting", "sharpness"), [("exponential", 3.0), ("polynomial", 4.0)])
@pytest.mark.parametrize("labels", [LABELS, torch.arange(4), torch.zeros(5, dtype=torch.long)])
def test_hap2s_gradient_by_hand_is_autograds(labels, weighting, sharpness, detach_weights, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 3 * len(labels))
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(len(labels), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    found = []
    for few in (0, len(labels) ** 2):  # always by hand, never
        monkeypatch.setattr(hap2s, "FEW", few)
        distances = pairwise_distances(embeddings)
        value = hap2s.hard_aware_point_to_set(
            distances,
            labels,
            weighting=weighting,
            sharpness=sharpness,
            margin=2.0,
            detach_weights=detach_weights,
        )
        found.append((value.detach(), torch.autograd.grad(value, embeddings)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)
    assert (found[0][0] > 0) == (labels is LABELS)
