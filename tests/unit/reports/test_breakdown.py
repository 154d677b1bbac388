"""What a report adds to the scores: cameras, confusions, calibration, activation, tables, no images."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reidkit.analysis.breakdown import camera_pairs, confusions, ranks_of_matches
from reidkit.analysis.calibration import fit_calibration
from reidkit.analysis.roc import roc
from reidkit.errors import DataError
from reidkit.evaluation import comparison
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.nearest import NearestNegatives
from reidkit.files import WriteError
from reidkit.reports.sections import reliability
from reidkit.types import Features, Sample, Split
from tests.report_pages import write_page

NUM_IDENTITIES = 9
TABLES = ("cmc", "precision_recall", "roc", "distances", "camera_pairs", "confused", "queries")


class Sigmoid:
    """A calibration that is wrong in a known way."""

    def probability(self, scores: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-4 * np.asarray(scores)))


def make_split(folder: Path, num_each: int, rng: np.random.Generator) -> Split:
    folder.mkdir()
    samples = []
    for index in range(NUM_IDENTITIES * num_each):
        identity, camera = index // num_each, index % 3
        path = folder / f"{index:04d}_c{camera}.png"
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, identity, camera, index))
    return tuple(samples)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Nine people under three cameras, embedded so noisily that many are confused."""
    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    query_split, gallery_split = (
        make_split(folder / name, num, rng) for name, num in (("query", 3), ("gallery", 6))
    )
    people = rng.normal(size=(NUM_IDENTITIES, 6))
    query, gallery = (
        Features(
            people[[s.identity for s in split]] + rng.normal(size=(len(split), 6)),
            np.array([s.identity for s in split]),
            np.array([s.camera for s in split]),
        )
        for split in (query_split, gallery_split)
    )
    return {
        "title": "noisy",
        "evaluation": evaluate_features(query, gallery),
        "query": query,
        "gallery": gallery,
        "query_split": query_split,
        "gallery_split": gallery_split,
        "num_ranked_lists": 4,
        "top": 3,
    }


def page_of(tmp_path: Path, inputs: dict[str, Any], **changes: Any) -> str:
    return write_page(tmp_path / "report.html", **{**inputs, **changes}).read_text("utf-8")


def section(page: str, name: str) -> str:
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)
    assert found is not None, name
    return found.group()


