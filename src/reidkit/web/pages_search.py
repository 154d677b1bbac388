"""The page that searches, and that of one item."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from pydantic import TypeAdapter, ValidationError
from starlette.responses import Response

from reidkit.errors import ConfigError, shown
from reidkit.galleries import NoGallery
from reidkit.labels import moment
from reidkit.web.access import CheckedUser, CurrentUser, TheService
from reidkit.web.answers import SearchAnswer
from reidkit.web.label_values import LabelsAnswer
from reidkit.web.pages_shell import Sent, TheForm, TheQuery, render
from reidkit.web.roles import Actor
from reidkit.web.service import Service
from reidkit.web.wanted import Box, SearchRequest

router = APIRouter()

TOPS = (10, 20, 50, 100)
PICTURES_EACH = 5
_BOXES: TypeAdapter[tuple[Box | None, ...]] = TypeAdapter(tuple[Box | None, ...])


@router.get("/g/{gallery}/search")
def search_form(
    request: Request, actor: CurrentUser, service: TheService, gallery: str, query: TheQuery
) -> Response:
    """The form; with items in the address, what is found for them as well."""
    return _page(request, actor, service, gallery, query, ())


@router.post("/g/{gallery}/search")
def search(
    request: Request, actor: CheckedUser, service: TheService, gallery: str, form: TheForm
) -> Response:
    """What is found for the pictures that were sent, with the items of the form, all one query."""
    pictures = form.files("pictures", most=service.settings.limits.pictures)
    if not pictures and not form.texts("item"):
        raise ConfigError("there is nothing to search for; choose a picture")
    return _page(request, actor, service, gallery, form, pictures)


@router.get("/g/{gallery}/items/{item}")
def item(request: Request, actor: CurrentUser, service: TheService, gallery: str, item: int) -> Response:
    """One item: its picture and all that is known of it."""
    found = service.item(actor, gallery, item)
    return render(request, actor, "item.html", gallery=gallery, item=found)


def _page(
    request: Request, actor: Actor, service: Service, gallery: str, given: Sent, pictures: Sequence[bytes]
) -> Response:
    require_purpose = service.settings.require_purpose
    try:
        labels = service.labels(actor, gallery)
    except NoGallery:
        return render(request, actor, "search_empty.html", gallery=gallery, here="search")
    wanted = _wanted(given, pictures, labels)
    answer: SearchAnswer | None = None
    lacks_purpose = require_purpose and not wanted.purpose
    if pictures or (wanted.items and not lacks_purpose):
        answer = service.search(actor, gallery, wanted)
    return render(
        request,
        actor,
        "search.html",
        gallery=gallery,
        here="search",
        labels=labels,
        chosen={name: set(given.texts(f"is.{name}")) for name in given.names("is.")},
        times={name: given.text(name) for name in ("from", "to")},
        limits={name: given.text(name) for label in labels.labels for name in _of_range(label.name)},
        texts={label.name: given.text(f"text.{label.name}") for label in labels.labels},
        said=_said(labels),
        wanted=wanted,
        answer=answer,
        num_pictures=len(pictures),
        require_purpose=require_purpose,
        lacks_purpose=bool(wanted.items) and lacks_purpose,
        tops=TOPS,
        max_pictures=service.settings.limits.pictures,
    )


def _wanted(given: Sent, pictures: Sequence[bytes], labels: LabelsAnswer) -> SearchRequest:
    """What the form asks for. People are asked for, unless the gallery knows none or pictures are wanted."""
    by_default = "identity" if labels.num_people else "pictures"
    group = given.text("group") or by_default
    return SearchRequest.model_validate(
        {
            "pictures": tuple(pictures),
            "boxes": _boxes(given.text("boxes")) if pictures else (),
            "items": given.numbers("item"),
            "top": given.number("top", 20),
            "where": _where(given, labels),
            "group": None if group == "pictures" else group,
            "items_each": PICTURES_EACH,
            "purpose": given.text("purpose"),
        }
    )


def _boxes(text: str) -> tuple[Box | None, ...]:
    """What of each picture is meant, as the page's script writes it."""
    if not text:
        return ()
    try:
        found = _BOXES.validate_json(text)
    except ValidationError:
        raise ConfigError(f"the crops are {shown(text)}; cut the pictures out again") from None
    return found if any(found) else ()


def _where(given: Sent, labels: LabelsAnswer) -> dict[str, Any]:
    """Conditions: of each label the values that are ticked, or a range; and a window of time."""
    where: dict[str, Any] = {}
    for name in given.names("is."):
        try:
            where[name] = [json.loads(text) for text in given.texts(f"is.{name}")]
        except ValueError:
            raise ConfigError(f"the condition on {shown(name)} cannot be read; choose it again") from None
    for label in labels.labels:
        low, high = _of_range(label.name)
        if text := given.text(f"text.{label.name}"):
            where[label.name] = text
        if window := _window(given.text(low), given.text(high)):
            where[label.name] = {key: _decimal(label.name, text) for key, text in window.items()}
    if window := _window(given.text("from"), given.text("to")):
        is_text = labels.is_date
        where["time"] = window if is_text else {key: _decimal("time", text) for key, text in window.items()}
    return where


def _decimal(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"the limit of {name} is {shown(text)}; give a number") from None


def _of_range(name: str) -> tuple[str, str]:
    return f"low.{name}", f"high.{name}"


def _window(start: str, end: str) -> dict[str, str]:
    return {key: text for key, text in (("from", start), ("to", end)) if text}


def _said(labels: LabelsAnswer) -> dict[str, str]:
    """The first and the last time, for people and for fields of forms."""
    if labels.first is None or labels.last is None:
        return {}
    return {"first": moment(labels.first), "last": moment(labels.last)}
