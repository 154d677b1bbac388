"""Errors as answers: problem+json (RFC 9457) with what is wrong, where, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response

from reidkit.errors import ReidError, shortened
from reidkit.galleries import DamagedGallery, NoGallery, UnavailableGallery, without_password
from reidkit.logs import get_logger
from reidkit.texts.printable import printable
from reidkit.web.audit import NotWritten
from reidkit.web.jobs import NoSuchJob
from reidkit.web.limits import TooManyRequests
from reidkit.web.roles import NoSuchGallery, NotAllowed, NotLoggedIn
from reidkit.web.served import NoSuchItem
from reidkit.web.settings import Settings
from reidkit.web.thumbnails import NoPicture
from reidkit.web.together import Busy, NotReady
from reidkit.web.users import TooManyAttempts, WrongLogin

logger = get_logger(__name__)

API = "/v1/"
MEDIA_TYPE = "application/problem+json"
_MOST_FAULTS = 20

_STATUS: Mapping[type[Exception], int] = {
    NotLoggedIn: 401,
    WrongLogin: 401,
    NotAllowed: 403,
    NoSuchGallery: 404,
    NoSuchItem: 404,
    NoPicture: 404,
    NoSuchJob: 404,
    NoGallery: 409,
    Busy: 429,
    TooManyAttempts: 429,
    TooManyRequests: 429,
    NotReady: 503,
    DamagedGallery: 503,
    UnavailableGallery: 503,
    NotWritten: 503,
}
_TITLES = {
    400: "Not understood",
    401: "Not logged in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Not as it is now",
    413: "Too large",
    415: "Of another kind",
    421: "Another host",
    422: "Cannot be done as asked",
    429: "Too much at once",
    431: "Too long a head",
    500: "A fault of the service",
    503: "Not ready",
}
_TO_DO = {
    400: "mend the request; /v1/openapi.json describes each, with examples",
    401: "send a token as 'Authorization: Bearer reid_...', or log in on the page",
    403: "ask an administrator for the role that is named",
    404: "list what there is, and ask again with its name or number",
    405: "/v1/openapi.json lists the methods of each address",
    408: "send the request again, without pauses",
    409: "look again, then ask again",
    413: "send less at once",
    415: "send it as the type that /v1/openapi.json names",
    421: "call the service by a name that its settings list in hosts",
    422: "mend what is named, and ask again",
    431: "send fewer and shorter headers, and a shorter address",
    429: "wait as long as Retry-After says, then ask again",
    500: "tell whoever runs the service: its log says more",
    503: "wait, then ask again; if that does not help, tell whoever runs the service",
}


class AsciiResponse(JSONResponse):
    """JSON in ASCII: what turns the direction of a text around, or is not seen, is escaped."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def status_of(error: Exception) -> int:
    """The status of an answer to an error; 422 for what a user can mend."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 422 if isinstance(error, ReidError) else 500


def problem(
    status: int,
    detail: str,
    *,
    instance: str = "",
    faults: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer. It is ASCII, whatever the text holds."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": printable(detail, keep="\n"),
        "instance": printable(shortened(instance, 200)),
        "to_do": _TO_DO.get(status, ""),
    }
    if faults:
        body["errors"] = list(faults)
    return Response(json.dumps(body), status, dict(headers or {}), media_type=MEDIA_TYPE)


def told(error: Exception, settings: Settings) -> str:
    """An error's message without the places of this machine's files."""
    text = str(error)
    hidden = {given.address: name for name, given in settings.galleries.items()}
    hidden |= {without_password(given.address): name for name, given in settings.galleries.items()}
    hidden |= {str(given.encoder): "the encoder" for given in settings.galleries.values() if given.encoder}
    hidden |= {str(place): name for name, place in settings.folders.items()}
    hidden[str(settings.folder)] = "the service's folder"
    for place in sorted(hidden, key=len, reverse=True):
        text = text.replace(place, hidden[place])
    return text


def install(app: FastAPI, settings: Settings) -> None:
    """Let an application answer errors so: as problems, and to browsers as pages."""

    async def of_ours(request: Request, error: Exception) -> Response:
        status = status_of(error)
        if isinstance(error, NotLoggedIn) and _wants_page(request) and "hx-request" not in request.headers:
            return RedirectResponse("/login", 303)
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        if isinstance(error, NotLoggedIn) and "hx-request" in request.headers:
            headers["HX-Redirect"] = "/login"
        if isinstance(error, Busy | NotReady | TooManyAttempts | TooManyRequests):
            headers["Retry-After"] = str(max(1, round(error.seconds)))
        return _answer(request, status, told(error, settings), headers=headers)

    async def of_starlette(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _answer(request, error.status_code, str(error.detail), headers=error.headers or {})

    async def of_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError | ValidationError)
        faults = [_fault(fault) for fault in error.errors()[:_MOST_FAULTS]]
        detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults[:3])
        return _answer(request, 422, detail, faults=faults)

    async def of_nobody(request: Request, error: Exception) -> Response:
        logger.error(f"{request.method} {request.url.path} failed", exc_info=error)
        return _answer(request, 500, "the service met something unforeseen")

    app.add_exception_handler(ReidError, of_ours)
    app.add_exception_handler(HTTPException, of_starlette)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(ValidationError, of_validation)
    app.add_exception_handler(Exception, of_nobody)


def _wants_page(request: Request) -> bool:
    """Whether a browser asks, for something to show; by itself, or by a page's script."""
    if request.url.path.startswith(API):
        return False
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def _answer(
    request: Request,
    status: int,
    detail: str,
    *,
    faults: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] = {},
) -> Response:
    if not _wants_page(request):
        return problem(status, detail, instance=request.url.path, faults=faults, headers=headers)
    page: Response = request.app.state.error_page(request, status, _TITLES.get(status, "Error"), detail)
    page.headers.update(headers)
    return page


def _fault(fault: Mapping[str, Any]) -> dict[str, str]:
    where = ".".join(printable(shortened(str(part), 60)) for part in fault["loc"])
    return {"where": where or "body", "what": printable(shortened(str(fault["msg"]), 200))}