def rows_of_table(text: str) -> list[list[str]]:
    body = re.search(r"<tbody>(.*?)</tbody>", text, re.DOTALL)
    assert body is not None
    return [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>.*?</tr>", body.group(1))]


def test_pairs_of_cameras_and_confusions_are_listed(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs)
    sides = compare(inputs["query"], inputs["gallery"])
    found = camera_pairs(sides)
    expected = [
        [
            str(a),
            str(b),
            str(found.num_queries[i, j]),
            f"{100 * found.mean_average_precision[i, j]:.1f}",
            f"{100 * found.rank1[i, j]:.1f}",
        ]
        for i, a in enumerate(found.query_cameras)
        for j, b in enumerate(found.gallery_cameras)
        if a != b
    ]
    assert rows_of_table(section(page, "cameras")) == expected
    nearest = NearestNegatives(sides)
    sides.read_negatives(nearest)
    wrong = confusions(sides, ranks_of_matches(sides), nearest.items)
    rows = rows_of_table(section(page, "people"))
    assert rows == [[str(item.identity), str(item.taken_for), str(item.num_queries)] for item in wrong[:15]]
    assert len(rows) >= 3


def test_one_camera_is_no_breakdown(tmp_path: Path, inputs: dict[str, Any]) -> None:
    sides = {
        name: replace(inputs[name], cameras=np.zeros(len(inputs[name]), int)) for name in ("query", "gallery")
    }
    evaluation = evaluate_features(**sides, camera_filter="none")
    page = page_of(tmp_path, inputs, **sides, evaluation=evaluation, camera_filter="none")
    assert 'id="cameras"' not in page
    assert "#cameras" not in page


def test_every_link_of_the_contents_leads_somewhere(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs)
    links = re.findall(r'<a href="#([^"]*)"', page)
    assert links == re.findall(r'<section id="([^"]*)"', page)


def test_a_model_without_errors_confuses_nobody(tmp_path: Path, inputs: dict[str, Any]) -> None:
    sides = {
        name: replace(inputs[name], embeddings=np.eye(NUM_IDENTITIES)[inputs[name].identities])
        for name in ("query", "gallery")
    }
    page = page_of(tmp_path, inputs, **sides, evaluation=evaluate_features(**sides))
    assert "Nobody: the nearest photo of every query is right." in page


def test_without_scikit_learn_the_map_is_left_out_in_words(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    page = page_of(tmp_path, inputs)
    assert "is left out: laying out embeddings needs scikit-learn" in page
    assert 'aria-label="A map' not in page


def test_features_without_images_are_named_by_their_rows(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page = page_of(tmp_path, inputs, query_split=None, gallery_split=None)
    assert "<img" not in page
    assert "cannot be read" not in page
    assert page.count("<article ") == 4
    named = re.findall(r'class="missing nameplate">row (\d+)<', page)
    assert len(named) == 4 * (1 + inputs["top"])
    labels = re.findall(r'class="labels">id (\d+)<br>cam (\d)', page)
    first_query = int(named[0])
    assert labels[0] == (
        str(inputs["query"].identities[first_query]),
        str(inputs["query"].cameras[first_query]),
    )


def test_features_without_images_and_gallery(tmp_path: Path, inputs: dict[str, Any]) -> None:
    evaluation = evaluate_features(inputs["query"], None, camera_filter="none")
    page = page_of(
        tmp_path,
        inputs,
        evaluation=evaluation,
        gallery=None,
        query_split=None,
        gallery_split=None,
        camera_filter="none",
    )
    assert page.count("<article ") == 4


def test_reliability_is_that_of_a_loop_over_pairs(inputs: dict[str, Any]) -> None:
    query, gallery = inputs["query"], inputs["gallery"]
    given, indeed = reliability(roc(compare(query, gallery)), Sigmoid())
    unit = [f.embeddings / np.linalg.norm(f.embeddings, axis=1, keepdims=True) for f in (query, gallery)]
    pairs = []
    for i in range(len(query)):
        for j in range(len(gallery)):
            same = query.identities[i] == gallery.identities[j]
            if not (same and query.cameras[i] == gallery.cameras[j]):
                pairs.append((float(Sigmoid().probability(unit[0][i] @ unit[1][j])), bool(same)))
    num_same = sum(same for _, same in pairs)
    weights = {True: 1 / num_same, False: 1 / (len(pairs) - num_same)}
    expected = []
    for low in range(10):
        inside = [(p, same) for p, same in pairs if low <= 10 * p < low + 1]
        if inside:
            total = sum(weights[same] for _, same in inside)
            expected.append(
                (
                    sum(p * weights[same] for p, same in inside) / total,
                    sum(weights[same] for _, same in inside if same) / total,
                )
            )
    assert 5 <= len(expected) <= 10
    np.testing.assert_allclose(np.stack([given, indeed], axis=1), expected, atol=2e-3)


def test_a_calibration_adds_its_diagram(tmp_path: Path, inputs: dict[str, Any]) -> None:
    title = "Can the probabilities be believed?"
    assert title in page_of(tmp_path, inputs, calibration=Sigmoid())
    assert title not in page_of(tmp_path, inputs)


def test_an_encoder_adds_activation_maps(
    tmp_path: Path, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from reidkit.encoders.encoder import Encoder
    from reidkit.models import build_model

    monkeypatch.setattr("reidkit.reports.sections._LEAST_CONCENTRATION", 0)  # of an untrained network
    encoder = Encoder(build_model("resnet18", pretrained=False), height=64, width=32, device="cpu")
    broken = replace(inputs["query_split"][0], path=tmp_path / "gone.png")
    page = page_of(
        tmp_path,
        inputs,
        encoder=encoder,
        num_ranked_lists=27,
        query_split=(broken, *inputs["query_split"][1:]),
    )
    shown = section(page, "activation")
    assert shown.count("<article>") == 6
    assert shown.count('alt="the same photo') == 12
    assert 'id="activation"' not in page_of(tmp_path, inputs)
    with monkeypatch.context() as patch:
        patch.setattr("reidkit.reports.sections._LEAST_CONCENTRATION", 0.4)
        flat, peaked = np.ones((64, 32), np.float32), np.zeros((64, 32), np.float32)
        peaked[10:20] = 1
        patch.setattr("reidkit.reports.maps.similarity_maps", lambda *_: (peaked, flat))
        page = page_of(tmp_path, inputs, encoder=encoder, num_ranked_lists=2)
    assert "2 pairs are left out, since no place stands out." in section(page, "lists")
    assert 'id="activation"' not in page
    assert 'href="#activation"' not in page
    monkeypatch.setattr(type(encoder.model), "last_maps", ())
    page = page_of(tmp_path, inputs, encoder=encoder)
    assert "is not shown: activation maps need" in section(page, "lists")
    assert 'id="activation"' not in page


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Numbers of pairs that are scored in tiles while a test runs, by the type of the scores."""
    found: dict[str, int] = {}
    tiles = comparison.Comparison.tiles

    def counted(self: comparison.Comparison, *args: Any, **options: Any) -> Iterator[Any]:
        for tile in tiles(self, *args, **options):
            found[tile[2].dtype.name] = found.get(tile[2].dtype.name, 0) + tile[2].size
            yield tile

    monkeypatch.setattr(comparison.Comparison, "tiles", counted)
    return found


def test_a_report_scores_each_pair_once(
    tmp_path: Path, inputs: dict[str, Any], scored: dict[str, int]
) -> None:
    num_queries, num_items = len(inputs["query"]), len(inputs["gallery"])
    page_of(tmp_path, inputs, calibration=Sigmoid(), tables=tmp_path / "tables")
    num_shown = inputs["num_ranked_lists"]  # of these, the positives are ranked among the negatives too
    assert scored == {"float64": (num_queries + num_shown) * num_items}


def test_a_calibration_scores_again_what_it_counts_by_identity(
    inputs: dict[str, Any], scored: dict[str, int]
) -> None:
    sides = compare(inputs["query"], inputs["gallery"])
    curve = roc(sides)
    fit_calibration(sides, curve=curve, num_resamples=2)
    assert scored == {"float64": 2 * len(inputs["query"]) * len(inputs["gallery"])}


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_hold_the_numbers_of_the_page(tmp_path: Path, inputs: dict[str, Any]) -> None:
    page_of(tmp_path, inputs, tables=tmp_path / "tables", calibration=Sigmoid())
    evaluation = inputs["evaluation"]
    tables = {name: read_table(tmp_path / "tables" / f"{name}.csv") for name in TABLES}
    np.testing.assert_array_equal([float(row["share"]) for row in tables["cmc"]], evaluation.cmc)
    assert [row["recall"] for row in tables["precision_recall"]][::50] == ["0.0", "0.5", "1.0"]
    assert len(tables["roc"]) == 20_001
    assert tables["roc"][0] == {
        "threshold": "inf",
        "false_positive_rate": "0.0",
        "true_positive_rate": "0.0",
    }
    scores = json.loads((tmp_path / "tables" / "scores.json").read_text())
    assert sum(int(row["positive_pairs"]) for row in tables["distances"]) == scores["num_positive_pairs"]
    assert sum(int(row["negative_pairs"]) for row in tables["distances"]) == scores["num_negative_pairs"]
    assert scores["mAP"] == evaluation.mean_average_precision
    curve = roc(compare(inputs["query"], inputs["gallery"]))
    assert scores["true_positive_rate_at"]["0.1"] == curve.true_positive_rate_at(0.1)
    assert set(scores["intervals_95"]) == {"mAP", "rank-1"}
    assert len(tables["camera_pairs"]) == 9
    assert tables["camera_pairs"][0]["mAP"] == ""  # a camera with itself
    ranks = [int(row["first_match_rank"]) for row in tables["queries"]]
    np.testing.assert_array_equal(ranks, evaluation.first_match_ranks)
    assert [row["path"] for row in tables["queries"]] == [str(s.path) for s in inputs["query_split"]]
    wrong = sum(int(row["num_queries"]) for row in tables["confused"])
    assert wrong == (evaluation.first_match_ranks > 1).sum()
    lists = read_table(tmp_path / "tables" / "ranked_lists.csv")
    assert {row["group"] for row in lists} == {"worst", "random", "best"}
    worst = int(np.argmin(evaluation.average_precisions))
    of_worst = [row for row in lists if int(row["query_row"]) == worst]
    assert [int(row["rank"]) for row in of_worst] == list(range(1, len(of_worst) + 1))
    names = [inputs["gallery_split"][int(row["gallery_row"])].path.name for row in of_worst]
    assert [row["image"] for row in of_worst] == names
    first_right = next((int(row["rank"]) for row in of_worst if row["is_match"] == "1"), None)
    assert first_right in (None, evaluation.first_match_ranks[worst])
    pictures = {path.stem for path in (tmp_path / "tables").glob("*.png")}
    assert pictures == {
        "cmc",
        "precision_recall",
        "distances",
        "roc",
        "reliability",
        "camera_map",
        "camera_rank1",
        "projection",
        "ranked_worst",
        "ranked_random",
        "ranked_best",
    }
    for path in (tmp_path / "tables").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 150


def test_queries_that_are_not_valid_have_empty_fields(tmp_path: Path, inputs: dict[str, Any]) -> None:
    identities = inputs["query"].identities.copy()
    identities[4] = 77
    query = replace(inputs["query"], identities=identities)
    evaluation = evaluate_features(query, inputs["gallery"])
    page_of(
        tmp_path, inputs, query=query, evaluation=evaluation, query_split=None, tables=tmp_path / "tables"
    )
    row = read_table(tmp_path / "tables" / "queries.csv")[4]
    assert row == {
        "row": "4",
        "identity": "77",
        "camera": str(query.cameras[4]),
        "average_precision": "",
        "first_match_rank": "",
        "path": "",
    }


def test_tables_that_cannot_be_written_are_an_error(tmp_path: Path, inputs: dict[str, Any]) -> None:
    (tmp_path / "tables").write_text("a file stands where the folder should be")
    with pytest.raises(WriteError, match="tables"):
        page_of(tmp_path, inputs, tables=tmp_path / "tables")


def test_half_of_the_splits_is_enough_to_check(tmp_path: Path, inputs: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="gallery_split has 53 items"):
        page_of(tmp_path, inputs, query_split=None, gallery_split=inputs["gallery_split"][:-1])
