"""The page as it is without JavaScript: forms that are sent, what each role may do, errors that teach."""

from __future__ import annotations

import re

import pytest

import reidkit as rk
from reidkit.web.pages_people import chart_of
from reidkit.web.roles import Role
from reidkit.web.users import Users
from tests.web.serving import PASSWORD, ROLES, add_users, bearer, picture, running, settings_of

G = "/g/own"
HTML = {"Accept": "text/html,application/xhtml+xml"}
EVIL = '<img src=x onerror="alert(1)">'
PAGES = {
    f"{G}/search": "viewer",
    f"{G}/search?item=3": "viewer",
    f"{G}/items/3": "viewer",
    f"{G}/people": "viewer",
    f"{G}/person?name=person 1": "viewer",
    f"{G}/review": "viewer",
    f"{G}/decisions": "viewer",
    f"{G}/gallery": "viewer",
    f"{G}/jobs": "viewer",
    f"{G}/audit": "administrator",
}
CHANGES = {
    "person/rename": ("reviewer", {"name": "person 1", "identity": "anna"}),
    "person/merge": ("reviewer", {"name": "person 2", "other": "person 3"}),
    "person/split": ("reviewer", {"name": "person 0", "item": "1"}),
    "review": ("reviewer", {"kind": "reject", "proposal": "new-1"}),
    "decisions/undo": ("reviewer", {"decision": "1"}),
    "jobs": ("operator", {"kind": "cluster"}),
    "person/forget": ("operator", {"name": "person 2", "sure": "yes"}),
    "gallery/expire": ("administrator", {"age": "30d"}),
    "jobs ": ("administrator", {"kind": "import", "folder": "exported"}),
}


@pytest.fixture(scope="module")
def reader(world, tmp_path_factory):
    """A service that nothing is changed in."""
    with running(
        settings_of(world).model_copy(update={"folder": tmp_path_factory.mktemp("state")})
    ) as client:
        yield client


def get(client, path):
    return client.get(path, headers=HTML)


def post(client, path, data=None, **more):
    return client.post(f"{G}/{path}", data=data or {}, headers=HTML, **more)


def chosen(*seeds):
    return [("pictures", (f"{seed}.png", picture(seed), "image/png")) for seed in seeds]


def names(client):
    return {person["name"] for person in client.get("/v1/galleries/own/people").json()["people"]}


def queue(client):
    return client.get("/v1/galleries/own/queue").json()["people"]


def items_of(client, name):
    answer = client.get("/v1/galleries/own/items", params={"where": f"identity={name}"})
    return [item["id"] for item in answer.json()["items"]]


# --- searching --------------------------------------------------------------------------------------------


def test_a_picture_is_searched_for_by_a_plain_form(reader):
    page = post(reader, "search", {"group": "pictures", "top": "10"}, files=chosen(3))
    assert page.status_code == 200
    assert page.text.count('<li class="hit">') == 10
    assert "1 picture left out: the query itself" in page.text
    assert "No probabilities: the encoder is not calibrated" in page.text


def test_people_are_asked_for_where_some_are_known(reader):
    page = post(reader, "search", files=chosen(1))
    assert re.search(r'<h3><a href="/g/own/person\?name=person%20\d">', page.text)


def test_a_hit_is_searched_with_and_conditions_hold(reader):
    page = get(reader, f"{G}/search?item=3&group=pictures&is.camera=1")
    assert page.text.count('<li class="hit">') == 4
    assert set(re.findall(r'<p class="labels">.*?camera (\d)', page.text, re.DOTALL)) == {"1"}
    late = get(reader, f"{G}/search?item=3&group=pictures&from=2024-05-01T11:00")
    assert 0 < late.text.count('<li class="hit">') < 11


def test_what_left_nothing_over_is_told(reader):
    page = get(reader, f"{G}/search?item=3&group=pictures&is.camera=77")
    assert "the condition on camera alone leaves 0 of 12 (there are 0, 1, 2)" in page.text


def test_labels_of_many_values_have_limits_or_a_text_in_their_place(settings, client):
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        rows = gallery.embeddings(ids=[1]).repeat(70, axis=0)
        gallery.add(
            rows, labels={"plate": [f"HH-{n}" for n in range(70)], "speed": [n / 2 for n in range(70)]}
        )
    page = get(client, f"{G}/search?item=3&group=pictures&text.plate=HH-7")
    assert page.text.count('<li class="hit">') == 1
    page = get(client, f"{G}/search?item=3&group=pictures&low.speed=30&high.speed=31")
    assert page.text.count('<li class="hit">') == 2
    assert 'value="30"' in page.text


