"""The reports in a real browser: wide and narrow, light and dark, nothing fetched, nothing out of place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from reidkit.evaluation.evaluation import evaluate_features
from reidkit.reports.comparison import ComparedRun, write_comparison
from reidkit.reports.inputs import Results, RunDetails
from reidkit.reports.page import write_report
from reidkit.types import Features, Sample, Split

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

NAMES = ("report", "plain", "comparison")
WIDTHS = (1280, 390)
NUM_OVERLAYS = 6 * 4 - 3  # one query cannot be read: neither its photo nor the two maps are there
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONG_NAME = "a_file_name_without_any_place_to_break_it_" * 3 + ".png"

# Pairs of headings whose boxes overlap, as texts.
OVERLAPPING_HEADINGS = """() => {
  const all = [...document.querySelectorAll("h1, h2, h3")]
      .map(e => ({text: e.textContent, box: e.getBoundingClientRect()}));
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
  return all.flatMap((a, i) => all.slice(i + 1).filter(b => !apart(a.box, b.box)).map(b => [a.text, b.text]));
}"""

# SVGs that are empty or stick out of the element that holds them, and texts that stick out of their SVG.
MISPLACED_CHARTS = """() => {
  const outside = (a, b) => a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 ||
      a.bottom > b.bottom + 1;
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const box = svg.getBoundingClientRect();
    if (box.width < 100 || box.height < 50) found.push("small");
    if (outside(box, svg.parentElement.getBoundingClientRect())) found.push("svg");
    for (const text of svg.querySelectorAll("text"))
      if (outside(text.getBoundingClientRect(), box)) found.push(text.textContent);
  }
  return found;
}"""

# Contrast of text with the page behind it (WCAG), the least of all elements that hold text themselves.
LEAST_CONTRAST = """() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = numbers(getComputedStyle(e).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
  };
  let least = 21;
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())) continue;
    const style = getComputedStyle(e);
    const ink = luminance(numbers(e.closest("svg") ? style.fill : style.color));
    const [low, high] = [ink, luminance(behind(e))].sort((a, b) => a - b);
    least = Math.min(least, (high + 0.05) / (low + 0.05));
  }
  return least;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(names)} is on the PATH")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


