"""The site as a newcomer meets it: built without a warning, asking nobody, answering in three clicks."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest

from tests.docs.pages import DOCUMENTS, ROOT

DOCS = ROOT / "docs"
MOST_CLICKS = 3
MOST_LOOKED_AT = 10  # results of a search
QUESTIONS = {
    "How do I train on my CSV?": ("datasets/protocols.html", "data.root=people.csv"),
    "Which loss should I take?": ("losses/README.html", "nothing decided yet"),
    "Why is my query left out?": ("evaluation.html", "Queries without a match"),
    "How do I delete a person?": ("galleries.html", "reid gallery forget"),
    "My training was killed: what now?": ("training.html", "resumed"),
    "What does a score of 0.7 mean?": ("evaluation.html", "false-match rates"),
    "Is my new run really better?": ("evaluation.html", "paired intervals"),
    "What does train.ema_decay do?": ("reference/generated/configuration.html", "train.ema_decay"),
    "What must a network of mine have?": ("guides/custom-network.html", "named_features"),
    "Is this animal a new one?": ("guides/other-things.html", "A new individual?"),
    "Which command mends a gallery?": ("reference/generated/commands.html", "reid gallery repair"),
    "What is in metrics.jsonl?": ("reference/files.html", "images_per_second"),
    "Can I use my YOLO boxes?": ("video.html", "a folder of .txt, Ultralytics"),
    "How do I compare two models?": ("evaluation.html", "reid compare A B"),
    "My camera names are text": ("datasets/labels.html", "'door', 'hall'"),
    "Which licence?": ("guides/questions.html", "reidkit is under Apache-2.0"),
    "How do I fine-tune from my weights?": ("guides/questions.html", "--init runs/mine"),
    "My GPU's memory runs out": ("training.html", "train.accumulate=4"),
    "How do I export to OpenVINO or TensorRT?": ("guides/export.html", "--to openvino"),
    "How do I ask with several shots?": ("guides/questions.html", "the mean of their embeddings"),
    "How do I delete a person for good?": ("galleries.html", "leave no byte"),
    "How many images do I need?": ("guides/questions.html", "at least 16 people"),
    "Which Python and PyTorch?": ("reference/versions.html", "3.11"),
    "How does my tracker get names?": ("examples/tracker.html", "LiveIndex"),
}
"""What newcomers ask, the page that answers, and words of the answer."""

SEARCHES = {
    "forget": "Galleries",
    "yolo": "Video",
    "fine-tune": "Questions",
    "licence": "Questions",
    "license": "Questions",
    "out of memory": "Training",
    "how many images": "Questions",
    "tensorrt": "Questions",
    "gpu memory": "Training",
    "torchreid": "Weights",
    "openvino": "Export",
    "leopards": "Animals",
}
"""Words that newcomers search for, and part of the title of a page that is to be found."""


def test_every_page_is_in_the_menu() -> None:
    """What the build would warn of, without building."""
    menus = re.findall(r"```\{toctree\}\n(.*?)```", "".join(p.read_text() for p in DOCUMENTS), re.DOTALL)
    listed = {Path(line).name for menu in menus for line in menu.split() if not line.startswith(":")}
    by_folder = {"losses", "datasets"}  # their README lists the rest, by conf.py
    pages = [page for page in DOCUMENTS if DOCS in page.parents and page.parent.name not in by_folder]
    assert {page.stem for page in pages} - {"index"} <= listed


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("sphinx", "myst_parser", "furo", "sphinx_copybutton"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'reidkit[docs]'")
    out = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-b", "html"]
    done = subprocess.run([*command, str(DOCS), str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def content(page: Path) -> str:
    """The article of a page, without menus."""
    text = page.read_text("utf-8")
    return text[text.index('<article role="main"') : text.index("</article>")]


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_answered_within_three_clicks(question: str, site: Path) -> None:
    name, answer = QUESTIONS[question]
    target = site / name
    assert answer in re.sub(r"<[^>]+>", "", content(target))
    seen, reached = {site / "index.html"}, {site / "index.html"}
    for _ in range(MOST_CLICKS):
        reached = {
            (page.parent / unquote(link)).resolve()
            for page in reached
            for link in re.findall(r'href="([^"#:?]+\.html)', content(page))
        } - seen
        seen |= reached
    assert target in seen, f"{name} is more than {MOST_CLICKS} clicks away from the start page"


@pytest.mark.slow
def test_every_link_and_anchor_of_the_site_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in re.findall(
            r'href="([^":?]+)"', content(page) if "<article" in page.read_text("utf-8") else ""
        ):
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), (page.name, link)
            if anchor and target.suffix == ".html":
                assert f'id="{anchor}"' in target.read_text("utf-8"), (page.name, link)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("no browser: neither chromium nor google-chrome is on the PATH")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=[*flags, "--disable-sync"])
        yield browser
        browser.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_and_fetch_nothing(site: Path, browser: Any, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, requests = context.new_page(), []
    page.on("request", lambda request: requests.append(request.url))
    for name in (
        "index",
        "losses/msml",
        "results",
        "reference/generated/configuration",
        "reference/generated/api",
    ):
        page.goto((site / f"{name}.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_its_search_finds(site: Path, browser: Any) -> None:
    page = browser.new_page()
    for words, title in SEARCHES.items():
        page.goto((site / "search.html").as_uri() + f"?q={quote(words)}")
        page.wait_for_selector("ul.search li a")
        page.wait_for_function(
            "!document.querySelector('#search-results h2').innerText.includes('Searching')"
        )
        found = [link.inner_text() for link in page.query_selector_all("ul.search li a")]
        assert any(title in text for text in found[:MOST_LOOKED_AT]), (words, found)
    page.close()
