"""Re-ranked and learned distances under every protocol, against dense references and full sorts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.evaluation.evaluation import check_evaluation, evaluate, evaluate_features, images_to_encode
from reidkit.evaluation.features import EmbeddedImages, distinct_images, label_features, pool_tracklets
from reidkit.evaluation.metric_learning import XQDA, LearnedMetric, fit_metric
from reidkit.evaluation.split_average import evaluate_splits
from reidkit.reranking import RerankOptions
from reidkit.types import Dataset, Evaluation, Features, Sample
from tests import reference_evaluation as reference
from tests.unit.test_reranking import dense_rerank

Array = NDArray[np.floating[Any]]
OPTIONS = RerankOptions(k1=6, k2=3, lambda_value=0.3)
RERANKED = ", re-ranked (k1=6, k2=3, lambda=0.3)"


def people(num: int, *, seed: int, num_identities: int = 7, noise: float = 0.9, **more: Any) -> Features:
    """Unit embeddings around a centre for each identity."""
    rng = np.random.default_rng(seed)
    identities = rng.integers(0, num_identities, num)
    embeddings = np.random.default_rng(99).normal(size=(num_identities, 8))[identities]
    embeddings += noise * rng.normal(size=(num, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Features(embeddings.astype(np.float32), identities, rng.integers(1, 4, num), **more)


def unit(features: Features) -> Array:
    return np.array(reference.unit_rows(features.embeddings))


def euclidean(query: Array, gallery: Array) -> Array:
    return ((query[:, None].astype(float) - gallery[None]) ** 2).sum(axis=2)


def reranked(query: Array, gallery: Array) -> Array:
    return dense_rerank(query, gallery, k1=OPTIONS.k1, k2=OPTIONS.k2, lambda_value=OPTIONS.lambda_value)


def sorted_lists(
    query: Features, gallery: Features | None, distances: Array, camera_filter: str, galleries: Any = None
) -> list[list[tuple[float, int, bool]]]:
    """The reference's lists, from a whole matrix of distances (Q, G)."""
    items = query if gallery is None else gallery
    return [
        sorted(
            (float(distances[q, g]), g, bool(query.identities[q] == items.identities[g]))
            for g in range(len(items))
            if reference.is_kept(query, q, gallery, g, camera_filter)
            and (galleries is None or g in galleries[q])
        )
        for q in range(len(query))
    ]


def average_precisions(lists: Any, score: Callable[[list[bool]], float]) -> list[float]:
    matches = [[match for _, _, match in ranked] for ranked in lists]
    return [score(row) if any(row) else np.nan for row in matches]


def assert_ranked_by(
    result: Evaluation, lists: Any, score: Callable[[list[bool]], float] = reference.step_average_precision
) -> None:
    np.testing.assert_allclose(result.average_precisions, average_precisions(lists, score), rtol=1e-12)
    firsts = [next((r for r, (_, _, m) in enumerate(ranked, 1) if m), 0) for ranked in lists]
    np.testing.assert_array_equal(result.first_match_ranks, firsts)
    assert result.num_valid_queries == np.count_nonzero(firsts)


def with_junk(features: Features) -> Features:
    features.identities[[2, 7]] = -1
    return features


# Re-ranking


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("average_precision", ["step", "trapezoid"])
def test_reranked_market_rule(camera_filter: str, average_precision: str) -> None:
    """Junk is in no neighbourhood: the reference does not know it, and gives it any distance."""
    query, gallery = with_junk(people(20, seed=1)), with_junk(people(70, seed=2))
    persons, items = query.identities >= 0, gallery.identities >= 0
    distances = np.full((20, 70), np.nan)
    distances[np.ix_(persons, items)] = reranked(unit(query)[persons], unit(gallery)[items])
    lists = sorted_lists(query, gallery, distances, camera_filter)
    lists = [ranked if person else [] for ranked, person in zip(lists, persons, strict=True)]
    result = evaluate_features(
        query, gallery, camera_filter=camera_filter, average_precision=average_precision, rerank=OPTIONS
    )
    assert_ranked_by(result, lists, getattr(reference, f"{average_precision}_average_precision"))
    assert result.protocol == f"market1501, camera filter {camera_filter}, cosine distance{RERANKED}"


@pytest.mark.parametrize("protocol", ["recall", "market1501"])
def test_reranked_without_a_gallery(protocol: str) -> None:
    features = people(60, seed=3)
    distances = reranked_among(unit(features))
    result = evaluate_features(features, protocol=protocol, camera_filter="none", rerank=OPTIONS)
    score = reference.average_precision_at_r if protocol == "recall" else reference.step_average_precision
    assert_ranked_by(result, sorted_lists(features, None, distances, "none"), score)


