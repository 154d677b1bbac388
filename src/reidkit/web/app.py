"""The application: the API, the page, and what guards both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from reidkit import __version__
from reidkit.errors import ConfigError
from reidkit.web import api, pages, problems
from reidkit.web.access import Access
from reidkit.web.limits import Guard
from reidkit.web.metrics import Metrics
from reidkit.web.pages_shell import error_page, templates
from reidkit.web.service import Service
from reidkit.web.settings import Settings
from reidkit.web.users import Users
from reidkit.web.wanted import Problem

FOLDER = Path(__file__).parent
_THREADS = 32  # for all that is no search
_BEFORE_ENCODERS = 1.0  # seconds in which a service that has just been started only answers


def build_app(settings: Settings) -> FastAPI:
    """The application for uvicorn, whose galleries are being opened.

    Raises:
        ConfigError: others than this machine can reach it, and there are no users; or there is no gallery.
        DataError: the file of users, or the audit log, cannot be opened.
    """
    users = checked_users(settings)
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # As many threads as pictures may wait, so that it is the queue that is full, and says so.
        current_default_thread_limiter().total_tokens = settings.limits.waiting + _THREADS
        threading.Thread(target=service.keep_tidy, name="tidying", daemon=True).start()
        asyncio.get_running_loop().call_later(_BEFORE_ENCODERS, service.served.load_encoders)
        yield
        app.state.is_closing = True
        service.close()

    app = FastAPI(
        title="reidkit",
        version=__version__,
        summary="Search galleries of people by pictures, and say who is who.",
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=problems.AsciiResponse,
    )
    app.state.is_closing = False
    app.state.settings, app.state.service, app.state.users = settings, service, users
    app.state.access = Access(settings, users, service.audit)
    app.state.templates, app.state.error_page = templates(), error_page
    app.state.metrics = Metrics(service)
    problems.install(app, settings)
    app.include_router(api.router)
    app.include_router(pages.router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), "static")
    _describe_problems(app)
    app.add_middleware(Guard, settings=settings, answer=_answer)
    app.add_middleware(app.state.metrics.counted)
    return app


def checked_users(settings: Settings) -> Users | None:
    """The users; ``None`` where there are none, and none are needed.

    Raises :class:`ConfigError` where they are needed.
    """
    if not settings.galleries:
        raise ConfigError("there is no gallery to serve; name some: reid serve people.gallery")
    users = Users(settings.users_file) if settings.users_file.exists() else None
    if users is not None and len(users):
        return users
    if not settings.is_local:
        raise ConfigError(
            f"others can reach {settings.host}, and there are no users in {settings.users_file}; add one: "
            "reid serve users add NAME --role administrator"
        )
    return None


def _describe_problems(app: FastAPI) -> None:
    """Let the description say what errors look like, where FastAPI's own form would stand."""
    made = app.openapi

    def described() -> dict[str, Any]:
        found = made()
        schemas = found["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema()
        return found

    app.openapi = described  # type: ignore[method-assign]


def _answer(status: int, detail: str) -> ASGIApp:
    response: Response = problems.problem(status, detail)
    return response
