"""Single gallery shot, recall, tracklets and galleries of the queries' own, against slow references."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.evaluation.evaluation import evaluate, evaluate_features
from reidkit.evaluation.features import (
    EmbeddedImages,
    distinct_images,
    evenly_spaced_frames,
    frames_by_tracklet,
    label_features,
    pool_tracklets,
    with_frames,
)
from reidkit.evaluation.nearest import rank_features
from reidkit.types import Dataset, Evaluation, Features, Sample
from tests import reference_evaluation as reference


def random_features(
    num: int, *, num_identities: int = 6, num_cameras: int = 2, seed: int = 0, levels: int = 0
) -> Features:
    """``levels`` rounds the embeddings so that many scores are equal."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(num, 5))
    if levels:
        embeddings = np.round(embeddings * levels) + 0.0
    return Features(embeddings, rng.integers(0, num_identities, num), rng.integers(1, num_cameras + 1, num))


def assert_same(result: Evaluation, expected: dict[str, Any]) -> None:
    assert result.num_valid_queries == expected["num_valid_queries"]
    np.testing.assert_array_equal(result.first_match_ranks, expected["first_match_ranks"])
    for name in ("average_precisions", "inverse_negative_penalties", "cmc"):
        np.testing.assert_allclose(getattr(result, name), expected[name], rtol=1e-12, err_msg=name)
    assert result.mean_average_precision == pytest.approx(np.nanmean(expected["average_precisions"]))
    assert result.mean_inverse_negative_penalty == pytest.approx(
        np.nanmean(expected["inverse_negative_penalties"])
    )


LABELS = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=12)


def labelled(labels: list[tuple[int, int]], random: Any, **more: Any) -> Features:
    embeddings = [[random.choice([-1.0, 0.0, 1.0, 2.0]) for _ in range(3)] for _ in labels]
    return Features(np.array(embeddings), *np.array(labels).T, **more)


# One gallery image an identity


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("average_precision", ["step", "trapezoid"])
def test_single_gallery_shot(camera_filter: str, levels: int, average_precision: str) -> None:
    query, gallery = random_features(20, seed=1, levels=levels), random_features(70, seed=2, levels=levels)
    gallery.identities[:4] = -1
    options = {"camera_filter": camera_filter, "average_precision": average_precision}
    result = evaluate_features(query, gallery, protocol="single_gallery_shot", block_size=4, **options)
    assert_same(result, reference.evaluate_single_gallery_shot(query, gallery, **options))
    assert result.protocol.startswith("single_gallery_shot (mean of 10 draws), camera filter")


@settings(max_examples=60, deadline=None)
@given(LABELS, st.none() | LABELS, st.randoms(use_true_random=False))
def test_single_gallery_shot_of_any_labels(query_labels: list, gallery_labels: Any, random: Any) -> None:
    query = labelled(query_labels, random)
    gallery = None if gallery_labels is None else labelled(gallery_labels, random)
    for camera_filter in ("same_identity", "other_cameras", "none"):
        options = {"camera_filter": camera_filter, "max_rank": 3}
        expected = reference.evaluate_single_gallery_shot(query, gallery, **options)
        if expected["num_valid_queries"]:
            result = evaluate_features(query, gallery, protocol="single_gallery_shot", **options)
            assert_same(result, expected)
        else:
            with pytest.raises(DataError, match="no query is valid"):
                evaluate_features(query, gallery, protocol="single_gallery_shot", **options)


def test_draws_are_fair_and_the_same_each_time() -> None:
    """Person 1 has a near and a far image, person 2 stands between: rank 1 in half of the draws."""
    query = Features(np.array([[1.0, 0.0]] * 40), [1] * 40, [1] * 40)
    angles = np.array([0.1, 1.0, 0.5])
    gallery = Features(np.stack([np.cos(angles), np.sin(angles)], axis=1), [1, 1, 2], [2, 2, 2])
    result = evaluate_features(query, gallery, protocol="single_gallery_shot")
    assert len({*result.average_precisions}) == 1, "a draw holds for all queries"
    assert 0.2 <= result.cmc[0] <= 0.8
    again = evaluate_features(query, gallery, protocol="single_gallery_shot")
    assert again.cmc.tobytes() == result.cmc.tobytes()


def test_without_a_choice_one_draw_is_all_and_the_market_rule_gives_the_same() -> None:
    cameras, identities = [1] * 9 + [2] * 9, [*range(9)] * 2
    both = Features(np.random.default_rng(0).normal(size=(18, 4)), identities, cameras)
    result = evaluate_features(both, both, protocol="single_gallery_shot")
    expected = evaluate_features(both, both, camera_filter="other_cameras")
    assert result.protocol == "single_gallery_shot, camera filter other_cameras, cosine distance"
    assert result.average_precisions.tobytes() == expected.average_precisions.tobytes()
    assert result.cmc.tobytes() == expected.cmc.tobytes()


