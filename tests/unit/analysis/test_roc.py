"""Distance distributions, error rates and intervals against loops over all kept pairs."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.analysis.calibration import fit_calibration
from reidkit.analysis.roc import DistanceCounter, Roc, RocCounter, distance_distributions, roc
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation import comparison
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.features import rows_of
from reidkit.types import Features
from tests import reference_evaluation as reference


def random_features(num: int, *, seed: int, spread: float = 0.8, num_identities: int = 6) -> Features:
    rng = np.random.default_rng(seed)
    identities = rng.integers(-1, num_identities, num)
    centres = np.random.default_rng(99).normal(size=(num_identities + 1, 8))
    embeddings = centres[identities] + spread * rng.normal(size=(num, 8))
    return Features(embeddings, identities, rng.integers(0, 3, num))


def kept_scores(
    query: Features, gallery: Features | None, camera_filter: str = "same_identity"
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all kept positive and negative pairs, from the slow reference."""
    lists = reference.ranked_lists(query, gallery, camera_filter=camera_filter)
    pairs = [
        (score, match)
        for identity, ranked in zip(query.identities, lists, strict=True)
        if identity != -1
        for score, _, match in ranked
    ]
    scores, matches = np.array([score for score, _ in pairs]), np.array([match for _, match in pairs])
    return scores[matches], scores[~matches]


@pytest.fixture(params=[1, 2**20], ids=["one item a block", "one block"])
def _block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_BLOCK_BYTES", request.param)


def test_only_pairs_of_a_query_and_its_own_gallery_count() -> None:
    query, gallery = random_features(12, seed=11), random_features(40, seed=12)
    galleries = [list(range(row, 40, 3)) for row in range(12)]
    scores = [
        kept_scores(rows_of(query, np.array([row])), rows_of(gallery, np.array(listed)))
        for row, listed in enumerate(galleries)
        if query.identities[row] != -1
    ]
    positive, negative = (np.concatenate(kind) for kind in zip(*scores, strict=True))
    sides = compare(query, gallery, gallery_rows=galleries)
    distances = distance_distributions(sides)
    assert (distances.num_positive, distances.num_negative) == (len(positive), len(negative))
    assert distances.mean_negative == pytest.approx(np.sqrt(2 - 2 * negative).mean())
    curve = roc(sides)
    assert curve.true_positive_rate_at(0.1) == pytest.approx((positive >= curve.threshold_at(0.1)).mean())
    fitted = fit_calibration(sides, num_resamples=2)
    assert (fitted.num_positive, fitted.num_negative) == (len(positive), len(negative))


# Distance distributions


@pytest.mark.usefixtures("_block_bytes")
@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("with_gallery", [True, False])
def test_distance_distributions(camera_filter: str, with_gallery: bool) -> None:
    query, gallery = random_features(40, seed=1), random_features(90, seed=2) if with_gallery else None
    result = distance_distributions(compare(query, gallery, camera_filter=camera_filter), num_bins=25)
    positive, negative = (np.sqrt(2 - 2 * scores) for scores in kept_scores(query, gallery, camera_filter))
    edges = np.linspace(0, 2, 26)
    np.testing.assert_allclose(result.edges, edges)
    np.testing.assert_array_equal(result.positive, np.histogram(positive, edges)[0])
    np.testing.assert_array_equal(result.negative, np.histogram(negative, edges)[0])
    assert (result.num_positive, result.num_negative) == (len(positive), len(negative))
    assert result.mean_positive == pytest.approx(positive.mean())
    assert result.mean_negative == pytest.approx(negative.mean())
    assert result.hardest_positive == pytest.approx(positive.max(), abs=1e-6)
    assert result.hardest_negative == pytest.approx(negative.min(), abs=1e-6)
    assert result.gap == result.hardest_negative - result.hardest_positive
    assert result.overlap == pytest.approx(
        sum(
            min(p / len(positive), n / len(negative))
            for p, n in zip(result.positive, result.negative, strict=True)
        )
    )


def test_distributions_apart_and_alike() -> None:
    apart = Features(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [1, 1, 2, 2], [1, 2, 1, 2])
    result = distance_distributions(compare(apart))
    assert result.overlap == 0
    assert (result.num_positive, result.num_negative) == (4, 8)
    assert result.hardest_positive == 0
    assert result.gap == pytest.approx(np.sqrt(2))
    alike = distance_distributions(compare(Features(np.ones((4, 3)), apart.identities, apart.cameras)))
    assert alike.overlap == 1
    assert alike.hardest_negative == alike.gap == 0


def test_opposite_vectors_count_in_the_last_bin() -> None:
    features = Features(np.array([[1.0, 0.1], [1.0, 0.1], [-1.0, -0.1]]), [1, 1, 2], [1, 2, 1])
    result = distance_distributions(compare(features), num_bins=4)
    assert result.positive.tolist() == [2, 0, 0, 0]
    assert result.negative.tolist() == [0, 0, 0, 4]


def test_distributions_print() -> None:
    features = Features(np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 3.0]]), [1, 1, 2])
    assert str(distance_distributions(compare(features))).splitlines() == [
        "positive: 2 pairs, mean distance 0.000, hardest 0.000",
        "negative: 4 pairs, mean distance 1.414, hardest 1.414",
        "overlap 0.0 %, gap 1.414",
        "note: query embeddings are not of unit length (3 to 3); they were normalised",
        "note: no camera labels (query): camera filter none is used instead of same_identity",
    ]


