"""The page in a real browser: searching, deciding by keyboard alone, roles, and what axe-core finds."""

from __future__ import annotations

import base64
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

import reidkit as rk
from reidkit.progress import ProgressCallback
from reidkit.web.app import build_app
from reidkit.web.roles import Role
from reidkit.web.service import Service
from reidkit.web.users import Users
from tests.web.serving import PASSWORD, picture, settings_of
from tests.web.test_report_in_browser import browser  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

EVIL = '<img src=x onerror="alert(1)">'
QUOTED = "%3Cimg%20src%3Dx%20onerror%3D%22alert%281%29%22%3E"
ROLES = ("viewer", "reviewer", "administrator")
LOOKS = [(390, "light", True), (390, "dark", False), (1280, "light", False), (1280, "dark", True)]
"""Widths and schemes in which pages are looked at; with all rules, or with that of colours."""

PAGES = [
    "/login",
    "/galleries",
    "/users",
    "/g/own/search",
    "/g/own/search?item=5&group=identity",
    "/g/own/search?item=5&group=pictures",
    "/g/own/search?item=5&is.camera=77",
    f"/g/own/person?name={QUOTED}",
    "/g/own/people",
    f"/g/own/review?at={QUOTED}",
    "/g/own/decisions",
    "/g/own/items/2",
    "/g/own/gallery",
    "/g/own/jobs",
    "/g/own/audit",
    "/g/own/nowhere",
]

ONLY_COLOURS = {"runOnly": ["color-contrast"]}

PASTE = """([name, data]) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
  const clipboardData = new DataTransfer();
  clipboardData.items.add(new File([bytes], name, {type: "image/png"}));
  document.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true}));
}"""


@dataclass
class Site:
    """A running service, and what browsers asked of it and said."""

    address: str
    browser: Browser
    service: Service
    states: dict[str, Any] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def context(self, role: str | None, **look: Any) -> BrowserContext:
        """A browser that somebody of this role is logged in with, if not ``None``."""
        if role is not None and role not in self.states:
            self.states[role] = self._log_in(role)
        context = self.browser.new_context(
            base_url=self.address, storage_state=self.states.get(role) if role else None, **look
        )
        context.set_default_timeout(60_000)
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("console", lambda message: self._complain(message.text))
        context.on("weberror", lambda error: self._complain(str(error.error)))
        context.on("dialog", lambda dialog: self._complain(f"dialog: {dialog.message}"))
        return context

    def _log_in(self, role: str) -> Any:
        context = self.browser.new_context(base_url=self.address)
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto("/login")
        page.fill("[name=name]", role)
        page.fill("[name=password]", PASSWORD)
        page.click("text=Log in >> nth=-1")
        page.wait_for_url(re.compile("search|/$|galleries"))
        state = context.storage_state()
        context.close()
        return state

    def _complain(self, text: str) -> None:
        # Tests ask for what is not there, and for what is refused.
        if not text.startswith(("Failed to load resource", "Response Status Error Code 422")):
            self.complaints.append(text)