# Recall


@pytest.mark.parametrize("levels", [0, 1])
@pytest.mark.parametrize("distance", ["cosine", "l1"])
def test_recall(levels: int, distance: str) -> None:
    features = random_features(60, seed=3, levels=levels)
    result = evaluate_features(features, protocol="recall", distance=distance, max_rank=8)
    expected = reference.evaluate(
        features, camera_filter="none", average_precision="at R", distance=distance, max_rank=8
    )
    assert_same(result, expected)
    assert "at R AP" in str(result)
    shown = str(result).splitlines()
    assert shown[1].split() == ["Recall@1", "Recall@2", "Recall@4", "Recall@8", "mAP@R"]
    assert shown[2].split()[0] == f"{100 * expected['cmc'][0]:.1f}"
    assert result.as_dict()["Recall@4"] == pytest.approx(expected["cmc"][3])
    assert not {"rank-1", "mAP", "mINP"} & {*result.as_dict()}


def test_map_at_r_by_hand() -> None:
    """Matches at ranks 1, 3 and 5 of three: (1/1 + 2/3) / 3, since rank 5 is beyond R."""
    angles = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    features = Features(np.stack([np.cos(angles), np.sin(angles)], axis=1), [1, 1, 2, 1, 3, 1])
    result = evaluate_features(features, protocol="recall")
    assert result.average_precisions[0] == pytest.approx((1 + 2 / 3) / 3)
    assert np.isnan(result.average_precisions[[2, 4]]).all()
    assert result.num_valid_queries == 4


@settings(max_examples=60, deadline=None)
@given(LABELS, st.randoms(use_true_random=False))
def test_recall_of_any_labels(labels: list, random: Any) -> None:
    features = labelled(labels, random)
    expected = reference.evaluate(features, camera_filter="none", average_precision="at R")
    if expected["num_valid_queries"]:
        assert_same(evaluate_features(features, protocol="recall"), expected)
    else:
        with pytest.raises(DataError, match="no query is valid"):
            evaluate_features(features, protocol="recall")


# Tracklets


@pytest.mark.parametrize("levels", [0, 1])
def test_tracklets(levels: int) -> None:
    rng = np.random.default_rng(4)

    def tracklets(num: int, seed: int) -> Features:
        """Of 1 to 5 frames each, mixed up."""
        labels = random_features(num, seed=seed)
        owner = rng.permutation(np.repeat(np.arange(num), rng.integers(1, 6, num)))
        frames = random_features(len(owner), seed=seed + 1, levels=levels).embeddings
        return Features(frames, labels.identities[owner], labels.cameras[owner], tracklets=100 + owner)

    query, gallery = tracklets(15, 5), tracklets(50, 7)
    result = evaluate_features(query, gallery, protocol="tracklets")
    pooled = [
        Features(np.array(embeddings), identities, cameras)
        for embeddings, identities, cameras in map(reference.pooled_tracklets, (query, gallery))
    ]
    assert_same(result, reference.evaluate(*pooled))
    assert (result.num_queries, result.num_gallery) == (15, 50)
    num_frames = len(query) + len(gallery)
    assert result.protocol.startswith(f"tracklets ({num_frames} frames averaged), camera filter same_id")
    assert [note.split(" (")[0] for note in result.notes[:2]] == [
        f"{side} embeddings are not of unit length" for side in ("query", "gallery")
    ]


def test_pooled_tracklets_are_of_unit_length_in_the_order_of_their_first_frames() -> None:
    frames = np.array([[2.0, 0.0], [0.0, 3.0], [0.0, 5.0], [-4.0, 0.0]])
    features = Features(frames, [7, 8, 7, 9], [1, 2, 1, 1], indices=np.arange(4), tracklets=[5, 2, 5, 3])
    pooled = pool_tracklets(features)
    np.testing.assert_allclose(pooled.embeddings, [[np.sqrt(0.5)] * 2, [0, 1], [-1, 0]], atol=1e-7)
    assert pooled.identities.tolist() == [7, 8, 9]
    assert (pooled.tracklets.tolist(), pooled.indices.tolist()) == ([5, 2, 3], [0, 1, 3])


def test_the_order_of_frames_changes_no_bit() -> None:
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(500, 16))
    forward = pool_tracklets(Features(frames, [1] * 500, tracklets=[3] * 500))
    backward = pool_tracklets(Features(frames[::-1], [1] * 500, tracklets=[3] * 500))
    assert forward.embeddings.tobytes() == backward.embeddings.tobytes()


