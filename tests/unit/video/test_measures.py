"""IDF1 and HOTA of small cases that can be counted by hand, within cameras and across them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from reidkit.errors import DataError
from reidkit.video.boxes import Boxes, make_boxes
from reidkit.video.measures import track_scores

pytest.importorskip("trackers", reason="trackers is not installed")


def camera(tracks: Sequence[int], *, shift: float = 0.0) -> Boxes:
    """One box a frame, of these tracks."""
    corners = [[10 * n + shift, 0, 10 * n + 8 + shift, 20] for n in range(len(tracks))]
    return make_boxes(np.arange(len(tracks)), corners, tracks=tracks)


def test_what_is_right_scores_one() -> None:
    truth = [camera([1, 1, 1, 1]), camera([1, 1, 2, 2])]
    scores = track_scores(truth, truth, across=True)
    assert (scores.idf1, scores.hota, scores.deta, scores.assa) == pytest.approx((1, 1, 1, 1))


def test_other_numbers_are_as_good_within_a_camera_and_wrong_across() -> None:
    truth = [camera([1] * 4), camera([1] * 4)]
    found = [camera([5] * 4), camera([6] * 4)]
    assert track_scores(truth, found, across=False).idf1 == 1
    across = track_scores(truth, found, across=True)
    assert across.idf1 == pytest.approx(0.5)  # one half of the person's boxes has the right number
    assert across.assa == pytest.approx(0.5)
    assert across.deta == pytest.approx(1)


def test_misses_and_false_alarms_count() -> None:
    truth = [camera([1, 1, 1, 1])]
    found = [camera([1, 1, 1, -1])]
    scores = track_scores(truth, found, across=False)
    assert (scores.idp, scores.idr) == pytest.approx((1, 0.75))
    assert scores.idf1 == pytest.approx(2 * 3 / (4 + 3))
    assert track_scores(truth, [camera([1] * 4, shift=100)], across=False).idf1 == 0


def test_as_many_cameras_on_both_sides() -> None:
    with pytest.raises(DataError, match="2 cameras of truth, but 1 with tracks"):
        track_scores([camera([1]), camera([1])], [camera([1])], across=True)
