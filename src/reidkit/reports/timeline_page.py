"""Where and when a person was, as a chart and as a page with pictures that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import MaxNLocator

from reidkit.files import write_atomically
from reidkit.galleries import Gallery
from reidkit.labels import is_date, lasting, moment
from reidkit.reports.charts import BLUE, Chart, new_axes, own_style
from reidkit.reports.item_pictures import ItemCell, item_cells
from reidkit.reports.parts import Figure, render
from reidkit.search.item_pictures import spread
from reidkit.search.visits import Timeline, Visit
from reidkit.texts.printable import printable

MOST_VISITS = 200
MOST_PICTURES = 8
_LONGEST_NAME = 16  # characters of a camera that fit beside the chart


@dataclass(frozen=True, slots=True)
class _Row:
    camera: str
    start: str
    stay: str
    since: str
    num_items: int
    cells: tuple[ItemCell, ...]


@own_style()
def write_timeline_page(
    path: str | Path,
    name: str,
    found: Timeline,
    *,
    is_proposed: bool = False,
    gallery: Gallery | None = None,
) -> Path:
    """Write the page of a person.

    Args:
        path: the HTML file; an older one is replaced in one go.
        name: the person's.
        found: where and when they were.
        is_proposed: nobody has said yet that all of this is one person.
        gallery: whose thumbnails stand in for pictures that are gone.
    """
    visits = found.visits[:MOST_VISITS]
    page = render(
        "timeline.html",
        title=f"Timeline of {name}",
        name=name,
        is_proposed=is_proposed,
        found=found,
        figure=_figure(found.visits) if found.visits else None,
        rows=[_row(visit, before, gallery) for visit, before in zip(visits, [None, *visits], strict=False)],
        num_left_out=len(found.visits) - len(visits),
    )
    return write_atomically(path, page)


@own_style()
def draw_timeline(path: str | Path, found: Timeline) -> Path:
    """Write the chart as a PNG."""
    return write_atomically(path, timeline_chart(found.visits).png())


def timeline_chart(visits: Sequence[Visit]) -> Chart:
    """Visits as bars, a line a camera, along the time."""
    cameras = sorted({visit.camera for visit in visits}, key=lambda camera: (isinstance(camera, str), camera))
    as_dates = bool(visits) and all(map(is_date, (visits[0].start, visits[-1].end)))
    figure, axes = new_axes(f"time (UTC), {_days(visits)}" if as_dates else "time (s)", "camera")
    days = 86_400 if as_dates else 1  # matplotlib counts dates in days since 1970
    times = [visit.start / days for visit in visits]
    ends = [visit.end / days for visit in visits]
    places = [cameras.index(visit.camera) for visit in visits]
    axes.plot(times, places, color=BLUE, linewidth=0.8, alpha=0.5)
    axes.hlines(places, times, ends, color=BLUE, linewidth=6)
    axes.plot(times, places, "o", color=BLUE, markersize=6)
    axes.set_yticks(range(len(cameras)), [_short(camera) for camera in cameras])
    axes.set_ylim(-0.6, len(cameras) - 0.4)
    if as_dates:
        locator = AutoDateLocator(minticks=2, maxticks=5)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))  # type: ignore[no-untyped-call]
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    return Chart("timeline", figure)


def _days(visits: Sequence[Visit]) -> str:
    """The days that an axis is of, whose own labels leave out what is the same in all of them."""
    first, last = (moment(time).split()[0] for time in (visits[0].start, visits[-1].end))
    return first if first == last else f"{first} to {last}"


def _short(camera: int | str) -> str:
    name = printable(camera)
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def _figure(visits: Sequence[Visit]) -> Figure:
    return Figure("Where and when", timeline_chart(visits), "A bar is a visit, a dot its beginning.")


def _row(visit: Visit, before: Visit | None, gallery: Gallery | None) -> _Row:
    return _Row(
        camera=str(visit.camera),
        start=moment(visit.start),
        stay=lasting(visit.end - visit.start),
        since="" if before is None else lasting(visit.start - before.end),
        num_items=len(visit.items),
        cells=item_cells(spread(visit.items, MOST_PICTURES), gallery),
    )
