"""People who walk through cameras: the truth is what is drawn, and detectors err as they are told to."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.datasets.synthetic.walks import WalksWorld, detections, pictures, plan_walks
from reidkit.errors import ConfigError

WORLD = WalksWorld(num_people=4, num_cameras=2, seconds=15, rate=4, width=160, height=96, seed=3)


def test_people_are_where_the_truth_says() -> None:
    visits = plan_walks(WORLD)
    assert {visit.person for visit in visits} == {0, 1, 2, 3}
    seen_at_all = 0
    frames = list(pictures(WORLD, 0, visits))
    empty = next(picture for picture, seen in frames if not seen).astype(int)
    assert len(frames) == 60
    for picture, seen in frames:
        assert picture.shape == (96, 160, 3)
        for _, (left, top, right, bottom), visible in seen:
            assert 0 <= left < right <= 160
            assert 0 <= top < bottom <= 96
            assert 0.15 <= visible <= 1
            if visible > 0.9 and right - left > 8:
                box = np.s_[int(top) : int(bottom), int(left) : int(right)]
                assert np.abs(picture[box] - empty[box]).max(axis=2).mean() > 15
                seen_at_all += 1
    assert seen_at_all > 5


def test_the_same_world_is_the_same_pictures() -> None:
    visits = plan_walks(WORLD)
    first, second = (next(pictures(WORLD, 1, visits))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    others = plan_walks(WalksWorld(seed=4))
    assert others != plan_walks(WalksWorld(seed=5))


def test_detectors_miss_err_and_see_ghosts() -> None:
    visits = plan_walks(WORLD)
    truth = [seen for _, seen in pictures(WORLD, 0, visits)]
    num = sum(map(len, truth))
    exact = detections(WORLD, 0, truth, misses=0, jitter=0, false_alarms=0)
    full = {(frame, s.person) for frame, seen in enumerate(truth) for s in seen if s.visible > 0.6}
    assert full <= {(box.frame, box.person) for box in exact}
    noisy = detections(WORLD, 0, truth, misses=0.5, jitter=0.1, false_alarms=1)
    alarms = [box for box in noisy if box.person == -1]
    assert 30 < len(alarms) < 100
    assert len(noisy) - len(alarms) < 0.8 * num
    assert all(0 < box.confidence < 1 for box in noisy)


def test_no_world_is_made_of_nothing() -> None:
    with pytest.raises(ConfigError, match="makes no world"):
        plan_walks(WalksWorld(num_people=0))
