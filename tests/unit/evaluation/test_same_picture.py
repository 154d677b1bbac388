"""The same picture is never its own match: known by content and box, by its row, by its source."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reidkit.analysis.roc import distance_distributions, roc
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate, evaluate_features
from reidkit.evaluation.feature_files import load_features, save_features
from reidkit.evaluation.features import label_features, pool_tracklets, rows_of
from reidkit.evaluation.nearest import rank_features
from reidkit.evaluation.same_picture import pairs_of, picture_codes, picture_names
from reidkit.types import Dataset, Features, Sample

RNG = np.random.default_rng(0)
ONE_SET = Features(RNG.normal(size=(40, 16)), np.arange(40) // 2)
LEFT_OUT = "40 of 40 queries have the very same picture in the gallery"


def draw(path: Path, seed: int) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 4, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Six photos, and a copy of the first under another name."""
    paths = [draw(tmp_path / f"{number}.png", number) for number in range(6)]
    return [*paths, Path(shutil.copy(paths[0], tmp_path / "copy.png"))]


def samples(paths: list[Path], identities: list[int]) -> tuple[Sample, ...]:
    return tuple(
        Sample(path, identity, None, row)
        for row, (path, identity) in enumerate(zip(paths, identities, strict=True))
    )


def views() -> dict[str, Features]:
    """Galleries that hold the very rows of ``ONE_SET``."""
    return {
        "the same object": ONE_SET,
        "another object around the same array": replace(ONE_SET),
        "a view of the array": Features(ONE_SET.embeddings[:], ONE_SET.identities.copy()),
        "a copy with the same sources": Features(
            ONE_SET.embeddings.copy(), ONE_SET.identities, sources=np.arange(40).astype(str)
        ),
    }


@pytest.mark.parametrize("name", views())
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"distance": "l1"},
        {"average_precision": "trapezoid"},
        {"rerank": True},
        {"galleries": [range(40)] * 40},
        {"protocol": "single_gallery_shot", "camera_filter": "none"},
    ],
    ids=str,
)
def test_one_set_given_twice_is_one_set(name: str, options: dict[str, Any]) -> None:
    query = ONE_SET
    if "sources" in name:
        query = replace(ONE_SET, sources=np.arange(40).astype(str))
    twice = evaluate_features(query, views()[name], **options)
    if options != {"rerank": True}:  # as two sets, an item is in the neighbourhoods twice
        alone = evaluate_features(query, None, **{**options, "galleries": None})
        if "galleries" not in options and "protocol" not in options:
            assert twice.metrics == alone.metrics
        np.testing.assert_array_equal(twice.first_match_ranks, alone.first_match_ranks)
    assert twice.rank(1) < 0.5
    assert any(note.startswith(LEFT_OUT) for note in twice.notes)


