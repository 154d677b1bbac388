"""What every request meets first: the right host, limits on bytes, time and rates; and headers of answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reidkit.errors import ReidError, shown
from reidkit.web.settings import Settings

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with "no-referrer", forms would come with "Origin: null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
"""Of every answer, unless the answer has its own."""

TRANSPORT = "max-age=31536000"

Answer = Callable[[int, str], ASGIApp]
"""Makes the answer to a request that is refused, of a status and a sentence."""


class TooManyRequests(ReidError):
    """A user asks for more than a minute's share; ``seconds`` are to be waited."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"more than {limit:,} requests a minute; wait {max(1, round(seconds))} s")


class Rates:
    """A bucket of requests for each user, which fills up again within a minute."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def check(self, user: str) -> None:
        """Count a request. Raises :class:`TooManyRequests`."""
        if not self._per_minute:
            return
        now = time.monotonic()
        with self._lock:
            left, before = self._buckets.get(user, (float(self._per_minute), now))
            left = min(self._per_minute, left + (now - before) * self._per_minute / 60)
            if left < 1:
                raise TooManyRequests(self._per_minute, (1 - left) * 60 / self._per_minute)
            self._buckets[user] = left - 1, now


class Guard:
    """The outermost layer of the application.

    Bodies are counted while they come in, whatever they say of their length, and have to be there within the
    time that the limits give, so that nobody holds a worker by sending slowly.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings, answer: Answer) -> None:
        self._app, self._settings, self._answer = app, settings, answer
        self._hosts = allowed_hosts(settings)
        more = {"Strict-Transport-Security": TRANSPORT} if settings.is_encrypted else {}
        self._headers = [(key.lower().encode(), value.encode()) for key, value in {**HEADERS, **more}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = self._with_headers(message["headers"])
            await send(message)

        if problem := self._refused(scope, headers):
            await self._answer(*problem)(scope, receive, sending)
            return
        limit = self._limit(headers)
        try:
            await self._app(scope, _limited(receive, limit, self._settings.limits.seconds), sending)
        except HTTPException as error:  # of a body that nothing further in read
            if not started:
                await self._answer(error.status_code, error.detail)(scope, receive, sending)

    def _refused(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """A status and a sentence where a request is refused for its head."""
        size = len(scope.get("raw_path") or b"") + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > self._settings.limits.header_bytes:
            return 431, f"the head of the request is longer than {self._settings.limits.header_bytes:,} bytes"
        host = headers.get(b"host", b"").decode("latin-1")
        if self._hosts and _without_port(host).lower() not in self._hosts:
            return 421, f"this service is not called {shown(host)}"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            return 400, "Content-Length is no number"
        if len(length) > 15 or int(length) > self._limit(headers):
            return 413, f"the body is longer than {self._limit(headers):,} bytes"
        return None

    def _limit(self, headers: dict[bytes, bytes]) -> int:
        limits = self._settings.limits
        is_form = headers.get(b"content-type", b"").lower().startswith(b"multipart/form-data")
        return limits.body_bytes if is_form else limits.json_bytes

    def _with_headers(self, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        given = list(headers)
        names = {name.lower() for name, _ in given}
        return given + [header for header in self._headers if header[0] not in names]


def allowed_hosts(settings: Settings) -> set[str]:
    """Names that the service may be called by; empty where any will do.

    A page elsewhere can let its own name lead to this machine, and would then be let in as a local user. The
    names of this machine itself no page elsewhere has; checks of health call the service by them.
    """
    if not settings.is_local and not settings.hosts:
        return set()
    return {"localhost", "127.0.0.1", "[::1]", settings.host.lower(), *map(str.lower, settings.hosts)}


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _limited(receive: Receive, limit: int, seconds: float) -> Receive:
    num, is_over = 0, False
    until: float | None = None

    async def receiving() -> Message:
        nonlocal num, is_over, until
        if is_over:
            return await receive()
        until = asyncio.get_running_loop().time() + seconds if until is None else until
        try:
            async with asyncio.timeout_at(until):  # wait_for would start a task
                message = await receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        num += len(message.get("body", b""))
        if num > limit:
            raise HTTPException(413, f"the body is longer than {limit:,} bytes")
        is_over = not message.get("more_body", False)
        return message

    return receiving
