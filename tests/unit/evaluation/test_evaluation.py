"""Evaluation against the slow reference, over labels and embeddings of every awkward kind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.evaluation import comparison
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import evaluate, evaluate_features, validation_features
from reidkit.evaluation.nearest import rank_features
from reidkit.evaluation.ranks import match_ranks
from reidkit.types import Dataset, Evaluation, Features, Sample
from tests import reference_evaluation as reference


def random_features(
    num: int, *, dim: int = 6, num_identities: int = 8, num_cameras: int = 3, seed: int = 0, levels: int = 0
) -> Features:
    """Embeddings around a centre for each identity; ``levels`` rounds them so that many are equal."""
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, num_identities, num)
    centres = np.random.default_rng(99).normal(size=(num_identities, dim))
    embeddings = centres[identities] + 1.5 * rng.normal(size=(num, dim))
    if levels:
        embeddings = np.round(embeddings / np.abs(embeddings).max() * levels)
    cameras = rng.integers(1, num_cameras + 1, num)
    return Features(embeddings.astype(np.float32), identities, cameras)


def all_match_ranks(
    query: Features, gallery: Features | None, block_size: int | None, **options: Any
) -> list:
    comparison = compare(query, gallery, **options)
    return match_ranks(comparison, block_size=block_size)[1].tolist()


def assert_as_reference(
    query: Features, gallery: Features | None, *, block_size: int | None = None, **options: Any
) -> Evaluation:
    result = evaluate_features(query, gallery, block_size=block_size, **options)
    expected = reference.evaluate(query, gallery, **options)
    np.testing.assert_array_equal(result.first_match_ranks, expected["first_match_ranks"])
    np.testing.assert_allclose(result.average_precisions, expected["average_precisions"], rtol=1e-12)
    np.testing.assert_allclose(
        result.inverse_negative_penalties, expected["inverse_negative_penalties"], rtol=1e-12
    )
    np.testing.assert_allclose(result.cmc, expected["cmc"], rtol=1e-12)
    assert result.num_valid_queries == expected["num_valid_queries"]
    assert result.mean_average_precision == pytest.approx(np.nanmean(expected["average_precisions"]))
    assert result.mean_inverse_negative_penalty == pytest.approx(
        np.nanmean(expected["inverse_negative_penalties"])
    )
    rule = {name: value for name, value in options.items() if name in ("camera_filter", "distance")}
    assert all_match_ranks(query, gallery, block_size, **rule) == expected["match_ranks"]
    return result


def assert_same(first: Evaluation, second: Evaluation) -> None:
    """Equal bit for bit."""
    for name in ("cmc", "average_precisions", "first_match_ranks", "inverse_negative_penalties"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes(), name
    assert first.as_dict() == second.as_dict()


# The rule and the numbers, against the reference


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("distance", ["cosine", "l1"])
@pytest.mark.parametrize("average_precision", ["step", "trapezoid"])
@pytest.mark.parametrize("levels", [0, 2])
def test_query_against_gallery(
    camera_filter: str, distance: str, average_precision: str, levels: int
) -> None:
    query, gallery = random_features(14, seed=1, levels=levels), random_features(90, seed=2, levels=levels)
    assert_as_reference(
        query,
        gallery,
        camera_filter=camera_filter,
        distance=distance,
        average_precision=average_precision,
        block_size=33,
    )


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("levels", [0, 1])
def test_every_item_queries_all_others(camera_filter: str, levels: int) -> None:
    result = assert_as_reference(
        random_features(50, seed=3, levels=levels), None, camera_filter=camera_filter
    )
    assert "every item queries all others" in result.protocol


LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=14)


@settings(max_examples=150, deadline=None)
@given(LABELS, st.none() | LABELS, st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_labels(query_labels: list, gallery_labels: list | None, block_size: int, random: Any) -> None:
    def features(labels: list) -> Features:
        embeddings = [[random.choice([-1.0, 0.0, 1.0, 2.0]) for _ in range(3)] for _ in labels]
        return Features(np.array(embeddings), *np.array(labels).T)

    query = features(query_labels)
    gallery = None if gallery_labels is None else features(gallery_labels)
    for camera_filter in ("same_identity", "other_cameras", "none"):
        if reference.evaluate(query, gallery, camera_filter=camera_filter)["num_valid_queries"]:
            assert_as_reference(query, gallery, camera_filter=camera_filter, block_size=block_size)
        else:
            with pytest.raises(DataError, match="no query is valid"):
                evaluate_features(query, gallery, camera_filter=camera_filter)


def test_zero_is_an_ordinary_identity_and_minus_one_leaves_every_list() -> None:
    query = Features(np.array([[1.0, 0.0], [1.0, 0.0]]), [0, 7], [1, 1])
    angles = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.7, 0.3]])
    gallery = Features(angles, [-1, 0, -1, 7], [2, 2, 1, 2])
    result = assert_as_reference(query, gallery)
    assert result.first_match_ranks.tolist() == [1, 2]
    assert result.num_gallery == 4
    assert "2 of 4 gallery items have identity -1 (junk) and leave every list" in result.notes


def test_string_labels_give_what_integers_give() -> None:
    query, gallery = random_features(12, seed=4), random_features(60, seed=5)
    gallery.identities[:7] = -1

    def with_names(features: Features, kind: type) -> Features:
        identities = np.array([str(identity) for identity in features.identities], dtype=kind)
        return Features(features.embeddings, identities, np.array([f"door {c}" for c in features.cameras]))

    expected = assert_as_reference(query, gallery)
    for kind in (str, object, bytes):
        assert_same(evaluate_features(with_names(query, kind), with_names(gallery, kind)), expected)


def test_integer_labels_of_different_width_meet() -> None:
    query, gallery = random_features(12, seed=4), random_features(60, seed=5)
    expected = evaluate_features(query, gallery)
    query = Features(query.embeddings, query.identities.astype(np.uint64), query.cameras.astype(np.uint8))
    assert_same(evaluate_features(query, gallery), expected)


# The two average precisions and the CMC, by hand


def by_hand(average_precision: str) -> Evaluation:
    """One query; matches at ranks 1, 3 and 6 of 6."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    gallery = np.stack([scores, np.sqrt(1 - scores**2)], axis=1)
    return evaluate_features(
        Features(np.array([[1.0, 0.0]]), [1], [1]),
        Features(gallery, [1, 2, 1, 2, 2, 1], [2] * 6),
        average_precision=average_precision,
        max_rank=8,
    )


