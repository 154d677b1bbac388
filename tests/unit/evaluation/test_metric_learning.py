"""KISSME, XQDA and HER: covariances against loops, metrics against their formulas, and what they are for."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.metric_learning import HER, KISSME, XQDA
from reidkit.evaluation.pair_covariances import pair_covariances
from reidkit.types import Features

Array = NDArray[np.float64]


def people(num_identities: int, *, per_camera: int = 3, nuisance: float = 6.0, seed: int = 0) -> Features:
    """Persons differ in 10 of 24 directions; 4 others vary much more, from image to image and by camera."""
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(num_identities), 2 * per_camera)
    cameras = np.tile(np.repeat([1, 2], per_camera), num_identities)
    embeddings = 0.6 * rng.normal(size=(len(identities), 24))
    embeddings[:, :10] += rng.normal(size=(num_identities, 10))[identities]
    embeddings[:, 10:14] += nuisance * (rng.normal(size=(len(identities), 4)) + cameras[:, None] - 1.5)
    mixing = np.linalg.qr(np.random.default_rng(7).normal(size=(24, 24)))[0]
    embeddings = embeddings @ mixing
    return Features(embeddings.astype(np.float32), identities, cameras)


def halves(features: Features) -> tuple[Features, Features]:
    """Camera 1 asks, camera 2 is searched."""
    first = features.cameras == 1
    return tuple(
        Features(features.embeddings[chosen], features.identities[chosen]) for chosen in (first, ~first)
    )


def covariance_of_pairs(features: Features, *, similar: bool) -> Array:
    total, num = np.zeros((features.embeddings.shape[1],) * 2), 0
    for i, j in combinations(range(len(features)), 2):
        if features.identities[i] in (-1, "-1") or features.identities[j] in (-1, "-1"):
            continue
        if features.cameras is not None and features.cameras[i] == features.cameras[j]:
            continue
        if (features.identities[i] == features.identities[j]) == similar:
            difference = features.embeddings[i].astype(float) - features.embeddings[j]
            total, num = total + np.outer(difference, difference), num + 1
    return total / num


def some_features(*, cameras: bool, strings: bool = False) -> Features:
    rng = np.random.default_rng(3)
    identities = rng.integers(-1, 6, 60)
    labels = rng.integers(1, 4, 60) if cameras else None
    embeddings = 100 + rng.normal(size=(60, 5))
    return Features(embeddings, identities.astype(str) if strings else identities, labels)


@pytest.mark.parametrize("cameras", [True, False])
@pytest.mark.parametrize("strings", [True, False])
def test_covariances_are_those_of_all_pairs(cameras: bool, strings: bool) -> None:
    features = some_features(cameras=cameras, strings=strings)
    pairs = pair_covariances(features)
    np.testing.assert_allclose(
        pairs.similar, covariance_of_pairs(features, similar=True), rtol=1e-9, atol=1e-10
    )
    np.testing.assert_allclose(
        pairs.dissimilar, covariance_of_pairs(features, similar=False), rtol=1e-9, atol=1e-10
    )


def matrix_of(metric) -> Array:
    return metric.projection @ metric.projection.T


def test_kissme_is_its_formula() -> None:
    """In all dimensions PCA changes nothing: the positive part of S^-1 - D^-1."""
    features = people(30)
    similar, dissimilar = (covariance_of_pairs(features, similar=kind) for kind in (True, False))
    values, vectors = np.linalg.eigh(np.linalg.inv(similar) - np.linalg.inv(dissimilar))
    expected = vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
    assert (values < 0).any()  # there is something to cut off
    np.testing.assert_allclose(matrix_of(KISSME(dim=24).fit(features)), expected, atol=1e-6)


def test_kissme_keeps_the_largest_components() -> None:
    features = people(30)
    metric = KISSME(dim=4).fit(features)
    centred = features.embeddings.astype(float) - features.embeddings.astype(float).mean(axis=0)
    components = np.linalg.svd(centred)[2][:4].T
    outside = metric.projection - components @ (components.T @ metric.projection)
    assert np.abs(outside).max() < 1e-9
    assert metric.dim <= 4


def test_xqda_is_its_formula() -> None:
    """As the paper writes it: directions first, then inverses of both projected covariances."""
    features = people(30)
    similar = covariance_of_pairs(features, similar=True) + 0.0003 * np.eye(24)
    dissimilar = covariance_of_pairs(features, similar=False)
    values, vectors = np.linalg.eig(np.linalg.inv(similar) @ dissimilar)
    chosen = vectors.real[:, values.real > 1]
    inverses = [np.linalg.inv(chosen.T @ matrix @ chosen) for matrix in (similar, dissimilar)]
    expected = chosen @ (inverses[0] - inverses[1]) @ chosen.T
    np.testing.assert_allclose(matrix_of(XQDA().fit(features)), expected, atol=1e-6)


@pytest.mark.parametrize("method", [KISSME(dim=3), XQDA()], ids=["kissme", "xqda"])
def test_more_dimensions_than_images_are_reduced_to_those_in_which_images_lie(method) -> None:
    """The same people in 3,000 dimensions, of which their images span few."""
    narrow = people(12)
    rng = np.random.default_rng(1)
    directions = np.linalg.qr(rng.normal(size=(3000, narrow.embeddings.shape[1])))[0].T
    wide = Features(narrow.embeddings @ directions, narrow.identities, narrow.cameras)
    pairs = pair_covariances(wide)
    assert pairs.similar.shape == (len(wide.embeddings),) * 2
    found, expected = method.fit(wide), method.fit(narrow)
    assert found.projection.shape == (3000, expected.dim)
    np.testing.assert_allclose(
        found.distances(wide.embeddings, wide.embeddings),
        expected.distances(narrow.embeddings, narrow.embeddings),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("method", [KISSME(dim=24), XQDA(), XQDA(dim=3)])
def test_transform_makes_the_metric_euclidean(method) -> None:
    metric = method.fit(people(30))
    query, gallery = (side.embeddings for side in halves(people(5, seed=1)))
    distances = metric.distances(query, gallery)
    projected = metric.transform(query)[:, None] - metric.transform(gallery)
    assert distances.shape == (len(query), len(gallery))
    assert metric.transform(query).shape == (len(query), metric.dim)
    np.testing.assert_allclose(distances, (projected**2).sum(axis=2), rtol=1e-4, atol=1e-4)
    for i, j in ((0, 0), (3, 7)):
        difference = query[i].astype(float) - gallery[j]
        np.testing.assert_allclose(distances[i, j], difference @ matrix_of(metric) @ difference, rtol=1e-5)


def mean_average_precision(distances: Array, query: Features, gallery: Features) -> float:
    precisions = []
    for identity, row in zip(query.identities, distances, strict=True):
        matches = gallery.identities[np.argsort(row, kind="stable")] == identity
        precisions.append((np.cumsum(matches) / np.arange(1, len(row) + 1))[matches].mean())
    return float(np.mean(precisions))


@pytest.mark.parametrize("method", [KISSME(), KISSME(dim=24), XQDA()])
def test_a_direction_that_drowns_the_others_is_discounted(method) -> None:
    metric = method.fit(people(60))
    query, gallery = halves(people(40, seed=5))  # other persons, the same nuisance
    plain = ((query.embeddings[:, None] - gallery.embeddings) ** 2).sum(axis=2)
    before = mean_average_precision(plain, query, gallery)
    learned = mean_average_precision(metric.distances(query.embeddings, gallery.embeddings), query, gallery)
    assert before < 0.3
    assert learned > before + 0.3
    by_cosine = evaluate_features(
        *(Features(metric.transform(side.embeddings), side.identities) for side in (query, gallery)),
        camera_filter="none",
    )
    assert by_cosine.mean_average_precision > before + 0.3


# --- few samples, and input that cannot be used --------------------------------------------------------


def test_few_samples() -> None:
    """12 images in 24 dimensions: XQDA's regularization carries it, KISSME keeps what the pairs span."""
    features = people(3, per_camera=2)
    for method in (KISSME(), KISSME(dim=5), XQDA()):
        metric = method.fit(features)
        assert np.isfinite(metric.transform(features.embeddings)).all()
    with pytest.raises(
        DataError, match="similar pairs vary in 9 of the 20 dimensions that KISSME was to keep"
    ):
        KISSME(dim=20).fit(features)
    with pytest.raises(DataError, match="vary in 9 of 24 dimensions and regularization is 0"):
        XQDA(regularization=0).fit(features)