def test_a_crop_is_what_is_searched_for(reader):
    whole, part = (
        post(reader, "search", {"group": "pictures", "boxes": boxes}, files=chosen(3)).text
        for boxes in ("", "[[0, 0, 12, 24]]")
    )
    assert re.findall(r"score [\d.]+", whole) != re.findall(r"score [\d.]+", part)
    assert "the crops are" in post(reader, "search", {"boxes": "[[1]]"}, files=chosen(3)).text.lower()


@pytest.mark.parametrize(
    ("data", "files", "told"),
    [
        ({}, [], "nothing to search for"),
        ({}, [("pictures", ("", b"", "application/octet-stream"))], "nothing to search for"),
        ({}, [("pictures", ("a.png", b"no picture", "image/png"))], "image"),
        ({"item": "x"}, [], "item is"),
        ({"item": "3", "top": "-1"}, [], "top is"),
        ({"item": "3", "from": "yesterday"}, [], "ISO time"),
        ({"item": "3", "is.camera": "{"}, [], "choose it again"),
        ({"item": "3", "is.no such": "1"}, [], "no such"),
        ({"item": "3", "group": "crowd"}, [], "group"),
    ],
)
def test_what_cannot_be_searched_for_is_told_on_a_page(reader, data, files, told):
    page = post(reader, "search", data, files=files)
    assert page.headers["content-type"].startswith("text/html")
    assert page.status_code in (200, 422)
    assert told in page.text.replace("&#39;", "'") or told.capitalize() in page.text
    assert "Traceback" not in page.text


def test_the_purpose_is_asked_for_where_the_service_wants_one(world, tmp_path):
    with running(
        settings_of(world).model_copy(update={"folder": tmp_path, "require_purpose": True})
    ) as client:
        assert "Not searched yet" in get(client, f"{G}/search?item=3").text
        page = get(client, f"{G}/search?item=3&purpose=a lost child&group=pictures")
        assert page.text.count('<li class="hit">') == 11
        assert "purpose=a%20lost%20child" in page.text


# --- people and review ------------------------------------------------------------------------------------


def test_a_person_is_renamed_merged_split_and_forgotten(client):
    assert post(client, "person/rename", {"name": "person 1", "identity": "anna"}).status_code == 200
    assert names(client) == {"anna", "person 0", "person 2", "person 3"}
    taken = post(client, "person/rename", {"name": "anna", "identity": "person 0"})
    assert taken.status_code == 422
    assert "merge the two" in taken.text
    post(client, "person/merge", {"name": "anna", "other": "person 0"})
    assert len(items_of(client, "anna")) == 4
    [first, *_] = items_of(client, "anna")
    post(client, "person/split", {"name": "anna", "item": str(first), "identity": "ben"})
    assert items_of(client, "ben") == [first]
    unsure = post(client, "person/forget", {"name": "ben"})
    assert "tick the box" in unsure.text
    gone = post(client, "person/forget", {"name": "ben", "sure": "yes"})
    assert "1 picture erased" in gone.text
    assert names(client) == {"anna", "person 2", "person 3"}


def test_the_timeline_is_a_picture_and_a_table(reader):
    page = get(reader, f"{G}/person?name=person 1")
    timeline = reader.get("/v1/galleries/own/timeline", params={"name": "person 1"}).json()
    assert page.text.count('<rect class="visit"') == len(timeline["visits"])
    assert page.text.count("<tr><td>2024-05-01") == len(timeline["visits"])


def test_bars_stay_within_the_picture(reader):
    from reidkit.web.answers import TimelineAnswer

    found = reader.get("/v1/galleries/own/timeline", params={"name": "person 1"}).json()
    chart = chart_of(TimelineAnswer.model_validate(found))
    bars = [bar for lane in chart.lanes for bar in lane.bars]
    assert all(bar.left >= 0 and bar.left + bar.width <= 100.01 for bar in bars)


def test_a_proposal_is_accepted_and_that_undone(client):
    page = get(client, f"{G}/review")
    shown = re.findall(r'name="shown" value="(\d+)"', page.text)
    assert len(shown) == 2
    post(client, "review", {"kind": "accept", "proposal": "new-1", "shown": shown, "identity": "anna"})
    assert sorted(map(str, items_of(client, "anna"))) == sorted(shown)
    page = get(client, f"{G}/review")
    assert "local accepted 2 pictures as anna" in " ".join(page.text.split())
    [number] = re.findall(r'name="decision" value="(\d+)"', page.text)
    post(client, "decisions/undo", {"decision": number, "back": "review"})
    assert [person["name"] for person in queue(client)] == ["new-1"]
    assert "taken back" in get(client, f"{G}/decisions").text