def test_step_average_precision_by_hand() -> None:
    assert by_hand("step").mean_average_precision == pytest.approx((1 / 1 + 2 / 3 + 3 / 6) / 3)


def test_trapezoid_average_precision_by_hand() -> None:
    pairs = [(1 + 1) / 2, (1 / 2 + 2 / 3) / 2, (2 / 5 + 3 / 6) / 2]
    assert by_hand("trapezoid").mean_average_precision == pytest.approx(sum(pairs) / 3)


def test_trapezoid_takes_precision_before_a_late_first_match_as_zero() -> None:
    query = Features(np.array([[1.0, 0.0]]), [1], [1])
    gallery = Features(np.array([[1.0, 0.0], [0.0, 1.0]]), [2, 1], [2, 2])
    result = evaluate_features(query, gallery, average_precision="trapezoid")
    assert result.mean_average_precision == pytest.approx((0 / 1 + 1 / 2) / 2)


def test_cmc_and_inverse_negative_penalty_by_hand() -> None:
    result = by_hand("step")
    assert result.cmc.tolist() == [1.0] * 8
    assert result.mean_inverse_negative_penalty == pytest.approx(3 / 6)
    assert result.average_precision == "step"
    assert result.protocol == "market1501, camera filter same_identity, cosine distance"


def test_cmc_has_max_rank_entries_where_the_gallery_is_shorter() -> None:
    query, gallery = random_features(6, seed=6), random_features(11, seed=7, num_identities=4)
    result = assert_as_reference(query, gallery, camera_filter="none", max_rank=30)
    assert result.cmc.shape == (30,)
    assert np.all(result.cmc[10:] == result.cmc[10])


