"""Who asks: dependencies of endpoints, for the API and the page alike."""

from __future__ import annotations

import hmac
from ipaddress import ip_address, ip_network
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from reidkit.web.audit import AuditLog
from reidkit.web.limits import Rates
from reidkit.web.roles import ALL, Actor, NotAllowed, NotLoggedIn, Role
from reidkit.web.service import Service
from reidkit.web.settings import Settings
from reidkit.web.users import TooManyAttempts, Users, WrongLogin

CSRF_HEADER = "X-CSRF-Token"
CSRF_FIELD = "csrf"
LOCAL_USER = "local"


class Access:
    """What is needed to know who asks; one an application, as ``app.state.access``.

    Args:
        settings: how the service is reached.
        users: those who may; ``None`` where whoever reaches this machine's own address may do all.
        audit: where logins are written down.
    """

    def __init__(self, settings: Settings, users: Users | None, audit: AuditLog) -> None:
        self.settings, self.users, self.audit = settings, users, audit
        self.rates = Rates(settings.limits.requests_per_minute)
        self.cookie = "__Host-reid_session" if settings.is_encrypted else "reid_session"

    def actor(self, request: Request) -> Actor:
        """Who asks. Raises :class:`NotLoggedIn`, and :class:`TooManyRequests` where it is too often."""
        actor = self._actor(request)
        self.rates.check(actor.name)
        return actor

    def address(self, request: Request) -> str:
        """Where a request comes from: what a trusted proxy says, else who is connected."""
        address = request.client.host if request.client else ""
        for said in reversed(request.headers.get("x-forwarded-for", "").split(",")):
            if not self._is_proxy(address) or not said.strip():
                break
            address = said.strip()[:64]
        return address

    def log_in(self, request: Request, response: Response, name: str, password: str) -> Actor:
        """Start a session, whose cookie the response then sets.

        Raises :class:`WrongLogin` and :class:`TooManyAttempts`.
        """
        if self.users is None:
            raise NotAllowed("this service has no users to log in as; whoever reaches it may do all")
        address = self.address(request)
        hours = self.settings.limits.session_hours
        try:
            key, actor = self.users.log_in(name, password, hours=hours, address=address)
        except (WrongLogin, TooManyAttempts):
            self.audit.write(name[:64], "login failed", address=address)
            raise
        self.audit.write(actor.name, "login", address=address)
        response.set_cookie(
            self.cookie,
            key,
            max_age=int(hours * 3600),
            path="/",
            httponly=True,
            samesite="strict",
            secure=self.settings.is_encrypted,
        )
        return actor

    def log_out(self, request: Request, response: Response) -> None:
        """End the session of a request."""
        key = request.cookies.get(self.cookie)
        if key and self.users is not None:
            self.users.log_out(key)
        response.delete_cookie(self.cookie, path="/", secure=self.settings.is_encrypted, httponly=True)

    def _actor(self, request: Request) -> Actor:
        address = self.address(request)
        if self.users is None:
            if "x-forwarded-for" in request.headers or "forwarded" in request.headers:
                raise NotAllowed(
                    "this service has no users, and is meant for this machine alone, not for a proxy; add "
                    "some: `reid serve users add NAME`"
                )
            return Actor(LOCAL_USER, {ALL: Role.administrator}, "local", address=address)
        given = request.headers.get("authorization", "")
        if given:
            scheme, _, token = given.partition(" ")
            found = (
                self.users.by_token(token.strip(), address=address) if scheme.lower() == "bearer" else None
            )
            if found is None:
                raise NotLoggedIn("the token is unknown, revoked or expired")
            return found
        key = request.cookies.get(self.cookie)
        session = self.users.by_session(key, address=address) if key else None
        if session is None:
            raise NotLoggedIn("nobody is logged in")
        return session

    def _is_proxy(self, address: str) -> bool:
        try:
            place = ip_address(address)
        except ValueError:
            return False
        return any(place in ip_network(one, strict=False) for one in self.settings.trusted_proxies)


def access_of(request: Request) -> Access:
    found: Access = request.app.state.access
    return found


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


async def current_user(request: Request) -> Actor:
    """Who asks; a dependency. Raises :class:`NotLoggedIn`, which on a page leads to ``/login``."""
    access = access_of(request)
    if access.users is None:
        return access.actor(request)  # in no thread of its own, as no file is read
    return await run_in_threadpool(access.actor, request)


async def csrf_checked(request: Request, actor: Annotated[Actor, Depends(current_user)]) -> Actor:
    """Who asks for a change, where it is not another site's page that lets their browser ask.

    A browser says where a request comes from; of a session, the request has to know the session's secret as
    well, in the header :data:`CSRF_HEADER` or the form's field :data:`CSRF_FIELD`. Programs send tokens,
    which no browser adds by itself.
    """
    if actor.via == "token":
        return actor
    if not is_same_origin(request):
        raise NotAllowed("the request comes from a page of another site")
    if actor.via == "session":
        given: object = request.headers.get(CSRF_HEADER)
        if given is None and "form" in request.headers.get("content-type", ""):
            given = (await request.form()).get(CSRF_FIELD)
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), actor.csrf.encode()):
            raise NotAllowed(f"the request lacks the session's secret; send it in the header {CSRF_HEADER}")
    return actor


def is_same_origin(request: Request) -> bool:
    """Whether a request comes from a page of this service, or from no page, as far as its browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


CurrentUser = Annotated[Actor, Depends(current_user)]
CheckedUser = Annotated[Actor, Depends(csrf_checked)]


async def _service(request: Request) -> Service:
    return service_of(request)  # in no thread of its own


TheService = Annotated[Service, Depends(_service)]
