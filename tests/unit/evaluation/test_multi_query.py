"""Multi-query evaluation: pooling by hand, where the images come from, and where it makes no sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reidkit.datasets import load_dataset
from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.evaluation.evaluation import evaluate, evaluate_features
from reidkit.evaluation.features import label_features, pool_queries
from reidkit.types import Dataset, Features, Sample


def unit(values: Any) -> np.ndarray:
    values = np.array(values, dtype=float)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("strings", [True, False])
def test_pooled_by_hand(pooling: str, strings: bool) -> None:
    """Identity 1 has three images under camera 1, identity 2 none under camera 2, -1 is nobody."""
    rows = unit([[1, 2, 0], [0, 3, 1], [-2, 0, 1], [5, 5, 5], [9, 0, 1]])
    identities, cameras = np.array([1, 1, 1, 1, -1]), np.array([1, 1, 1, 2, 1])
    query = Features(unit([[0, 0, 4], [1, 1, 0], [3, 0, 1]]), np.array([1, 2, -1]), np.array([1, 2, 1]))
    if strings:
        identities, cameras = identities.astype(str), cameras.astype(str)
        query = Features(query.embeddings, query.identities.astype(str), query.cameras.astype(str))
    lengths = np.array([[0.1], [7], [1], [1], [1]])  # of no matter: unit embeddings are pooled
    pooled = pool_queries(query, Features(lengths * rows, identities, cameras), pooling=pooling)
    expected = rows[:3].mean(axis=0) if pooling == "mean" else rows[:3].max(axis=0)
    np.testing.assert_allclose(pooled.embeddings[0], unit(expected), atol=1e-7)
    np.testing.assert_allclose(pooled.embeddings[1:], query.embeddings[1:], atol=1e-7)
    assert pooled.identities.tolist() == query.identities.tolist()


def test_the_order_of_images_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    query = Features(rng.normal(size=(5, 16)), np.arange(5), np.ones(5, int))
    images = Features(rng.normal(size=(9000, 16)), rng.integers(0, 5, 9000), np.ones(9000, int))
    order = rng.permutation(9000)
    shuffled = Features(images.embeddings[order], images.identities[order], images.cameras[order])
    assert (
        pool_queries(query, images).embeddings.tobytes() == pool_queries(query, shuffled).embeddings.tobytes()
    )


def test_pooling_that_cannot_be() -> None:
    features = Features(np.eye(2), [1, 2], [1, 1])
    with pytest.raises(UnknownName, match="unknown pooling 'meen'; did you mean 'mean'"):
        pool_queries(features, features, pooling="meen")
    with pytest.raises(DataError, match="the multi-query image features have no camera labels"):
        pool_queries(features, Features(np.eye(2), [1, 2]))
    with pytest.raises(DataError, match=r"query identities are numbers .* gallery identities text"):
        pool_queries(features, Features(np.eye(2), ["anna", "ben"], [1, 1]))


class ByPath:
    """Embeds a sample by its identity and path; remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def features(self, split: tuple[Sample, ...]) -> Features:
        self.seen += [str(sample.path) for sample in split]
        rows = [
            np.random.default_rng(sample.identity).normal(size=6)
            + 1.5 * np.random.default_rng([*str(sample.path).encode()]).normal(size=6)
            for sample in split
        ]
        return label_features(np.array(rows), split)


def part(name: str, labels: list[tuple[int, int]]) -> tuple[Sample, ...]:
    return tuple(Sample(Path(f"{name}{i}.jpg"), *label, i) for i, label in enumerate(labels))


QUERY = part("q", [(identity, 1) for identity in range(1, 9)])
GALLERY = part("g", [(identity, camera) for identity in range(1, 9) for camera in (1, 1, 2, 3)])
DATA = Dataset("small", Path("root"), query=QUERY, gallery=GALLERY)