def test_labels_without_pairs() -> None:
    features = people(4)
    embeddings = features.embeddings
    with pytest.raises(DataError, match=r"no similar pair to learn from; give images of one identity$"):
        XQDA().fit(Features(embeddings, np.arange(len(embeddings))))
    with pytest.raises(DataError, match=r"no dissimilar pair to learn from; give images of two identities$"):
        XQDA().fit(Features(embeddings, np.ones(len(embeddings), int)))
    with pytest.raises(DataError, match=r"no similar pair .* under two cameras"):
        KISSME().fit(Features(embeddings, features.identities, np.ones(len(embeddings), int)))
    with pytest.raises(DataError, match="no embedding of a person"):
        KISSME().fit(Features(embeddings, np.full(len(embeddings), -1)))


@pytest.mark.parametrize("method", [KISSME(), XQDA()])
def test_identities_that_do_not_differ(method) -> None:
    """Every pair of one identity lies further apart than any of two."""
    embeddings = np.array([[-1.0, 0.1], [1.0, 0.0], [-1.1, 0.0], [1.1, 0.1]])
    with pytest.raises(DataError, match="no direction in which two persons differ"):
        method.fit(Features(0.05 * embeddings, np.array([1, 1, 2, 2])))


def test_embeddings_that_cannot_be_used() -> None:
    features = people(30)
    metric = XQDA().fit(features)
    with pytest.raises(DataError, match="gallery embeddings have 3 dimensions, XQDA was fitted on 24"):
        metric.distances(features.embeddings, features.embeddings[:, :3])
    with pytest.raises(DataError, match=r"embeddings have shape \(24,\)"):
        metric.transform(features.embeddings[0])
    broken = features.embeddings.copy()
    broken[[2, 9], 0] = np.nan
    with pytest.raises(DataError, match=r"in 2 of 180 rows \(rows 2, 9\)"):
        metric.transform(broken)
    with pytest.raises(DataError, match="NaN or infinity in 2 of 180 rows"):
        KISSME().fit(Features(broken, features.identities))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KISSME(dim=0), "dim is 0"),
        (lambda: XQDA(dim=2.5), "dim is 2.5"),
        (lambda: XQDA(regularization=-1), "regularization is -1"),
    ],
)
def test_options_out_of_range(build, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()


def test_her_is_its_formula() -> None:
    """Against loops: a Gaussian kernel, ridge regression onto one point a person."""
    features = people(6, per_camera=2)
    values, count = features.embeddings.astype(float), len(features)
    squared = np.array([[np.square(a - b).sum() for b in values] for a in values])
    kernel = np.exp(-squared / squared[np.triu_indices(count, 1)].mean())
    points = np.array([[float(i == person) / 2 for person in range(6)] for i in features.identities])
    weights = np.linalg.inv(kernel + 0.5 * np.eye(count)) @ points
    mapped = kernel @ weights
    expected = np.array([[np.square(a - b).sum() for b in mapped] for a in mapped])
    metric = HER(regularization=0.5).fit(features)
    np.testing.assert_allclose(metric.distances(values, values), expected, rtol=1e-4, atol=1e-6)


def test_her_tells_new_people_apart() -> None:
    learned, tested = people(60), halves(people(40, seed=1))
    without = evaluate_features(*tested, camera_filter="none").rank(1)
    metric = HER().fit(learned)
    assert evaluate_features(*tested, camera_filter="none", metric=metric).rank(1) > without + 0.1


def test_her_refuses_what_it_cannot_learn_from() -> None:
    with pytest.raises(ConfigError, match="regularization is 0"):
        HER(regularization=0)
    with pytest.raises(DataError, match="here is 1"):
        HER().fit(Features(np.eye(3, dtype=np.float32), np.zeros(3, np.int64)))
    with pytest.raises(DataError, match="all embeddings are the same"):
        HER().fit(Features(np.ones((4, 2), np.float32), np.arange(4)))
