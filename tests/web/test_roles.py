"""Every endpoint, asked by every role, in one's own gallery and in a foreign one."""

from __future__ import annotations

from pathlib import Path

from tests.web.endpoints import LOG_IN, REQUESTS, expected, seen, table
from tests.web.serving import add_users, running

PAGE = Path(__file__).parents[2] / "docs" / "explain" / "security_roles.md"


def test_everybody_may_do_what_their_role_says_and_no_more(settings):
    tokens = add_users(settings)
    with running(settings) as client:
        found = seen(client, tokens)
        described = {
            (method.upper(), path)
            for path, methods in client.get("/v1/openapi.json").json()["paths"].items()
            for method in methods
        }
    assert found == expected()
    assert described | {("GET", "/v1/openapi.json")} == {
        *((asked.method, asked.path) for asked in REQUESTS),
        LOG_IN,
    }
    assert table(found) in PAGE.read_text()