def test_what_was_not_shown_is_not_accepted(client):
    """A proposal may be another by the time somebody accepts what they see."""
    [shown, _] = [item["id"] for item in queue(client)[0]["items"]]
    post(client, "review", {"kind": "accept", "proposal": "new-1", "shown": str(shown)})
    assert items_of(client, "new-1") == [shown]


def test_proposals_are_split_merged_and_withdrawn(settings, client):
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        rest = [item.id for item in gallery.items(where={"identity": None, "proposal": None})]
        gallery.relabel(rest, labels={"proposal": ["new-2"] * len(rest)})
    post(client, "review", {"kind": "split", "proposal": "new-2", "item": str(rest[0])})
    assert {person["name"]: person["num_items"] for person in queue(client)} == {"new-1": 2, "new-2": 1}
    post(client, "review", {"kind": "merge", "proposal": "new-2", "with": "new-1"})
    assert {person["name"]: person["num_items"] for person in queue(client)} == {"new-1": 3}
    page = post(client, "review", {"kind": "reject", "proposal": "new-1"})
    assert "Nobody is proposed as new-1 any more" in page.text
    assert "Nothing to review" in page.text
    page = post(client, "decisions/undo", {"proposal": "new-1"})
    assert "any more" not in page.text
    assert {person["name"]: person["num_items"] for person in queue(client)} == {"new-1": 3}


def test_a_proposal_of_a_known_person_shows_them(settings, client):
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        rest = [item.id for item in gallery.items(where={"identity": None})]
        gallery.relabel(rest, labels={"proposal": ["person 1"] * len(rest)})
    page = get(client, f"{G}/review")
    assert "Known pictures of person 1" in page.text
    assert len(re.findall('name="shown"', page.text)) == len(rest)


# --- a gallery --------------------------------------------------------------------------------------------


def test_pictures_are_added_and_old_ones_erased(client):
    data = {"camera": "door", "time": "2020-01-01T10:00", "identity": "anna"}
    broken = ("pictures", ("x.png", b"no picture", "image/png"))
    page = post(client, "gallery/add", data, files=[*chosen(90), broken])
    assert "1 picture in the gallery now" in page.text
    assert "left out: picture 1" in page.text
    assert len(items_of(client, "anna")) == 1
    assert "13 pictures would be erased" in post(client, "gallery/expire", {"age": "30d"}).text
    assert post(client, "gallery/expire", {"age": "soon"}).status_code == 422
    assert "13 erased" in post(client, "gallery/expire", {"age": "30d", "sure": "yes"}).text


def test_a_job_is_started_and_shown(client):
    page = post(client, "jobs", {"kind": "cluster", "distance": "0.5"})
    assert page.status_code == 200
    assert 'data-said="cluster: ' in page.text
    assert "there is no such job" in post(client, "jobs/cancel", {"job": "0"}).text.lower()


def test_the_audit_log_is_filtered_and_verified(client):
    get(client, f"{G}/search?item=3")
    get(client, f"{G}/person?name=person 1")
    page = get(client, f"{G}/audit?action=search")
    assert page.text.count("<tr><td>") == 1
    assert "entries of the log are as they were written" in post(client, "audit").text


# --- who may ----------------------------------------------------------------------------------------------


def test_pages_and_changes_are_for_who_may(settings):
    tokens = add_users(settings)
    with running(settings) as client:
        for role in ROLES:
            headers = bearer(tokens[role]) | HTML
            for path, least in PAGES.items():
                page = client.get(path, headers=headers)
                assert page.status_code == (200 if _reaches(role, least) else 403), (role, path)
                assert client.get(path.replace("/own", "/foreign"), headers=headers).status_code == 404
            for path, (least, data) in CHANGES.items():
                if _reaches(role, least):
                    continue
                for gallery, status in (("own", 403), ("foreign", 404)):
                    answer = client.post(f"/g/{gallery}/{path.strip()}", data=data, headers=headers)
                    assert answer.status_code == status, (role, path)
                    assert "Ask an administrator" in answer.text or status == 404
            assert client.get("/users", headers=headers).status_code == 403
        hidden = client.get(f"{G}/person?name=person 1", headers=bearer(tokens["viewer"]) | HTML).text
        assert "<button" not in re.sub(r'action="/logout">.*?</form>', "", hidden)


def _reaches(role, least):
    return Role.named(role) >= Role.named(least)


@pytest.fixture
def logged_in(settings):
    add_users(settings)
    with running(settings) as client:
        page = client.post("/login", data={"name": "root", "password": PASSWORD}, headers=HTML)
        assert page.url.path == "/galleries" or page.url.path == "/"
        yield client


def secret(client):
    return re.search(r'name="csrf" value="([^"]+)"', get(client, "/galleries").text)[1]


