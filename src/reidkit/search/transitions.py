"""How long people take from camera to camera, learnt from those whose identity is known.

A transition is from the end of a visit to the start of the next, at another camera, within the time after
which a visit would be over. Its logarithm is taken as normal, with the median and the quartiles of what was
seen, so that a few wrong identities change little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.galleries import Item
from reidkit.labels import is_junk
from reidkit.search.visits import GAP, timeline

FEWEST = 10
"""Transitions from which on a pair of cameras is believed."""

_FASTEST = 0.05  # share of known transitions that are faster than those that are doubted
_SMALLEST_SPREAD = 0.3  # of logarithms: nobody walks like a clock
_QUARTILES = NormalDist().inv_cdf(0.75) * 2

Camera = int | str
Weights = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Transition:
    """What is known of the way from one camera to another: seconds, of ``num`` people's walks."""

    start: Camera
    end: Camera
    num: int
    median: float
    quartiles: tuple[float, float]

    @property
    def is_believed(self) -> bool:
        """Whether it was seen often enough."""
        return self.num >= FEWEST

    def weight(self, seconds: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """How possible walks of so many seconds (any shape) are, from 0 to 1: less if they are too fast."""
        low, middle, high = (
            math.log1p(value) for value in (self.quartiles[0], self.median, self.quartiles[1])
        )
        spread = max((high - low) / _QUARTILES, _SMALLEST_SPREAD)
        fastest = middle + spread * NormalDist().inv_cdf(_FASTEST)
        # The share of walks that are as fast, over that at which doubt begins.
        logarithms = np.log1p(seconds)
        weights = np.ones(logarithms.shape)
        fast = logarithms < fastest
        weights[fast] = [NormalDist(middle, spread).cdf(value) / _FASTEST for value in logarithms[fast]]
        return weights


class Transitions:
    """Of all pairs of cameras between which somebody walked. True if some of them are believed."""

    def __init__(self, known: Iterable[Transition]) -> None:
        self.known = tuple(known)

    def __bool__(self) -> bool:
        return any(one.is_believed for one in self.known)

    def weights(self, items: Sequence[Item]) -> Weights:
        """How possible it is that two of some items show one person, from 0 to 1.

        It is where times or cameras are unknown, or few are known to have walked that way.
        """
        times = np.array([np.nan if item.time is None else item.time for item in items])
        codes = {camera: code for code, camera in enumerate({i.camera for i in items})}
        cameras = np.array([codes[item.camera] for item in items], np.int64)

        def weights(ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
            swapped = times[ones] > times[others]
            before, after = np.where(swapped, others, ones), np.where(swapped, ones, others)
            seconds = times[after] - times[before]
            result = np.ones(len(seconds))
            for transition in self.known:
                if transition.is_believed and {transition.start, transition.end} <= codes.keys():
                    start, end = codes[transition.start], codes[transition.end]
                    walked = (cameras[before] == start) & (cameras[after] == end) & np.isfinite(seconds)
                    # Two places at once are the end of either way.
                    walked |= (cameras[after] == start) & (cameras[before] == end) & (seconds == 0)
                    result[walked] = np.minimum(result[walked], transition.weight(seconds[walked]))
            return result

        return weights


def transitions(items: Iterable[Item], *, gap: float = GAP) -> Transitions:
    """What the items whose identity is known say of the ways between cameras; most walked first."""
    of_people: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.identity is not None and not is_junk(item.identity):
            of_people[item.identity].append(item)
    seconds: dict[tuple[Camera, Camera], list[float]] = defaultdict(list)
    for some in of_people.values():
        for visit, following in pairwise(timeline(some, gap=gap).visits):
            lasted = following.start - visit.end
            if visit.camera != following.camera and lasted <= gap:
                seconds[visit.camera, following.camera].append(lasted)
    known = [_transition(*way, np.array(values)) for way, values in seconds.items()]
    return Transitions(sorted(known, key=lambda one: (-one.num, str(one.start), str(one.end))))


def _transition(start: Camera, end: Camera, seconds: NDArray[np.float64]) -> Transition:
    low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75]).tolist()
    return Transition(start, end, len(seconds), middle, (low, high))
