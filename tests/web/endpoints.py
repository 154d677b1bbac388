"""A request to every endpoint of the API that succeeds for whoever may make it, and who that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.testclient import TestClient
from httpx import Response

from tests.web.serving import ROLES, bearer, picture

ONE = "/v1/galleries/{gallery}"
ACTORS = ("nobody logged in", *ROLES)
PLACES = ("own", "foreign")


@dataclass(frozen=True)
class Asked:
    """A request; ``least`` is the role that it needs, in the gallery if it is of one."""

    method: str
    path: str
    least: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_gallery(self) -> bool:
        return "{gallery}" in self.path

    def send(self, client: TestClient, gallery: str, headers: Mapping[str, str], job: str = "") -> Response:
        path = self.path.format(gallery=gallery, item=3, job=job)
        return client.request(self.method, path, headers=dict(headers), **self.arguments)

    def expected(self, actor: str, gallery: str) -> int:
        """The status of its answer; 200 for all that is well."""
        if self.least == "anybody":
            return 200
        if actor == "nobody logged in":
            return 401
        if not self.has_gallery:
            return 200 if self.least == "any user" else 403
        if gallery == "foreign":
            return 404
        return 200 if ROLES.index(actor) >= ROLES.index(self.least) else 403


def _pictures(seed: int) -> dict[str, Any]:
    return {"files": [("pictures", ("a.png", picture(seed), "image/png"))]}


REQUESTS: Sequence[Asked] = (
    Asked("GET", "/healthz", "anybody"),
    Asked("GET", "/readyz", "anybody"),
    Asked("GET", "/metrics", "a viewer of all galleries"),
    Asked("GET", "/v1/openapi.json", "anybody"),
    Asked("GET", "/v1/me", "any user"),
    Asked("DELETE", "/v1/session", "any user"),
    Asked("GET", "/v1/galleries", "any user"),
    Asked("GET", f"{ONE}/encoder", "viewer"),
    Asked("POST", f"{ONE}/search", "viewer", {"json": {"items": [1]}}),
    Asked("POST", f"{ONE}/search/pictures", "viewer", _pictures(3)),
    Asked("GET", f"{ONE}/items", "viewer"),
    Asked("GET", f"{ONE}/items/{{item}}", "viewer"),
    Asked("GET", f"{ONE}/items/{{item}}/thumbnail", "viewer"),
    Asked("GET", f"{ONE}/items/{{item}}/picture", "viewer"),
    Asked("GET", f"{ONE}/people", "viewer"),
    Asked("GET", f"{ONE}/queue", "viewer"),
    Asked("GET", f"{ONE}/timeline", "viewer", {"params": {"name": "person 1"}}),
    Asked("GET", f"{ONE}/decisions", "viewer"),
    Asked("GET", f"{ONE}/jobs", "viewer"),
    Asked("GET", f"{ONE}/jobs/{{job}}", "viewer"),
    Asked("GET", f"{ONE}/jobs/{{job}}/events", "viewer"),
    Asked("POST", f"{ONE}/decisions", "reviewer", {"json": {"kind": "reject", "items": [1, 2]}}),
    Asked("POST", f"{ONE}/items", "operator", _pictures(80)),
    Asked("POST", f"{ONE}/items/remove", "operator", {"json": {"where": {"camera": 0}, "dry_run": True}}),
    Asked("POST", f"{ONE}/forget", "operator", {"json": {"identity": "person 2", "dry_run": True}}),
    Asked("POST", f"{ONE}/jobs", "operator", {"json": {"kind": "cluster"}}),
    Asked("DELETE", f"{ONE}/jobs/{{job}}", "operator"),
    Asked("POST", f"{ONE}/expire", "administrator", {"json": {"older_than": "30d", "dry_run": True}}),
    Asked("GET", f"{ONE}/audit", "administrator"),
)
LOG_IN = ("POST", "/v1/session")
"""Has no role: tested by itself."""


def finished_job(client: TestClient, token: str) -> str:
    """The number of a job of the gallery "own" that has ended."""
    path = ONE.format(gallery="own")
    number: str = client.post(f"{path}/jobs", json={"kind": "cluster"}, headers=bearer(token)).json()["id"]
    client.get(f"{path}/jobs/{number}/events", headers=bearer(token))
    return number


def seen(client: TestClient, tokens: Mapping[str, str]) -> dict[tuple[str, str, str, str], int]:
    """The status of each answer, by method, path, who asks, and gallery; 200 for all that is well."""
    job = finished_job(client, tokens["root"])
    found = {}
    for asked in REQUESTS:
        for actor in ACTORS:
            headers = bearer(tokens[actor]) if actor in tokens else {}
            for gallery in PLACES if asked.has_gallery else PLACES[:1]:
                answer = asked.send(client, gallery, headers, job)
                status = 200 if answer.is_success else answer.status_code
                found[asked.method, asked.path, actor, gallery] = status
    return found


def expected() -> dict[tuple[str, str, str, str], int]:
    """The same as it should be."""
    return {
        (asked.method, asked.path, actor, gallery): asked.expected(actor, gallery)
        for asked in REQUESTS
        for actor in ACTORS
        for gallery in (PLACES if asked.has_gallery else PLACES[:1])
    }


def table(statuses: Mapping[tuple[str, str, str, str], int]) -> str:
    """Markdown: a row an endpoint, a column an actor; of a gallery one has no role in, one column for all."""
    head = ("endpoint", *ACTORS, "any role, foreign gallery")
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for asked in REQUESTS:
        cells = [str(statuses[asked.method, asked.path, actor, "own"]) for actor in ACTORS]
        foreign = {statuses.get((asked.method, asked.path, actor, "foreign")) for actor in ROLES}
        told = ", ".join(sorted(str(status) for status in foreign if status is not None))
        lines.append(" | ".join((f"`{asked.method} {asked.path}`", *cells, told)))
    return "\n".join(f"| {line} |" for line in lines) + "\n"