class Calibration:
    def probability(self, scores: np.ndarray) -> np.ndarray:
        return (1 + np.asarray(scores)) / 2


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with everything in it, one of features without images, and a comparison of two runs.

    Fourteen people, three cameras, made-up embeddings and curves.
    """
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reidkit.reports.sections._LEAST_CONCENTRATION", 0)  # of an untrained network
        return made_pages(folder)


def made_pages(folder: Path) -> dict[str, Path]:
    from reidkit.encoders.encoder import Encoder
    from reidkit.models import build_model

    rng = np.random.default_rng(0)
    query_split, gallery_split = make_split(folder, 1, 14, rng), make_split(folder, 2, 14, rng)
    gallery_split = tuple(replace(s, camera=2 + s.index % 2) for s in gallery_split)
    missing = replace(query_split[3], path=folder / LONG_NAME)
    people = rng.normal(size=(14, 6))
    query = features(query_split, people)
    gallery = features(gallery_split, people + 1.2 * rng.normal(size=people.shape))
    evaluation = evaluate_features(query, gallery)
    worse = replace(query, embeddings=people + rng.normal(size=people.shape))
    first = ComparedRun(
        "a-run-with-a-rather-long-name-without-any-place-to-break-it",
        evaluate_features(worse, gallery),
        worse,
        gallery,
        query_split,
        gallery_split,
    )
    second = ComparedRun("short", evaluation, query, gallery, query_split, gallery_split)
    plain = write_report(
        folder / "plain.html",
        Results(evaluation=evaluation, query=query, gallery=gallery),
        RunDetails(title="features without images"),
    )
    report = write_report(
        folder / "report.html",
        Results(
            evaluation=replace(
                evaluation, notes=("2 queries left out: their identity is not in the gallery",)
            ),
            query=query,
            gallery=gallery,
            query_split=(*query_split[:3], missing, *query_split[4:]),
            gallery_split=gallery_split,
        ),
        RunDetails(
            title="tiny-run-with-a-rather-long-name on made-up-people",
            records=made_up_records(),
            configuration="seed = 1\ncomment = '" + "x" * 300 + "'\n",
            provenance={"command": "reid evaluate " + "runs/" * 60, "data set": "made up"},
        ),
        num_ranked_lists=14,
        encoder=Encoder(build_model("resnet18", pretrained=False), height=64, width=32, device="cpu"),
        calibration=Calibration(),
    )
    comparison = write_comparison(folder / "comparison.html", first, second)
    return {"report": report, "plain": plain, "comparison": comparison}


def make_split(folder: Path, camera: int, num_identities: int, rng: np.random.Generator) -> Split:
    """Images of noise, upright, square and wide ones."""
    samples = []
    for index in range(num_identities):
        path = folder / f"{index}_c{camera}.png"
        width = (50, 100, 300)[index % 3]
        Image.fromarray(rng.integers(0, 256, (100, width, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, index, camera, index))
    return tuple(samples)


def features(split: Split, embeddings: np.ndarray) -> Features:
    return Features(embeddings, np.array([s.identity for s in split]), np.array([s.camera for s in split]))


def made_up_records() -> list[dict[str, Any]]:
    steps = [
        {"kind": "step", "step": step, "progress": step / 50, "loss": 60 / step, "lr": 3.5e-4}
        | {f"loss/{name}": 20 / step for name in ("identity", "msml", "a_loss_with_quite_a_long_name")}
        for step in range(10, 1001, 10)
    ]
    validations = [
        {"kind": "validation", "epoch": epoch, "mAP": epoch / 25, "rank-1": epoch / 21}
        for epoch in range(1, 21)
    ]
    return steps + validations


@pytest.fixture(
    scope="module",
    params=[(n, w, c) for n in NAMES for w in WIDTHS for c in ("light", "dark")],
    ids=str,
)
def opened(request: pytest.FixtureRequest, browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    name, width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    yield Opened(context.new_page(), name, pages[name])
    context.close()


class Opened:
    """A page with what it said and asked for while it was opened."""

    def __init__(self, page: Page, name: str, report: Path) -> None:
        self.page, self.name = page, name
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(report.as_uri(), wait_until="networkidle")
        page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")


def test_the_console_is_silent(opened: Opened) -> None:
    assert opened.complaints == []


def test_nothing_is_fetched(opened: Opened) -> None:
    fetched = [url for url in opened.requests if not url.startswith("data:")]
    assert len(fetched) == 1, fetched
    assert fetched[0].startswith("file:")


def test_the_page_does_not_scroll_sideways(opened: Opened) -> None:
    width = opened.page.evaluate("document.documentElement.scrollWidth")
    assert width <= opened.page.viewport_size["width"]  # type: ignore[index]


def test_every_image_is_shown(opened: Opened) -> None:
    widths = opened.page.evaluate("[...document.images].map(image => image.naturalWidth)")
    lists = opened.page.locator(".strip").count()
    num_images = {"report": 14 * 11 - 1 + NUM_OVERLAYS, "plain": 0, "comparison": 11 * lists}
    assert len(widths) == num_images[opened.name]
    assert min(widths, default=1) > 0
    num_missing = {"report": 1, "plain": 14 * 11, "comparison": 0}
    assert opened.page.locator("#lists .missing, #changes .missing").count() == num_missing[opened.name]


def test_charts_stay_inside_their_boxes(opened: Opened) -> None:
    assert opened.page.locator("svg").count() == {"report": 11, "plain": 7, "comparison": 3}[opened.name]
    assert opened.page.evaluate(MISPLACED_CHARTS) == []


def test_headings_do_not_overlap(opened: Opened) -> None:
    assert opened.page.locator("h1, h2, h3").count() >= 9
    assert opened.page.evaluate(OVERLAPPING_HEADINGS) == []


def test_text_can_be_read_in_both_themes(opened: Opened) -> None:
    assert opened.page.evaluate(LEAST_CONTRAST) >= 4.5


def test_tables_are_not_squeezed(opened: Opened) -> None:
    """No cell breaks a word into letters: rows are at most a few lines high."""
    heights = opened.page.evaluate(
        "[...document.querySelectorAll('table:not(.provenance) tbody tr')].map(row => row.offsetHeight)"
    )
    assert heights
    assert max(heights) < 90


def test_the_theme_follows_the_reader(browser: Browser, pages: dict[str, Path]) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(pages["report"].as_uri())
        colours[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.querySelector('svg text')).fill]"
        )
        page.close()
    assert colours["light"][0] != colours["dark"][0]
    assert colours["light"][1] != colours["dark"][1]


def test_lists_are_shown_a_few_at_a_time_and_by_person(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    shown = "[...document.querySelectorAll('#lists article')].filter(a => a.offsetParent).length"
    at_first = page.evaluate(shown)
    page.click("#lists .more >> visible=true")
    assert page.evaluate(shown) == 14 > at_first
    page.fill("#choose input", "5")
    assert page.evaluate(shown) == 1
    page.fill("#choose input", "nobody")
    assert page.evaluate(shown) == 0
    page.close()


def test_a_click_on_a_picture_shows_its_file_name(browser: Browser, pages: dict[str, Path]) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    picture = page.locator("#lists .photo").first
    name = picture.locator(".file")
    assert not name.is_visible()
    small = picture.locator("img").evaluate("image => image.offsetHeight")
    picture.locator("img").click()
    assert name.inner_text().endswith(".png")
    assert picture.locator("img").evaluate("image => image.offsetHeight") > small
    page.close()
