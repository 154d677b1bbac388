"""Visits of a person, and the times that people take from camera to camera."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.galleries import Item
from reidkit.search.transitions import FEWEST, Transition, Transitions, transitions
from reidkit.search.visits import timeline


def item(id, camera, time, identity="ann"):
    return Item(id, None, identity, camera, time)


def test_sightings_in_a_row_at_one_camera_are_one_visit():
    items = [
        item(1, 1, 0.0), item(2, 1, 5.0), item(3, 2, 60.0), item(4, 1, 100.0), item(5, 1, 3000.0),
        item(6, None, 4.0), item(7, 1, None), item(8, "door", 3001.0),
    ]  # fmt: skip
    found = timeline(items[::-1], gap=1000)
    assert [(v.camera, v.start, v.end, [i.id for i in v.items]) for v in found.visits] == [
        (1, 0, 5, [1, 2]),
        (2, 60, 60, [3]),
        (1, 100, 100, [4]),
        (1, 3000, 3000, [5]),
        ("door", 3001, 3001, [8]),
    ]
    assert (found.num_unknown, found.num_without_time, found.num_without_camera) == (2, 1, 1)
    assert len(timeline(items, gap=1e9).visits) == 4
    assert timeline([]).visits == ()


def walks(num, *, seconds, way=(1, 2), first=0):
    """So many people, each first at one camera and then at another."""
    return [
        item(2 * n + end, way[end], 10_000.0 * n + end * seconds(n), f"p{first + n}")
        for n in range(num)
        for end in (0, 1)
    ]


def test_transitions_are_learnt_from_those_who_are_known():
    items = walks(12, seconds=lambda n: 50 + n)
    items += walks(3, seconds=lambda n: 7.0, way=(2, "door"), first=50)
    items += [item(90, 1, 0.0, None), item(91, 2, 1.0, None), item(92, 1, 0.0, "-1"), item(93, 2, 1.0, "-1")]
    items += walks(2, seconds=lambda n: 5000, first=70)  # nobody walks so long: they were elsewhere
    found = transitions(items)
    assert [(one.start, one.end, one.num, one.median) for one in found.known] == [
        (1, 2, 12, 55.5),
        (2, "door", 3, 7.0),
    ]
    assert [one.is_believed for one in found.known] == [True, False]
    assert found
    assert not transitions(items[24:])
    assert not transitions([])


def test_only_walks_that_are_too_fast_are_doubted():
    transition = Transition(1, 2, FEWEST, 60.0, (50.0, 72.0))
    weights = transition.weight(np.array([0.0, 5.0, 20.0, 40.0, 60.0, 600.0, 86_400.0]))
    assert np.all(np.diff(weights) >= 0)
    assert weights[0] < 1e-9
    assert weights[2] < 0.1
    assert weights[3:].tolist() == [1, 1, 1, 1]


def test_a_few_wrong_identities_change_little():
    right = transitions(walks(40, seconds=lambda n: 50 + n % 10)).known[0]
    wrong = transitions(
        walks(40, seconds=lambda n: 50 + n % 10) + walks(4, seconds=lambda n: 1.0, first=100)
    ).known[0]
    assert wrong.num == right.num + 4
    assert wrong.median == pytest.approx(right.median, abs=2)
    assert wrong.weight(np.array([5.0]))[0] < 0.1


def test_weights_of_pairs():
    known = Transitions([Transition(1, 2, FEWEST, 60.0, (50.0, 72.0)), Transition(2, 1, 1, 5.0, (5.0, 5.0))])
    items = [item(1, 1, 0.0), item(2, 2, 1.0), item(3, 2, 90.0), item(4, 1, 1.0), item(5, None, 1.0)]
    items += [item(6, 2, None), item(7, 1, 2.0), item(8, "door", 1.0)]
    weights = known.weights(items)
    every = np.arange(len(items))
    for one in every:
        of_one = weights(np.full(len(items), one), every)
        doubted = [{int(one) + 1, other + 1} for other in np.flatnonzero(of_one < 1).tolist()]
        assert all(pair in ({1, 2}, {2, 4}) for pair in doubted), doubted
        np.testing.assert_array_equal(of_one, weights(every, np.full(len(items), one)))
    assert weights(np.array([0]), np.array([1]))[0] < 0.01
