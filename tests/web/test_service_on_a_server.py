"""A service whose gallery lies on a PostgreSQL server answers as one of a folder does."""

from __future__ import annotations

import pytest

from reidkit.galleries import copy_gallery, open_gallery
from reidkit.web.settings import Settings
from tests.postgres_server import PASSWORD
from tests.web.serving import picture, running, settings_of

pytest.importorskip("psycopg")


@pytest.fixture
def client(world, postgres_server, tmp_path):
    own = settings_of(world).galleries["own"].address
    address = postgres_server.gallery()
    with open_gallery(own) as folder, open_gallery(address, encoder=folder.encoder) as server:
        copy_gallery(folder, server)
    settings = {
        "galleries": {"folder": own, "server": address},
        "folder": tmp_path / "state",
        "hosts": ("testserver",),
    }
    with running(Settings.model_validate(settings)) as client:
        yield client


def test_both_answer_alike(client):
    def ask(method, path, **arguments):
        answers = [
            client.request(method, f"/v1/galleries/{name}/{path}", **arguments)
            for name in ("folder", "server")
        ]
        assert [answer.status_code for answer in answers] == [200, 200], answers[1].text
        assert PASSWORD not in answers[1].text
        folder, server = (answer.json() for answer in answers)
        return {**folder, "seconds": 0}, {**server, "seconds": 0}

    files = [("pictures", ("a.png", picture(3)))]
    for found in (
        ask("POST", "search/pictures", files=files),
        ask("POST", "search", json={"items": [4], "where": {"camera": {"query": "other"}}}),
        ask("POST", "search", json={"items": [4], "group": "identity", "pool": "mean"}),
        ask("POST", "search", json={"items": [4], "where": {"identity": "nobody"}}),
        ask("GET", "people"),
        ask("GET", "queue"),
        ask("GET", "timeline", params={"name": "person 1"}),
    ):
        assert found[0] == found[1]


def test_pictures_are_added_decided_on_and_forgotten(client):
    path = "/v1/galleries/server"
    [number] = client.post(f"{path}/items", files=[("pictures", ("a.png", picture(99)))]).json()["ids"]
    accept = {"kind": "accept", "items": [number], "identity": "anna"}
    assert client.post(f"{path}/decisions", json=accept).status_code == 200
    assert client.get(f"{path}/items/{number}").json()["identity"] == "anna"
    assert client.post(f"{path}/forget", json={"identity": "anna"}).json()["num_items"] == 1
    assert client.get(f"{path}/items/{number}").status_code == 404
