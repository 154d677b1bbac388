"""Pages of people and of a timeline in a real browser: wide and narrow, light and dark, nothing fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from reidkit.clustering.proposals import Person, Proposals
from reidkit.galleries import Item
from reidkit.reports.people_page import write_people_page
from reidkit.reports.timeline_page import write_timeline_page
from reidkit.search.visits import timeline
from tests.web.test_report_in_browser import LEAST_CONTRAST, MISPLACED_CHARTS, browser  # noqa: F401

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
LONG = "a_name_without_any_place_to_break_it_" * 4


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two people of thirty pictures each, narrow and wide ones, with names too long for any line."""
    folder = tmp_path_factory.mktemp("people")
    items = []
    for number in range(60):
        path = folder / f"{number}.png"
        Image.new("RGB", ((40, 300)[number % 2], 100), (number * 4, 90, 120)).save(path)
        source = str(path) if number % 7 else str(folder / f"{LONG}.png")
        name = LONG if number < 10 else None
        items.append(
            Item(number + 1, source, name, ("door", 2, LONG)[number // 9 % 3], 1714557600.0 + 40 * number)
        )
    people = (Person(LONG, True, tuple(items[:30])), Person("new-1", False, tuple(items[30:])))
    found = Proposals(people, 60, 3, ("1 tracklet with two people each",))
    return {
        "people": write_people_page(folder / "people.html", found, location=f"{folder}/{LONG}.gallery"),
        "timeline": write_timeline_page(folder / "timeline.html", LONG, timeline(items), is_proposed=True),
    }


@pytest.mark.parametrize("name", ["people", "timeline"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_a_page_is_shown_as_it_should_be(
    name: str,
    width: int,
    scheme: str,
    pages: dict[str, Path],
    browser: Browser,  # noqa: F811
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    complaints: list[str] = []
    fetched: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: fetched.append(request.url))
    page.goto(pages[name].as_uri(), wait_until="networkidle")
    assert complaints == []
    assert [url for url in fetched if not url.startswith("data:")] == [pages[name].as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert min(page.evaluate("[...document.images].map(image => image.naturalWidth)")) > 0
    assert page.locator(".missing").count() > 0
    assert page.evaluate(LEAST_CONTRAST) >= 4.5
    assert page.evaluate(MISPLACED_CHARTS) == []
    context.close()


def test_a_row_says_that_it_shows_some_of_the_pictures_only(pages: dict[str, Path]) -> None:
    text = " ".join(pages["people"].read_text().split())
    assert text.count("30 pictures (12 of them here)") == 2
