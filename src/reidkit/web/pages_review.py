"""The pages on which proposals are decided, one after the other, and what was decided."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import NoGallery
from reidkit.web.access import CheckedUser, CurrentUser, TheService
from reidkit.web.answers import ItemAnswer, KnownPersonAnswer, PeopleAnswer
from reidkit.web.pages_shell import Sent, TheForm, TheQuery, render, see
from reidkit.web.roles import Actor
from reidkit.web.service import MOST_LISTED, Service
from reidkit.web.wanted import DecisionRequest

router = APIRouter()

PICTURES_SHOWN = 120
KNOWN_SHOWN = 6
DECISIONS_SHOWN = 100
MOST_SUGGESTED = 500


@router.get("/g/{gallery}/review")
def review(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """One proposal with its pictures; the first, or the one that the address names."""
    try:
        waiting = service.queue(actor, gallery, num=MOST_LISTED, pictures=0)
        people = service.people(actor, gallery, num=MOST_SUGGESTED, pictures=0)
    except NoGallery:
        waiting = people = PeopleAnswer(people=[], total=0)
    names = [person.name for person in waiting.people]
    at = query.text("at")
    place = names.index(at) if at in names else 0
    shown = _shown(service, actor, gallery, place) if names else None
    known = {person.name for person in people.people}
    return render(
        request,
        actor,
        "review.html",
        gallery=gallery,
        here="review",
        waiting=waiting,
        proposal=shown,
        place=place,
        before=names[place - 1] if place else None,
        after=names[place + 1] if place + 1 < len(names) else None,
        known=_known(service, actor, gallery, shown.name) if shown else [],
        names=sorted(known),
        others=[name for name in names if shown and name != shown.name],
        last=_last(service, actor, gallery) if waiting.total or people.total else None,
        rejected=service.rejected(actor, gallery),
    )


@router.post("/g/{gallery}/review")
def decide(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Decide about a proposal, and lead on to the next."""
    kind, proposal = form.text("kind"), form.text("proposal")
    service.decide(actor, gallery, _decision(kind, proposal, form))
    at = proposal if kind in ("split", "merge") else form.text("next")
    return see(f"/g/{gallery}/review", **({"at": at} if at else {}))


@router.get("/g/{gallery}/decisions")
def decisions(request: Request, actor: CurrentUser, service: TheService, gallery: str) -> Response:
    """What was decided, the newest first."""
    found = service.decisions(actor, gallery, num=DECISIONS_SHOWN)
    return render(request, actor, "decisions.html", gallery=gallery, here="review", found=found)


@router.post("/g/{gallery}/decisions/undo")
def undo(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Take a decision back, or that a proposal was just rejected, which is then shown again."""
    if proposal := form.text("proposal"):
        service.decide(actor, gallery, DecisionRequest(kind="undo", proposal=proposal))
        return see(f"/g/{gallery}/review", at=proposal)
    number = form.number("decision", 0)
    service.decide(actor, gallery, DecisionRequest(kind="undo", undoes=number))
    return see(f"/g/{gallery}/{'review' if form.text('back') == 'review' else 'decisions'}")


def _decision(kind: str, proposal: str, form: Sent) -> DecisionRequest:
    """What the pressed button means.

    Accepted are the pictures that were shown, by number: a proposal of the same name may be another by now.
    """
    if kind == "accept":
        name = form.text("identity") or proposal
        return DecisionRequest(kind="accept", items=form.numbers("shown"), identity=name)
    if kind == "split":
        ids = form.numbers("item")
        if not ids:
            raise ConfigError("no picture is ticked; tick those that show somebody else")
        return DecisionRequest(kind="split", items=ids)
    if kind == "merge":
        return DecisionRequest(kind="merge", identity=form.text("with"), others=(proposal,))
    return DecisionRequest.model_validate({"kind": kind, "proposal": proposal})


def _shown(service: Service, actor: Actor, gallery: str, place: int) -> KnownPersonAnswer | None:
    """The proposal at a place of the queue, with its pictures."""
    [*found] = service.queue(actor, gallery, start=place, num=1, pictures=PICTURES_SHOWN).people
    return found[0] if found else None


def _known(service: Service, actor: Actor, gallery: str, name: str) -> list[ItemAnswer]:
    """A few pictures of the person whom a proposal is linked to, where that is one known by name."""
    try:
        found = service.person(actor, gallery, name).items
    except DataError:
        return []
    return [item for item in found if item.identity is not None][:KNOWN_SHOWN]


def _last(service: Service, actor: Actor, gallery: str) -> object:
    """The last decision, if it can be taken back."""
    found = service.decisions(actor, gallery, num=1).decisions
    return found[0] if found and found[0].in_force and found[0].kind != "undo" else None
