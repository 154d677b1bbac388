"""Where scores come from, against slow references that rank one query at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reidkit.analysis.breakdown import (
    RECALL_LEVELS,
    Confusion,
    MatchRanks,
    camera_pairs,
    choose_identities,
    confusions,
    precision_recall,
    ranks_of_matches,
)
from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison, compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.nearest import NearestNegatives
from reidkit.types import JUNK, Features


def people(
    seed: int, *, num_queries: int = 30, num_gallery: int = 80, cameras: int = 3
) -> tuple[Features, Features]:
    """Ten people, some junk in the gallery, embeddings near their person's centre."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(11, 8))
    sides = []
    for num, lowest in ((num_queries, 0), (num_gallery, JUNK)):
        identities = rng.integers(lowest, 10, num)
        embeddings = centres[identities] + 0.8 * rng.normal(size=(num, 8))
        sides.append(Features(embeddings, identities, rng.integers(0, cameras, num)))
    return sides[0], sides[1]


def slow_matches(query: Features, gallery: Features, row: int, camera_filter: str) -> np.ndarray:
    """Whether each kept gallery item, best first, shows the query's person."""
    unit_query, unit_gallery = (
        side.embeddings / np.linalg.norm(side.embeddings, axis=1, keepdims=True) for side in (query, gallery)
    )
    order = np.argsort(-(unit_gallery @ unit_query[row]), kind="stable")
    same = gallery.identities[order] == query.identities[row]
    kept = gallery.identities[order] != JUNK
    same_camera = gallery.cameras[order] == query.cameras[row]
    if camera_filter == "same_identity":
        kept &= ~(same & same_camera)
    elif camera_filter == "other_cameras":
        kept &= ~same_camera
    return same[kept]


def slow_precision_recall(query: Features, gallery: Features, camera_filter: str) -> np.ndarray:
    curves = []
    for row in range(len(query)):
        matches = slow_matches(query, gallery, row, camera_filter)
        if not matches.any():
            continue
        found = np.cumsum(matches)
        precisions = found / np.arange(1, len(matches) + 1)
        # Compared in whole hundredths: recall found / total is at least k / 100.
        curves.append(
            [max(precisions[found * 100 >= k * matches.sum()]) if k else max(precisions) for k in range(101)]
        )
    return np.mean(curves, axis=0)


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_precision_recall_curve_is_that_of_a_loop_over_queries(seed: int, camera_filter: str) -> None:
    query, gallery = people(seed)
    curve = precision_recall(ranks_of_matches(compare(query, gallery, camera_filter=camera_filter)))
    np.testing.assert_allclose(curve, slow_precision_recall(query, gallery, camera_filter), atol=1e-12)
    assert (np.diff(curve) <= 1e-12).all()


def test_an_ideal_order_has_precision_one_everywhere() -> None:
    matches = MatchRanks(np.array([1, 2, 3, 1]), np.array([0, 3, 4]), np.array([3, 1, 0]))
    np.testing.assert_array_equal(precision_recall(matches), np.ones(len(RECALL_LEVELS)))


def test_precision_at_a_level_of_recall_by_hand() -> None:
    """Matches at ranks 2 and 4: precision 1/2 at both recalls, in between and before."""
    np.testing.assert_allclose(
        precision_recall(MatchRanks(np.array([2, 4]), np.array([0]), np.array([2]))), np.full(101, 0.5)
    )
    curve = precision_recall(MatchRanks(np.array([1, 4]), np.array([0]), np.array([2])))
    np.testing.assert_allclose(curve[:51], 1.0)
    np.testing.assert_allclose(curve[51:], 0.5)


def test_without_a_match_there_is_no_curve() -> None:
    with pytest.raises(DataError, match="no query has a match"):
        precision_recall(MatchRanks(np.empty(0, np.int64), np.zeros(2, np.intp), np.zeros(2, np.intp)))


