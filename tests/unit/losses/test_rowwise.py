"""What is computed for blocks of anchors is what would be computed for all of them at once."""

from __future__ import annotations

import pytest
import torch

from reidkit.losses import _rowwise as anchors
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
