"""Running the service: uvicorn, TLS, several processes, an orderly end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from reidkit.errors import DataError
from reidkit.web.app import build_app, checked_users
from reidkit.web.settings import Settings

_SETTINGS = "REIDKIT_SERVE_OF_PARENT"
"""Carries the settings, as JSON, to processes that are started from here."""

_FACTORY = "reidkit.web.serving:app_of_parent"
_ENDING = (signal.SIGINT, signal.SIGTERM)


class ImpatientProtocol(H11Protocol):
    """HTTP that closes connections on which no whole request head comes in time.

    uvicorn waits for ever for the rest of a head, so that a few clients that send slowly would hold all
    connections there may be. Bodies are timed by :class:`reidkit.web.limits.Guard`.
    """

    seconds = 30.0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        self._head_timer = self.loop.call_later(self.seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def serve(settings: Settings, *, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve until a signal ends it; requests that are being answered then are answered first.

    Args:
        settings: what to serve, and how.
        ready: called with the address once all galleries are open.

    Raises:
        ConfigError, DataError: as :func:`reidkit.web.app.build_app` does; a gallery cannot be opened, or the
            address is taken.
    """
    ImpatientProtocol.seconds = settings.limits.seconds
    with _listening(settings) as taken:
        settings = settings.model_copy(update={"port": taken.getsockname()[1]})
        scheme = "https" if settings.certificate else "http"
        address = f"{scheme}://{_shown(settings.host)}:{settings.port}"
        if settings.workers == 1:
            _serve_here(build_app(settings), settings, taken, lambda: ready(address))
            return
    checked_users(settings)
    os.environ[_SETTINGS] = settings.model_dump_json()
    ready(address)
    uvicorn.run(_FACTORY, factory=True, workers=settings.workers, **_options(settings))


def _serve_here(app: FastAPI, settings: Settings, taken: socket.socket, ready: Callable[[], None]) -> None:
    """Serve in this process. Others are answered while galleries are being opened."""
    server = _Server(uvicorn.Config(app, **_options(settings)))
    failures: list[Exception] = []

    def open_all() -> None:
        try:
            app.state.service.served.wait(load=False)
            ready()
        except Exception as error:
            failures.append(error)
            server.should_exit = True

    threading.Thread(target=open_all, name="opening all", daemon=True).start()
    server.run([taken])
    if failures:
        raise failures[0]


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{settings.host} cannot be listened on at port {settings.port}: {reason}; "
            "give another host or port"
        ) from None


class _Server(uvicorn.Server):
    """Tells streams of events that the service is closing, before it waits for their ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals that end the service, which has then ended as it was told to: none is raised again."""
        before = {number: signal.signal(number, self.handle_exit) for number in _ENDING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: Any = None) -> None:
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.is_closing = True
        await super().shutdown(sockets)


def app_of_parent() -> FastAPI:
    """The application in a process that another started."""
    settings = Settings.model_validate_json(os.environ[_SETTINGS])
    ImpatientProtocol.seconds = settings.limits.seconds
    app = build_app(settings)
    app.state.service.served.wait()
    return app


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "http": ImpatientProtocol,
        "h11_max_incomplete_event_size": settings.limits.header_bytes,
        "limit_concurrency": settings.limits.connections,
        "timeout_keep_alive": 15,
        "timeout_graceful_shutdown": 15,
        "timeout_worker_healthcheck": 60,
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
        "log_level": "warning",
        "ssl_certfile": settings.certificate,
        "ssl_keyfile": settings.key,
    }


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