def reranked_among(items: Array) -> Array:
    """Distances (N, N), each item once: the dense reference wants two sides, so all query by turns."""
    distances = np.zeros((len(items), len(items)))
    for i in range(len(items)):
        others = np.delete(np.arange(len(items)), i)
        distances[i, others] = reranked(items[[i]], items[others])[0]
    return distances


def test_reranked_tracklets() -> None:
    query = people(24, seed=4, tracklets=np.arange(24) // 2)
    gallery = people(90, seed=5, tracklets=np.arange(90) // 3)
    for features in (query, gallery):
        for labels in (features.identities, features.cameras):
            labels[:] = labels[np.searchsorted(features.tracklets, features.tracklets)]
    result = evaluate_features(query, gallery, protocol="tracklets", rerank=OPTIONS)
    pooled = pool_tracklets(query), pool_tracklets(gallery)
    distances = reranked(*(unit(side) for side in pooled))
    assert_ranked_by(result, sorted_lists(*pooled, distances, "same_identity"))
    assert "114 frames averaged" in result.protocol


def test_reranked_galleries_of_the_queries_own() -> None:
    """A query's neighbourhoods know its own gallery only, and no other query."""
    query, gallery = people(12, seed=6), with_junk(people(60, seed=7))
    rng = np.random.default_rng(0)
    galleries = [np.sort(rng.permutation(60)[: rng.integers(8, 40)]).tolist() for _ in range(12)]
    distances = np.full((12, 60), np.nan)
    for q, listed in enumerate(galleries):
        persons = [g for g in listed if gallery.identities[g] >= 0]
        distances[q, persons] = reranked(unit(query)[[q]], unit(gallery)[persons])[0]
    result = evaluate_features(query, gallery, galleries=galleries, rerank=OPTIONS)
    assert_ranked_by(result, sorted_lists(query, gallery, distances, "same_identity", galleries))


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
def test_reranked_single_gallery_shot(camera_filter: str) -> None:
    """Each draw is re-ranked by itself, for the queries that share its gallery."""
    query, gallery = people(18, seed=8), with_junk(people(60, seed=9))
    result = evaluate_features(
        query, gallery, protocol="single_gallery_shot", camera_filter=camera_filter, rerank=OPTIONS
    )
    kept = sorted_lists(query, gallery, np.zeros((18, 60)), camera_filter)
    draws = []
    for draw in range(10):
        met = [
            {g for _, g, _ in reference.one_of_each_identity(ranked, gallery.identities, draw)}
            for ranked in kept
        ]
        cameras = query.cameras if camera_filter == "other_cameras" else np.zeros(18)
        lists: list[Any] = [None] * 18
        for camera in np.unique(cameras):
            group = np.flatnonzero(cameras == camera)
            pool = sorted(set().union(*(met[q] for q in group)))
            distances = np.full((18, 60), np.nan)
            distances[np.ix_(group, pool)] = reranked(unit(query)[group], unit(gallery)[pool])
            for q in group:
                lists[q] = sorted(
                    (distances[q, g], g, query.identities[q] == gallery.identities[g]) for g in met[q]
                )
        draws.append(average_precisions(lists, reference.step_average_precision))
    np.testing.assert_allclose(result.average_precisions, np.mean(draws, axis=0), rtol=1e-12)
    assert "(mean of 10 draws)" in result.protocol


@pytest.mark.parametrize("block_size", [1, 7, 333])
@pytest.mark.parametrize("options", [{"rerank": True}, {"metric": "xqda"}])
def test_block_size_changes_no_bit(block_size: int, options: dict[str, Any]) -> None:
    query, gallery = people(40, seed=10), people(150, seed=11)
    gallery.embeddings[5:30] = gallery.embeddings[5]
    if "metric" in options:
        options = {"metric": fit_metric("xqda", people(300, seed=12))}
    expected = evaluate_features(query, gallery, **options)
    result = evaluate_features(query, gallery, block_size=block_size, **options)
    for name in ("cmc", "average_precisions", "first_match_ranks", "inverse_negative_penalties"):
        assert getattr(result, name).tobytes() == getattr(expected, name).tobytes()


def test_equal_distances_fall_to_gallery_order() -> None:
    query = Features(np.array([[1.0, 0.0]]), [1], [1])
    gallery = Features(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), [3, 2, 1, 2], [2] * 4)
    for options in (
        {"rerank": RerankOptions(k1=2, k2=1)},
        {"metric": LearnedMetric("X", np.zeros(2), np.eye(2))},
    ):
        assert evaluate_features(query, gallery, **options).first_match_ranks.tolist() == [2]


def test_harm_is_told_with_both_numbers() -> None:
    """One true match for each query, as in VIPeR: the neighbourhood is other people."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(80, 6))
    query, gallery = (
        Features(centres + 0.5 * rng.normal(size=centres.shape), np.arange(80), [camera] * 80)
        for camera in (1, 2)
    )
    plain, result = evaluate_features(query, gallery), evaluate_features(query, gallery, rerank=True)
    assert result.mean_average_precision < plain.mean_average_precision
    before, after = 100 * plain.mean_average_precision, 100 * result.mean_average_precision
    assert any(f"mAP {before:.1f} to {after:.1f}" in note and "harm" in note for note in result.notes)


def test_gain_is_not_called_harm() -> None:
    query, gallery = people(60, seed=13, noise=1.1), people(400, seed=14, noise=1.1)
    plain, result = evaluate_features(query, gallery), evaluate_features(query, gallery, rerank=True)
    assert result.mean_average_precision > plain.mean_average_precision
    assert result.rank(1) >= plain.rank(1)
    assert not any("harm" in note for note in result.notes)


def test_no_reranking_is_what_it_was() -> None:
    query, gallery = people(20, seed=1), people(70, seed=2)
    for rerank in (None, False):
        assert (
            evaluate_features(query, gallery, rerank=rerank).as_dict()
            == evaluate_features(query, gallery).as_dict()
        )


# Learned metrics


@pytest.fixture(scope="module")
def metric() -> LearnedMetric:
    return XQDA().fit(people(400, seed=20))


def projected(metric: LearnedMetric, features: Features) -> Array:
    return metric.transform(features.embeddings)


@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_learned_metric(metric: LearnedMetric, camera_filter: str, scale: float) -> None:
    """Of embeddings as they stand: scaled ones are other points, and no note says they were normalised."""
    query, gallery = with_junk(people(20, seed=21)), with_junk(people(70, seed=22))
    query, gallery = (replace(side, embeddings=scale * side.embeddings) for side in (query, gallery))
    result = evaluate_features(query, gallery, camera_filter=camera_filter, metric=metric)
    distances = euclidean(projected(metric, query), projected(metric, gallery))
    assert_ranked_by(result, sorted_lists(query, gallery, distances, camera_filter))
    assert result.protocol == f"market1501, camera filter {camera_filter}, XQDA distance"
    assert not any("normalised" in note for note in result.notes)


def test_learned_metric_under_the_other_protocols(metric: LearnedMetric) -> None:
    query, gallery = people(20, seed=23), people(70, seed=24)
    among = euclidean(projected(metric, query), projected(metric, query))
    recall = evaluate_features(query, protocol="recall", metric=metric)
    assert_ranked_by(recall, sorted_lists(query, None, among, "none"), reference.average_precision_at_r)
    across = euclidean(projected(metric, query), projected(metric, gallery))
    galleries = [list(range(q, 70, 2)) for q in range(20)]
    own = evaluate_features(query, gallery, galleries=galleries, metric=metric)
    assert_ranked_by(own, sorted_lists(query, gallery, across, "same_identity", galleries))
    for items, distances in ((gallery, across), (None, among)):
        shot = evaluate_features(query, items, protocol="single_gallery_shot", metric=metric)
        lists = sorted_lists(query, items, distances, "other_cameras")
        labels = (items or query).identities
        draws = [
            average_precisions(
                [reference.one_of_each_identity(ranked, labels, draw) for ranked in lists],
                reference.step_average_precision,
            )
            for draw in range(10)
        ]
        np.testing.assert_allclose(shot.average_precisions, np.mean(draws, axis=0), rtol=1e-12)


def test_a_learned_metric_can_be_reranked(metric: LearnedMetric) -> None:
    query, gallery = people(20, seed=25), people(70, seed=26)
    result = evaluate_features(query, gallery, metric=metric, rerank=OPTIONS)
    distances = reranked(projected(metric, query), projected(metric, gallery))
    assert_ranked_by(result, sorted_lists(query, gallery, distances, "same_identity"))
    assert result.protocol.endswith(f"XQDA distance{RERANKED}")


def test_a_metric_of_other_dimensions(metric: LearnedMetric) -> None:
    with pytest.raises(DataError, match="have 3 dimensions, XQDA was fitted on 8"):
        evaluate_features(Features(np.eye(3), [1, 1, 1]), metric=metric)


def test_metrics_by_name() -> None:
    features = people(300, seed=20)
    assert (fit_metric("kissme", features).name, fit_metric("xqda", features).name) == ("KISSME", "XQDA")
    with pytest.raises(UnknownName, match="unknown metric 'xdqa'; did you mean 'xqda'"):
        fit_metric("xdqa", features)


# What does not go together


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rerank": True, "distance": "l1"}, "rerank with distance = 'l1': .* leave one of the two out"),
        ({"metric": XQDA().fit(people(400, seed=20)), "distance": "l1"}, "are two distances"),
        ({"metric": "xqda"}, r"'xqda' is not fitted; give fit_metric\('xqda', features of"),
        (
            {"rerank": True, "protocol": "single_gallery_shot"},
            "images that are not drawn would be neighbours",
        ),
    ],
)
def test_options_that_do_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_features(people(9, seed=1), **options)


# Data sets


class ByPath:
    """Embeds a sample by its path and identity; remembers which images it was given."""

    def __init__(self) -> None:
        self.seen: list[Path] = []

    def features(self, split: tuple[Sample, ...]) -> Features:
        self.seen += [sample.path for sample in split]
        rows = []
        for sample in split:
            noise = np.random.default_rng([*str(sample.path).encode()]).normal(size=6)
            rows.append(np.random.default_rng(sample.identity).normal(size=6) + noise)
        return label_features(np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True), split)


def part(name: str, num: int, *, first_identity: int = 1) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"{name}{i}.jpg"), first_identity + i // 4 % 6, 1 + i // 2 % 2, i) for i in range(num)
    )


def small(number: int = 0) -> Dataset:
    return Dataset(
        "small", Path("root"), train=part(f"t{number}", 48, first_identity=50), query=part(f"q{number}", 24),
        gallery=part(f"g{number}", 72), split_name=f"split {number}", num_splits=2,
    )  # fmt: skip


def test_a_metric_by_name_is_fitted_on_the_training_images() -> None:
    data, encoder = small(), ByPath()
    result = evaluate(encoder, data, metric="xqda", rerank=OPTIONS)
    expected = evaluate_features(
        encoder.features(data.query),
        encoder.features(data.gallery),
        metric=fit_metric("xqda", encoder.features(data.train)),
        rerank=OPTIONS,
    )
    assert result.average_precisions.tobytes() == expected.average_precisions.tobytes()
    assert result.protocol == f"{expected.protocol}, split 0"


def test_a_metric_for_tracklets_is_fitted_on_pooled_tracklets() -> None:
    data = replace(
        small(),
        protocol="tracklets",
        **{
            name: tuple(replace(sample, tracklet=sample.index // 2) for sample in getattr(small(), name))
            for name in ("train", "query", "gallery")
        },
    )
    encoder = ByPath()
    result = evaluate(encoder, data, metric="xqda", num_frames=1)
    assert len(encoder.seen) == (48 + 24 + 72) / 2
    thinned = {name: split[1::2] for name, split in data.splits.items()}
    expected = evaluate_features(
        encoder.features(thinned["query"]),
        encoder.features(thinned["gallery"]),
        metric=fit_metric("xqda", encoder.features(thinned["train"])),
    )
    np.testing.assert_allclose(result.average_precisions, expected.average_precisions, rtol=1e-9)


def test_splits_each_fit_their_own_metric_and_encode_an_image_once() -> None:
    splits, encoder = [small(0), small(1)], ByPath()
    average = evaluate_splits(encoder, splits, metric="kissme", rerank=OPTIONS)
    assert len(encoder.seen) == len(set(encoder.seen)) == 2 * (48 + 24 + 72)
    for data, evaluation in zip(splits, average.evaluations, strict=True):
        alone = evaluate(ByPath(), data, metric="kissme", rerank=OPTIONS)
        assert evaluation.average_precisions.tobytes() == alone.average_precisions.tobytes()
    assert average.protocol.endswith(f"KISSME distance{RERANKED}")


def test_images_to_encode_are_all_that_evaluate_asks_for() -> None:
    data = replace(small(), multi_query=part("m", 90))
    options = {"metric": "xqda", "multi_query": "mean"}
    images = distinct_images(images_to_encode(data, **options))
    embedded = EmbeddedImages(images, ByPath().features(images).embeddings)
    result = evaluate(embedded, data, **options)
    assert result.as_dict() == evaluate(ByPath(), data, **options).as_dict()
    assert not images_to_encode(data)[2]


@pytest.mark.parametrize(
    ("changes", "options", "error", "message"),
    [
        ({}, {"metric": "xdqa"}, UnknownName, "did you mean 'xqda'"),
        ({"train": ()}, {"metric": "xqda"}, DataError, "fitted on training images, .* has none"),
        ({}, {"rerank": True, "distance": "l1"}, ConfigError, "rerank with distance"),
        ({}, {"distance": "l3"}, UnknownName, "unknown distance 'l3'"),
    ],
)
def test_mistakes_are_found_before_any_image_is_encoded(
    changes: dict[str, Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    data, encoder = replace(small(), **changes), ByPath()
    for find in (
        lambda: evaluate(encoder, data, **options),
        lambda: check_evaluation(data, **options),
        lambda: evaluate_splits(encoder, [data, data], **options),
    ):
        with pytest.raises(error, match=message):
            find()
    assert not encoder.seen
