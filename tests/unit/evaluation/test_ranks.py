"""Ranks counted from a float32 first look: how close it comes, and what it cannot tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.evaluation import ranks
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.ranks import match_ranks
from reidkit.types import Features

KINDS = ["signed", "no negative values", "collapsed", "nearly equal", "equal", "one outlier", "some zeros"]


def embeddings_of(kind: str, num: int, dim: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(num, dim))
    direction = np.random.default_rng(99).normal(size=dim)
    if kind == "signed":
        return noise
    if kind == "no negative values":
        return np.maximum(noise, 0)
    spread = {"collapsed": 1e-3, "nearly equal": 1e-6, "equal": 0.0}.get(kind, 1e-3)
    embeddings = direction + spread * noise
    if kind == "one outlier":
        embeddings[num // 2] = -direction
    if kind == "some zeros":
        embeddings[::5] = 0
    return embeddings


def features(kind: str, num: int, seed: int, *, dim: int = 96, dtype: str = "float64") -> Features:
    rng = np.random.default_rng(seed)
    embeddings = embeddings_of(kind, num, dim, seed).astype(dtype)
    return Features(embeddings, rng.integers(0, 12, num), rng.integers(0, 3, num))


def ranks_by_sorting(query: Features, gallery: Features) -> list[int]:
    """Of all matches, from a stable sort of the exact scores of every query."""
    comparison = compare(query, gallery)
    scores = comparison.query.take(np.arange(len(query))) @ comparison.gallery.take(np.arange(len(gallery))).T
    found: list[int] = []
    for q, row in enumerate(scores):
        same = gallery.identities == query.identities[q]
        kept = ~(same & (gallery.cameras == query.cameras[q]))
        order = np.flatnonzero(kept)[np.argsort(-row[kept], kind="stable")]
        found += (1 + np.flatnonzero(same[order])).tolist()
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 96, 700])
def test_first_look_lies_within_its_error(kind: str, dim: int) -> None:
    query, gallery = features(kind, 60, 1, dim=dim), features(kind, 500, 2, dim=dim)
    comparison = compare(query, gallery, camera_filter="none")
    look = comparison.first_look
    hidden = comparison.same_identity_pairs.where(np.zeros(len(comparison.same_identity_pairs.scores), bool))
    exact = comparison.query.take(np.arange(60)) @ comparison.gallery.take(np.arange(500)).T
    for rows, items, scores in comparison.tiles(np.arange(60), hidden, block_size=170):
        expected = exact[np.ix_(rows, items)] - look.query_products[rows, None]
        assert scores.dtype == np.float32
        assert np.abs(scores - expected).max() <= look.error


def test_the_closer_the_embeddings_the_smaller_the_error() -> None:
    errors = [
        compare(features(kind, 40, 1), features(kind, 200, 2)).first_look.error
        for kind in ("signed", "no negative values", "collapsed", "nearly equal")
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1e-5
    assert errors[2] < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("block_size", [11, None])
def test_ranks_are_those_of_a_sort_of_exact_scores(kind: str, dtype: str, block_size: int | None) -> None:
    query, gallery = features(kind, 40, 3, dtype=dtype), features(kind, 400, 4, dtype=dtype)
    comparison = compare(query, gallery)
    found = match_ranks(comparison, block_size=block_size)[1]
    assert found.tolist() == ranks_by_sorting(query, gallery)


@pytest.mark.parametrize(("kind", "is_crowded"), [("collapsed", False), ("equal", True)])
def test_only_equal_embeddings_are_compared_twice(
    kind: str, is_crowded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Collapsed ones, a thousandth apart, are told apart at the first look."""
    counted = []
    count_exactly = ranks._count_exactly

    def watched(comparison: object, matches: object, queries: np.ndarray, *rest: object) -> np.ndarray:
        counted.extend(queries)
        return count_exactly(comparison, matches, queries, *rest)

    monkeypatch.setattr(ranks, "_count_exactly", watched)
    evaluate_features(features(kind, 30, 5), features(kind, 900, 6))
    assert bool(counted) is is_crowded


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_duplicated_rows_fall_to_gallery_order(dtype: str) -> None:
    query = features("signed", 25, 7, dtype=dtype)
    once = features("signed", 120, 8, dtype=dtype)
    gallery = Features(
        np.concatenate([once.embeddings] * 3),
        np.concatenate([np.roll(once.identities, copy) for copy in range(3)]),  # matches tie with others
        np.concatenate([once.cameras] * 3),
    )
    comparison = compare(query, gallery)
    found = match_ranks(comparison)[1]
    assert found.tolist() == ranks_by_sorting(query, gallery)


def test_what_a_later_block_crowds_is_counted_once() -> None:
    """Float32 tells the first hundred items from the match, and none of the hundred copies after them."""
    query = Features(features("signed", 1, 9).embeddings, [1], [1])
    others = features("signed", 101, 10).embeddings
    gallery = Features(
        np.concatenate([others, np.repeat(others[-1:], 100, axis=0)]), [2] * 200 + [1], [2] * 201
    )
    expected = ranks_by_sorting(query, gallery)
    assert 120 < expected[0] < 200, "some of the others come before"
    assert match_ranks(compare(query, gallery), block_size=100)[1].tolist() == expected


def test_all_scores_equal_rank_by_gallery_order() -> None:
    query = Features(np.ones((1, 4)), [1], [1])
    gallery = Features(np.full((2000, 4), 3.0), np.arange(2000) % 1000, np.full(2000, 2))
    result = evaluate_features(query, gallery)
    assert result.first_match_ranks.tolist() == [2]
    assert result.average_precisions[0] == pytest.approx((1 / 2 + 2 / 1002) / 2)


def test_a_gallery_shorter_than_the_cmc() -> None:
    gallery = Features(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), [1, 2, 3], [2, 2, 2])
    result = evaluate_features(Features(np.array([[1.0, 0.0]]), [1], [1]), gallery, max_rank=20)
    assert result.cmc.tolist() == [0.0, 0.0, *[1.0] * 18]


def test_rows_that_are_not_finite_are_named_before_anything_is_compared() -> None:
    query, gallery = features("collapsed", 9, 1), features("collapsed", 3000, 2, dtype="float16")
    gallery.embeddings[[5, 2999], 7] = np.nan
    with pytest.raises(DataError, match=r"gallery embeddings hold NaN.* in 2 of 3000 rows \(rows 5, 2999\)"):
        evaluate_features(query, gallery)
