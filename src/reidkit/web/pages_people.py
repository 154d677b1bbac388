"""The pages of the people whom a gallery knows, and what is done with one of them."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import NoGallery
from reidkit.web.access import CheckedUser, CurrentUser, TheService
from reidkit.web.answers import PeopleAnswer, TimelineAnswer
from reidkit.web.pages_shell import TheForm, TheQuery, places, render, see
from reidkit.web.wanted import DecisionRequest

router = APIRouter()

PEOPLE_A_PAGE = 24
PICTURES_EACH = 4
PICTURES_A_PAGE = 60
MOST_SUGGESTED = 500


@router.get("/g/{gallery}/people")
def people(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """People by name, those with most pictures first."""
    start = query.number("start", 0)
    try:
        found = service.people(actor, gallery, start=start, num=PEOPLE_A_PAGE, pictures=PICTURES_EACH)
    except NoGallery:
        found = PeopleAnswer(people=[], total=0)
    return render(
        request,
        actor,
        "people.html",
        gallery=gallery,
        here="people",
        found=found,
        around=places(start, PEOPLE_A_PAGE, found.total),
        num_erased=query.number("erased", 0),
    )


@router.get("/g/{gallery}/person")
def person(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """One person, or one who is proposed: where and when they were, and their pictures."""
    name, start = query.text("name"), query.number("start", 0)
    found = service.person(actor, gallery, name)
    known = service.people(actor, gallery, num=MOST_SUGGESTED, pictures=1)
    timeline = service.timeline(actor, gallery, name)
    return render(
        request,
        actor,
        "person.html",
        gallery=gallery,
        here="people",
        name=name,
        total=found.total,
        items=found.items[start : start + PICTURES_A_PAGE],
        start=start,
        around=places(start, PICTURES_A_PAGE, found.total),
        is_proposal=all(item.identity is None for item in found.items),
        timeline=timeline,
        chart=chart_of(timeline),
        others=[one.name for one in known.people if one.name != name],
    )


@router.post("/g/{gallery}/person/rename")
def rename(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """All pictures of a person show somebody of another name, whom nobody is called yet."""
    name, new = form.text("name"), form.text("identity")
    ids = tuple(item.id for item in service.person(actor, gallery, name).items)
    try:
        service.person(actor, gallery, new)
    except DataError:
        service.decide(actor, gallery, DecisionRequest(kind="accept", items=ids, identity=new))
        return see(f"/g/{gallery}/person", name=new)
    raise ConfigError(f"somebody is called {new} already; merge the two if they are one person")


@router.post("/g/{gallery}/person/merge")
def merge(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Another person is this one, too."""
    name = form.text("name")
    others = (form.text("other"),)
    service.decide(actor, gallery, DecisionRequest(kind="merge", identity=name, others=others))
    return see(f"/g/{gallery}/person", name=name)


@router.post("/g/{gallery}/person/split")
def split(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """The ticked pictures show somebody else."""
    name, ids, new = form.text("name"), form.numbers("item"), form.text("identity")
    if not ids:
        raise ConfigError("no picture is ticked; tick those that show somebody else")
    service.decide(actor, gallery, DecisionRequest(kind="split", items=ids, identity=new or None))
    return see(f"/g/{gallery}/person", name=name)


@router.post("/g/{gallery}/person/forget")
def forget(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Erase all of a person, where the box that says so was ticked."""
    if form.text("sure") != "yes":
        raise ConfigError("nothing was erased; tick the box that says you are sure")
    erased = service.forget(actor, gallery, form.secret("name"))
    return see(f"/g/{gallery}/people", erased=erased.num_items)


# --- the picture of a timeline ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bar:
    """A visit in the picture; place and width in percent of its width."""

    left: float
    width: float
    title: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A camera's line in the picture, with its place from above in pixels."""

    camera: str
    top: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Visits as bars, a line a camera."""

    lanes: tuple[Lane, ...]
    height: int


LANE = 46
LEAST_WIDTH = 0.8  # percent: a sighting of a moment is still to be seen
MOST_LANES = 40


def chart_of(timeline: TimelineAnswer) -> Chart:
    """The picture of a timeline, of the cameras in the order in which the person came by."""
    visits = timeline.visits
    cameras = list(dict.fromkeys(visit.camera for visit in visits))[:MOST_LANES]
    start = min((visit.start for visit in visits), default=0.0)
    length = max((visit.end for visit in visits), default=0.0) - start or 1.0
    lanes = []
    for place, camera in enumerate(cameras):
        bars = tuple(
            Bar(
                left=round((visit.start - start) / length * (100 - LEAST_WIDTH), 2),
                width=round(max(LEAST_WIDTH, (visit.end - visit.start) / length * 100), 2),
                title=visit.begin,
            )
            for visit in visits
            if visit.camera == camera
        )
        lanes.append(Lane(str(camera), place * LANE, bars))
    return Chart(tuple(lanes), len(lanes) * LANE)
