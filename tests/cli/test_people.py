"""`reid cluster` and `reid timeline`: what they print, their pages, and how they answer to bad input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError
from reidkit.galleries import open_gallery, proposals


def outside_references(page):
    """What a page would fetch: it may not, by its policy, and should not try."""
    assert "default-src 'none'" in page
    return [
        link
        for link in re.findall(r"""(?:src|href)=["']?([^"'\s>]*)""", page)
        if not link.startswith(("data:", "#"))
    ]


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words], standalone_mode=False)


def ok(*words):
    result = run(*words)
    assert result.exception is None, result.exception
    return result


def refused(*words):
    result = run(*words)
    assert isinstance(result.exception, ConfigError | DataError), (result.exception, result.output)
    return str(result.exception)


@pytest.fixture(autouse=True)
def gallery(tmp_path, monkeypatch):
    """Three people, four pictures each, at two cameras; the first two pictures are of ann; one is a crop."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(3, 16)), 4, axis=0) + 0.1 * rng.normal(size=(12, 16))
    Image.new("RGB", (60, 120), "teal").save("<b>&.png")
    with open_gallery("g") as gallery:
        gallery.add(
            vectors,
            sources=["<b>&.png", "<b>&.png#5,5,30,90", *[f"{n}.png" for n in range(2, 11)], None],
            identities=["ann"] * 2 + [None] * 10,
            cameras=[*[1, 2] * 5, "door", None],
            times=[1714557600 + 100 * n for n in range(11)] + [None],
        )


OPTIONS = ("--neighbours", 4, "--distance", 0.8)


def test_people_are_proposed_and_accepted(tmp_path):
    dry = ok("cluster", "g", *OPTIONS, "--dry-run")
    assert (
        "g: 12 pictures, 2 new people would be proposed, 1 person known, 0 pictures like no other"
        in dry.stdout
    )
    with open_gallery("g") as gallery:
        assert proposals(gallery) == {}
    done = ok("cluster", "g", *OPTIONS, "--page", "people.html")
    assert "2 new people proposed" in done.stdout
    assert done.stderr == "wrote people.html\nnext: reid review accept g new-1 --as NAME\n"
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[1:])
    with open_gallery("g") as gallery:
        assert {name: len(items) for name, items in proposals(gallery).items()} == {
            "ann": 2,
            "new-1": 4,
            "new-2": 4,
        }
    found = json.loads(ok("cluster", "g", *OPTIONS, "--json").stdout)
    assert {(person["name"], person["is_known"]) for person in found["people"]} == {
        ("ann", True),
        ("new-1", False),
        ("new-2", False),
    }


def test_the_page_of_people_needs_nothing_else(tmp_path):
    ok("cluster", "g", *OPTIONS, "--page", "people.html")
    page = (tmp_path / "people.html").read_text()
    assert outside_references(page) == []
    assert "<b>&.png" not in page
    assert page.count("data:image/jpeg") == 2
    assert page.count("cannot be read") == 10
    assert "reid review accept g new-1" in page
    assert "2 of them new" in page


def test_where_and_when(tmp_path):
    found = ok("timeline", "g", "ann", "--page", "ann.html", "--picture", "ann.png")
    assert "ann: 2 visits" in found.stdout
    assert "1 min 40 s" in found.stdout
    assert outside_references((tmp_path / "ann.html").read_text()) == []
    assert Image.open("ann.png").width > 100
    ok("cluster", "g", *OPTIONS)
    with open_gallery("g") as gallery:
        name = next(name for name, items in proposals(gallery).items() if items[-1].camera is None)
    proposed = ok("timeline", "g", name, "--json", "--gap", "2h")
    assert "is a proposal" in proposed.stderr
    assert "left out: 1 picture (1 without a time, 1 without a camera)" in proposed.stderr
    assert "times and cameras come from names or a table: `reid index` again" in proposed.stderr
    assert [visit["camera"] for visit in json.loads(proposed.stdout)] == [1, 2, "door"]
    ok("timeline", "g", name, "--page", "proposed.html")
    assert "Nobody has said yet" in (tmp_path / "proposed.html").read_text()


def test_how_long_people_take():
    found = ok("timeline", "g", "--transitions")
    assert "too few" in found.stdout
    assert "too few walks are known" in found.stderr
    [one] = json.loads(ok("timeline", "g", "--transitions", "--json").stdout)
    assert (one["start"], one["end"], one["num"], one["is_believed"]) == (1, 2, 1, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cluster", "nowhere"), "there is no gallery at nowhere"),
        (("cluster", "g", "--distance", "1"), "farthest is 1.0; give a distance"),
        (("cluster", "g", "--threshold", "0.001"), "does not say where the encoder is"),
        (("timeline", "g"), "give the name of a person, or --transitions"),
        (("timeline", "g", "ann", "--transitions"), "give the name of a person, or --transitions"),
        (("timeline", "g", "anne"), "knows nobody called 'anne'; did you mean 'ann'"),
        (("timeline", "g", "ann", "--gap", "soon"), "'soon' is no age"),
        (("timeline", "g", "--transitions", "--page", "p.html"), "--page: these are of one person"),
    ],
)
def test_mistakes(words, message):
    assert message in refused(*words)


def test_an_empty_gallery():
    with open_gallery("empty"):
        pass
    assert "0 pictures, 0 new people" in ok("cluster", "empty", "--page", "p.html").stdout
    assert "nobody with a name" in ok("timeline", "empty", "--transitions").stderr


def said_next(*words):
    return [
        line.removeprefix("next: ") for line in ok(*words).stderr.splitlines() if line.startswith("next: ")
    ]


def test_each_command_says_what_is_next():
    assert said_next("cluster", "g", "--dry-run", *OPTIONS) == ["reid cluster g --page people.html"]
    *_, accept = said_next("cluster", "g", *OPTIONS)
    with open_gallery("g") as gallery:
        name = max(proposals(gallery), key=lambda one: len(proposals(gallery)[one]))
    assert accept == f"reid review accept g {name} --as NAME"
    assert said_next("review", "proposals", "g") == [accept]
    assert said_next("review", "accept", "g", name, "--as", "Jo B")[-1] == "reid timeline g 'Jo B'"
    assert said_next("timeline", "g", "Jo B") == ["reid timeline g 'Jo B' --page visits.html"]
    assert said_next("gallery", "info", "g") == ["reid search '<b>&.png' --gallery g"]
    assert said_next("cluster", "g", "--json") == []


def test_a_gallery_tells_its_people_and_cameras():
    lines = [line.split() for line in ok("gallery", "info", "g").stdout.splitlines()]
    known = {" ".join(words[:-1]): words[-1] for words in lines}
    assert (known["items"], known["people"], known["cameras"]) == ("12", "1", "3")
    assert (known["without identity"], known["without camera"], known["without time"]) == ("10", "1", "1")
    assert "thumbnails" not in known
    counts = json.loads(ok("gallery", "info", "g", "--json").stdout)
    assert (counts["num_people"], counts["num_cameras"], counts["num_thumbnails"]) == (1, 3, 0)


def test_nobody_is_led_to_accept_a_heap():
    rng = np.random.default_rng(1)
    vectors = np.concatenate(
        [rng.normal(size=16) + 0.1 * rng.normal(size=(12, 16)), rng.normal(size=(3, 16))]
    )
    with open_gallery("heap") as gallery:
        gallery.add(vectors)
    found = ok("cluster", "heap", *OPTIONS)
    assert "13 of 15 pictures (87 %), so it is likely several people" in found.stderr
    assert "review accept" not in found.stderr
    assert found.stdout.splitlines()[2].split() == ["new-1", "13", "13", "unknown"]
    listed = ok("review", "proposals", "heap").stderr
    assert "likely several people" in listed
    assert "review accept" not in listed