def test_cmc_shorter_than_the_first_matches() -> None:
    query, gallery = random_features(20, seed=8), random_features(80, seed=9)
    assert_as_reference(query, gallery, max_rank=1)


# Exactness: ties, near ties, collapse; blocks and threads


def test_equal_vectors_fall_to_gallery_order() -> None:
    query = Features(np.ones((1, 3)), [1], [1])
    gallery = Features(np.ones((5, 3)), [2, 2, 1, 2, 1], [2] * 5)
    assert all_match_ranks(query, gallery, None) == [3, 5]
    assert_as_reference(query, gallery, block_size=2)


def near_ties(num: int, dim: int, spread: float, seed: int) -> Features:
    """Vectors about one direction, their scores ``spread`` apart: float32 products cannot order them."""
    rng = np.random.default_rng(seed)
    direction = np.abs(np.random.default_rng(7).normal(size=dim))
    embeddings = direction + spread * rng.normal(size=(num, dim))
    return Features(embeddings, rng.integers(0, 30, num), rng.integers(0, 3, num))


@pytest.mark.parametrize("spread", [1e-2, 3e-4, 1e-5, 0.0])
@pytest.mark.parametrize("block_size", [7, None])
def test_scores_closer_than_float32_can_tell(spread: float, block_size: int | None) -> None:
    query, gallery = near_ties(12, 40, spread, 1), near_ties(300, 40, spread, 2)
    assert_as_reference(query, gallery, block_size=block_size)


def test_a_few_scores_closer_than_float32_can_tell() -> None:
    """Each positive has a negative beside it that is nearer by 3e-8, below and above it in the gallery."""
    rng = np.random.default_rng(0)
    query = rng.normal(size=(8, 64))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    aside = rng.normal(size=(8, 64))
    aside -= (aside * query).sum(axis=1, keepdims=True) * query
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)

    def at(score: float) -> np.ndarray:
        return score * query + np.sqrt(1 - score**2) * aside

    gallery = np.concatenate(
        [at(0.6 + 3e-8), at(0.6), at(0.6 + 3e-8), at(0.6 - 3e-8), rng.normal(size=(200, 64))]
    )
    identities = np.concatenate([np.full(8, 100), np.arange(8), np.full(16, 100), np.full(200, 101)])
    features = (
        Features(query, np.arange(8), np.zeros(8, int)),
        Features(gallery, identities, np.ones(232, int)),
    )
    result = assert_as_reference(*features)
    assert np.all(result.first_match_ranks == 3)


def test_agrees_with_cosines_that_know_no_grid() -> None:
    query, gallery = random_features(40, dim=16, seed=10), random_features(400, dim=16, seed=11)
    unit_query = query.embeddings.astype(np.float64)
    unit_query /= np.linalg.norm(unit_query, axis=1, keepdims=True)
    unit_gallery = gallery.embeddings.astype(np.float64)
    unit_gallery /= np.linalg.norm(unit_gallery, axis=1, keepdims=True)
    order = np.argsort(-(unit_query @ unit_gallery.T), axis=1, kind="stable")
    expected = []
    for row, identity, camera in zip(order, query.identities, query.cameras, strict=True):
        same = gallery.identities[row] == identity
        kept = ~(same & (gallery.cameras[row] == camera))
        expected += (np.flatnonzero(same[kept]) + 1).tolist()
    assert all_match_ranks(query, gallery, None) == expected


def test_exact_scores_do_not_depend_on_the_order_of_summation() -> None:
    features = random_features(64, dim=300, seed=12)
    rows = np.arange(64)
    unit = compare(features).query.take(rows)
    forward, backward = unit @ unit.T, unit[:, ::-1] @ unit[:, ::-1].T
    one_by_one = np.zeros((64, 64))
    for column in unit.T:
        one_by_one += column[:, None] * column
    assert forward.tobytes() == backward.tobytes() == one_by_one.tobytes()
    assert compare(features).exact_scores(rows, rows[::-1]).tobytes() == np.diag(forward[:, ::-1]).tobytes()