def test_without_images_of_its_own_a_set_pools_the_query_and_its_junk() -> None:
    result = evaluate(ByPath(), DATA, multi_query="mean")
    rows = unit(ByPath().features(QUERY).embeddings)
    junk = unit(ByPath().features(GALLERY).embeddings).reshape(8, 4, 6)[:, :2]
    query = Features(unit((rows + junk.sum(axis=1)) / 3), np.arange(1, 9), np.ones(8, int))
    expected = evaluate_features(query, ByPath().features(GALLERY))
    np.testing.assert_allclose(result.average_precisions, expected.average_precisions, rtol=1e-12)
    assert result.protocol.endswith("cosine distance, multi-query (mean of query and junk images)")
    assert any("is the mean of 3 to 3 images, 3.0 on average" in note for note in result.notes)


def test_a_set_with_images_of_its_own_pools_these_alone() -> None:
    """Only those of a query are encoded: not identity 30, nor camera 2."""
    own = part("m", [(1, 1), (1, 1), (2, 1), (30, 1), (1, 2)])
    encoder = ByPath()
    result = evaluate(encoder, replace(DATA, multi_query=own), multi_query="max")
    assert [path for path in encoder.seen if path.startswith("m")] == ["m0.jpg", "m1.jpg", "m2.jpg"]
    rows = unit(ByPath().features(QUERY).embeddings)
    images = unit(ByPath().features(own).embeddings)
    rows[0], rows[1] = unit(np.maximum(images[0], images[1])), images[2]
    expected = evaluate_features(Features(rows, np.arange(1, 9), np.ones(8, int)), ByPath().features(GALLERY))
    np.testing.assert_allclose(result.average_precisions, expected.average_precisions, rtol=1e-12)
    assert result.protocol.endswith("multi-query (max of the set's multi-query images)")
    assert any("1 to 2 images, 1.1 on average" in note for note in result.notes)


def test_images_that_show_no_query_are_told() -> None:
    data = replace(DATA, multi_query=part("m", [(30, 1)]))
    result = evaluate(ByPath(), data, multi_query="mean")
    assert any("none of the set's 1 multi-query images shows a query" in note for note in result.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "single_gallery_shot", "camera_filter": "other_cameras"}, "a query is one image"),
        ({"protocol": "tracklets"}, "mean of a tracklet's frames already"),
        ({"protocol": "recall", "gallery": (), "camera_filter": "none"}, "every image queries all others"),
        ({"has_cameras": False}, "no camera labels: all images of a query's identity would be taken"),
        ({"camera_filter": "none"}, "are true matches there"),
    ],
)
def test_where_it_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    encoder = ByPath()
    with pytest.raises(ConfigError, match=message):
        evaluate(encoder, replace(DATA, **changes), multi_query="mean")
    with pytest.raises(UnknownName, match="did you mean 'mean'"):
        evaluate(encoder, DATA, multi_query="meen")
    assert not encoder.seen


def test_market1501_reads_the_hand_drawn_boxes(tmp_path: Path) -> None:
    for folder, name in (
        ("bounding_box_train", "0007_c1s1_000001_01.jpg"),
        ("query", "0001_c1s1_000151_00.jpg"),
        ("bounding_box_test", "0001_c2s1_000251_01.jpg"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()
    assert load_dataset("market1501", tmp_path).multi_query == ()
    (tmp_path / "gt_bbox").mkdir()
    for name in ("0001_c1s2_000401_00.jpg", "0001_c1s1_000151_00.jpg", "Thumbs.db"):
        (tmp_path / "gt_bbox" / name).touch()
    data = load_dataset("market1501", tmp_path)
    assert [(s.identity, s.camera, s.frame, s.index) for s in data.multi_query] == [
        (1, 1, 151, 0),
        (1, 1, 401, 1),
    ]
    assert tmp_path / "gt_bbox" / "Thumbs.db" in data.skipped
    (tmp_path / "gt_bbox" / "0001_c1s1_000151_00.jpg").rename(tmp_path / "gt_bbox" / "a.jpg")
    (tmp_path / "gt_bbox" / "0001_c1s2_000401_00.jpg").rename(tmp_path / "gt_bbox" / "b.jpg")
    with pytest.raises(DataError, match=r"none of the 2 images in .*gt_bbox is named like"):
        load_dataset("market1501", tmp_path)
