"""The report: complete, self-contained, escaped, and written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from reidkit.analysis.bootstrap import share_interval
from reidkit.analysis.breakdown import choose_queries
from reidkit.errors import DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.features import rows_of
from reidkit.files import WriteError
from reidkit.reports.parts import longest_list
from reidkit.reports.sections import analyse, curve_figures
from reidkit.types import JUNK, Features, Sample, Split
from tests.report_pages import write_page

NUM_IDENTITIES = 8
RECORDS = [
    {"kind": "step", "step": 10, "epoch": 0, "loss/msml": 0.5, "lr": 1e-3},
    {"kind": "step", "step": 20, "epoch": 1, "loss/msml": 0.3, "lr": 1e-3},
    *(
        {"kind": "validation", "epoch": epoch, "step": 20 * epoch, "mAP": 0.4, "rank-1": 0.5}
        for epoch in (1, 2)
    ),
]


def make_split(folder: Path, camera: int, rng: np.random.Generator) -> Split:
    folder.mkdir()
    samples = []
    for index in range(NUM_IDENTITIES):
        path = folder / f"{index:04d}_c{camera}.png"
        Image.fromarray(rng.integers(0, 256, (160, 80, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, index, camera, index))
    return tuple(samples)


def features(split: Split, embeddings: np.ndarray) -> Features:
    return Features(embeddings, np.array([s.identity for s in split]), np.array([s.camera for s in split]))


def make_inputs(folder: Path) -> dict[str, Any]:
    """Arguments of a page: eight people, seen once by each of two cameras, embedded noisily."""
    rng = np.random.default_rng(0)
    query_split = make_split(folder / "query", 1, rng)
    gallery_split = make_split(folder / "gallery", 2, rng)
    people = rng.normal(size=(NUM_IDENTITIES, 6))
    query = features(query_split, people)
    gallery = features(gallery_split, people + rng.normal(size=people.shape))
    return {
        "title": "tiny run",
        "evaluation": evaluate_features(query, gallery),
        "query": query,
        "gallery": gallery,
        "query_split": query_split,
        "gallery_split": gallery_split,
        "top": 5,
    }


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Any]:
    return make_inputs(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A report with everything in it."""
    folder = tmp_path_factory.mktemp("report")
    inputs = make_inputs(folder)
    return page_of(
        folder,
        inputs,
        evaluation=replace(inputs["evaluation"], notes=("3 queries left out",)),
        records=RECORDS,
        configuration="seed = 7\n[loss.msml]\n",
        provenance={"data set": "tiny", "command": "reid evaluate runs/a"},
    )


def page_of(tmp_path: Path, inputs: dict[str, Any], **changes: Any) -> str:
    return write_page(tmp_path / "report.html", **{**inputs, **changes}).read_text("utf-8")


def test_a_matplotlibrc_of_anybody_starts_no_latex(tmp_path: Path, inputs: dict[str, Any]) -> None:
    plain = page_of(tmp_path, inputs)
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7, "axes.facecolor": "red"}):
        assert page_of(tmp_path, inputs) == plain


def test_the_page_shows_scores_with_intervals(page: str, inputs: dict[str, Any]) -> None:
    evaluation = inputs["evaluation"]
    for score in (evaluation.mean_average_precision, evaluation.rank(1), evaluation.rank(5)):
        assert f'<dd class="value">{100 * score:.1f}</dd>' in page
    for values in (evaluation.average_precisions, evaluation.first_match_ranks == 1):
        low, high = share_interval(values, identities=inputs["query"].identities)
        assert f"{100 * low:.1f} to {100 * high:.1f}" in page
    assert evaluation.protocol in page


def test_scores_after_re_ranking_stand_beside_those_before(tmp_path: Path, inputs: dict[str, Any]) -> None:
    before = inputs["evaluation"]
    after = replace(
        before, mean_average_precision=before.mean_average_precision - 0.1, notes=("it did harm",)
    )
    page = page_of(tmp_path, inputs, reranked=after)
    assert f"{100 * before.mean_average_precision:.1f}</td>" in page
    assert f"{100 * after.mean_average_precision:.1f}</td>" in page
    assert "-10.0</td>" in page
    assert "it did harm" in page


