"""What the service answers, for a user of a machine's own service, who may do all."""

from __future__ import annotations

import json
import time
from pathlib import Path

import reidkit as rk
from tests.web.serving import picture, running

GALLERY = "/v1/galleries/own"


def files(*seeds):
    return [("pictures", (f"{seed}.png", picture(seed), "image/png")) for seed in seeds]


def search(client, *seeds, **request):
    answer = client.post(
        f"{GALLERY}/search/pictures", files=files(*seeds), data={"request": json.dumps(request)}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def kept(settings):
    """Uploaded pictures that lie in the service's folder."""
    return list((settings.folder / "pictures").rglob("*.img"))


def audited(settings):
    return [json.loads(line) for line in settings.audit_file.read_text().splitlines()]


def test_galleries_are_listed_with_what_one_may_do(client):
    own, foreign = client.get("/v1/galleries").json()
    assert (own["name"], own["role"], own["num_items"]) == ("own", "administrator", 12)
    assert foreign["name"] == "foreign"


def test_a_gallery_that_is_lost_hides_no_other(client, settings, tmp_path):
    assert len(client.get("/v1/galleries").json()) == 2  # and both are open
    place = Path(settings.galleries["foreign"].address)
    place.rename(tmp_path / "elsewhere")
    own, foreign = client.get("/v1/galleries").json()
    assert (own["num_items"], own["unavailable"]) == (12, "")
    assert "moved" in foreign["unavailable"]
    assert str(place) not in foreign["unavailable"]
    for path in ("/galleries", "/g/own/people"):
        assert client.get(path).status_code == 200
    assert "moved" in client.get("/galleries").text
    ready = client.get("/readyz")
    assert (ready.status_code, "foreign" in ready.json()["detail"]) == (503, True)
    for path in ("items", "items/1", "items/1/thumbnail", "people", "queue", "decisions"):
        answer = client.get(f"/v1/galleries/foreign/{path}")
        assert (answer.status_code, "moved" in answer.json()["detail"]) == (503, True), path
        assert "tell whoever runs the service" in answer.json()["to_do"]
    answer = client.post("/v1/galleries/foreign/search/pictures", files=files(3))
    assert answer.status_code == 503
    assert client.post("/v1/galleries/foreign/forget", json={"identity": "person 1"}).status_code == 503
    figures = client.get("/metrics").text
    assert 'reid_readable{gallery="foreign"} 0.0' in figures
    assert 'reid_items{gallery="own"} 12.0' in figures
    (tmp_path / "elsewhere").rename(place)
    assert client.get("/readyz").status_code == 200
    assert client.get("/v1/galleries").json()[1]["num_items"] == 12


def test_a_picture_is_searched_for_and_its_own_item_left_out(client):
    found = search(client, 3, top=4)
    assert len(found["hits"]) == 4
    assert found["num_own"] == 1
    assert "3.png" not in [hit["name"] for hit in found["hits"]]
    scores = [hit["score"] for hit in found["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_a_stored_item_finds_what_its_picture_finds(client):
    by_picture = search(client, 3, top=4)
    [item] = client.get(f"{GALLERY}/items", params={"where": "camera=0", "num": 2}).json()["items"][1:]
    assert item["name"] == "3.png"
    by_item = client.post(f"{GALLERY}/search", json={"items": [item["id"]], "top": 4}).json()
    assert [hit["id"] for hit in by_item["hits"]] == [hit["id"] for hit in by_picture["hits"]]


def test_conditions_may_refer_to_a_stored_items_own_labels(client):
    request = {"items": [4], "where": {"camera": {"query": "other"}}, "top": 20}
    hits = client.post(f"{GALLERY}/search", json=request).json()["hits"]
    assert {hit["camera"] for hit in hits} == {0, 1, 2} - {client.get(f"{GALLERY}/items/4").json()["camera"]}


def test_several_pictures_are_one_query(client):
    hits = search(client, 1, 5, top=10)["hits"]
    assert len(hits) == 10
    assert {hit["name"] for hit in hits} == {f"{number}.png" for number in range(12)} - {"1.png", "5.png"}


def test_people_are_searched_for(client):
    found = search(client, 1, group="identity", top=3, pool="mean")
    assert len(found["people"]) == 3
    assert found["people"][0]["hits"]


def test_no_answer_names_a_place_on_the_machine(client, settings):
    for path in ("items", "people", "queue", "timeline?name=person 1", "encoder", "jobs", "decisions"):
        answer = client.get(f"{GALLERY}/{path}")
        assert answer.status_code == 200, answer.text
        assert str(settings.folder.parent) not in answer.text
    answer = client.post(f"{GALLERY}/search", json={"items": [1], "where": {"identity": "nobody"}})
    assert "no item meets the conditions" in answer.json()["why_nothing"]
    assert str(settings.folder.parent) not in answer.text


def test_pictures_are_had_by_number_alone(client):
    small = client.get(f"{GALLERY}/items/1/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert client.get(f"{GALLERY}/items/1/thumbnail").content == small.content
    assert client.get(f"{GALLERY}/items/99/thumbnail").status_code == 404
    assert client.get(f"{GALLERY}/items/..%2F..%2Fetc%2Fpasswd/thumbnail").status_code in (404, 422)


def test_a_thumbnail_that_the_gallery_keeps_stands_for_a_picture_that_is_gone(client, settings):
    gone = {"sources": ["/gone/1.png", "/gone/2.png"], "thumbnails": [picture(1, "JPEG"), None]}
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        gallery.relabel([1, 2], **gone)
    for size in ("thumbnail", "picture"):
        assert client.get(f"{GALLERY}/items/1/{size}").headers["content-type"] == "image/jpeg"
        assert client.get(f"{GALLERY}/items/2/{size}").status_code == 404


def test_pictures_are_added_once_and_kept(client):
    sent = {"items": json.dumps([{"camera": "door", "identity": "anna", "time": "2024-05-01T10:00"}])}
    first = client.post(f"{GALLERY}/items", files=files(77), data=sent)
    assert first.status_code == 201, first.text
    [number] = first.json()["ids"]
    item = client.get(f"{GALLERY}/items/{number}").json()
    assert (item["identity"], item["camera"], item["moment"]) == ("anna", "door", "2024-05-01 10:00:00 UTC")
    assert client.get(f"{GALLERY}/items/{number}/thumbnail").status_code == 200
    assert client.post(f"{GALLERY}/items", files=files(77)).json()["ids"] == [number]
    assert search(client, 77)["num_own"] == 1


def test_what_cannot_be_read_is_left_out_and_told(client):
    broken = ("pictures", ("x.png", picture(5)[:40], "image/png"))
    added = client.post(f"{GALLERY}/items", files=[*files(78), broken]).json()
    assert len(added["ids"]) == 1
    assert len(added["unreadable"]) == 1
    assert added["unreadable"][0].startswith("picture 1: ")


def test_erasing_reaches_the_kept_pictures(client, settings):
    data = {"items": '[{"identity": "anna"}]'}
    [number] = client.post(f"{GALLERY}/items", files=files(77), data=data).json()["ids"]
    assert client.get(f"{GALLERY}/items/{number}/thumbnail").status_code == 200
    assert len(kept(settings)) == 1
    assert (
        client.post(f"{GALLERY}/forget", json={"identity": "anna", "dry_run": True}).json()["num_items"] == 1
    )
    assert len(kept(settings)) == 1
    assert client.post(f"{GALLERY}/forget", json={"identity": "anna"}).json()["num_items"] == 1
    assert kept(settings) == []
    assert client.get(f"{GALLERY}/items/{number}/thumbnail").status_code == 404


def test_decisions_are_made_and_taken_back(client):
    def decide(**request):
        answer = client.post(f"{GALLERY}/decisions", json=request)
        assert answer.status_code == 200, answer.text
        return answer.json()["decisions"]

    assert [person["name"] for person in client.get(f"{GALLERY}/queue").json()["people"]] == ["new-1"]
    [made] = decide(kind="accept", proposal="new-1", identity="anna")
    assert made["who"] == "local"
    assert client.get(f"{GALLERY}/queue").json()["people"] == []
    [merged] = decide(kind="merge", identity="person 1", others=["anna"])
    decide(kind="undo", undoes=merged["id"])
    people = client.get(f"{GALLERY}/people").json()["people"]
    assert {person["name"] for person in people} == {"anna", *(f"person {number}" for number in range(4))}
    in_force = [one["in_force"] for one in client.get(f"{GALLERY}/decisions").json()["decisions"]]
    assert in_force == [False, False, True]


def test_a_proposal_is_rejected_or_split(client):
    items = [item["id"] for item in client.get(f"{GALLERY}/queue").json()["people"][0]["items"]]
    answer = client.post(f"{GALLERY}/decisions", json={"kind": "split", "items": items[:1]})
    assert answer.json()["decisions"][0]["kind"] == "reject"
    assert (
        client.post(f"{GALLERY}/decisions", json={"kind": "reject", "proposal": "new-1"}).status_code == 200
    )
    assert client.get(f"{GALLERY}/queue").json()["total"] == 0


def test_where_the_audit_log_cannot_be_written_nothing_is_done(client, settings):
    search(client, 3)
    settings.audit_file.write_text("x\ny\n" + settings.audit_file.read_text()[:50])
    answer = client.post(f"{GALLERY}/forget", json={"identity": "person 1"})
    assert (answer.status_code, "keep it, moved away" in answer.json()["detail"]) == (503, True)
    assert client.get(f"{GALLERY}/people").json()["total"] == 4


def test_no_answer_names_the_place_of_an_encoder(client, world):
    answer = client.post(f"{GALLERY}/search", json={"items": [1], "false_match_rate": 0.01})
    assert (answer.status_code, "no calibration" in answer.json()["detail"]) == (422, True)
    assert str(world) not in answer.text


def decide(client, **request):
    return client.post(f"{GALLERY}/decisions", json=request)


def test_that_a_proposal_was_rejected_is_taken_back_if_nothing_came_since(client, settings):
    [before] = client.get(f"{GALLERY}/queue").json()["people"]
    ids = [item["id"] for item in before["items"]]
    assert decide(client, kind="undo", proposal="new-1").status_code == 422  # nobody rejected it
    decide(client, kind="reject", proposal="new-1")
    assert decide(client, kind="undo", proposal="new-2").status_code == 422
    decide(client, kind="accept", items=ids[:1], identity="anna")
    assert decide(client, kind="undo", proposal="new-1").status_code == 422  # something came since
    decide(client, kind="undo", undoes=0)
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        gallery.relabel(ids, labels={"proposal": ["new-1"] * len(ids)})
    decide(client, kind="reject", proposal="new-1")
    assert client.get(f"{GALLERY}/queue").json()["total"] == 0
    client.post(f"{GALLERY}/items/remove", json={"items": ids[:1]})
    assert decide(client, kind="undo", proposal="new-1").status_code == 200
    [after] = client.get(f"{GALLERY}/queue").json()["people"]
    assert (after["name"], [item["id"] for item in after["items"]]) == ("new-1", ids[1:])
    assert audited(settings)[-1]["action"] == "undo"
    assert decide(client, kind="undo", proposal="new-1").status_code == 422


def test_a_rejection_is_taken_back_by_whichever_process_is_asked(client, settings):
    with running(settings) as other:
        decide(client, kind="reject", proposal="new-1")
        assert decide(other, kind="undo", proposal="new-1").status_code == 200
        assert decide(client, kind="undo", proposal="new-1").status_code == 422  # it is taken back already
        decide(other, kind="reject", proposal="new-1")
    assert decide(client, kind="undo", proposal="new-1").status_code == 200
    assert client.get(f"{GALLERY}/queue").json()["total"] == 1


def test_what_is_decided_since_a_proposal_was_rejected_stays(client, settings):
    ids = [item["id"] for item in client.get(f"{GALLERY}/queue").json()["people"][0]["items"]]
    decide(client, kind="reject", proposal="new-1")
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        gallery.relabel(ids[:1], labels={"proposal": ["new-1"]})
    answer = decide(client, kind="undo", proposal="new-1")
    assert "others are proposed" in answer.json()["detail"]


def test_what_makes_no_sense_is_told_with_what_to_do(client):
    answer = client.post(f"{GALLERY}/decisions", json={"kind": "merge"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "an identity and others" in answer.json()["detail"]
    assert answer.json()["to_do"]


def ended(client, number):
    for _ in range(2000):
        job = client.get(f"{GALLERY}/jobs/{number}").json()
        if job["ended"] is not None:
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_a_job_clusters_and_tells_how_far_it_is(client):
    started = client.post(f"{GALLERY}/jobs", json={"kind": "cluster"})
    assert started.status_code == 202, started.text
    job = ended(client, started.json()["id"])
    assert job["state"] == "done", job
    assert "12 pictures" in job["result"]
    events = client.get(f"{GALLERY}/jobs/{job['id']}/events").text
    assert events.startswith("event: done\ndata: {")
    assert client.get(f"/v1/galleries/foreign/jobs/{job['id']}").status_code == 404


def test_only_folders_of_the_settings_are_indexed(client):
    for folder in (None, "/etc", "../.."):
        answer = client.post(f"{GALLERY}/jobs", json={"kind": "index", "folder": folder})
        assert answer.status_code == 422, answer.text


def test_everything_is_in_the_audit_log_before_it_is_answered(client, settings):
    search(client, 3, purpose="a test")
    client.post(f"{GALLERY}/decisions", json={"kind": "accept", "proposal": "new-1"})
    client.post(f"{GALLERY}/forget", json={"identity": "nobody of that name"})
    entries = audited(settings)
    assert [entry["action"] for entry in entries] == ["search", "accept", "forget", "forget failed"]
    assert entries[0]["details"]["purpose"] == "a test"
    assert len(entries[0]["details"]["pictures"][0]) == 64
    assert "nobody of that name" not in settings.audit_file.read_text()


def test_a_changed_log_is_still_shown_with_what_was_changed(client, settings):
    for purpose in ("first", "second", "third"):
        search(client, 3, purpose=purpose)
    lines = settings.audit_file.read_text().replace("second", "nothing")
    settings.audit_file.write_text(lines)
    told = client.get(f"{GALLERY}/audit").json()
    assert [entry["is_intact"] for entry in told] == [True, True, False, True]
    assert told[3]["details"]["purpose"] == "first"
    assert "not as it was written" in client.get("/g/own/audit").text


def test_answers_carry_strict_headers(client):
    for path in ("/v1/galleries", "/healthz", "/no-such-page"):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_figures_for_prometheus(client):
    client.get("/v1/galleries")
    text = client.get("/metrics").text
    assert 'reid_items{gallery="own"} 12.0' in text
    assert 'reid_requests_total{method="GET",route="/v1/galleries",status="200"} 1.0' in text
