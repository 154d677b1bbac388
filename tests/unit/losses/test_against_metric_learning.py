"""Losses that pytorch-metric-learning has too: the same values and gradients, to rounding."""

from __future__ import annotations

import math

import pytest
import torch

from reidkit import losses

theirs = pytest.importorskip("pytorch_metric_learning.losses")
miners = pytest.importorskip("pytorch_metric_learning.miners")
reducers = pytest.importorskip("pytorch_metric_learning.reducers")

NUM_IDENTITIES, DIM = 5, 16


def batch():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(20) % NUM_IDENTITIES
    centres = torch.randn(NUM_IDENTITIES, DIM, generator=generator, dtype=torch.float64)
    noise = torch.randn(20, DIM, generator=generator, dtype=torch.float64)
    return (centres[labels] + 1.5 * noise).requires_grad_(), labels


def assert_equal(ours, their_value):
    embeddings, labels = batch()
    found, expected = ours(embeddings, labels), their_value(embeddings, labels)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    gradients = [torch.autograd.grad(value, embeddings)[0] for value in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("ours", "name", "options"),
    [
        ({"margin": 0.5}, "ArcFaceLoss", {"margin": math.degrees(0.5)}),
        ({"margin": 1.6}, "ArcFaceLoss", {"margin": math.degrees(1.6)}),  # beyond pi - margin for some
        ({"margin": 0.35, "margin_on": "cosine"}, "CosFaceLoss", {"margin": 0.35}),
        (
            {"margin": 0.5, "sub_centers": 3},
            "SubCenterArcFaceLoss",
            {"margin": math.degrees(0.5), "sub_centers": 3},
        ),
    ],
)
def test_margins_of_angles(ours, name, options):
    own = losses.ArcFaceLoss(NUM_IDENTITIES, DIM, scale=12.0, **ours).double()
    other = getattr(theirs, name)(
        num_classes=NUM_IDENTITIES, embedding_size=DIM, scale=12, **options
    ).double()
    with torch.no_grad():
        other.W.copy_(own.directions.T)
    assert_equal(own, other)


def test_circle():
    # Theirs leaves anchors whose term is 0 out of the mean; here none is.
    assert_equal(losses.CircleLoss(margin=0.3, scale=10.0), theirs.CircleLoss(m=0.3, gamma=10))


def test_multi_similarity_of_all_pairs_and_of_those_mined():
    other = theirs.MultiSimilarityLoss(alpha=2, beta=10, base=0.4)
    assert_equal(losses.MultiSimilarityLoss(beta=10.0, base=0.4, mining_margin=2.0), other)
    miner = miners.MultiSimilarityMiner(epsilon=0.05)

    def mined(embeddings, labels):
        return other(embeddings, labels, miner(embeddings, labels))

    assert_equal(losses.MultiSimilarityLoss(beta=10.0, base=0.4, mining_margin=0.05), mined)


def test_triplets_all_and_hardest():
    all_triplets = theirs.TripletMarginLoss(margin=0.3, reducer=reducers.MeanReducer())
    assert_equal(losses.TripletLoss(margin=0.3), all_triplets)
    miner = miners.BatchHardMiner()

    def hardest(embeddings, labels):
        return all_triplets(embeddings, labels, miner(embeddings, labels))

    assert_equal(losses.BatchHardTripletLoss(margin=0.3), hardest)
