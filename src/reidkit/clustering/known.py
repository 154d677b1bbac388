"""What a gallery says of who is who, as constraints: identities, tracklets, decisions, overlapping times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.clustering.constraints import UNKNOWN, Constraints
from reidkit.galleries import Gallery, Item
from reidkit.galleries._apart import Apart, Person, apart, person_of
from reidkit.texts.printable import counted

Pairs = list[tuple[int, int]]


def known_constraints(gallery: Gallery, items: Sequence[Item]) -> tuple[Constraints, list[str]]:
    """Constraints of items (N,), and sentences on what contradicts itself and was left out of account.

    Together are items of one identity, and of one tracklet under one camera. Apart are people of two
    identities, whom somebody told apart, and tracklets under one camera that overlap in time. Identities and
    decisions are believed first: a tracklet that shows two people joins nobody.
    """
    told_apart = apart(gallery)
    identities, tracklets = _identities(items), _tracklets(items)
    torn = [
        number
        for number, rows in _rows_of(tracklets).items()
        if _shows_two({person_of(items[row]) for row in rows}, told_apart)
    ]
    notes = []
    if torn:
        tracklets[np.isin(tracklets, torn)] = UNKNOWN
        notes.append(f"{counted(len(torn), 'tracklet')} with two people each, by identity or decision: split")
    pairs = _decided(items, told_apart)
    units = Constraints(tracklets, identities).units(len(items)).unit_of
    inside = {int(units[one]) for one, other in pairs if units[one] == units[other]}
    if inside:  # tracklets join them by way of a third
        tracklets[np.isin(units, list(inside))] = UNKNOWN
        notes.append(
            f"{counted(len(inside), 'chain')} of tracklets between people who were told apart: split"
        )
        units = Constraints(tracklets, identities).units(len(items)).unit_of
    overlapping = list(_overlapping(items, tracklets))
    possible = [pair for pair in overlapping if units[pair[0]] != units[pair[1]]]
    if len(possible) < len(overlapping):
        num = counted(len(overlapping) - len(possible), "pair")
        notes.append(f"{num} of tracklets at one camera and time, which show one person: not told apart")
    return Constraints(tracklets, identities, [*pairs, *possible]), notes


def _identities(items: Sequence[Item]) -> NDArray[np.int64]:
    codes: dict[str, int] = {}
    persons = [person_of(item) for item in items]
    return np.array(
        [codes.setdefault(one, len(codes)) if isinstance(one, str) else UNKNOWN for one in persons], np.int64
    )


def _tracklets(items: Sequence[Item]) -> NDArray[np.int64]:
    """Numbers of tracklets; those of two cameras are two, for many trackers count anew for each camera."""
    codes: dict[tuple[object, str], int] = {}
    return np.array(
        [
            UNKNOWN if i.tracklet is None else codes.setdefault((i.camera, i.tracklet), len(codes))
            for i in items
        ],
        np.int64,
    )


def _rows_of(codes: NDArray[np.int64]) -> dict[int, list[int]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for row, code in enumerate(codes.tolist()):
        if code != UNKNOWN:
            rows[code].append(row)
    return rows


def _shows_two(persons: set[Person], told_apart: Apart) -> bool:
    named = sum(isinstance(person, str) for person in persons)
    return named > 1 or any(persons & told_apart.of(person).keys() for person in persons)


def _decided(items: Sequence[Item], told_apart: Apart) -> Pairs:
    """Rows of people who were told apart, one of each."""
    row_of: dict[Person, int] = {}
    for row, item in enumerate(items):
        row_of.setdefault(person_of(item), row)
    return [
        (row_of[one], row_of[other]) for one, other in told_apart.pairs() if one in row_of and other in row_of
    ]


def _overlapping(items: Sequence[Item], tracklets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Rows of two tracklets under one camera that were there at the same time, one of each."""
    spans: dict[object, list[tuple[float, float, int]]] = defaultdict(list)
    for rows in _rows_of(tracklets).values():
        times = [time for row in rows if (time := items[row].time) is not None]
        camera = items[rows[0]].camera
        if times and camera is not None:
            spans[camera].append((min(times), max(times), rows[0]))
    for of_camera in spans.values():
        going_on: list[tuple[float, int]] = []
        for start, end, row in sorted(of_camera):
            going_on = [(until, other) for until, other in going_on if until >= start]
            yield from ((other, row) for _, other in going_on)
            going_on.append((end, row))
