"""What the service answers, as plain values; the page shows them, and the API sends them as JSON.

No answer holds the path of a file: an item's picture is had by the gallery's name and the item's number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from reidkit.galleries import Decision, Group, Hit, Item
from reidkit.galleries._feedback import PROPOSAL
from reidkit.labels import moment
from reidkit.search.item_pictures import spread
from reidkit.search.visits import Timeline, Visit
from reidkit.texts.printable import printable

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder

Label = str | int | float | bool


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class ItemAnswer(Answer):
    """An item; what is not known is null. ``time`` is in Unix seconds, ``moment`` the same for people."""

    id: int = Field(examples=[17])
    name: str = Field(description="The picture's file name, without its folder.", examples=["c3_0017.jpg"])
    identity: str | None = Field(None, examples=["anna"])
    proposal: str | None = Field(None, description="Whom it is proposed to show.", examples=["new-1"])
    camera: int | str | None = Field(None, examples=["door"])
    time: float | None = Field(None, examples=[1714557600.0])
    moment: str = Field("", examples=["2024-05-01 10:00:00 UTC"])
    tracklet: str | None = None
    labels: dict[str, Label] = Field(default_factory=dict, examples=[{"zone": "hall"}])
    has_picture: bool = Field(False, description="Whether it names a picture, which may be gone since.")


class HitAnswer(ItemAnswer):
    """An item that a search found; ``score`` is the cosine similarity, 1 for the same picture."""

    score: float = Field(examples=[0.8731])
    probability: float | None = Field(None, description="That it shows the same person, where that is known.")
    is_query: bool = False


class PersonAnswer(Answer):
    """A person, or a tracklet, that a search found; one item of whom nothing is known has no label."""

    kind: str = Field(examples=["identity"])
    label: str | None = Field(examples=["anna"])
    score: float
    num_items: int
    cameras: list[int | str]
    hits: list[HitAnswer]


class SearchAnswer(Answer):
    """What a search found: ``people`` where they were asked for, else ``hits``; the best first."""

    hits: list[HitAnswer] = []
    people: list[PersonAnswer] = []
    no_probability: str = Field("", description="Why no probabilities are told, where that is so.")
    prior: float | None = Field(None, description="What the probabilities rest on.")
    num_low: int = Field(0, description="Hits left out for their scores.")
    num_own: int = Field(0, description="Hits left out since they are the query's own picture.")
    num_rejected: int = Field(0, description="Hits left out since somebody told them apart from the query.")
    why_nothing: str = ""
    seconds: float


class GalleryAnswer(Answer):
    """A gallery, and what whoever asks may do in it."""

    name: str = Field(examples=["people"])
    role: str = Field(examples=["reviewer"])
    num_items: int = 0
    dimension: int | None = None
    is_calibrated: bool = False
    require_purpose: bool
    unavailable: str = Field("", description="Why it cannot be read now, where that is so.")


class ItemsAnswer(Answer):
    """Some of the items; ``total`` is how many there are, ``start`` the place of the first."""

    items: list[ItemAnswer]
    total: int
    start: int = 0


class AddedAnswer(Answer):
    """Pictures that were added; what could not be read is told, and was left out."""

    ids: list[int]
    known: list[int] = Field(
        default_factory=list,
        description="Of these, items that were there already. Their labels stay as they were.",
    )
    unreadable: list[str] = Field(default_factory=list, description="Why, a sentence each, with the place.")


class RemovedAnswer(Answer):
    """How many items were removed, or would be where it was a trial."""

    num_items: int
    dry_run: bool = False


class KnownPersonAnswer(Answer):
    """A person of the gallery, or one who is proposed; ``items`` are a few of theirs."""

    name: str = Field(examples=["anna"])
    is_proposal: bool
    num_items: int
    cameras: list[int | str]
    first: str = ""
    last: str = ""
    items: list[ItemAnswer]


class PeopleAnswer(Answer):
    """People, those with most items first."""

    people: list[KnownPersonAnswer]
    total: int
    start: int = 0


class VisitAnswer(Answer):
    """A stay at one camera, ``pause`` seconds after the one before."""

    camera: int | str
    start: float
    end: float
    begin: str
    pause: float
    items: list[ItemAnswer]


class TimelineAnswer(Answer):
    """Where and when a person was; ``num_unknown`` items have no time or no camera."""

    name: str
    visits: list[VisitAnswer]
    num_unknown: int


class DecisionAnswer(Answer):
    """What somebody decided."""

    id: int | None
    kind: str = Field(examples=["accept"])
    items: list[int]
    before: list[str | None]
    after: list[str | None]
    who: str
    time: float | None
    moment: str
    undoes: int | None = None
    in_force: bool = True


class DecisionsAnswer(Answer):
    """Decisions, the newest first."""

    decisions: list[DecisionAnswer]
    total: int


class CardAnswer(Answer):
    """What is known of the encoder behind a gallery."""

    fingerprint: str
    dimension: int
    height: int
    width: int
    is_calibrated: bool
    calibrated_on: str = ""
    card: dict[str, Any]


class JobAnswer(Answer):
    """Work that goes on behind a request; ``result`` says what came of it, ``error`` why nothing did."""

    id: str
    kind: str = Field(examples=["cluster"])
    gallery: str
    who: str
    state: str = Field(examples=["running"], description="waiting, running, done, failed or cancelled")
    done: int = 0
    total: int = 0
    started: float
    ended: float | None = None
    result: str = ""
    error: str = ""


def item_answer(item: Item) -> ItemAnswer:
    return ItemAnswer(**_fields(item))


def hit_answer(hit: Hit, *, probability: float | None = None, is_query: bool = False) -> HitAnswer:
    return HitAnswer(**_fields(hit), score=hit.score, probability=probability, is_query=is_query)


def person_answer(group: Group, is_own: Any) -> PersonAnswer:
    return PersonAnswer(
        kind=group.kind,
        label=None if group.label is None else printable(group.label),
        score=group.score,
        num_items=group.num_items,
        cameras=group.cameras,
        hits=[hit_answer(hit, is_query=is_own(hit)) for hit in group.hits],
    )


def known_person_answer(
    name: str, items: Sequence[Item], shown: Sequence[Item], *, is_proposal: bool
) -> KnownPersonAnswer:
    times = [item.time for item in items if item.time is not None]
    cameras = {item.camera for item in items if item.camera is not None}
    return KnownPersonAnswer(
        name=name,
        is_proposal=is_proposal,
        num_items=len(items),
        cameras=sorted(cameras, key=lambda camera: (isinstance(camera, str), camera)),
        first=moment(min(times)) if times else "",
        last=moment(max(times)) if times else "",
        items=list(map(item_answer, shown)),
    )


def people_answer(
    known: Mapping[str, list[Item]], start: int, num: int, pictures: int, *, is_proposal: bool
) -> PeopleAnswer:
    """``num`` people from place ``start`` on, those with most items first; so many pictures of each."""
    names = sorted(known, key=lambda name: (-len(known[name]), name))
    told = [
        known_person_answer(name, known[name], spread(known[name], pictures), is_proposal=is_proposal)
        for name in names[start : start + num]
    ]
    return PeopleAnswer(people=told, total=len(known), start=start)


def card_answer(encoder: Encoder) -> CardAnswer:
    """What may be told of an encoder: no paths of this machine."""
    told = ("name", "recipe", "dataset", "data", "scores", "reidkit", "licence", "losses", "epochs")
    calibration = encoder.calibration
    return CardAnswer(
        fingerprint=encoder.fingerprint,
        dimension=encoder.dim,
        height=encoder.height,
        width=encoder.width,
        is_calibrated=calibration is not None,
        calibrated_on="" if calibration is None else calibration.source,
        card={
            key: encoder.card[key]
            for key in told
            if isinstance(encoder.card.get(key), str | int | float | bool)
        },
    )


def timeline_answer(name: str, found: Timeline) -> TimelineAnswer:
    visits = [_visit(visit, pause) for visit, pause in zip(found.visits, found.pauses, strict=True)]
    return TimelineAnswer(name=name, visits=visits, num_unknown=found.num_unknown)


def decision_answer(decision: Decision, *, in_force: bool = True) -> DecisionAnswer:
    return DecisionAnswer(
        id=decision.id,
        kind=decision.kind,
        items=list(decision.items),
        before=list(decision.before),
        after=list(decision.after),
        who=decision.who,
        time=decision.time,
        moment=decision.moment,
        undoes=decision.undoes,
        in_force=in_force,
    )


def _visit(visit: Visit, pause: float) -> VisitAnswer:
    return VisitAnswer(
        camera=visit.camera,
        start=visit.start,
        end=visit.end,
        begin=visit.begin,
        pause=pause,
        items=list(map(item_answer, visit.items)),
    )


def _fields(item: Item) -> dict[str, Any]:
    own = {name: _plain(value) for name, value in item.labels.items() if name != PROPOSAL}
    proposal = item.labels.get(PROPOSAL)
    return {
        "id": item.id,
        "name": f"#{item.id}" if item.source is None else printable(PurePath(item.source).name),
        "identity": item.identity,
        "proposal": None if proposal is None or item.identity is not None else str(proposal),
        "camera": item.camera,
        "time": item.time,
        "moment": "" if item.time is None else moment(item.time),
        "tracklet": item.tracklet,
        "labels": own,
        "has_picture": item.source is not None,
    }


def _plain(value: str | int | float | bool | datetime) -> Label:
    return value.isoformat() if isinstance(value, datetime) else value
