"""The API, version 1: each endpoint reads a request, calls the service, and sends what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, File, Form, Path, Query, Request, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from reidkit.errors import ConfigError, ReidError
from reidkit.galleries import parse_where
from reidkit.web import answers as a
from reidkit.web.access import CheckedUser, CurrentUser, TheService, access_of, is_same_origin
from reidkit.web.metrics import CONTENT_TYPE
from reidkit.web.problems import MEDIA_TYPE
from reidkit.web.roles import NotAllowed, Role
from reidkit.web.together import NotReady
from reidkit.web.wanted import (
    MOST_ID,
    DecisionRequest,
    ExpireRequest,
    ForgetRequest,
    JobRequest,
    Login,
    NewItem,
    RemoveRequest,
    SearchOptions,
    SearchRequest,
)

T = TypeVar("T")

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, text in {
        400: "The request cannot be understood.",
        401: "Nobody is logged in, or the token is not valid.",
        403: "The role does not allow it.",
        404: "There is no such thing, or it is not to be known.",
        409: "Things are not, or no longer, as the request takes them to be.",
        413: "The request is too large.",
        422: "The request cannot be carried out; `errors` says which part of it.",
        429: "Too much at once; `Retry-After` says how long to wait.",
        503: "Not ready, or shutting down; `Retry-After` says how long to wait, where that is known.",
    }.items()
}

Gallery = Annotated[str, Path(max_length=64, examples=["people"])]
ItemNumber = Annotated[int, Path(ge=0, le=MOST_ID, examples=[17])]
JobNumber = Annotated[str, Path(max_length=32, examples=["9f86d081884c7d65"])]
Conditions = Annotated[
    list[str], Query(description="Such as camera!=3; all must hold.", max_length=20, examples=[["camera!=3"]])
]
Start = Annotated[int, Query(ge=0, le=10**9)]
Num = Annotated[int, Query(ge=1, le=1000)]
PersonName = Annotated[str, Query(min_length=1, max_length=200, examples=["anna"])]
Pictures = Annotated[list[UploadFile], File(description="Files of images.")]

_SEARCH_OPTIONS = TypeAdapter(SearchOptions)
_NEW_ITEMS = TypeAdapter(list[NewItem])

router = APIRouter(responses=PROBLEMS)
one = APIRouter(prefix="/v1/galleries/{gallery}", responses=PROBLEMS, tags=["gallery"])


# --- who asks ---------------------------------------------------------------------------------------------


class Me(BaseModel):
    """Who asks, with roles by gallery; ``*`` stands for all."""

    name: str
    roles: dict[str, str]
    csrf: str = ""


@router.get("/v1/me", tags=["users"])
def me(actor: CurrentUser) -> Me:
    """Who the service takes me for."""
    return Me(name=actor.name, roles={name: role.name for name, role in actor.roles.items()}, csrf=actor.csrf)


@router.post("/v1/session", tags=["users"])
def log_in(login: Login, request: Request, response: Response) -> Me:
    """Log in; the answer sets a cookie, and tells the secret that requests by it have to send along."""
    if not is_same_origin(request):
        raise NotAllowed("the request comes from a page of another site")
    return me(access_of(request).log_in(request, response, login.name, login.password))


@router.delete("/v1/session", tags=["users"], status_code=204)
def log_out(actor: CheckedUser, request: Request, response: Response) -> None:
    """Log out."""
    access_of(request).log_out(request, response)


# --- searching --------------------------------------------------------------------------------------------


@router.get("/v1/galleries", tags=["gallery"])
def galleries(actor: CurrentUser, service: TheService) -> list[a.GalleryAnswer]:
    """The galleries that I may look at."""
    return service.galleries(actor)


@one.get("/encoder")
def encoder(actor: CurrentUser, service: TheService, gallery: Gallery) -> a.CardAnswer:
    """What is known of the encoder behind a gallery."""
    return service.card(actor, gallery)


@one.post("/search", response_model=a.SearchAnswer)
def search(actor: CheckedUser, service: TheService, gallery: Gallery, request: SearchOptions) -> Response:
    """Search by stored items and embeddings, all of them one query."""
    return _as_json(service.search(actor, gallery, SearchRequest(**dict(request))))


@one.post("/search/pictures", response_model=a.SearchAnswer)
def search_by_pictures(
    actor: CheckedUser,
    service: TheService,
    gallery: Gallery,
    pictures: Pictures,
    request: Annotated[str, Form(description="SearchOptions as JSON.", examples=['{"top": 5}'])] = "{}",
) -> Response:
    """Search by pictures; several are one query."""
    wanted = _from_json(_SEARCH_OPTIONS, request, "request")
    read = _read(pictures, service.settings.limits.pictures)
    return _as_json(service.search(actor, gallery, SearchRequest(**dict(wanted), pictures=tuple(read))))


# --- items ------------------------------------------------------------------------------------------------


@one.get("/items")
def items(
    actor: CurrentUser,
    service: TheService,
    gallery: Gallery,
    where: Conditions = [],  # noqa: B006 - FastAPI copies it
    start: Start = 0,
    num: Num = 100,
) -> a.ItemsAnswer:
    """Items that meet the conditions, in the order of their numbers."""
    return service.items(actor, gallery, where=parse_where(where) or None, start=start, num=num)


@one.post("/items", status_code=201)
def add(
    actor: CheckedUser,
    service: TheService,
    gallery: Gallery,
    pictures: Pictures,
    items: Annotated[
        str, Form(description="A list of NewItem as JSON, one a picture.", examples=['[{"camera": 3}]'])
    ] = "[]",
) -> a.AddedAnswer:
    """Add pictures; those that cannot be read are left out, and told."""
    said = _from_json(_NEW_ITEMS, items, "items")
    return service.add(actor, gallery, _read(pictures, service.settings.limits.added), said)


@one.post("/items/remove")
def remove(
    actor: CheckedUser, service: TheService, gallery: Gallery, request: RemoveRequest
) -> a.RemovedAnswer:
    """Remove items by number, or all that meet conditions, and every byte of them."""
    if request.items and request.where:
        raise ConfigError("give items or where, not both")
    if request.where:
        return service.remove_where(actor, gallery, request.where, dry_run=request.dry_run)
    return service.remove(actor, gallery, request.items)


@one.get("/items/{item}")
def item(actor: CurrentUser, service: TheService, gallery: Gallery, item: ItemNumber) -> a.ItemAnswer:
    """One item."""
    return service.item(actor, gallery, item)


@one.get("/items/{item}/thumbnail", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def thumbnail(actor: CurrentUser, service: TheService, gallery: Gallery, item: ItemNumber) -> Response:
    """An item's picture as a JPEG of 160 x 320 pixels at most."""
    return Response(service.thumbnail(actor, gallery, item), media_type="image/jpeg")


