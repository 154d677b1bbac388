"""What is counted while the scores pass by in tiles: the same as by itself, ties and all."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.analysis.breakdown import MatchRankCounter, camera_pairs, ranks_of_matches
from reidkit.evaluation import comparison
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.features import rows_of
from reidkit.evaluation.nearest import NearestNegatives, nearest_items
from reidkit.types import JUNK, Features


def tied(num: int, *, seed: int) -> Features:
    """Embeddings of three small whole numbers: many scores are equal, those of matches among them."""
    rng = np.random.default_rng(seed)
    embeddings = rng.integers(-1, 2, (num, 3)).astype(float)
    return Features(embeddings + np.array([0, 0, 0.5]), rng.integers(JUNK, 6, num), rng.integers(0, 3, num))


QUERY, GALLERY = tied(40, seed=1), tied(120, seed=2)


@pytest.fixture(autouse=True, params=[(1, 7), (64 * 2**20, 512)], ids=["small tiles", "one tile"])
def _tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_BLOCK_BYTES", request.param[0])
    monkeypatch.setattr(comparison, "_QUERIES_PER_TILE", request.param[1])


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("with_gallery", [True, False])
def test_counters_of_one_pass_are_those_of_their_own(camera_filter: str, with_gallery: bool) -> None:
    sides = compare(QUERY, GALLERY if with_gallery else None, camera_filter=camera_filter)
    ranks, nearest = MatchRankCounter(sides), NearestNegatives(sides)
    sides.read_negatives(ranks, nearest)
    found, expected = ranks.result(), ranks_of_matches(sides)
    for name in ("ranks", "first", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    wrong = np.flatnonzero(found.first_match_ranks > 1)
    assert len(wrong) > 3
    np.testing.assert_array_equal(nearest.items[wrong], nearest_items(sides, top=1, rows=wrong).indices[:, 0])


def test_a_query_without_a_negative_has_no_nearest() -> None:
    sides = compare(Features(np.eye(2), [1, JUNK]), Features(np.eye(2), [1, JUNK]))
    nearest = NearestNegatives(sides)
    sides.read_negatives(nearest)
    assert nearest.items.tolist() == [-1, -1]


def test_ranks_under_one_camera_are_those_in_a_gallery_of_it() -> None:
    pairs = camera_pairs(compare(QUERY, GALLERY))
    for column, camera in enumerate(pairs.gallery_cameras):
        alone = ranks_of_matches(compare(QUERY, rows_of(GALLERY, np.flatnonzero(GALLERY.cameras == camera))))
        for row, other in enumerate(pairs.query_cameras):
            chosen = (QUERY.cameras == other) & alone.valid
            assert pairs.num_queries[row, column] == chosen.sum()
            if chosen.any():
                mean = alone.average_precisions[chosen].mean()
                assert pairs.mean_average_precision[row, column] == mean
                assert pairs.rank1[row, column] == (alone.first_match_ranks[chosen] == 1).mean()