def test_tracklets_given_twice_are_one_set() -> None:
    frames = replace(ONE_SET, tracklets=np.arange(40) // 2, identities=np.arange(40) // 4)
    frames = replace(frames, sources=np.array([f"frame {row}" for row in range(40)]))
    alone, twice = (evaluate_features(frames, gallery, protocol="tracklets") for gallery in (None, frames))
    assert twice.metrics == alone.metrics
    backwards = rows_of(frames, np.arange(40)[::-1])
    assert set(pool_tracklets(backwards).sources) == set(pool_tracklets(frames).sources)


def test_part_of_a_set_asks_the_whole() -> None:
    query = Features(ONE_SET.embeddings[10:20], ONE_SET.identities[10:20])
    result = evaluate_features(query, ONE_SET)
    expected = evaluate_features(ONE_SET).average_precisions[10:20]
    np.testing.assert_array_equal(result.average_precisions, expected)


def test_rows_that_share_memory_otherwise_are_not_one_picture() -> None:
    row = np.ones((1, 4))
    query, gallery = (Features(np.broadcast_to(row, (num, 4)), [1, 1, 2][:num]) for num in (3, 2))
    assert evaluate_features(query, gallery).first_match_ranks.tolist() == [1, 1, 0]
    table = RNG.normal(size=(6, 8))
    halves = Features(table[:, :4], [1, 1, 2, 2, 3, 3]), Features(table[:, 4:], [1, 1, 2, 2, 3, 3])
    assert evaluate_features(*halves).num_valid_queries == 6
    assert "very same picture" not in str(evaluate_features(*halves))


def test_all_that_counts_pairs_leaves_them_out() -> None:
    assert distance_distributions(compare(ONE_SET, ONE_SET)).num_positive == 40
    assert distance_distributions(compare(ONE_SET, ONE_SET)).hardest_positive > 0
    assert roc(compare(ONE_SET, ONE_SET)).num_positive == 40
    nearest = rank_features(ONE_SET, ONE_SET, top=1).indices[:, 0]
    assert (nearest != np.arange(40)).all()


def test_a_picture_under_two_identities_leaves_its_own_list() -> None:
    query = Features(np.eye(3), [1, 2, 3], sources=["a", "b", "c"])
    gallery = Features(np.eye(3)[[0, 1, 2, 0]], [9, 2, 3, 1], sources=["a", "x", "y", "z"])
    ranks = evaluate_features(query, gallery, camera_filter="none").first_match_ranks
    assert ranks.tolist() == [1, 1, 1], "the query's own picture, called 9, would come first"


def test_samples_are_told_apart_by_content_and_box(photos: list[Path], tmp_path: Path) -> None:
    names = picture_names(samples(photos, [0] * 7))
    assert names[0] == names[6]
    assert len(set(names)) == 6
    box = replace(samples(photos[:1], [0])[0], box=(0, 0, 2, 4))
    other = replace(box, path=photos[6], box=(1, 0, 3, 4))
    assert len({*picture_names((box, other)), names[0]}) == 3
    gone = samples([tmp_path / "gone.png", tmp_path / "sub" / ".." / "gone.png"], [0, 0])
    assert len(set(picture_names(gone))) == 1
    draw(photos[0], 99)
    assert picture_names(samples(photos, [0] * 7))[0] != names[6], "the file has changed since"


def test_a_copy_in_the_gallery_is_no_match(photos: list[Path]) -> None:
    """A query alone with its own picture is not valid, and the reason is told."""

    class Encoder:
        def features(self, split: tuple[Sample, ...]) -> Features:
            rng = np.random.default_rng([len(split)])
            return label_features(rng.normal(size=(len(split), 8)), split)

    query = samples(photos[:3], [1, 2, 3])
    gallery = samples([photos[6], *photos[1:5]], [1, 2, 3, 2, 3])
    result = evaluate(Encoder(), Dataset("copies", photos[0].parent, query=query, gallery=gallery))
    assert result.num_valid_queries == 2
    notes = "\n".join(result.notes)
    assert "3 of 3 queries have the very same picture in the gallery" in notes
    assert "(row 0): nothing but the query's own picture shows its identity" in notes


def test_sources_go_through_files(photos: list[Path], tmp_path: Path) -> None:
    split = samples(photos, [1, 1, 2, 2, 3, 3, 1])
    features = label_features(RNG.normal(size=(7, 4)), split)
    for name in ("features.npz", "features.parquet"):
        save_features(tmp_path / name, features, features)
        query, gallery = load_features(tmp_path / name)
        assert gallery is not None
        assert evaluate_features(query, gallery).metrics == evaluate_features(features).metrics


@pytest.mark.parametrize(("second", "is_known"), [("b.jpg", True), ("a.jpg", False)])
def test_paths_in_a_file_are_sources_unless_one_holds_several_people(
    tmp_path: Path, second: str, is_known: bool
) -> None:
    paths = ["a.jpg", second]
    features = Features(np.eye(2), [1, 1])
    file = save_features(tmp_path / "f.npz", features, features, query_paths=paths, gallery_paths=paths)
    query, _ = load_features(file)
    assert (query.sources is not None) == is_known


@pytest.mark.parametrize("path", ["./a/é.jpg", "a/b/../é.jpg", "a\\é.jpg", "a//e\u0301.jpg"])
def test_a_path_in_a_file_is_one_picture_however_it_is_written(tmp_path: Path, path: str) -> None:
    features = Features(np.eye(3), [1, 1, 2])
    paths = [["a/é.jpg", "b.jpg", "c.jpg"], [path, "d.jpg", "e.jpg"]]
    file = save_features(tmp_path / "f.npz", features, features, query_paths=paths[0], gallery_paths=paths[1])
    query, gallery = picture_codes(*load_features(file))
    assert [code in gallery for code in query] == [True, False, False]


def test_pairs_are_those_of_a_double_loop() -> None:
    query, gallery = RNG.integers(0, 5, 12), RNG.integers(0, 7, 15)
    expected = [(q, g) for q in range(12) for g in range(15) if query[q] == gallery[g]]
    assert list(zip(*map(np.ndarray.tolist, pairs_of(query, gallery)), strict=True)) == expected


def test_an_empty_source_is_no_picture_in_common() -> None:
    features = Features(np.eye(3), [1, 1, 1], sources=["", "", "a"])
    query, gallery = picture_codes(features, Features(np.eye(2), [1, 1], sources=["", "a"]))
    assert len(set(query.tolist())) == 3
    assert gallery[1] == query[2]
    assert gallery[0] not in query