def test_opposite_frames_leave_a_tracklet_without_direction_and_it_is_named() -> None:
    query = Features(np.array([[1.0, 0.0], [-1.0, 0.0]]), [1, 1], [1, 1], tracklets=[1, 1])
    gallery = Features(np.eye(2), [1, 2], [2, 2], tracklets=[2, 3])
    result = evaluate_features(query, gallery, protocol="tracklets")
    assert "1 query embeddings are all zeros (row 0); their cosine is 0" in result.notes


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (Features(np.eye(2), [1, 1]), "the query features say of no frame to which tracklet"),
        (
            Features(np.eye(3), [1, 1, 2], tracklets=[4, 4, 4]),
            "tracklet 4 of the query has .* two identities",
        ),
        (Features(np.eye(2), [1, 1], [1, 2], tracklets=[4, 4]), "frames of two cameras .row 1 is the first"),
        (Features(np.eye(2) * np.nan, [1, 1], tracklets=[1, 1]), "query embeddings hold NaN"),
        (Features(np.empty((0, 2)), np.empty(0, int), tracklets=np.empty(0, int)), "holds no embeddings"),
    ],
)
def test_frames_that_make_no_tracklet(features: Features, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate_features(features, protocol="tracklets")


def frame(tracklet: int | None, number: int, index: int, name: str = "") -> Sample:
    return Sample(Path(name or f"{index}.jpg"), 1, 1, index, tracklet=tracklet, frame=number)


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(1, [3]), (2, [1, 5]), (3, [1, 3, 5]), (6, [0, 1, 2, 4, 5, 6]), (9, [*range(7)])],
)
def test_evenly_spaced_frames(num_frames: int, expected: list[int]) -> None:
    split = (*(frame(1, number, number) for number in range(7)), frame(2, 0, 7))
    kept = evenly_spaced_frames(split, num_frames)
    assert [sample.frame for sample in kept if sample.tracklet == 1] == expected
    assert [sample.tracklet for sample in kept].count(2) == 1
    assert [sample.index for sample in kept] == [*range(len(kept))]


def test_frames_by_tracklet_names_an_image_of_no_tracklet() -> None:
    split = (frame(3, 9, 0), frame(1, 0, 1), frame(3, 2, 2))
    assert {t: [s.frame for s in frames] for t, frames in frames_by_tracklet(split).items()} == {
        3: [2, 9],
        1: [0],
    }
    with pytest.raises(DataError, match=r"odd\.jpg belongs to no tracklet"):
        frames_by_tracklet((frame(None, 0, 0, "odd.jpg"),))


# Galleries of the queries' own


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("block_size", [3, None])
def test_galleries_of_the_queries_own(camera_filter: str, block_size: int | None) -> None:
    query, gallery = random_features(20, seed=8), random_features(60, seed=9, levels=1)
    gallery.identities[:3] = -1
    rng = np.random.default_rng(10)
    galleries = [np.sort(rng.permutation(60)[: rng.integers(0, 40)]).tolist() for _ in range(20)]
    options = {"camera_filter": camera_filter, "galleries": galleries}
    result = evaluate_features(query, gallery, block_size=block_size, **options)
    assert_same(result, reference.evaluate(query, gallery, **options))
    assert result.protocol.endswith("each query in a gallery of its own")
    ranking = rank_features(query, gallery, top=4, **options)
    for q, ranked in enumerate(reference.ranked_lists(query, gallery, **options)):
        indices = [g for _, g, _ in ranked[:4]]
        assert ranking.indices[q].tolist() == indices + [-1] * (4 - len(indices))


def test_a_query_whose_identity_is_in_other_galleries_only_is_named() -> None:
    query, gallery = Features(np.eye(2), [1, 2]), Features(np.eye(2), [1, 2])
    result = evaluate_features(query, gallery, galleries=[[0, 1], [0]])
    assert result.num_valid_queries == 1
    assert "1 of 2 queries left out (row 1): identity absent from the gallery" in result.notes


@pytest.mark.parametrize(
    ("galleries", "message"),
    [
        ([[0]], "there are 1 galleries for 2 queries"),
        ([[0], [1, 2]], "the gallery of query 1 holds rows 1 to 2; the gallery has rows 0 to 1"),
        ([[-1], [0]], "the gallery of query 0 holds rows -1 to -1"),
    ],
)
def test_galleries_that_do_not_fit(galleries: list[list[int]], message: str) -> None:
    features = Features(np.eye(2), [1, 2])
    with pytest.raises(DataError, match=message):
        evaluate_features(features, features, galleries=galleries)


# Options that do not go together, and usual camera filters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "recall"}, "protocol = 'recall' with a gallery of 4 items"),
        ({"protocol": "recall", "average_precision": "trapezoid"}, "recall measures mAP@R"),
        ({"protocol": "tracklets", "galleries": [[0]] * 4}, "not with 'tracklets'"),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    features = random_features(4)
    with pytest.raises(ConfigError, match=message):
        evaluate_features(features, features, **options)