@pytest.mark.parametrize("distance", ["cosine", "l1"])
@pytest.mark.parametrize("kind", ["random", "tied", "near"])
def test_block_size_changes_no_bit(distance: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "near":
        query, gallery = near_ties(30, 24, 1e-3, 3), near_ties(700, 24, 1e-3, 4)
    else:
        levels = 2 if kind == "tied" else 0
        query, gallery = (
            random_features(30, seed=13, levels=levels),
            random_features(700, seed=14, levels=levels),
        )
    whole = evaluate_features(query, gallery, distance=distance)
    for block_size in (1, 7, 333, 700, 5000):
        assert_same(evaluate_features(query, gallery, distance=distance, block_size=block_size), whole)
    monkeypatch.setattr(comparison, "_QUERIES_PER_TILE", 7)
    assert_same(evaluate_features(query, gallery, distance=distance, block_size=100), whole)


THREADS = """
import sys
import numpy as np
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.types import Features
rng = np.random.default_rng(0)
def features(num):
    embeddings = 1 + 0.3 * rng.normal(size=(num, 384)).astype(np.float32)
    return Features(embeddings, rng.integers(0, 40, num), rng.integers(0, 6, num))
result = evaluate_features(features(200), features(3000))
sys.stdout.buffer.write(result.average_precisions.tobytes() + result.first_match_ranks.tobytes())
"""


def test_number_of_threads_changes_no_bit() -> None:
    def digest(num_threads: int) -> str:
        limits = dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads)
        )
        run = subprocess.run(
            [sys.executable, "-c", THREADS], env={**os.environ, **limits}, capture_output=True, check=True
        )
        assert len(run.stdout) == 200 * 16
        return hashlib.sha256(run.stdout).hexdigest()

    assert digest(1) == digest(2)


# Embeddings as they come


@pytest.mark.parametrize("kind", ["float16", "float64", "fortran", "strided", "memory-mapped"])
def test_embeddings_of_any_kind(kind: str, tmp_path: Path) -> None:
    def as_kind(embeddings: np.ndarray, name: str) -> np.ndarray:
        if kind in ("float16", "float64"):
            return embeddings.astype(kind)
        if kind == "fortran":
            return np.asfortranarray(embeddings)
        if kind == "strided":
            return np.repeat(embeddings, 2, axis=1)[::-1, ::2][::-1]
        np.save(tmp_path / name, embeddings)
        return np.load(tmp_path / f"{name}.npy", mmap_mode="r")

    plain = [random_features(num, seed=num) for num in (15, 150)]
    query, gallery = (
        Features(as_kind(part.embeddings, str(len(part))), part.identities, part.cameras) for part in plain
    )
    result = assert_as_reference(query, gallery, block_size=40)
    if kind != "float16":
        assert_same(result, evaluate_features(*plain))


def test_length_of_embeddings_changes_nothing_but_a_note() -> None:
    query, gallery = random_features(12, seed=15), random_features(70, seed=16)
    unit = [
        Features(
            part.embeddings / np.linalg.norm(part.embeddings, axis=1, keepdims=True),
            part.identities,
            part.cameras,
        )
        for part in (query, gallery)
    ]
    result, of_unit = evaluate_features(query, gallery), evaluate_features(*unit)
    np.testing.assert_array_equal(result.first_match_ranks, of_unit.first_match_ranks)
    assert [note.partition(" (")[0] for note in result.notes] == [
        "query embeddings are not of unit length",
        "gallery embeddings are not of unit length",
    ]
    assert of_unit.notes == ()
    half = [Features(part.embeddings.astype(np.float16), part.identities, part.cameras) for part in unit]
    assert evaluate_features(*half).notes == ()


def test_zero_embeddings_score_nothing_and_are_named() -> None:
    query, gallery = random_features(6, seed=17), random_features(40, seed=18)
    gallery.embeddings[[3, 9]] = 0
    result = assert_as_reference(query, gallery)
    assert any("2 gallery embeddings are all zeros (rows 3, 9)" in note for note in result.notes)


