"""Identities of tracks that go on: they do not flicker, and unknown people are new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import open_gallery
from reidkit.video.live import LiveIndex


def person(number: int, *, noise: float = 0.0, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    row = np.eye(8)[number] + noise * rng.normal(size=8)
    return row / np.linalg.norm(row)


def test_known_people_are_found_and_others_are_new(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "g") as gallery:
        gallery.add(np.stack([person(0), person(1), person(2)]), identities=["anna", "ben", None])
        index = LiveIndex(0.6, gallery)
        assert index.update([1, 2], [person(1, noise=0.1), person(2)]) == ["ben", "new-1"]
        assert index.update([3], [person(2, noise=0.1)]) == ["new-1"]
        assert index.update([4, 5], [person(3), person(0)]) == ["new-2", "anna"]


def test_an_identity_does_not_flicker_but_a_wrong_one_is_given_up() -> None:
    index = LiveIndex(0.5, patience=3)
    index.update(["a", "b"], [person(0), person(1)])
    index.forget("b")
    assert index.update(["a"], [person(1)]) == ["new-1"]  # one picture of somebody else
    for _ in range(3):
        assert index.update(["a"], [person(0)]) == ["new-1"]
    seen = [index.update(["a"], [person(1)])[0] for _ in range(20)]  # the tracker changed over
    change = seen.index("new-2")
    assert change >= 3
    assert set(seen[:change]) == {"new-1"}
    assert set(seen[change:]) == {"new-2"}


def test_two_in_sight_are_two_people() -> None:
    index = LiveIndex(0.5)
    first, second = index.update([1, 2], [person(0), person(0, noise=0.05)])
    assert first != second
    assert index.update([2, 1], [person(0, noise=0.05), person(0)]) == [second, first]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="lowest = 2"):
        LiveIndex(2)
    index = LiveIndex(0.5)
    with pytest.raises(DataError, match="given twice"):
        index.update([1, 1], [person(0), person(1)])
    with pytest.raises(DataError, match="1 embeddings for 2 tracks"):
        index.update([1, 2], [person(0)])
    assert index.update([], []) == []
