"""The page of users, for administrators of all galleries."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from reidkit.errors import ConfigError, shown
from reidkit.web.access import CheckedUser, CurrentUser, TheService, access_of
from reidkit.web.accounts import Accounts
from reidkit.web.pages_shell import TheForm, render, see
from reidkit.web.roles import ALL, Actor, Role

router = APIRouter(prefix="/users")


@router.get("")
def users(request: Request, actor: CurrentUser) -> Response:
    """Users with their roles and tokens."""
    return _page(request, actor)


@router.post("/add")
def add(request: Request, actor: CheckedUser, service: TheService, form: TheForm) -> Response:
    """Add a user, or change one."""
    gallery = form.text("gallery") or ALL
    if gallery != ALL and gallery not in service.served:
        raise ConfigError(f"there is no gallery {shown(gallery)}; choose one of those that are served")
    password, role = form.secret("password") or None, Role.named(form.text("role"))
    _accounts(request).add(actor, form.text("name"), password=password, role=role, gallery=gallery)
    return see("/users")


@router.post("/remove")
def remove(request: Request, actor: CheckedUser, form: TheForm) -> Response:
    """Remove a user, where the box that says so was ticked."""
    if form.text("sure") != "yes":
        raise ConfigError("nobody was removed; tick the box that says you are sure")
    _accounts(request).remove(actor, form.text("name"))
    return see("/users")


@router.post("/token")
def make_token(request: Request, actor: CheckedUser, form: TheForm) -> Response:
    """Make a token, and show it this once."""
    name, days = form.text("name"), form.number("days", 90)
    token = _accounts(request).make_token(actor, name, label=form.text("label"), days=days)
    return _page(request, actor, token=token, name=name)


@router.post("/revoke")
def revoke_token(request: Request, actor: CheckedUser, form: TheForm) -> Response:
    """Let a token be good for nothing."""
    _accounts(request).revoke_token(actor, form.text("name"), form.number("token", 0))
    return see("/users")


def _page(request: Request, actor: Actor, *, token: str = "", name: str = "") -> Response:
    found = _accounts(request).all(actor)
    return render(
        request,
        actor,
        "users.html",
        here="users",
        users=found,
        roles=list(Role.__members__),
        token=token,
        token_of=name,
    )


def _accounts(request: Request) -> Accounts:
    access = access_of(request)
    return Accounts(access.users, access.audit)