@pytest.mark.parametrize(("num_query", "num_gallery"), [(1, 40), (20, 1), (1, 1)])
def test_one_query_or_one_gallery_item(num_query: int, num_gallery: int) -> None:
    query = random_features(num_query, num_identities=1, seed=19)
    gallery = random_features(num_gallery, num_identities=2 if num_gallery > 1 else 1, seed=20)
    assert_as_reference(query, gallery, camera_filter="none")


# Queries that are not valid


def test_queries_left_out_are_counted_and_named_by_reason() -> None:
    query = Features(np.eye(6)[:, :3] + 0.1, [5, 1, -1, 2, 2, 6], [1, 1, 1, 1, 2, 1])
    gallery = Features(np.eye(3), [1, 2, 3], [2, 1, 1])
    result = assert_as_reference(query, gallery)
    assert result.num_valid_queries == 2
    assert np.isnan(result.average_precisions).tolist() == [True, False, True, True, False, True]
    assert result.first_match_ranks[[0, 2, 3, 5]].tolist() == [0, 0, 0, 0]
    assert [note for note in result.notes if "left out" in note] == [
        "1 of 6 queries left out (row 2): identity is -1 (junk)",
        "2 of 6 queries left out (rows 0, 5): identity absent from the gallery",
        "1 of 6 queries left out (row 3): all positives are under the query's own camera",
    ]


def test_only_the_first_queries_left_out_are_named() -> None:
    query = Features(np.ones((9, 2)), [1, *range(10, 18)], np.zeros(9, int))
    result = evaluate_features(query, Features(np.ones((1, 2)), [1], [1]))
    assert result.notes[-1] == (
        "8 of 9 queries left out (rows 1, 2, 3, 4, 5, ...): identity absent from the gallery"
    )


def test_cameras_all_equal_leave_no_query_and_the_message_says_so() -> None:
    features = random_features(10, num_cameras=1, num_identities=2)
    with pytest.raises(DataError, match=r"no query is valid: 10 of 10 .*camera labels are all equal.*none"):
        evaluate_features(features, features)


def test_without_camera_labels_there_is_no_camera_filter() -> None:
    query, gallery = random_features(8, seed=21), random_features(40, seed=22)
    without = Features(query.embeddings, query.identities)
    result = assert_as_reference(without, gallery)
    assert "no camera labels (query): camera filter none is used instead of same_identity" in result.notes
    assert "camera filter none" in result.protocol
    expected = evaluate_features(query, gallery, camera_filter="none")
    assert result.average_precisions.tobytes() == expected.average_precisions.tobytes()


def test_an_item_does_not_find_itself() -> None:
    features = Features(np.eye(3), [1, 2, 3])
    with pytest.raises(DataError, match=r"3 of 3 queries left out .rows 0, 1, 2.: identity absent"):
        evaluate_features(features)


# Mistakes


