"""The page: HTML that works without JavaScript; with it, htmx exchanges parts in place of the whole."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from reidkit.web import pages_manage, pages_people, pages_review, pages_search, pages_users
from reidkit.web.access import CheckedUser, CurrentUser, TheService, access_of, is_same_origin
from reidkit.web.pages_shell import TheForm, render, see
from reidkit.web.problems import status_of
from reidkit.web.roles import NotAllowed
from reidkit.web.users import TooManyAttempts, WrongLogin

router = APIRouter(include_in_schema=False)


@router.get("/")
def home(request: Request, actor: CurrentUser, service: TheService) -> Response:
    """The galleries; where there is one, its search."""
    galleries = service.galleries(actor)
    if len(galleries) == 1:
        return RedirectResponse(f"/g/{galleries[0].name}/search", 303)
    return render(request, actor, "galleries.html")


@router.get("/galleries")
def galleries(request: Request, actor: CurrentUser) -> Response:
    return render(request, actor, "galleries.html")


@router.get("/login")
def login_form(request: Request) -> Response:
    if access_of(request).users is None:
        return RedirectResponse("/", 303)
    return render(request, None, "login.html", wrong="", name="")


@router.post("/login")
def log_in(request: Request, form: TheForm) -> Response:
    """Log in; what does not go together is told on the form."""
    if not is_same_origin(request):
        raise NotAllowed("the request comes from a page of another site")
    name = form.text("name")
    response = see("/")
    try:
        access_of(request).log_in(request, response, name, form.secret("password"))
    except (WrongLogin, TooManyAttempts) as error:
        return render(request, None, "login.html", status=status_of(error), wrong=str(error), name=name)
    return response


@router.post("/logout")
def log_out(request: Request, actor: CheckedUser) -> Response:
    response = see("/login")
    access_of(request).log_out(request, response)
    return response


for part in (pages_search, pages_people, pages_review, pages_manage, pages_users):
    router.include_router(part.router)