@pytest.fixture(scope="module")
def site(world: Path, tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Site]:  # noqa: F811
    """A service with a user of three roles; whatever has a name in its gallery is called EVIL somewhere."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(world, folder, dirs_exist_ok=True)
    settings = settings_of(folder, port=0)
    make_evil(folder)
    users = Users(settings.users_file)
    for role in ROLES:
        users.add(role, password=PASSWORD, role=Role.named(role))
    app = build_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Site(f"http://127.0.0.1:{port}", browser, app.state.service)
    server.should_exit = True
    thread.join(20)


def make_evil(folder: Path) -> None:
    source = folder / "photos" / f"{EVIL.replace('/', '')}.png"
    source.write_bytes(picture(1))
    with rk.open_gallery(folder / "own.gallery") as gallery:
        gallery.relabel(
            [1, 2],
            identities=[EVIL] * 2,
            cameras=[EVIL, 1],
            labels={"zone": [EVIL] * 2},
            sources=[str(source), str(folder / "gone.png")],
        )
        unknown = [item.id for item in gallery.items(where={"identity": None})]
        gallery.relabel(unknown, labels={"proposal": [EVIL, EVIL, "new-1", "new-2"]})


@pytest.fixture
def page(site: Site) -> Iterator[Page]:
    context = site.context("administrator", viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_one_logs_in_and_out(site: Site) -> None:
    context = site.context(None)
    page = context.new_page()
    page.goto("/g/own/search")
    page.fill("[name=name]", "viewer")
    page.fill("[name=password]", "a wrong password")
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="do not go together").wait_for()
    page.wait_for_function("() => document.activeElement.name === 'password'")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto("/g/own/search")
    assert page.url.endswith("/login")
    context.close()


def middle(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_picture_is_chosen_cut_out_and_searched_for(page: Page) -> None:
    page.goto("/g/own/search")
    page.set_input_files("#pictures", {"name": "a.png", "mimeType": "image/png", "buffer": picture(3)})
    page.evaluate(PASTE, ["pasted.png", base64.b64encode(picture(4)).decode()])
    assert page.locator("#chosen li").count() == 2
    page.get_by_role("button", name="Remove picture 1").click()
    assert page.locator("#chosen img").get_attribute("alt") == "picture 1 of the query: pasted.png"
    page.get_by_role("button", name="Crop picture 1").press("Enter")
    box = page.locator(".box")
    assert box.evaluate("box => box === document.activeElement")
    before = page.input_value("[name=boxes]")
    box.press("ArrowRight")
    box.press("Shift+ArrowDown")
    assert page.input_value("[name=boxes]") != before
    page.mouse.move(*middle(page, ".cut img"))
    page.mouse.down()
    page.mouse.move(*[at + 200 for at in middle(page, ".cut img")])
    page.mouse.up()
    assert page.input_value("[name=boxes]") != before
    page.check("[name=group][value=pictures]")
    page.get_by_role("button", name="Search").click()
    page.locator(".hit").first.wait_for()
    page.wait_for_function("() => document.activeElement.id === 'found'")
    assert page.locator(".hit").count() == 12 - 1


def test_hits_are_narrowed_down_compared_and_searched_with(page: Page) -> None:
    page.goto("/g/own/search?item=5&group=pictures")
    page.click("summary:has-text('camera')")
    page.check("[name='is.camera'][value='2']")
    page.get_by_role("button", name="Search").click()
    page.wait_for_function("() => document.querySelectorAll('.hit').length === 4")
    page.get_by_role("button", name="Compare").first.click()
    page.wait_for_function("() => document.getElementById('right').naturalWidth > 0")
    page.locator("#zoom").press("End")
    assert page.locator("#left").evaluate("image => image.style.width") == "600%"
    page.keyboard.press("Escape")
    first = page.locator(".hit a.frame").first.get_attribute("href")
    assert first is not None
    number = first.rpartition("/")[2]
    page.get_by_role("link", name=f"Search with picture {number}").click()
    page.wait_for_url(f"**/search?item={number}*")
    page.goto("/g/own/search?item=5&from=2030-01-01T00:00")
    page.get_by_text("the condition on time alone leaves 0 of 12").wait_for()


def test_errors_are_told_beside_the_form(page: Page) -> None:
    page.goto("/g/own/search")
    page.set_input_files("#pictures", {"name": "a.png", "mimeType": "image/png", "buffer": b"not a picture"})
    page.get_by_role("button", name="Search").click()
    page.locator("#messages h1").wait_for()
    assert page.url.endswith("/search")
    page.get_by_role("button", name="Remove picture 1").click()
    page.get_by_role("button", name="Search").click()
    page.locator("#messages", has_text="Choose a picture").or_(
        page.locator("#messages", has_text="choose a picture")
    ).wait_for()


def test_a_timeline_is_walked_to(page: Page) -> None:
    page.goto("/g/own/people")
    page.get_by_role("link", name="person 3", exact=True).click()
    assert page.locator("svg.timeline rect.visit").count() == page.locator("tbody tr").count() == 2
    page.set_viewport_size({"width": 390, "height": 800})
    widths = page.locator("svg.timeline rect.visit").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert max(widths) <= 390


def test_proposals_are_decided_by_keyboard_alone(site: Site) -> None:
    context = site.context("reviewer")
    page = context.new_page()
    page.goto("/g/own/review?at=new-1")

    def proposal() -> str:
        return page.locator("#who").inner_text()

    def press(*keys: str, until: str) -> None:
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_function("name => document.getElementById('who').innerText.startsWith(name)", arg=until)

    press("j", until="new-2")
    press("k", until="new-1")
    press("n", *"anna", "Enter", until="new-2")
    page.get_by_text("Last: reviewer accepted 1 picture as anna").wait_for()
    press("u", until=EVIL)
    page.wait_for_function("() => !document.body.innerText.includes('Last: reviewer')")
    press("x", "Space", "s", until=EVIL)
    page.get_by_text("1 picture, ").wait_for()
    page.keyboard.press("j")
    page.wait_for_function("() => document.getElementById('who').innerText === 'new-1'")
    press("r", until="new-2")
    page.get_by_text("Nobody is proposed as new-1 any more").wait_for()
    press("u", until="new-1")
    press("r", until="new-2")
    page.get_by_text("Nobody is proposed as new-1 any more").wait_for()
    page.wait_for_function("() => document.activeElement.id === 'who'")
    page.uncheck("#keys-on")
    page.keyboard.press("r")
    page.wait_for_timeout(200)
    assert proposal() == "new-2"
    context.close()


def test_roles_are_shown_what_they_may_do_and_refused_the_rest(site: Site) -> None:
    context = site.context("viewer")
    page = context.new_page()
    for path in ("/g/own/person?name=person 3", "/g/own/review", "/g/own/gallery", "/g/own/jobs"):
        page.goto(path)
        assert page.locator("main form button").count() == 0
    assert (
        page.get_by_role("link", name="Audit").count() == page.get_by_role("link", name="Users").count() == 0
    )
    page.goto("/g/own/audit")
    page.get_by_text("Ask an administrator for the role that is named").wait_for()
    csrf = page.locator("[name=csrf]").first.get_attribute("value")
    for path in ("person/forget", "gallery/expire", "jobs"):
        form = {"csrf": csrf or "", "name": "person 3", "sure": "yes", "age": "1m", "kind": "cluster"}
        assert context.request.post(f"/g/own/{path}", form=form).status == 403
    context.close()


def test_a_job_tells_how_far_it_is(page: Page) -> None:
    page.goto("/g/own/jobs")
    page.get_by_role("button", name="Cluster").click()
    page.locator(".state.done").wait_for()
    page.get_by_role("link", name="Review", exact=True).last.wait_for()


def test_a_job_tells_how_far_it_is_without_being_asked(site: Site, page: Page) -> None:
    steps: Queue[tuple[int, int] | None] = Queue()

    def work(progress: ProgressCallback) -> str:
        while (step := steps.get()) is not None:
            time.sleep(0.4)  # so that each is written down
            progress(*step)
        return "all pictures of the folder"

    site.service.jobs_done.start("index", "own", "administrator", work)
    page.goto("/g/own/jobs")
    asked = len(site.requests)
    for done in (3, 4000):
        steps.put((done, 9000))
        page.get_by_text(f"{done:,} of 9,000").wait_for()
        assert page.locator("progress").first.evaluate("bar => bar.value / bar.max") == done / 9000
    assert [url for url in site.requests[asked:] if url.endswith("/g/own/jobs")] == []
    steps.put(None)
    page.get_by_text("all pictures of the folder").wait_for()
    assert page.locator("[data-events]").count() == 0


def test_axe_finds_nothing_serious_and_nothing_sticks_out(site: Site) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = site.context("administrator")
    page = context.new_page()
    options = {"resultTypes": ["violations"], "iframes": False}
    faults = []
    for path in PAGES:
        page.goto(path, wait_until="load")
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        for width, scheme, all_rules in LOOKS:
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            if page.evaluate("document.documentElement.scrollWidth") > width:
                faults.append((path, width, "sticks out"))
            found = axe.run(page, options=options | ({} if all_rules else ONLY_COLOURS))
            faults += [
                (path, width, scheme, one["id"], one["nodes"][0]["html"][:200])
                for one in found.response["violations"]
                if one["impact"] in ("serious", "critical")
            ]
    context.close()
    assert faults == []


def test_nothing_was_fetched_from_elsewhere_and_nobody_complained(site: Site) -> None:
    """Of all that the tests before did; a name that had become an element would have opened a dialog."""
    assert len(site.requests) > 50
    hosts = {
        httpx.URL(url).netloc.decode() for url in site.requests if not url.startswith(("data:", "blob:"))
    }
    assert hosts == {httpx.URL(site.address).netloc.decode()}
    assert site.complaints == []