@pytest.mark.parametrize("side", ["query", "gallery"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(side: str, value: float) -> None:
    parts = {"query": random_features(9, seed=1), "gallery": random_features(20, seed=2)}
    parts[side].embeddings[[2, 5], 1] = value
    with pytest.raises(DataError, match=rf"{side} embeddings hold NaN, infinity .* in 2 of .* \(rows 2, 5\)"):
        evaluate_features(parts["query"], parts["gallery"])


def test_different_dimensions() -> None:
    with pytest.raises(DataError, match="query embeddings have 4 dimensions, gallery embeddings 6"):
        evaluate_features(random_features(3, dim=4), random_features(3, dim=6))


@pytest.mark.parametrize(("num_query", "num_gallery", "name"), [(0, 5, "query"), (5, 0, "gallery")])
def test_an_empty_side(num_query: int, num_gallery: int, name: str) -> None:
    with pytest.raises(DataError, match=f"the {name} holds no embeddings"):
        evaluate_features(random_features(num_query), random_features(num_gallery))


def test_labels_that_could_never_be_equal() -> None:
    query = Features(np.eye(2), ["0001", "0002"])
    with pytest.raises(DataError, match=r"query identities are text \(0001, .* identities numbers \(1, "):
        evaluate_features(query, Features(np.eye(2), [1, 2]))


@pytest.mark.parametrize("written", [["1", "2"], [1.0, 2.0], ["1.0", "2"], [b"1", b"2"], [np.int8(1), 2.0]])
def test_a_number_is_one_identity_however_it_is_written(written: list[Any]) -> None:
    query, gallery = Features(np.eye(2), [1, 2]), Features(np.eye(2)[::-1], np.array(written, object))
    result = evaluate_features(query, gallery, camera_filter="none")
    assert result.first_match_ranks.tolist() == [2, 2]
    assert evaluate_features(gallery, query, camera_filter="none").metrics == result.metrics


def test_labels_that_are_neither_integers_nor_strings() -> None:
    with pytest.raises(DataError, match=r"query identities, row 1: 2\.5 is not a whole number"):
        evaluate_features(Features(np.eye(2), [1.0, 2.5]))
    with pytest.raises(DataError, match="query identities are of type bool; give integers or strings"):
        evaluate_features(Features(np.eye(2), [True, False]))
    with pytest.raises(DataError, match=r"query identities are missing in 1 of 2 rows \(first: 1\)"):
        evaluate_features(Features(np.eye(2), [1.0, np.nan]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "market1502"}, "unknown protocol 'market1502'; did you mean 'market1501'"),
        ({"camera_filter": "same_identities"}, "unknown camera filter .* did you mean 'same_identity'"),
        ({"distance": "l2"}, "unknown distance 'l2'; Known: cosine, l1"),
        ({"average_precision": "trapezium"}, "unknown average precision .* did you mean 'trapezoid'"),
    ],
)
def test_unknown_names(options: dict[str, str], message: str) -> None:
    with pytest.raises(UnknownName, match=message):
        evaluate_features(random_features(4), **options)


@pytest.mark.parametrize("option", ["max_rank", "block_size"])
def test_numbers_below_one(option: str) -> None:
    with pytest.raises(ConfigError, match=f"{option} is 0; give at least 1"):
        evaluate_features(random_features(4), **{option: 0})


def test_importing_evaluation_does_not_import_torch() -> None:
    code = "import sys, reidkit.evaluation, reidkit.analysis.roc; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


# Ranked lists


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("with_gallery", [True, False])
@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_ranked_lists(
    levels: int, camera_filter: str, with_gallery: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "_BLOCK_BYTES", block_bytes)
    query = random_features(25, seed=23, levels=levels)
    gallery = random_features(60, seed=24, levels=levels) if with_gallery else None
    (gallery or query).identities[:5] = -1
    ranking = rank_features(query, gallery, top=7, camera_filter=camera_filter)
    for q, ranked in enumerate(reference.ranked_lists(query, gallery, camera_filter=camera_filter)):
        scores, indices, matches = zip(*ranked[:7], strict=True)
        assert ranking.indices[q].tolist() == list(indices)
        assert ranking.matches[q].tolist() == list(matches)
        np.testing.assert_array_equal(ranking.scores[q], np.float32(scores))


def test_ranked_lists_longer_than_what_is_kept() -> None:
    query = Features(np.eye(2), [1, 2], [1, 1])
    gallery = Features(np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]), [1, 2, -1], [1, 2, 2])
    ranking = rank_features(query, gallery, top=3)
    assert ranking.indices.tolist() == [[1, -1, -1], [1, 0, -1]]
    assert ranking.matches.tolist() == [[False, False, False], [True, False, False]]
    np.testing.assert_array_equal(ranking.scores[0], np.float32([0.8, np.nan, np.nan]))


def test_ranked_lists_of_no_length() -> None:
    with pytest.raises(ConfigError, match="top is 0; give at least 1"):
        rank_features(random_features(4), top=0)


# Data sets and held-out parts