def test_too_many_cameras_are_said(tmp_path: Path, inputs: dict[str, Any]) -> None:
    many = 41
    rng = np.random.default_rng(0)
    query, gallery = (
        Features(rng.normal(size=(many, 4)), np.arange(many), (np.arange(many) + shift) % many)
        for shift in (0, 1)
    )
    changes = {"query": query, "gallery": gallery, "query_split": None, "gallery_split": None}
    page = page_of(tmp_path, inputs, evaluation=evaluate_features(query, gallery), **changes)
    assert "41 cameras are too many" in page


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in page
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert page.count("<script") == len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page  # no other script would be run
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique_in_the_page(page: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_lists_mark_right_and_wrong_as_ranked(page: str) -> None:
    lists = page.split("<article ")[1:]
    assert len(lists) == NUM_IDENTITIES
    for text in lists:
        query, *hits = re.findall(r'class="labels">id (\d+)<br>cam (\d)', text)
        marks = re.findall(r'class="mark">(.)<', text)
        assert query[1] == "1"
        assert [camera for _, camera in hits] == ["2"] * 5
        assert marks == ["✓" if identity == query[0] else "✗" for identity, _ in hits]
        scores = [float(score) for score in re.findall(r"</span> (-?\d\.\d{3})</span>", text)]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 5


def test_lists_stop_where_the_gallery_ends(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs, top=50, num_ranked_lists=1)
    assert len(re.findall('class="mark"', page)) == NUM_IDENTITIES


def test_no_lists_if_none_are_wanted(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs, num_ranked_lists=0)
    assert "<article " not in page
    assert "Ranked lists" not in page


def test_an_unreadable_image_leaves_a_placeholder(tmp_path: Path, inputs: dict[str, Any]) -> None:
    whole = page_of(tmp_path, inputs)
    broken, missing = inputs["query_split"][0].path, inputs["gallery_split"][3].path
    broken.write_bytes(broken.read_bytes()[:200])
    missing.unlink()
    page = page_of(tmp_path, inputs)
    assert f"cannot be read: {broken.name}" in page
    assert f"cannot be read: {missing.name}" in page
    assert str(tmp_path) not in page  # where files lie on one machine is no reader's business
    assert whole.count("<img") == page.count("<img") + page.count("cannot be read: ")


def test_images_are_small(tmp_path: Path, inputs: dict[str, Any]) -> None:
    Image.new("RGB", (3000, 2000), "teal").save(inputs["query_split"][0].path)
    assert len(page_of(tmp_path, inputs)) < 1_000_000


def test_a_box_is_cut_out(tmp_path: Path, inputs: dict[str, Any]) -> None:
    photo = Image.new("RGB", (400, 400), "white")
    photo.paste("red", (100, 100, 150, 200))
    photo.save(inputs["query_split"][0].path)
    boxed = replace(inputs["query_split"][0], box=(100, 100, 150, 200))
    cut = page_of(tmp_path, inputs, query_split=(boxed, *inputs["query_split"][1:]))
    Image.new("RGB", (50, 100), "red").save(inputs["query_split"][0].path)
    assert images_of(cut) == images_of(page_of(tmp_path, inputs))


def images_of(page: str) -> list[str]:
    return re.findall(r'<img src="([^"]*)"', page)


def test_text_is_escaped(tmp_path: Path, inputs: dict[str, Any]) -> None:
    evil = "<script>alert(1)</script>"
    named = replace(inputs["query_split"][0], identity_name=evil)
    page = page_of(
        tmp_path,
        inputs,
        title=evil,
        configuration=evil,
        provenance={evil: evil},
        evaluation=replace(inputs["evaluation"], notes=(evil,)),
        query_split=(named, *inputs["query_split"][1:]),
        records=[{"kind": "step", "step": step, f"loss/{evil}": 1.0} for step in (1, 2)],
    )
    assert page.count("<script") == 1, "that of the page itself"
    assert page.count("&lt;script") >= 7


def test_notes_configuration_and_provenance_are_shown(page: str) -> None:
    for text in (
        "3 queries left out",
        "seed = 7\n[loss.msml]",
        '<th scope="row">command</th>',
        "reid evaluate runs/a",
    ):
        assert text in page


def test_training_curves_are_those_that_a_run_recorded(
    page: str, tmp_path: Path, inputs: dict[str, Any]
) -> None:
    titles = ("Loss", "Validation", "Learning rate")
    assert [title for title in titles if f"<h3>{title}</h3>" in page] == [*titles]
    bare = page_of(tmp_path, inputs)
    assert 'id="training"' not in bare
    assert not [title for title in titles if f"<h3>{title}</h3>" in bare]


def test_junk_queries_are_not_shown(tmp_path: Path, inputs: dict[str, Any]) -> None:
    identities = inputs["query"].identities.copy()
    identities[2] = JUNK
    query = Features(inputs["query"].embeddings, identities, inputs["query"].cameras)
    evaluation = evaluate_features(query, inputs["gallery"])
    page = page_of(tmp_path, inputs, query=query, evaluation=evaluation)
    assert page.count("<article ") == NUM_IDENTITIES - 1
    assert inputs["query_split"][2].path.name not in page


def test_without_camera_labels_no_camera_is_named(tmp_path: Path, inputs: dict[str, Any]) -> None:
    query = Features(inputs["query"].embeddings, inputs["query"].identities)
    evaluation = evaluate_features(query, inputs["gallery"])
    page = page_of(tmp_path, inputs, query=query, evaluation=evaluation)
    assert "<br>cam " not in page
    assert "No photo is left out for its camera." in page


def test_another_order_than_the_scored_one_is_announced(
    page: str, tmp_path: Path, inputs: dict[str, Any]
) -> None:
    announced = "computed on another order"
    assert announced not in page
    evaluation = inputs["evaluation"]
    reranked = replace(evaluation, first_match_ranks=evaluation.first_match_ranks + 1)
    assert announced in page_of(tmp_path, inputs, evaluation=reranked)


def test_lists_in_which_nothing_is_right_can_be_shown(tmp_path: Path, inputs: dict[str, Any]) -> None:
    """An evaluation without camera filter, reported with one: every right photo leaves the lists but one."""
    same_camera = replace(inputs["gallery"], cameras=np.array([2] + [1] * (NUM_IDENTITIES - 1)))
    page = page_of(tmp_path, inputs, gallery=same_camera)
    assert page.count("no right photo to find") == NUM_IDENTITIES - 1
    assert "computed on another order" in page


@pytest.mark.parametrize("name", ["query_split", "gallery_split"])
def test_samples_that_do_not_fit_are_refused(tmp_path: Path, inputs: dict[str, Any], name: str) -> None:
    with pytest.raises(DataError, match=f"{name} has 7 items, the features have 8"):
        write_page(tmp_path / "report.html", **{**inputs, name: inputs[name][:-1]})
    assert not (tmp_path / "report.html").exists()


def test_an_evaluation_of_other_queries_is_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    half = Features(*(getattr(inputs["query"], n)[:4] for n in ("embeddings", "identities", "cameras")))
    other = evaluate_features(half, inputs["gallery"])
    with pytest.raises(DataError, match=r"evaluation \(queries\) has 4 items"):
        write_page(tmp_path / "report.html", **{**inputs, "evaluation": other})


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, inputs: dict[str, Any]) -> None:
    old = tmp_path / "report.html"
    old.mkdir()  # a folder of that name cannot be replaced by a file
    with pytest.raises(WriteError, match=r"report\.html"):
        write_page(old, **inputs)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "query", "report.html"]


