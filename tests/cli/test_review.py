"""`reid review` and `reid search --group`: what they print, and how they answer to bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.galleries import open_gallery
from reidkit.search.searcher import Searcher
from reidkit.types import Sample
from tests.cli.running import ok, refused


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LOGNAME", "zoe")


@pytest.fixture
def gallery():
    with open_gallery("g") as gallery:
        gallery.add(
            np.eye(6, dtype=np.float32),
            sources=[f"{n}.png" for n in range(6)],
            identities=["ann", "ann", "ben", None, None, None],
            labels={"proposal": [None, None, None, "new-1", "new-1", "new-2"]},
        )


def test_a_review_from_proposals_to_a_log(gallery):
    assert "new-1" in ok("review", "proposals", "g").stdout
    assert (
        ok("review", "accept", "g", "new-1", "--as", "eve").stdout == "decision 1: accept: #4, #5 show eve\n"
    )
    assert "#6 shows ann" in ok("review", "accept", "g", "ann", "--item", "5.png", "--who", "tom").stdout
    assert "#1 shows somebody else than #3" in ok("review", "reject", "g", "1", "#3").stdout
    assert "merge: #4, #5 show ben, not eve" in ok("review", "merge", "g", "ben", "eve").stdout
    assert "split: #2 shows unknown, not ann" in ok("review", "split", "g", "2").stdout
    assert ok("review", "undo", "g", "5").stdout == "decision 6: undo of decision 5\n"
    log = ok("review", "log", "g").stdout
    assert all(len(line) <= 80 for line in log.splitlines())
    assert "tom" in log
    assert log.count("taken back") == 1
    decisions = json.loads(ok("review", "log", "g", "--json").stdout)
    assert [decision["kind"] for decision in decisions] == ["accept"] * 2 + [
        "reject",
        "merge",
        "split",
        "undo",
    ]
    assert [decision["in_force"] for decision in decisions] == [True] * 4 + [False] * 2
    assert "no proposals" in ok("review", "proposals", "g").stderr
    assert ok("review", "proposals", "g", "--json").stdout == "{}\n"


def test_all_proposals_at_once(gallery):
    assert "1 proposal accepted" in ok("review", "accept-all", "g").stdout
    assert "1 proposal accepted" in ok("review", "accept-all", "g", "--least", "1").stdout
    assert "0 proposals accepted" in ok("review", "accept-all", "g", "--least", "1").stdout


def test_a_table_to_train_on(gallery, tmp_path):
    assert "no item can be trained on" in refused("review", "export", "g", "people.csv")
    assert "has no suffix .csv" in refused("review", "export", "g", "people.txt")
    Image.new("RGB", (8, 16)).save("0.png")
    done = ok("review", "export", "g", "people.csv")
    assert done.stdout == "wrote people.csv: 1 image\n"
    assert "left out: 2 items whose picture is gone, #2 first\n" in done.stderr
    assert rk.load_dataset("table", "people.csv").train[0].identity_name == "ann"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("accept", "g", "new-9"), "there is no proposal 'new-9'"),
        (("accept", "g", "ann", "--item", "99"), "has no item 99"),
        (("accept", "g", " ", "--item", "1"), "is no name of a person"),
        (("accept", "g", "--item", "1", "--", "-1.0"), "marks pictures that show nobody"),
        (("reject", "g", "1"), "names 1 item; give 2 to 10,000"),
        (("reject", "g", "1", "2"), "have the same identity"),
        (("reject", "g", "4", "4"), "item 4 cannot show somebody else than itself"),
        (("reject", "g", "1", "4", "4"), "names 3 items, one of them twice; give 2 to"),
        (("split", "g", "4"), "has no identity"),
        (("merge", "g", "ann", "BEN"), "holds no identity 'BEN'; did you mean 'ben'"),
        (("undo", "g", "7"), "there is no decision 7"),
        (("log", "nowhere"), "there is no gallery at nowhere"),
        (("accept", "g", "ann", "--item", "1", "--who", ""), "who decided is ''"),
    ],
)
def test_mistakes(gallery, words, message):
    assert message in refused("review", *words)
    assert "nothing was decided yet" in ok("review", "log", "g").stderr


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A gallery of two people and somebody, two pictures each, with its encoder."""
    folder = tmp_path_factory.mktemp("searched")
    encoder = rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)
    encoder.save(folder / "encoder.safetensors")
    rng, samples = np.random.default_rng(0), []
    for number in range(6):
        pixels = np.kron(rng.integers(0, 255, (4, 2, 3), dtype=np.uint8), np.ones((12, 12, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{number}.png")
        name = ("ann", "ben", "")[number // 2]
        samples.append(Sample(folder / f"{number}.png", number // 2, number % 2, number, identity_name=name))
    with Searcher(folder / "g", encoder=folder / "encoder.safetensors") as searcher:
        searcher.add(samples)
    return folder


def test_people_are_searched_for(searched):
    place = ("--gallery", searched / "g", "--group", "identity")
    found = ok("search", searched / "0.png", *place)
    assert "left out: 1 hit that is the query's own picture" in found.stderr
    assert "0, 1" in found.stdout
    [answer] = json.loads(ok("search", searched / "0.png", *place, "--json", "--top", "2").stdout)
    assert len(answer["people"]) == 2
    means = json.loads(ok("search", searched / "0.png", *place, "--json", "--pool", "mean").stdout)
    assert {person["label"] for person in means[0]["people"]} == {"ann", "ben", None}
    assert "no cosines" in ok("search", searched / "0.png", *place, "--pool", "reciprocal").stderr
    ok("search", searched / "0.png", *place, "--picture", "people.png")
    ok("search", searched / "0.png", *place, "--top", "1", "--picture", "one.png")
    num_people = 4  # the two pictures of nobody known are two
    assert Image.open("people.png").height == num_people * Image.open("one.png").height


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pool", "mean"), "--pool: it scores people; give --group"),
        (("--group", "identity", "--prior", "0.5"), "--prior: it is of single pictures"),
    ],
)
def test_options_that_do_not_go_together(searched, words, message):
    assert message in refused("search", searched / "0.png", "--gallery", searched / "g", *words)


def test_who_was_rejected_is_not_shown_again_and_that_is_said(searched):
    with open_gallery(searched / "g") as gallery:
        ids = {item.source: item.id for item in gallery.items()}
    ok("review", "reject", searched / "g", ids[str(searched / "0.png")], searched / "2.png")
    found = ok("search", searched / "1.png", "--gallery", searched / "g")
    assert "left out: 2 hits of people who were told apart from the query's" in found.stderr
    assert "ben" not in found.stdout


def test_pictures_of_nobody_known_are_indexed_with_what_is_known(searched, tmp_path):
    for number in range(3):
        (tmp_path / f"c{number}_{number}.png").write_bytes((searched / f"{number}.png").read_bytes())
    (tmp_path / "list.csv").write_text("path,camera,time\nc0_0.png,7,1.5\nc1_1.png,8,2\n")
    encoder = searched / "encoder.safetensors"
    ok("index", encoder, "list.csv", "--gallery", "unnamed")
    ok("index", encoder, ".", "--pattern", "c{camera}_{tracklet}.png", "--gallery", "other")
    with open_gallery("unnamed") as gallery, open_gallery("other") as other:
        assert [(item.identity, item.camera, item.time) for item in gallery.items()] == [
            (None, 7, 1.5),
            (None, 8, 2),
        ]
        assert [(item.identity, item.tracklet) for item in other.items()] == [
            (None, str(n)) for n in range(3)
        ]
    result = CliRunner().invoke(cli, ["check", "folder", ".", "pattern=c{camera}.png"], standalone_mode=False)
    assert "has no {identity}" in str(result.exception)