class StubEncoder:
    """Embeds samples by a table of random vectors, and counts its calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    def features(self, split: tuple[Sample, ...]) -> Features:
        self.num_calls += 1
        rng = np.random.default_rng(len(split))
        embeddings = rng.normal(size=(len(split), 5))
        return Features(embeddings, [s.identity for s in split], [s.camera for s in split])


def small_dataset(*, num_query: int = 6, num_cameras: int = 2, **options: Any) -> Dataset:
    def split(num: int, offset: int) -> tuple[Sample, ...]:
        return tuple(
            Sample(Path(f"{offset}/{i}.jpg"), i % 4, (i + offset) % num_cameras, i) for i in range(num)
        )

    return Dataset("small", Path("data"), query=split(num_query, 1), gallery=split(23, 0), **options)


def test_evaluate_a_data_set() -> None:
    data = small_dataset()
    encoder = StubEncoder()
    result = evaluate(encoder, data, average_precision="trapezoid", max_rank=5)
    expected = evaluate_features(
        encoder.features(data.query),
        encoder.features(data.gallery),
        average_precision="trapezoid",
        max_rank=5,
    )
    assert_same(result, expected)
    assert evaluate(encoder, data, camera_filter="other_cameras").protocol != result.protocol


def test_a_data_set_without_cameras_has_no_camera_filter() -> None:
    result = evaluate(StubEncoder(), small_dataset(num_cameras=1, has_cameras=False))
    assert "camera filter none" in result.protocol
    assert result.num_valid_queries == 6


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (small_dataset(num_query=0), {}, "'small' in data has no test part .0 query and 23 gallery images"),
        (small_dataset(protocol="recal"), {}, "unknown protocol 'recal'"),
        (small_dataset(), {"camera_filter": "all"}, "unknown camera filter 'all'"),
        (small_dataset(), {"max_rank": -1}, "max_rank is -1"),
    ],
)
def test_mistakes_are_found_before_any_image_is_encoded(data: Dataset, options: dict, message: str) -> None:
    encoder = StubEncoder()
    with pytest.raises((DataError, ConfigError), match=message):
        evaluate(encoder, data, **options)
    assert encoder.num_calls == 0


def test_validation_takes_the_first_of_each_identity_and_camera() -> None:
    identities, cameras = [4, 4, 4, -1, 2, 4, 2], [1, 1, 2, 3, 2, 2, 1]
    features = Features(np.eye(7), identities, cameras, indices=np.arange(7) * 10)
    query, gallery = validation_features(features)
    assert query.indices.tolist() == [0, 20, 40, 60]
    assert gallery is features
    assert evaluate_features(query, gallery).num_valid_queries == 4


@pytest.mark.parametrize("cameras", [None, [3] * 6])
def test_validation_without_cameras(cameras: list[int] | None) -> None:
    features = Features(np.eye(6), ["b", "a", "b", "-1", "a", "b"], cameras, tracklets=np.arange(6))
    query, gallery = validation_features(features)
    assert query.tracklets.tolist() == [0, 1]
    assert gallery.tracklets.tolist() == [2, 3, 4, 5]
    assert query.cameras is None
    assert evaluate_features(query, gallery).num_valid_queries == 2


def test_validation_of_nothing() -> None:
    with pytest.raises(DataError, match="holds no embeddings"):
        validation_features(random_features(0))


# Real labels


def test_market1501_labels(real_data: Path) -> None:
    from scipy.io import loadmat

    folder = real_data / "meta" / "market1501"
    if not folder.is_dir():
        pytest.skip(f"no Market-1501 labels at {folder}")

    def labels(file: str) -> np.ndarray:
        table = loadmat(folder / f"{file}.mat")
        return next(value for name, value in table.items() if not name.startswith("__")).ravel()

    rng = np.random.default_rng(0)
    query = Features(rng.normal(size=(3368, 8)), labels("queryID"), labels("queryCam"))
    gallery = Features(rng.normal(size=(19732, 8)), labels("testID"), labels("testCam"))
    result = evaluate_features(query, gallery)
    assert (result.num_queries, result.num_valid_queries, result.num_gallery) == (3368, 3368, 19732)
    assert any(note.startswith("3819 of 19732 gallery items have identity -1") for note in result.notes)
    assert not any("left out" in note for note in result.notes)
    assert_same(evaluate_features(query, gallery, block_size=5000), result)
