"""Pictures that are uploaded: whose they are, who may delete them, and who can read them."""

from __future__ import annotations

import shutil
import threading

import pytest

import reidkit as rk
from reidkit.galleries import forget
from reidkit.web.service import Service
from reidkit.web.settings import ServedGallery
from tests.web.serving import picture, running
from tests.web.test_service import files, kept


def add(client, seed, identity, gallery="own"):
    data = {"items": f'[{{"identity": "{identity}"}}]'}
    answer = client.post(f"/v1/galleries/{gallery}/items", files=files(seed), data=data)
    assert answer.status_code == 201, answer.text
    return answer.json()


def serving(settings, **addresses):
    galleries = {name: ServedGallery(address=str(address)) for name, address in addresses.items()}
    return settings.model_copy(update={"galleries": galleries})


def swept(settings):
    """After another start of a service."""
    service = Service(settings)
    service.served.wait()
    for served in service.served.values():
        service.uploads.sweep(served)
    service.close()


def test_a_gallery_served_under_anothers_name_leaves_its_uploads_alone(settings, tmp_path):
    own, foreign = (settings.galleries[name].address for name in ("own", "foreign"))
    with running(settings) as client:
        add(client, 77, "anna")
    swept(serving(settings, own=foreign))
    [path] = kept(settings)
    assert path.read_bytes() == picture(77)
    with running(serving(settings, own=own)) as client:
        assert client.get("/v1/galleries/own/items/13/picture").status_code == 200


@pytest.mark.parametrize("change", ["another name", "another folder", "moved"])
def test_forgetting_reaches_uploads_however_the_gallery_is_served_now(settings, tmp_path, change):
    address = settings.galleries["own"].address
    with running(settings) as client:
        add(client, 77, "anna")
    now = serving(settings, hall=address)
    if change == "another folder":
        now = now.model_copy(update={"folder": tmp_path / "another"})
    if change == "moved":
        shutil.move(address, tmp_path / "moved.gallery")
        now = serving(settings, hall=tmp_path / "moved.gallery")
    with running(now) as client:
        answer = client.post("/v1/galleries/hall/forget", json={"identity": "anna"})
        assert answer.json()["num_items"] == 1
    assert kept(settings) == []


def test_a_copy_of_a_gallery_does_not_delete_what_the_other_still_names(settings, tmp_path):
    with running(settings) as client:
        add(client, 77, "anna")
    shutil.copytree(settings.galleries["own"].address, tmp_path / "copy.gallery")
    with running(serving(settings, copy=tmp_path / "copy.gallery")) as client:
        client.post("/v1/galleries/copy/forget", json={"identity": "anna"})
    assert len(kept(settings)) == 1


def test_what_another_program_erased_goes_from_the_uploads_without_a_wait(settings):
    with running(settings) as client:
        add(client, 77, "anna")
        add(client, 78, "ben")
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        forget(gallery, "anna")
    swept(settings)
    assert [path.read_bytes() for path in kept(settings)] == [picture(78)]


def test_a_service_that_runs_looks_again(settings, monkeypatch):
    monkeypatch.setattr("reidkit.web.service.TIDY_SECONDS", 0.02)
    with running(settings) as client:
        add(client, 77, "anna")
        with rk.open_gallery(settings.galleries["own"].address) as gallery:
            forget(gallery, "anna")
        for _ in range(3000):
            if not kept(settings):
                break
            threading.Event().wait(0.02)
    assert kept(settings) == []


def test_a_picture_that_is_being_added_is_not_swept_away(settings, monkeypatch):
    monkeypatch.setattr("reidkit.web.service.TIDY_SECONDS", 0.001)
    with running(settings) as client:
        for seed in range(70, 76):
            add(client, seed, "anna")
        assert len(kept(settings)) == 6


@pytest.mark.parametrize("keep", [True, False])
def test_a_known_picture_keeps_its_labels_and_the_answer_says_so(settings, keep):
    with running(settings.model_copy(update={"keep_uploads": keep})) as client:
        [number] = add(client, 77, "anna")["ids"]
        again = add(client, 77, "ben")
        assert (again["ids"], again["known"]) == ([number], [number])
        assert client.get(f"/v1/galleries/own/items/{number}").json()["identity"] == "anna"


def test_nobody_else_on_the_machine_reads_uploads(settings):
    settings.folder.mkdir(mode=0o755)
    with running(settings) as client:
        add(client, 77, "anna")
    folder = settings.folder / "pictures"
    [path] = kept(settings)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {place.stat().st_mode & 0o777 for place in (folder, path.parent)} == {0o700}
