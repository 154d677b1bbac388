"""What clustering proposes, as a page: a row a person, with pictures; it needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from reidkit.clustering.proposals import Person, Proposals
from reidkit.files import write_atomically
from reidkit.galleries import Gallery, Item
from reidkit.labels import moment
from reidkit.reports.item_pictures import ItemCell, item_cells
from reidkit.reports.parts import render
from reidkit.search.item_pictures import spread

MOST_PEOPLE = 200
MOST_PICTURES = 12


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    is_known: bool
    num_items: int
    num_proposed: int
    cameras: str
    first: str
    last: str
    cells: tuple[ItemCell, ...]
    command: str


def write_people_page(
    path: str | Path,
    proposals: Proposals,
    *,
    location: str,
    gallery: Gallery | None = None,
    most_people: int = MOST_PEOPLE,
    most_pictures: int = MOST_PICTURES,
) -> Path:
    """Write the page.

    Args:
        path: the HTML file; an older one is replaced in one go.
        proposals: what :func:`reidkit.clustering.proposals.propose` gave.
        location: of the gallery, for the commands that accept.
        gallery: whose thumbnails stand in for pictures that are gone.
        most_people: with a row, the largest first; the page says how many are left out.
        most_pictures: of each, from all over their time.
    """
    page = render(
        "people.html",
        title=f"People in {Path(location).name or location}",
        proposals=proposals,
        rows=[_row(person, location, gallery, most_pictures) for person in proposals.people[:most_people]],
        num_left_out=max(0, len(proposals.people) - most_people),
        num_known=sum(person.is_known for person in proposals.people),
        location=quote(location),
        most_pictures=most_pictures,
    )
    return write_atomically(path, page)


def _row(person: Person, location: str, gallery: Gallery | None, most_pictures: int) -> _Row:
    in_order = sorted(person.items, key=_when)
    times = [item.time for item in person.items if item.time is not None]
    cameras = dict.fromkeys(str(item.camera) for item in in_order if item.camera is not None)
    return _Row(
        name=person.name,
        is_known=person.is_known,
        num_items=len(person.items),
        num_proposed=person.num_proposed,
        cameras=", ".join(sorted(cameras)),
        first=moment(min(times)) if times else "",
        last=moment(max(times)) if times else "",
        cells=item_cells(_shown(in_order, most_pictures), gallery),
        command=f"reid review accept {quote(location)} {quote(person.name)}" if person.num_proposed else "",
    )


def _shown(items: Sequence[Item], num: int) -> list[Item]:
    """Pictures to judge by: of those known, if any, a third at most; then what is proposed."""
    known = [item for item in items if item.identity is not None]
    proposed = [item for item in items if item.identity is None]
    of_known = min(len(known), num if not proposed else max(1, num // 3))
    return spread(known, of_known) + spread(proposed, num - of_known)


def _when(item: Item) -> tuple[bool, float, int]:
    return item.time is None, item.time or 0.0, item.id
