"""Where and when a person was: sightings in a row at one camera are one visit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from reidkit.errors import DataError, shown
from reidkit.galleries import Gallery, Item, proposals
from reidkit.labels import moment, near_labels

GAP = 1800.0
"""Seconds without a sighting after which a visit is over."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay at one camera, from the first to the last of its sightings, in Unix seconds."""

    camera: int | str
    start: float
    end: float
    items: tuple[Item, ...]

    @property
    def begin(self) -> str:
        """The start, for people."""
        return moment(self.start)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Visits in their order; ``num_unknown`` items have no time or no camera, and are in none.

    ``num_without_time`` and ``num_without_camera`` say what these lack; some lack both.
    """

    visits: tuple[Visit, ...]
    num_unknown: int = 0
    num_without_time: int = 0
    num_without_camera: int = 0

    @property
    def pauses(self) -> list[float]:
        """Seconds between each visit and the one before; 0 for the first."""
        return [0.0] * bool(self.visits) + [after.start - one.end for one, after in pairwise(self.visits)]


def items_of(gallery: Gallery, name: str) -> list[Item]:
    """The items of a person, by the identity, or by the name of a proposal where nobody is called so.

    Raises :class:`DataError` where there is neither.
    """
    items = gallery.items(where={"identity": name})
    if items:
        return items
    open_ones = proposals(gallery)
    if name in open_ones:
        return open_ones[name]
    known = {item.identity for item in gallery.items() if item.identity is not None}
    near = near_labels(name, known | open_ones.keys())
    meant = f"; did you mean {shown(near[0])}?" if near else ""
    raise DataError(f"the gallery knows nobody called {shown(name)}{meant}")


def timeline(items: Iterable[Item], *, gap: float = GAP) -> Timeline:
    """The visits of one person.

    Args:
        items: of that person, in any order.
        gap: seconds between two sightings at one camera that are not of one visit any more.
    """
    known, unknown = [], []
    for item in items:
        if item.time is None or item.camera is None:
            unknown.append(item)
        else:
            known.append((item.time, str(item.camera), item.id, item))
    visits: list[Visit] = []
    for seconds, _, _, item in sorted(known):
        last = visits[-1] if visits else None
        assert item.camera is not None
        if last is not None and last.camera == item.camera and seconds - last.end <= gap:
            visits[-1] = Visit(last.camera, last.start, seconds, (*last.items, item))
        else:
            visits.append(Visit(item.camera, seconds, seconds, (item,)))
    return Timeline(
        tuple(visits),
        num_unknown=len(unknown),
        num_without_time=sum(item.time is None for item in unknown),
        num_without_camera=sum(item.camera is None for item in unknown),
    )