@one.get("/items/{item}/picture", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
def picture(actor: CurrentUser, service: TheService, gallery: Gallery, item: ItemNumber) -> Response:
    """An item's picture as a JPEG of 1024 x 2048 pixels at most."""
    return Response(service.picture(actor, gallery, item), media_type="image/jpeg")


# --- people -----------------------------------------------------------------------------------------------


@one.get("/people")
def people(
    actor: CurrentUser, service: TheService, gallery: Gallery, start: Start = 0, num: Num = 100
) -> a.PeopleAnswer:
    """People that are known by name, those with most items first."""
    return service.people(actor, gallery, start=start, num=num)


@one.get("/queue")
def queue(
    actor: CurrentUser, service: TheService, gallery: Gallery, start: Start = 0, num: Num = 100
) -> a.PeopleAnswer:
    """People who are proposed, to be reviewed; the largest first."""
    return service.queue(actor, gallery, start=start, num=num)


@one.get("/timeline")
def timeline(
    actor: CurrentUser,
    service: TheService,
    gallery: Gallery,
    name: PersonName,
    gap: Annotated[float, Query(ge=0, le=1e9, allow_inf_nan=False)] = 1800.0,
) -> a.TimelineAnswer:
    """Where and when a person was; sightings at one camera within ``gap`` seconds are one visit."""
    return service.timeline(actor, gallery, name, gap=gap)


@one.post("/forget")
def forget(
    actor: CheckedUser, service: TheService, gallery: Gallery, request: ForgetRequest
) -> a.RemovedAnswer:
    """Remove all items of a person, and every byte of them."""
    return service.forget(actor, gallery, request.identity, dry_run=request.dry_run)


@one.post("/expire")
def expire(
    actor: CheckedUser, service: TheService, gallery: Gallery, request: ExpireRequest
) -> a.RemovedAnswer:
    """Remove what is older than an age; what has no time stays."""
    return service.expire(actor, gallery, request.older_than, dry_run=request.dry_run)


@one.get("/decisions")
def decisions(actor: CurrentUser, service: TheService, gallery: Gallery, num: Num = 100) -> a.DecisionsAnswer:
    """What was decided, the newest first."""
    return service.decisions(actor, gallery, num=num)


@one.post("/decisions")
def decide(
    actor: CheckedUser, service: TheService, gallery: Gallery, request: DecisionRequest
) -> a.DecisionsAnswer:
    """Accept, reject, merge, split, or take back."""
    return service.decide(actor, gallery, request)


# --- jobs and the log -------------------------------------------------------------------------------------


@one.get("/jobs", tags=["jobs"])
def jobs(actor: CurrentUser, service: TheService, gallery: Gallery) -> list[a.JobAnswer]:
    """Jobs of a gallery, the newest first."""
    return service.jobs(actor, gallery)


@one.post("/jobs", tags=["jobs"], status_code=202)
def start_job(actor: CheckedUser, service: TheService, gallery: Gallery, request: JobRequest) -> a.JobAnswer:
    """Start to index a folder, to import, or to cluster."""
    return service.start_job(actor, gallery, request)


@one.get("/jobs/{job}", tags=["jobs"])
def job(actor: CurrentUser, service: TheService, gallery: Gallery, job: JobNumber) -> a.JobAnswer:
    """A job as it is now."""
    return service.job(actor, gallery, job)


@one.delete("/jobs/{job}", tags=["jobs"])
def cancel_job(actor: CheckedUser, service: TheService, gallery: Gallery, job: JobNumber) -> a.JobAnswer:
    """Let a job end at its next step."""
    return service.cancel_job(actor, gallery, job)


@one.get(
    "/jobs/{job}/events",
    tags=["jobs"],
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def job_events(
    actor: CurrentUser, service: TheService, gallery: Gallery, job: JobNumber, request: Request
) -> Response:
    """A job whenever it changes, as server-sent events, until it ends."""
    await run_in_threadpool(service.job, actor, gallery, job)  # so that what is refused is refused now

    async def events() -> AsyncIterator[str]:
        before = ""
        while not request.app.state.is_closing:
            try:
                now = await run_in_threadpool(service.job, actor, gallery, job)
            except ReidError:
                return
            text = now.model_dump_json(ensure_ascii=True)
            if text != before:
                yield f"event: {now.state}\ndata: {text}\n\n"
                before = text
            if now.ended is not None:
                return
            await asyncio.sleep(0.3)

    return StreamingResponse(events(), media_type="text/event-stream")


class AuditEntry(BaseModel):
    """An entry of the audit log."""

    number: int
    time: float
    who: str
    action: str
    gallery: str
    details: dict[str, Any]
    hash: str
    is_intact: bool = Field(description="Whether it is what was written, and follows the entry before.")


@one.get("/audit", tags=["audit"])
def audit(actor: CurrentUser, service: TheService, gallery: Gallery, num: Num = 100) -> list[AuditEntry]:
    """The last entries of the audit log about a gallery, the newest first."""
    return [
        AuditEntry.model_validate(entry, from_attributes=True)
        for entry in service.audit_entries(actor, gallery, num=num)
    ]


# --- the service itself -----------------------------------------------------------------------------------


@router.get("/healthz", tags=["service"])
async def healthz() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@router.get("/readyz", tags=["service"])
def readyz(service: TheService) -> dict[str, str]:
    """Whether galleries can be read. Who searches right after the start may wait for the encoder."""
    for served in service.served.values():
        if not served.is_open:
            raise NotReady(f"the gallery {served.name} is being opened; wait a few seconds")
    lost = [served.name for served in service.served.values() if not served.is_readable()]
    if lost:
        raise NotReady(f"cannot be read: {', '.join(lost)}; see that what is served is in its place")
    return {"status": "ready"}


@router.get("/metrics", tags=["service"], response_class=Response)
def metrics(actor: CurrentUser, request: Request) -> Response:
    """Figures for Prometheus, for viewers of all galleries."""
    actor.check_everywhere(Role.viewer)
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)


# --- inside -----------------------------------------------------------------------------------------------


def _read(files: list[UploadFile], most: int) -> list[bytes]:
    if len(files) > most:
        raise ConfigError(f"there are {len(files)} pictures; send {most} at most")
    return [file.file.read() for file in files]


def _as_json(answer: a.Answer) -> Response:
    """An answer as it is sent, made in the thread that found it, and not checked once more."""
    return Response(answer.model_dump_json(ensure_ascii=True), media_type="application/json")


def _from_json(adapter: TypeAdapter[T], text: str, where: str) -> T:
    """A value in a field of a form."""
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise ConfigError(f"{place}: {first['msg']}") from None


router.include_router(one)