def test_galleries_need_a_gallery() -> None:
    with pytest.raises(ConfigError, match="not with 'market1501' without one"):
        evaluate_features(random_features(4), galleries=[[0]] * 4)


@pytest.mark.parametrize(
    ("protocol", "camera_filter"),
    [("market1501", "same_identity"), ("single_gallery_shot", "other_cameras"), ("recall", "none")],
)
def test_the_usual_camera_filter(protocol: str, camera_filter: str) -> None:
    result = evaluate_features(random_features(30), protocol=protocol)
    assert f"camera filter {camera_filter}" in result.protocol


# Data sets


class ByPath:
    """Embeds a sample by its path alone."""

    def features(self, split: tuple[Sample, ...]) -> Features:
        embeddings = [np.random.default_rng([*str(sample.path).encode()]).normal(size=4) for sample in split]
        return label_features(np.array(embeddings), split)


def split_of(name: str, num: int, *, tracklet_length: int = 0) -> tuple[Sample, ...]:
    return tuple(
        Sample(
            Path(f"{name}{i}.jpg"), 1 + i // 4 % 3, 1 + i // 2 % 2, i,
            tracklet=i // tracklet_length if tracklet_length else None, frame=i,
        )
        for i in range(num)
    )  # fmt: skip


def test_evaluate_takes_protocol_filter_galleries_and_split_from_the_data_set() -> None:
    query, gallery = split_of("q", 8), split_of("g", 24)
    galleries = tuple(tuple(range(start, 24)) for start in range(8))
    data = Dataset(
        "x", Path("root"), query=query, gallery=gallery, galleries=galleries, camera_filter="none",
        split_name="split 3 of 0..9", num_splits=10,
    )  # fmt: skip
    result = evaluate(ByPath(), data)
    expected = evaluate_features(
        ByPath().features(query), ByPath().features(gallery), camera_filter="none", galleries=galleries
    )
    assert result.average_precisions.tobytes() == expected.average_precisions.tobytes()
    assert result.protocol == f"{expected.protocol}, split 3 of 0..9"


def test_evaluate_a_set_without_a_gallery() -> None:
    data = Dataset("birds", Path("root"), query=split_of("q", 12), protocol="recall", camera_filter="none")
    expected = evaluate_features(ByPath().features(data.query), protocol="recall")
    assert evaluate(ByPath(), data).as_dict() == expected.as_dict()
    with pytest.raises(DataError, match="no test part"):
        evaluate(ByPath(), replace(data, protocol="market1501"))


def test_evaluate_with_few_frames_of_each_tracklet() -> None:
    data = Dataset(
        "video", Path("root"), protocol="tracklets", query=split_of("q", 8, tracklet_length=2),
        gallery=split_of("g", 24, tracklet_length=2),
    )  # fmt: skip
    result = evaluate(ByPath(), data, num_frames=1)
    assert "tracklets (16 frames averaged)" in result.protocol
    assert (result.num_queries, result.num_gallery) == (4, 12)
    thinned = with_frames(data, 1)
    expected = evaluate_features(ByPath().features(thinned.query), ByPath().features(thinned.gallery))
    np.testing.assert_allclose(result.average_precisions, expected.average_precisions)
    assert "tracklets (32 frames averaged)" in evaluate(ByPath(), data).protocol


@pytest.mark.parametrize(
    ("protocol", "num_frames", "message"),
    [("tracklets", 0, "num_frames is 0"), ("market1501", 4, "'x' is measured by the protocol 'market1501'")],
)
def test_numbers_of_frames_that_make_no_sense(protocol: str, num_frames: int, message: str) -> None:
    data = Dataset("x", Path("root"), protocol=protocol, query=split_of("q", 4), gallery=split_of("g", 4))
    with pytest.raises(ConfigError, match=message):
        evaluate(ByPath(), data, num_frames=num_frames)


def test_an_unknown_protocol_is_told_before_its_camera_filter() -> None:
    with pytest.raises(UnknownName, match="did you mean 'tracklets'"):
        evaluate_features(random_features(4), protocol="tracklet")


def test_images_are_embedded_once_and_answer_for_every_split() -> None:
    first, second = split_of("a", 4), split_of("a", 6)
    boxed = (replace(first[0], box=(0, 0, 2, 2), identity=9),)
    images = distinct_images([first, second, boxed])
    assert len(images) == 7
    source = EmbeddedImages(images, np.arange(14.0).reshape(7, 2))
    np.testing.assert_array_equal(source.features(second).embeddings, np.arange(12.0).reshape(6, 2))
    assert source.features(boxed).embeddings.tolist() == [[12.0, 13.0]]
    assert source.features(boxed).identities.tolist() == [9]
