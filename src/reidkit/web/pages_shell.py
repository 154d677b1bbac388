"""What every page stands in: its frame, what somebody may do, forms that are sent, and errors that teach."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.datastructures import FormData, ImmutableMultiDict, UploadFile
from starlette.responses import RedirectResponse, Response

from reidkit.errors import ConfigError, ReidError, shown
from reidkit.labels import lasting, moment
from reidkit.texts.printable import counted, printable
from reidkit.web.access import CSRF_FIELD, access_of, service_of
from reidkit.web.roles import ALL, Actor, Role

FOLDER = Path(__file__).parent / "templates"

_TO_DO = {
    401: "Log in, then do it again.",
    403: "Ask an administrator for the role that is named, or go back.",
    404: "Go back, or start from the galleries: the address may be old, or mistyped.",
    405: "Go back: the address is of something that is sent, not looked at.",
    409: "Look again: things are not, or no longer, as this asked for. An operator can add pictures.",
    413: "Send fewer pictures at once, or smaller ones.",
    422: "Go back, change what is named above, and try again.",
    429: "Wait a few seconds, then try again.",
    503: "Wait a moment and try again; if that does not help, tell whoever runs the service.",
}
_UNFORESEEN = "Try again; if it happens again, tell whoever runs the service: its log says more."


def templates() -> Jinja2Templates:
    """The page's templates. All text is escaped, and what is invisible is made visible."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit_to_show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        exact=exact, quoted=quoted, coded=json.dumps, detail=_detail, name_or_nobody=_name_or_nobody
    )
    environment.globals.update(counted=counted, lasting=lasting, moment=moment)
    return Jinja2Templates(env=environment)


def _fit_to_show(value: object) -> object:
    return printable(value, keep="\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def _name_or_nobody(identity: str | None) -> str:
    return "nobody" if identity is None else identity


def _detail(value: object) -> str:
    """A detail of the audit log; of hashes the beginning."""
    values = value if isinstance(value, list) else [value]
    told = ", ".join(text if len(text) <= 40 else f"{text[:16]}…" for text in map(str, values[:8]))
    return f"{told} and {len(values) - 8} more" if len(values) > 8 else told


def exact(text: str) -> Markup:
    """A text that a form sends back as it is, escaped for an attribute; bytes that are no text are lost."""
    return escape(text.encode("utf-8", "replace").decode())


def quoted(text: str) -> Markup:
    """A text as part of an address's query."""
    return Markup(quote(text, safe="", errors="replace"))  # nothing is left in it to escape


def render(
    request: Request, actor: Actor | None, template: str, *, status: int = 200, **context: Any
) -> Response:
    """A page, with what its frame shows: galleries, and what may be done in the one it is of."""
    gallery: str | None = context.pop("gallery", None)
    galleries = [] if actor is None else service_of(request).galleries(actor)
    may = {role.name: actor is not None and gallery is not None and actor.may(gallery, role) for role in Role}
    frame = {
        "actor": actor,
        "gallery": gallery,
        "galleries": galleries,
        "may": may,
        "may_users": actor is not None and is_administrator(actor),
        "has_users": access_of(request).users is not None,
        "here": "",
        "csrf": lambda: _csrf_field(actor),
    }
    made: Response = request.app.state.templates.TemplateResponse(
        request, template, frame | context, status_code=status
    )
    return made


def _csrf_field(actor: Actor | None) -> Markup:
    """What every form that changes something sends along."""
    secret = "" if actor is None else actor.csrf
    return (
        Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, secret)
        if secret
        else Markup()
    )


def is_administrator(actor: Actor) -> bool:
    """Whether somebody is administrator of all galleries."""
    return actor.roles.get(ALL, 0) >= Role.administrator


def error_page(request: Request, status: int, title: str, detail: str) -> Response:
    """An error as a page: what is wrong, and what to do."""
    to_do = _TO_DO.get(status, _UNFORESEEN)
    told = {"error_title": title, "detail": detail[:1].upper() + detail[1:], "to_do": to_do}
    try:
        actor = access_of(request).actor(request)
        gallery = request.path_params.get("gallery", "")
        may_look = actor.role(gallery) is not None and gallery in service_of(request).served
        return render(
            request, actor, "error.html", status=status, gallery=gallery if may_look else None, **told
        )
    except ReidError:  # nobody is logged in, or a gallery cannot be read: the frame stays empty
        return render(request, None, "error.html", status=status, **told)


def see(path: str, **query: object) -> Response:
    """Lead on to another page after something was done."""
    parts = [f"{name}={quote(str(value), safe='', errors='replace')}" for name, value in query.items()]
    return RedirectResponse(f"{path}?{'&'.join(parts)}" if parts else path, 303)


class Sent:
    """What a form sent, or an address's query says, read as the page's own forms write it."""

    def __init__(self, fields: ImmutableMultiDict[str, Any]) -> None:
        self._fields = fields

    def text(self, name: str) -> str:
        """A field without blanks around it; empty where it was not sent."""
        value = self._fields.get(name)
        return value.strip() if isinstance(value, str) else ""

    def secret(self, name: str) -> str:
        """A field as it was typed."""
        value = self._fields.get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> list[str]:
        """All fields of one name, without empty ones."""
        return [text for text in self._fields.getlist(name) if isinstance(text, str) and text]

    def numbers(self, name: str) -> tuple[int, ...]:
        """All fields of one name as numbers. Raises :class:`ConfigError`."""
        return tuple(_number(name, text) for text in self.texts(name))

    def number(self, name: str, default: int) -> int:
        """A field as a number, 0 or more. Raises :class:`ConfigError`."""
        text = self.text(name)
        return _number(name, text) if text else default

    def names(self, start: str) -> list[str]:
        """Names of fields that begin so, each once, without that beginning."""
        return [name.removeprefix(start) for name in self._fields if name.startswith(start)]

    def files(self, name: str, *, most: int) -> list[bytes]:
        """Contents of the files that were chosen. Raises :class:`ConfigError` where they are too many."""
        found = [file for file in self._fields.getlist(name) if isinstance(file, UploadFile)]
        chosen = [file for file in found if file.filename or file.size]
        if len(chosen) > most:
            raise ConfigError(f"there are {len(chosen)} pictures; send {most} at most")
        return [file.file.read() for file in chosen]


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ConfigError(f"{name} is {shown(text)}; give a whole number, 0 or more")
    return int(text)


async def sent(request: Request) -> Sent:
    """The form that a request sends; a dependency."""
    form: FormData = await request.form()
    return Sent(form)


def asked(request: Request) -> Sent:
    """What the query of a request's address says; a dependency."""
    return Sent(request.query_params)


def places(start: int, num: int, total: int) -> Sequence[int | None]:
    """Where the page before and the page after begin; ``None`` where there is none."""
    return (max(0, start - num) if start else None, start + num if start + num < total else None)


TheForm = Annotated[Sent, Depends(sent)]
TheQuery = Annotated[Sent, Depends(asked)]