def test_ranks_give_the_scores_of_the_evaluation() -> None:
    query, gallery = people(3)
    matches, evaluation = ranks_of_matches(compare(query, gallery)), evaluate_features(query, gallery)
    np.testing.assert_array_equal(matches.average_precisions, evaluation.average_precisions)
    np.testing.assert_array_equal(matches.first_match_ranks, evaluation.first_match_ranks)


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
def test_camera_pairs_are_those_of_galleries_cut_by_camera(camera_filter: str) -> None:
    query, gallery = people(4)
    found = camera_pairs(compare(query, gallery, camera_filter=camera_filter))
    for i, a in enumerate(found.query_cameras):
        for j, b in enumerate(found.gallery_cameras):
            block = gallery.cameras == b
            cut = Features(gallery.embeddings[block], gallery.identities[block], gallery.cameras[block])
            precisions, firsts = [], []
            for row in np.flatnonzero(query.cameras == a):
                matches = slow_matches(query, cut, row, camera_filter)
                if matches.any():
                    ranks = 1 + np.flatnonzero(matches)
                    precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
                    firsts.append(ranks[0] == 1)
            assert found.num_queries[i, j] == len(precisions)
            if precisions:
                assert found.mean_average_precision[i, j] == pytest.approx(np.mean(precisions))
                assert found.rank1[i, j] == pytest.approx(np.mean(firsts))
            else:
                assert np.isnan(found.mean_average_precision[i, j])
                assert np.isnan(found.rank1[i, j])
    if camera_filter != "none":
        assert not np.diag(found.num_queries).any()


def test_camera_pairs_without_a_gallery_leave_out_the_query_itself() -> None:
    items, _ = people(5)
    twice = Features(
        np.repeat(items.embeddings, 2, axis=0), np.repeat(items.identities, 2), np.zeros(60, np.int64)
    )
    found = camera_pairs(compare(twice, camera_filter="none"))
    assert found.num_queries.item() == 60
    assert found.rank1.item() == 1  # the equal other half, never itself


def test_cameras_may_be_text_and_must_be_there() -> None:
    query, gallery = people(6)
    named = [
        replace(side, cameras=np.array([f"gate {camera}" for camera in side.cameras]))
        for side in (query, gallery)
    ]
    found = camera_pairs(compare(*named))
    assert found.query_cameras.tolist() == ["gate 0", "gate 1", "gate 2"]
    np.testing.assert_array_equal(found.num_queries, camera_pairs(compare(query, gallery)).num_queries)
    with pytest.raises(DataError, match="no camera labels"):
        camera_pairs(compare(replace(query, cameras=None), gallery))


def all_confusions(comparison: Comparison) -> list[Confusion]:
    nearest = NearestNegatives(comparison)
    comparison.read_negatives(nearest)
    return confusions(comparison, ranks_of_matches(comparison), nearest.items)


@pytest.mark.parametrize("camera_filter", ["same_identity", "none"])
def test_confusions_are_the_wrong_people_at_rank_one(camera_filter: str) -> None:
    query, gallery = people(7)
    found = all_confusions(compare(query, gallery, camera_filter=camera_filter))
    counts: dict[tuple[int, int], int] = {}
    unit = [
        side.embeddings / np.linalg.norm(side.embeddings, axis=1, keepdims=True) for side in (query, gallery)
    ]
    for row in range(len(query)):
        if not slow_matches(query, gallery, row, camera_filter).any():
            continue
        scores = unit[1] @ unit[0][row]
        scores[gallery.identities == JUNK] = -np.inf
        same = gallery.identities == query.identities[row]
        if camera_filter == "same_identity":
            scores[same & (gallery.cameras == query.cameras[row])] = -np.inf
        nearest = int(np.argmax(scores))
        if not same[nearest]:
            pair = int(query.identities[row]), int(gallery.identities[nearest])
            counts[pair] = counts.get(pair, 0) + 1
    assert counts
    assert {(item.identity, item.taken_for): item.num_queries for item in found} == counts
    numbers = [item.num_queries for item in found]
    assert numbers == sorted(numbers, reverse=True)


def test_confusions_without_a_gallery() -> None:
    items = Features(np.array([[1.0, 0], [0.99, 0.1], [0.0, 1], [0.1, 0.99]]), np.array([0, 1, 1, 0]))
    found = all_confusions(compare(items, camera_filter="none"))
    assert found == [Confusion(0, 1, 2), Confusion(1, 0, 2)]


def test_identities_with_most_images_are_chosen_of_those_asked_for() -> None:
    gallery = Features(np.ones((11, 2)), np.array([0, 0, 0, 0, 5, 5, 5, 7, 9, 9, JUNK]))
    query = Features(np.ones((4, 2)), np.array([5, 7, 9, JUNK]))
    rows = choose_identities(query, gallery, num=2, max_rows=4)
    assert gallery.identities[rows].tolist() == [5, 5, 9, 9]
    assert len(set(rows.tolist())) == 4
    assert len(choose_identities(query, gallery, num=12, max_rows=600)) == 6