def test_one_logs_in_and_out(settings):
    add_users(settings)
    with running(settings) as client:
        assert get(client, f"{G}/search").url.path == "/login"
        wrong = client.post("/login", data={"name": "root", "password": "guessed"}, headers=HTML)
        assert wrong.status_code == 401
        assert "do not go together" in wrong.text
        assert 'value="root"' in wrong.text
        inside = client.post("/login", data={"name": "root", "password": PASSWORD}, headers=HTML)
        assert "Log out" in inside.text
        client.post("/logout", data={"csrf": secret(client)}, headers=HTML)
        assert get(client, "/galleries").url.path == "/login"


def test_a_form_of_another_site_changes_nothing(logged_in):
    for data in (
        {"name": "person 1", "identity": "anna"},
        {"csrf": "x", "name": "person 1", "identity": "a"},
    ):
        assert post(logged_in, "person/rename", data).status_code == 403
    assert "person 1" in names(logged_in)
    for path in ("/users/add", "/users/token", "/users/remove", "/users/revoke", "/logout"):
        assert logged_in.post(path, data={"name": "root"}, headers=HTML).status_code == 403, path


def test_users_are_added_given_tokens_and_removed(logged_in, settings):
    csrf = secret(logged_in)

    def send(path, **data):
        return logged_in.post(f"/users/{path}", data={"csrf": csrf, **data}, headers=HTML)

    send("add", name="carla", role="reviewer", gallery="own", password=PASSWORD)
    page = send("token", name="carla", label="script", days="7")
    [token] = re.findall(r'id="token">(reid_[\w-]+)<', page.text)
    assert logged_in.get("/v1/me", headers=bearer(token)).json()["roles"] == {"own": "reviewer"}
    assert token not in get(logged_in, "/users").text
    [number] = [one.tokens[0].id for one in Users(settings.users_file).all() if one.name == "carla"]
    send("revoke", name="carla", token=str(number))
    logged_in.cookies.clear()
    assert logged_in.get("/v1/me", headers=bearer(token)).status_code == 401
    logged_in.post("/login", data={"name": "root", "password": PASSWORD}, headers=HTML)
    csrf = secret(logged_in)
    assert send("remove", name="carla").status_code == 422
    assert send("remove", name="root", sure="yes").status_code == 422
    send("remove", name="carla", sure="yes")
    assert "carla" not in get(logged_in, "/users").text
    assert send("add", name="x", role="king").status_code == 422
    assert send("add", name="<b>", role="viewer").status_code == 422


# --- errors, and texts from outside -----------------------------------------------------------------------


def test_errors_are_pages_for_browsers_and_problems_for_programs(reader):
    for path, status in (
        ("/nowhere", 404),
        (f"{G}/items/99", 404),
        (f"{G}/items/x", 422),
        ("/g/no/search", 404),
    ):
        page = get(reader, path)
        assert page.status_code == status
        assert 'id="problem"' in page.text
        assert reader.get(path).headers["content-type"] == "application/problem+json"
    missing = get(reader, f"{G}/person?name=nobody of that name")
    assert "knows nobody called" in missing.text


def test_a_new_gallery_says_how_to_fill_it(world, tmp_path):
    galleries = {"own": {"address": str(tmp_path / "new.gallery"), "encoder": world / "encoder.safetensors"}}
    with running(settings_of(tmp_path, galleries=galleries)) as client:
        for path in ("search", "people", "review", "gallery", "jobs"):
            assert get(client, f"{G}/{path}").status_code == 200, path
        assert "holds nothing yet" in get(client, f"{G}/search").text


def test_names_from_outside_are_text_and_nothing_else(settings, client):
    with rk.open_gallery(settings.galleries["own"].address) as gallery:
        gallery.relabel(
            [1, 2, 3, 4],
            identities=[EVIL, EVIL, None, None],
            cameras=[EVIL] * 4,
            labels={"zone": [EVIL] * 4, "proposal": [None, None, EVIL, EVIL]},
        )
    quoted = "%3Cimg%20src%3Dx%20onerror%3D%22alert%281%29%22%3E"
    for path in (*PAGES, f"{G}/person?name={quoted}", f"{G}/review?at={quoted}", f"{G}/items/1"):
        page = get(client, path)
        assert page.status_code == 200, path
        assert "<img src=x" not in page.text, path
    assert "&lt;img src=x" in get(client, f"{G}/items/1").text
    assert post(client, "search", {"item": "3", f"is.{EVIL}": "1"}).text.count("<img src=x") == 0
    assert "<img src=x" not in get(client, f"/g/{quoted}/search").text


def test_no_page_has_a_script_or_a_style_of_its_own(reader):
    for path in PAGES:
        text = get(reader, path).text
        assert not re.search(r"<script(?! src=\"/static/)|<style|\sstyle=|\son\w+=|javascript:", text), path
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", text), path
