"""The pages of a gallery itself: what it holds, adding, jobs, retention, and the audit log."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from reidkit.errors import ConfigError
from reidkit.galleries import NoGallery
from reidkit.web.access import CheckedUser, CurrentUser, TheService
from reidkit.web.pages_shell import Sent, TheForm, TheQuery, is_administrator, render, see
from reidkit.web.roles import Actor
from reidkit.web.service import Service
from reidkit.web.wanted import JobRequest, NewItem

router = APIRouter()

ENTRIES_SHOWN = 200
ENTRIES_SEARCHED = 5000


@router.get("/g/{gallery}/gallery")
def about(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """Items, storage and encoder; adding and retention for those who may."""
    return _about(request, actor, service, gallery, num_erased=query.text("erased"))


@router.post("/g/{gallery}/gallery/add")
def add(request: Request, actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Add pictures, all with the same labels."""
    pictures = form.files("pictures", most=service.settings.limits.added)
    if not pictures:
        raise ConfigError("no picture was chosen; choose one or more")
    said = {key: form.text(key) or None for key in ("identity", "camera", "time")}
    one = NewItem.model_validate(said | {"camera": _number_or_name(form.text("camera"))})
    added = service.add(actor, gallery, pictures, [one] * len(pictures))
    return _about(request, actor, service, gallery, added=added)


@router.post("/g/{gallery}/gallery/expire")
def expire(
    request: Request, actor: CheckedUser, service: TheService, gallery: str, form: TheForm
) -> Response:
    """Count what is older than an age; erase it where the box that says so is ticked."""
    age, is_sure = form.text("age"), form.text("sure") == "yes"
    found = service.expire(actor, gallery, age, dry_run=not is_sure)
    if is_sure:
        return see(f"/g/{gallery}/gallery", erased=found.num_items)
    return _about(request, actor, service, gallery, age=age, num_old=found.num_items)


@router.get("/g/{gallery}/jobs")
def jobs(request: Request, actor: CurrentUser, service: TheService, gallery: str) -> Response:
    """Jobs with their progress, the newest first."""
    found = service.jobs(actor, gallery)
    return render(
        request,
        actor,
        "jobs.html",
        gallery=gallery,
        here="jobs",
        jobs=found,
        is_busy=any(job.ended is None for job in found),
        folders=list(service.settings.folders),
    )


@router.post("/g/{gallery}/jobs")
def start_job(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Start a job."""
    service.start_job(actor, gallery, _job(form))
    return see(f"/g/{gallery}/jobs")


@router.post("/g/{gallery}/jobs/cancel")
def cancel_job(actor: CheckedUser, service: TheService, gallery: str, form: TheForm) -> Response:
    """Let a job end at its next step."""
    service.cancel_job(actor, gallery, form.text("job"))
    return see(f"/g/{gallery}/jobs")


@router.get("/g/{gallery}/audit")
def audit(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """Entries of the audit log about a gallery, the newest first."""
    return _audit(request, actor, service, gallery, query)


@router.post("/g/{gallery}/audit")
def verify(
    request: Request, actor: CheckedUser, service: TheService, gallery: str, form: TheForm
) -> Response:
    """The same, after the chain of hashes was followed; where it is broken, an error says so."""
    return _audit(request, actor, service, gallery, form, verified=service.audit_verified(actor))


def _about(request: Request, actor: Actor, service: Service, gallery: str, **done: Any) -> Response:
    try:
        storage, labels = service.storage(actor, gallery), service.labels(actor, gallery)
    except NoGallery:
        storage, labels = {}, None
    nothing: dict[str, Any] = {"added": None, "age": "", "num_old": None, "num_erased": ""}
    return render(
        request,
        actor,
        "gallery.html",
        gallery=gallery,
        here="gallery",
        card=service.card(actor, gallery),
        storage=storage,
        labels=labels,
        max_added=service.settings.limits.added,
        keep_uploads=service.settings.keep_uploads,
        **(nothing | done),
    )


def _audit(
    request: Request, actor: Actor, service: Service, gallery: str, given: Sent, verified: object = None
) -> Response:
    who, action = given.text("who"), given.text("action")
    entries = service.audit_entries(actor, gallery, num=ENTRIES_SEARCHED)
    found = [one for one in entries if who in ("", one.who) and action in ("", one.action)]
    return render(
        request,
        actor,
        "audit.html",
        gallery=gallery,
        here="audit",
        entries=found[:ENTRIES_SHOWN],
        total=len(found),
        who=who,
        action=action,
        people=sorted({one.who for one in entries}),
        actions=sorted({one.action for one in entries}),
        verified=verified,
        may_verify=is_administrator(actor),
    )


def _job(form: Sent) -> JobRequest:
    given = {key: form.text(key) for key in ("kind", "folder", "pattern", "distance") if form.text(key)}
    camera = _number_or_name(form.text("camera"))
    return JobRequest.model_validate(given | ({} if camera is None else {"camera": camera}))


def _number_or_name(text: str) -> int | str | None:
    """A camera as a field of a form says it; empty is not known."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text or None
