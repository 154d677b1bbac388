"""The start of a service: what is answered before encoders are loaded, and how soon."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from reidkit.web import app
from reidkit.web.service import Service
from tests.web.processes import serving
from tests.web.serving import picture


@pytest.fixture
def starting(settings, monkeypatch):
    """A client of a service that loads no encoder before somebody needs one."""
    monkeypatch.setattr(app, "_BEFORE_ENCODERS", 3600.0)
    with TestClient(app.build_app(settings), raise_server_exceptions=False) as client:
        for _ in range(6000):
            if client.get("/readyz").status_code == 200:
                break
            time.sleep(0.01)
        yield client


def num_loaded(client):
    return sum(served._loading.done() for served in client.app.state.service.served.values())


def test_a_gallery_can_be_looked_at_before_its_encoder_is_loaded(starting):
    assert starting.get("/v1/galleries/own/items/1").json()["identity"] == "person 0"
    assert starting.get("/v1/galleries/own/people").json()["total"] == 4
    assert b'reid_items{gallery="own"} 12.0' in starting.get("/metrics").content
    assert num_loaded(starting) == 0
    files = [("pictures", ("a.png", picture(3), "image/png"))]
    answer = starting.post("/v1/galleries/own/search/pictures", files=files)
    assert len(answer.json()["hits"]) == 10
    assert num_loaded(starting) >= 1
    assert starting.get("/v1/galleries/own/items/1").json()["identity"] == "person 0"


def test_a_service_that_is_stopped_at_once_loads_no_encoder(settings):
    service = Service(settings)
    service.close()
    assert all(served._loading.cancelled() for served in service.served.values())


def test_who_waits_for_the_encoder_of_a_service_that_is_stopped_is_told_to_come_again(starting):
    service, answers = starting.app.state.service, []
    for served in service.served.values():
        served._needs_encoder = lambda: None  # it would be loaded only later
    files = [("pictures", ("a.png", picture(3), "image/png"))]
    asking = threading.Thread(
        target=lambda: answers.append(starting.post("/v1/galleries/own/search/pictures", files=files))
    )
    asking.start()
    while "search" not in service.settings.audit_file.read_text():
        time.sleep(0.01)
    service.served.close()
    asking.join()
    assert answers[0].status_code == 503
    assert int(answers[0].headers["Retry-After"]) >= 1
    assert "shutting down" in answers[0].json()["detail"]


@pytest.mark.slow
def test_a_service_that_was_killed_is_ready_again_within_two_seconds_of_work(world, tmp_path):
    shutil.copytree(world, tmp_path / "world", ignore=shutil.ignore_patterns("photos", "*.safetensors"))
    with serving(tmp_path / "world") as process:
        process.end(signal.SIGKILL)
    with serving(tmp_path / "world") as process:
        fields = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        assert seconds < 2.0  # of a processor: other work on the machine does not count
