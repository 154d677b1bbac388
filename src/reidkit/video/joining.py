"""Tracks that go on: a person who was hidden and comes into sight again keeps the tracklet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_STEP = 1.5  # heights that a person may move in a second while unseen; people walk about 0.8 of theirs
_BORDER = 0.02  # of the picture's width and height: a box that is nearer has left, or is coming in


@dataclass(frozen=True, slots=True, eq=False)
class Stay:
    """When (seconds) and where (left, top, right, bottom) a track began and ended, and its mean embedding."""

    began: float
    ended: float
    first_box: NDArray[np.float64]
    last_box: NDArray[np.float64]
    embedding: NDArray[np.float32]


class Joiner:
    """Gives each track of one camera the name of its tracklet: that of an earlier track, or its own.

    A track continues the most similar one that ended before it began, at most ``seconds`` earlier, both
    within the picture and not too far apart, if their mean embeddings score ``lowest`` or more. Who walked
    out of the picture ended the tracklet. Tracks are to be given in the order in which they end.

    Args:
        seconds: how long a person may be hidden.
        lowest: the score; ``None`` joins nothing.
        size: width and height of the picture.
    """

    def __init__(self, *, seconds: float, lowest: float | None, size: tuple[int, int]) -> None:
        self.seconds, self.lowest, self.size = seconds, lowest, size
        self._last: dict[str, Stay] = {}

    def tracklet(self, own: str, stay: Stay) -> str:
        """The name of the tracklet of a track; ``own`` is the name it has if it continues none."""
        name = self._continued(stay) or own
        self.know(name, stay)
        return name

    def forget(self, before: float) -> None:
        """Forget tracks that ended so early that none which begins at ``before`` or later continues them."""
        self._last = {name: stay for name, stay in self._last.items() if stay.ended >= before - self.seconds}

    def know(self, name: str, stay: Stay) -> None:
        """Note a track whose tracklet is known already."""
        if self.lowest is not None:
            self._last[name] = stay

    def _continued(self, stay: Stay) -> str | None:
        if self.lowest is None or self._at_border(stay.first_box):
            return None
        scores = {
            name: float(other.embedding @ stay.embedding)
            for name, other in self._last.items()
            if 0 < stay.began - other.ended <= self.seconds
            and not self._at_border(other.last_box)
            and _is_near(other, stay)
        }
        best = max(scores, key=lambda name: scores[name], default=None)
        return best if best is not None and scores[best] >= self.lowest else None

    def _at_border(self, box: NDArray[np.float64]) -> bool:
        """Whether a box touches the left, right or upper border; feet are cut off in many pictures."""
        width, height = self.size
        left, top, right, _ = box.tolist()
        return bool(left < _BORDER * width or right > (1 - _BORDER) * width or top < _BORDER * height)


def _is_near(first: Stay, second: Stay) -> bool:
    """Whether a person could have walked from the end of one to the beginning of the other."""
    before, after = first.last_box, second.first_box
    height = (before[3] - before[1] + after[3] - after[1]) / 2
    sideways = (before[0] + before[2] - after[0] - after[2]) / 2
    moved = np.hypot(sideways, before[3] - after[3])
    return bool(moved <= height * (1 + _STEP * (second.began - first.ended)))
