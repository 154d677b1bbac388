"""Names and missing cameras, from samples through features to whatever counts by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reidkit.analysis.breakdown import camera_pairs
from reidkit.analysis.feature_comparison import compare_branches
from reidkit.analysis.variances import identity_variances
from reidkit.errors import DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate_features, validation_features
from reidkit.evaluation.features import label_features, pool_queries
from reidkit.evaluation.metric_learning import KISSME
from reidkit.evaluation.multi_query import multi_query_images, pooling_texts
from reidkit.evaluation.row_labels import camera_codes, camera_names, shared_codes
from reidkit.types import Dataset, Features, Sample

MISSING = [None, float("nan"), "", -1, "-1"]


def sample(row: int, **labels: Any) -> Sample:
    return Sample(Path(f"{row}.jpg"), **{"identity": 1, "camera": 1, "index": row, **labels})


def test_features_of_samples_hold_names_where_there_are_any() -> None:
    split = (
        sample(0, identity_name="0001", camera=2, camera_name="door"),
        sample(1, identity=-1),
        sample(2, identity=7, camera=None),
    )
    features = label_features(np.eye(3), split)
    assert features.identities.tolist() == ["0001", "-1", "7"]
    assert features.cameras is not None
    assert camera_names(features.cameras) == ["door", "1", ""]
    plain = label_features(np.eye(2), (sample(0), sample(1, camera=None)))
    assert plain.identities.dtype == plain.cameras.dtype == np.int64
    assert camera_names(plain.cameras) == ["1", ""]
    assert label_features(np.eye(1), (sample(0, camera=None),)).cameras is None


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_a_missing_camera_is_nobodys(missing: object) -> None:
    """Two images of one person without a camera are not under one camera: each is the other's match."""
    embeddings = np.random.default_rng(0).normal(size=(4, 6))
    cameras = np.array([missing, missing, 3, 3], dtype=object)
    result = evaluate_features(Features(embeddings, [1, 1, 2, 2], cameras))
    assert result.num_valid_queries == 2
    assert np.isfinite(result.average_precisions).tolist() == [True, True, False, False]
    assert any(note.startswith("2 of 4 query rows have no camera") for note in result.notes)
    other = evaluate_features(Features(embeddings, [1, 1, 2, 2], cameras), camera_filter="other_cameras")
    assert np.isfinite(other.average_precisions).tolist() == [True, True, False, False]


def test_missing_cameras_where_rows_are_grouped() -> None:
    rng = np.random.default_rng(1)
    cameras = np.array([1, 1, 2, -1, -1, 2])
    features = Features(rng.normal(size=(6, 3)), [5, 5, 5, 5, 5, 6], cameras)
    query, _ = validation_features(features)
    assert query.cameras.tolist() == [1, 2, -1, -1, 2]
    scores = evaluate_features(*validation_features(features))
    assert scores.first_match_ranks.tolist()[2:4] == [1, 1]
    pooled = pool_queries(features, features)
    unit = features.embeddings / np.linalg.norm(features.embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(pooled.embeddings[3:5], unit[3:5], atol=1e-7)
    pairs = camera_pairs(compare(features, features))
    assert pairs.query_cameras.tolist() == [1, 2]
    assert len(set(camera_codes(cameras).tolist())) == 4
    identities, cameras = rng.integers(0, 4, 80), rng.integers(-1, 3, 80)
    features = Features(rng.normal(size=(80, 4)) + 3 * np.eye(4)[identities], identities, cameras)
    each_its_own = np.where(cameras < 0, np.arange(10, 90), cameras)
    expected = KISSME().fit(replace(features, cameras=each_its_own)).projection
    np.testing.assert_allclose(KISSME().fit(features).projection, expected)


def test_queries_without_a_camera_are_pooled_with_nothing_and_named_in_tables() -> None:
    query = (sample(0), sample(1, camera=None), sample(2, camera=3, camera_name="door"))
    further = (sample(3), sample(4, camera=None), sample(5, camera=3))
    data = Dataset("gaps", Path(), query=query, gallery=further, multi_query=further)
    assert multi_query_images(data) == (further[0], further[2])
    assert "the mean of 1 to 1 images" in pooling_texts(data, further, "mean")[1][0]
    result = evaluate_features(label_features(np.eye(3), query), camera_filter="none")
    table = compare_branches({"global": result, "local": result}).table(query)
    assert [line.split(",")[2] for line in table.splitlines()] == ["camera", "1", "", "door"]


def test_what_is_learnt_and_measured_does_not_depend_on_how_labels_are_written() -> None:
    rng = np.random.default_rng(2)
    identities = rng.integers(-1, 4, 60)
    numbers = Features(rng.normal(size=(60, 3)), identities, rng.integers(1, 3, 60))
    texts = replace(
        numbers,
        identities=np.array([f"{i}.0" if row % 2 else str(i) for row, i in enumerate(identities)]),
        cameras=numbers.cameras.astype(np.float64),
    )
    assert identity_variances(texts) == identity_variances(numbers)
    np.testing.assert_array_equal(KISSME().fit(texts).projection, KISSME().fit(numbers).projection)
    assert evaluate_features(texts, numbers).metrics == evaluate_features(numbers).metrics


def test_codes_of_both_sides_are_equal_where_labels_are() -> None:
    rng = np.random.default_rng(3)
    query, gallery = rng.integers(-1, 6, 20), rng.integers(-1, 8, 30)
    written = np.array([f"{label}.0" for label in gallery])
    for left, right in ((query, gallery), (query, written), (query.astype(np.float32), gallery)):
        codes = shared_codes(left, right, "identities")
        expected = query[:, None] == gallery
        np.testing.assert_array_equal(codes[0][:, None] == codes[1], expected)
        assert ((codes[0] == -1) == (query == -1)).all()
    large = np.array([2**64 - 1, 3], np.uint64)
    codes = shared_codes(large, np.array([str(2**64 - 1)]), "identities")
    assert (codes[0] == codes[1]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1], [2]], "identities has shape"),
        (np.array([{}, 1], object), "row 0"),
        (np.array([True, False]), "of type bool"),
        (np.array(["2020-01-01"] * 2, "datetime64[D]"), "of type datetime64"),
        ([1j, 2], "of type complex128"),
        (["a", None], r"missing in 1 of 2 rows \(first: 1\)"),
    ],
)
def test_what_is_no_label_is_refused_in_one_line(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate_features(Features(np.eye(2), labels))
    assert "\n" not in str(caught.value)
