"""Requests drawn from the API's own description, with pictures among them: none is a fault of the service."""

from __future__ import annotations

import random
import time

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks as openapi

from tests.web.serving import picture

CHECKED = [
    not_a_server_error,
    openapi.status_code_conformance,
    openapi.content_type_conformance,
    openapi.response_schema_conformance,
]


def ask(client, case):
    """Send a request; mostly of a gallery that is there, and mostly with a picture where it takes some."""
    drawn = random.Random(repr((case.path_parameters, case.body)))
    if "gallery" in (case.path_parameters or {}) and drawn.random() < 0.9:
        case.path_parameters["gallery"] = "own"
    given = case.as_transport_kwargs(base_url="http://localhost")
    if isinstance(case.body, dict) and case.media_type == "multipart/form-data":
        fields = {name: str(value) for name, value in case.body.items() if name != "pictures"}
        files = [("pictures", ("a.png", picture(drawn.randrange(100))))] if drawn.random() < 0.8 else None
        given = {"method": "POST", "url": given["url"], "files": files, "data": fields}
    given.pop("cookies", None)
    answer = client.request(**{key: value for key, value in given.items() if value is not None})
    case.validate_response(answer, checks=CHECKED)


def ask_much(client, num, *, seconds):
    """So many requests of each kind, as far as each kind's time suffices; how many that were, by kind."""
    told = schemathesis.openapi.from_dict(client.app.openapi())
    kinds = [found.ok() for found in told.get_all_operations()]
    asked = {}
    for kind in kinds:
        asked[kind.label] = _ask_kind(client, kind, num, until=time.monotonic() + seconds)
    return asked


def _ask_kind(client, kind, num, *, until):
    asked = 0

    @given(case=kind.as_strategy())
    @settings(
        max_examples=num,
        derandomize=True,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def one(case):
        nonlocal asked
        if time.monotonic() < until:
            asked += 1
            ask(client, case)

    one()
    return asked


def test_no_request_is_a_fault_of_the_service(client):
    assert min(ask_much(client, 3, seconds=60).values()) >= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_of_many_is_a_fault_of_the_service(client):
    asked = ask_much(client, 40, seconds=8)
    print(f"{sum(asked.values()):,} requests of {len(asked)} kinds")
    assert min(asked.values()) >= 1  # where nothing can be given, there is one request
    assert sum(asked.values()) > 500