@pytest.mark.parametrize("measure", [distance_distributions, roc, fit_calibration])
def test_scores_that_are_no_cosines(measure: object) -> None:
    with pytest.raises(ConfigError, match="scores of distance = 'l1' are no cosines"):
        measure(compare(random_features(30, seed=1), distance="l1"))


def test_one_pass_serves_several_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_QUERIES_PER_TILE", 7)
    sides = compare(random_features(30, seed=3), random_features(90, seed=4))
    distances, curve = DistanceCounter(sides, num_bins=20), RocCounter(sides)
    sides.read_negatives(distances, curve)
    together, alone = distances.result(), distance_distributions(sides, num_bins=20)
    np.testing.assert_array_equal(together.negative, alone.negative)
    assert together.mean_negative == alone.mean_negative
    np.testing.assert_array_equal(curve.result().false_positive_rates, roc(sides).false_positive_rates)


def test_no_bins() -> None:
    with pytest.raises(ConfigError, match="num_bins is 0; give at least 1"):
        distance_distributions(compare(random_features(9, seed=1)), num_bins=0)


@pytest.mark.parametrize("measure", [distance_distributions, roc])
@pytest.mark.parametrize(("identities", "kind"), [([1, 2, 3], "positive"), ([1, 1, 1], "negative")])
def test_no_pair_of_a_kind(measure: object, identities: list[int], kind: str) -> None:
    features = Features(np.eye(3), identities, [1, 2, 3])
    with pytest.raises(DataError, match=f"the protocol keeps no {kind} pair; "):
        measure(compare(features))


# ROC


@pytest.mark.usefixtures("_block_bytes")
@pytest.mark.parametrize("camera_filter", ["same_identity", "other_cameras", "none"])
@pytest.mark.parametrize("with_gallery", [True, False])
def test_roc(camera_filter: str, with_gallery: bool) -> None:
    query, gallery = random_features(40, seed=3), random_features(90, seed=4) if with_gallery else None
    result = roc(compare(query, gallery, camera_filter=camera_filter))
    positive, negative = kept_scores(query, gallery, camera_filter)
    assert (result.num_positive, result.num_negative) == (len(positive), len(negative))
    assert result.thresholds.shape == result.true_positive_rates.shape == (20_001,)
    for place in range(0, 20_001, 97):
        threshold = result.thresholds[place]
        assert result.true_positive_rates[place] == pytest.approx((positive >= threshold).mean())
        assert result.false_positive_rates[place] == pytest.approx((negative >= threshold).mean())
    assert (result.false_positive_rates[-1], result.true_positive_rates[-1]) == (1, 1)


def test_threshold_at_a_false_positive_rate() -> None:
    query, gallery = random_features(60, seed=5), random_features(200, seed=6)
    result = roc(compare(query, gallery))
    positive, negative = kept_scores(query, gallery)
    for rate in (0.0, 1e-3, 1e-2, 0.1, 0.5):
        threshold = result.threshold_at(rate)
        assert (negative >= threshold).mean() <= rate < (negative >= threshold - 1e-4).mean()
        assert result.true_positive_rate_at(rate) == pytest.approx((positive >= threshold).mean())
    assert result.threshold_at(1) == -1


def test_equal_error_rate() -> None:
    query, gallery = random_features(60, seed=5), random_features(200, seed=6)
    positive, negative = kept_scores(query, gallery)
    rates = [
        ((negative >= threshold).mean(), (positive < threshold).mean())
        for threshold in np.sort(np.concatenate([positive, negative]))
    ]
    accepted, rejected = min(rates, key=lambda pair: abs(pair[0] - pair[1]))
    assert roc(compare(query, gallery)).equal_error_rate == pytest.approx((accepted + rejected) / 2, abs=0.01)


def test_equal_error_rate_by_hand() -> None:
    curve = Roc(
        thresholds=np.array([np.inf, 0.5, 0.0, -1.0]),
        false_positive_rates=np.array([0.0, 0.1, 0.3, 1.0]),
        true_positive_rates=np.array([0.0, 0.7, 0.9, 1.0]),
        num_positive=10,
        num_negative=10,
    )
    # Accepted less rejected is -0.2 at 0.5 and 0.2 at 0.0: half-way between.
    assert curve.equal_error_rate == pytest.approx(0.2)
    assert curve.threshold_at(0.29) == 0.5
    assert curve.true_positive_rate_at(0.3) == 0.9


def test_separable_pairs_have_no_error() -> None:
    features = Features(
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), [1, 1, 2, 2], [1, 2, 1, 2]
    )
    result = roc(compare(features))
    assert result.equal_error_rate == 0
    assert result.true_positive_rate_at(0) == 1
    assert result.threshold_at(0) == pytest.approx(1e-4)  # the first threshold above the negatives' 0


def test_a_negative_copy_is_accepted_at_every_finite_threshold() -> None:
    features = Features(np.ones((4, 2)), [1, 1, 2, 2], [1, 2, 1, 2])
    result = roc(compare(features))
    assert result.threshold_at(0.5) == np.inf
    assert result.true_positive_rate_at(0.5) == 0
    assert result.equal_error_rate == pytest.approx(0.5)


def test_roc_prints() -> None:
    lines = str(roc(compare(random_features(60, seed=5), random_features(200, seed=6)))).splitlines()
    assert "positive and" in lines[0]
    assert [line.split()[0] for line in lines[2:6]] == ["1e-01", "1e-02", "1e-03", "1e-04"]


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_false_positive_rate_that_is_no_share(rate: float) -> None:
    with pytest.raises(ConfigError, match=f"false positive rate is {rate}; give a share from 0 to 1"):
        roc(compare(random_features(30, seed=7))).threshold_at(rate)