def test_two_reports_of_one_evaluation_are_equal(tmp_path: Path, inputs: dict[str, Any]) -> None:
    assert page_of(tmp_path, inputs, records=RECORDS) == page_of(tmp_path, inputs, records=RECORDS)


@pytest.mark.parametrize("num_valid", [1, 2, 3, 5, 12, 40])
@pytest.mark.parametrize("num", [0, 1, 2, 4, 12])
def test_queries_are_chosen_once_and_by_their_precision(num_valid: int, num: int) -> None:
    precisions = np.full(num_valid + 2, np.nan)
    precisions[1:-1] = np.random.default_rng(3).permutation(num_valid) / num_valid
    chosen = choose_queries(precisions, num)
    rows = np.concatenate(list(chosen.values()))
    assert len(rows) == len(set(rows.tolist())) == min(num, num_valid)
    assert np.isfinite(precisions[rows]).all()
    ascending = np.sort(precisions[1:-1])
    np.testing.assert_array_equal(precisions[chosen["worst"]], ascending[: len(chosen["worst"])])
    num_best = len(chosen["best"])
    np.testing.assert_array_equal(precisions[chosen["best"]], ascending[::-1][:num_best])
    assert len(chosen["worst"]) >= len(rows) / 2


def test_no_rate_is_told_that_no_pair_stands_for(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs, tables=tmp_path / "tables")
    assert "8 pairs of one person and 56 of two were counted" in page
    assert "one wrong pair in 10 lets" in page
    assert "10,000" not in page
    scores = json.loads((tmp_path / "tables/scores.json").read_text())
    assert list(scores["true_positive_rate_at"]) == ["0.1"]


def test_a_few_pairs_tell_no_rate_at_all(tmp_path: Path, inputs: dict[str, Any]) -> None:
    few = {
        side: rows_of(inputs[side], np.arange(2)) if side in ("query", "gallery") else inputs[side][:2]
        for side in ("query", "gallery", "query_split", "gallery_split")
    }
    page = page_of(tmp_path, inputs, evaluation=evaluate_features(few["query"], few["gallery"]), **few)
    assert "2 pairs of one person and 2 of two were counted" in page
    assert "one wrong pair in" not in page


@pytest.mark.parametrize(
    ("protocol", "galleries", "last_rank"),
    [
        ("market1501", None, NUM_IDENTITIES),
        ("single_gallery_shot", None, NUM_IDENTITIES),
        (
            "market1501",
            [[row, (row + 1) % NUM_IDENTITIES, (row + 2) % NUM_IDENTITIES] for row in range(8)],
            3,
        ),
        ("recall", None, NUM_IDENTITIES * 2 - 1),
    ],
)
def test_no_rank_lies_beyond_the_longest_list(
    inputs: dict[str, Any], protocol: str, galleries: Any, last_rank: int
) -> None:
    query, gallery = inputs["query"], inputs["gallery"]
    if protocol == "recall":
        both = [
            np.concatenate([getattr(query, name), getattr(gallery, name)])
            for name in ("embeddings", "identities")
        ]
        query, gallery = Features(*both), None
    evaluation = evaluate_features(query, gallery, protocol=protocol, galleries=galleries)
    assert len(evaluation.cmc) == 50
    assert longest_list(evaluation, query, gallery, galleries) == last_rank
    figure = curve_figures(
        evaluation,
        analyse(compare(query, gallery, camera_filter="none", gallery_rows=galleries)),
        None,
        longest_list=last_rank,
    )[0]
    [axes] = figure.chart.figure.axes
    assert axes.lines[0].get_xdata().max() == last_rank
