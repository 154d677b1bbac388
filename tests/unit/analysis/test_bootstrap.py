import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import intervals as simulation
from reidkit.analysis.bootstrap import OneIdentity, bootstrap_interval, paired_difference, share_interval
from reidkit.analysis.variances import identity_variances
from reidkit.errors import ConfigError, DataError
from reidkit.types import Features


def test_one_seed_gives_the_interval_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    first = rng.uniform(size=(1, 2000))
    second = first + rng.normal(0.01, 0.1, size=first.shape)
    got = paired_difference(first, second)
    error = (second - first).std(ddof=1) / np.sqrt(2000)
    assert got.difference == pytest.approx((second - first).mean())
    low, high = got.interval
    assert low == pytest.approx(got.difference - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(got.difference + 1.96 * error, abs=0.1 * error)
    assert (got.num_seeds, got.num_queries) == (1, 2000)


def test_p_is_small_for_a_clear_difference_and_large_for_none():
    rng = np.random.default_rng(2)
    first = rng.uniform(size=(3, 100))
    better = first + rng.uniform(0, 0.1, size=first.shape)
    assert paired_difference(first, better).p_value < 0.001
    assert paired_difference(better, first).difference < 0
    assert paired_difference(first, first).p_value == 1.0


def test_about_one_in_twenty_p_values_is_below_005_where_nothing_differs():
    rng = np.random.default_rng(3)
    p_values = [paired_difference(*rng.uniform(size=(2, 1, 100))).p_value for _ in range(200)]
    assert 2 <= sum(p < 0.05 for p in p_values) <= 20


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(4)
    first = rng.uniform(size=(4, 500))
    same = paired_difference(first, first + 0.02 + rng.normal(0, 0.01, size=first.shape))
    spread = paired_difference(first, first + np.array([[-0.1], [0.14], [-0.1], [0.14]]))
    assert np.diff(spread.interval) > 10 * np.diff(same.interval)


@given(st.integers(0, 2**16), st.integers(2, 30))
@settings(max_examples=20, deadline=None)
def test_exchanging_the_runs_turns_the_difference_round(seed, num):
    first, second = np.random.default_rng(seed).random((2, num))
    there = paired_difference(first, second)
    back = paired_difference(second, first)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.p_value == back.p_value


def test_invalid_queries_are_left_out_and_must_be_the_same():
    first = np.array([[0.5, np.nan, 0.2]])
    got = paired_difference(first, first + 0.1)
    assert got.num_queries == 2
    assert got.difference == pytest.approx(0.1)
    with pytest.raises(DataError, match=r"1 queries are valid in some runs only \(row 1\)"):
        paired_difference(first, np.array([[0.5, 0.1, 0.2]]))


@pytest.mark.parametrize(
    ("first", "second", "options", "error", "message"),
    [
        (np.ones((1, 3)), np.ones((1, 4)), {}, DataError, r"\(1, 3\) and \(1, 4\)"),
        (np.ones(2), np.ones(1), {}, DataError, r"\(1, 2\) and \(1, 1\)"),
        (np.ones(2), np.zeros(2), {"identities": ["a", "a"]}, OneIdentity, "one identity asks alone"),
        (np.ones((1, 1, 3)), np.ones((1, 1, 3)), {}, DataError, "seeds, queries"),
        (np.array([]), np.array([]), {}, DataError, "no valid query"),
        (np.ones(3), np.ones(3), {"identities": [1, 2]}, DataError, "2 identities for values"),
        (np.full((1, 3), np.nan), np.full((1, 3), np.nan), {}, DataError, "no valid query"),
        (np.ones((1, 3)), np.ones((1, 3)), {"confidence": 95}, ConfigError, "confidence is 95"),
    ],
)
def test_arrays_that_are_not_paired_are_refused(first, second, options, error, message):
    with pytest.raises(error, match=message):
        paired_difference(first, second, **options)


def test_bootstrap_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)
    narrow = bootstrap_interval(values, confidence=0.5)
    assert low < narrow[0] < values.mean() < narrow[1] < high


def test_bootstrap_interval_covers_the_true_mean() -> None:
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.random(60) ** 2, num_resamples=200, seed=i) for i in range(200)]
    covered = sum(low <= 1 / 3 <= high for low, high in intervals)
    assert 0.89 * 200 <= covered <= 0.99 * 200


def test_bootstrap_leaves_out_queries_that_are_not_valid() -> None:
    values = np.array([0.2, np.nan, 0.9, 0.4, np.nan])
    assert bootstrap_interval(values) == bootstrap_interval(values[[0, 2, 3]])


def test_bootstrap_follows_its_seed() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_bootstrap_of_nothing(values: list[float]) -> None:
    with pytest.raises(DataError, match="no valid query to draw from"):
        bootstrap_interval(np.array(values))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 95}, "confidence is 95; give a share between 0 and 1"),
        ({"confidence": 0.0}, r"confidence is 0\.0"),
        ({"num_resamples": 0}, "num_resamples is 0; give at least 1"),
    ],
)
def test_bootstrap_options(options: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bootstrap_interval(np.ones(3), **options)


def test_one_identity_gives_no_interval() -> None:
    with pytest.raises(OneIdentity, match="one identity asks alone"):
        bootstrap_interval([0.2, 0.4], identities=[7, 7])
    assert share_interval([0.2, np.nan], identities=[7, 8]) is None
    assert bootstrap_interval([0.25, 0.25]) == (0.25, 0.25)


def test_intervals_of_shares_end_at_0_and_1() -> None:
    assert share_interval([1, 1, 1, 0.2], identities=list("abcd"))[1] == 1.0
    assert share_interval([0, 0, 0, 0.9], identities=list("abcd"))[0] == 0.0


def test_a_bootstrap_draws_all_queries_of_an_identity_together() -> None:
    """The same as one value an identity, where all ask equally often; queries drawn singly claim more."""
    values = np.random.default_rng(0).random(40)
    identities = np.repeat(np.arange(40), 6)
    together = bootstrap_interval(np.repeat(values, 6), identities=identities)
    assert together == pytest.approx(bootstrap_interval(values))
    alone = bootstrap_interval(np.repeat(values, 6))
    assert np.diff(together) == pytest.approx(np.sqrt(6) * np.diff(alone), rel=0.1)


def test_a_resample_is_that_of_a_loop() -> None:
    """One resample: how many standard errors of its own its mean lies from the sample's."""
    values, identities = np.array([0.1, 0.5, 0.9, 0.4, 0.2]), np.array([3, 3, 8, 8, 9])
    sizes, sums = np.array([2, 2, 1]), np.array([0.6, 1.3, 0.2])

    def error(sums: np.ndarray, sizes: np.ndarray) -> float:
        rest = sums - sums.sum() / sizes.sum() * sizes
        return float(np.sqrt((rest**2).sum() * 3 / 2) / sizes.sum())

    drawn = np.random.default_rng(5).integers(3, size=3)
    assert len(set(drawn.tolist())) > 1
    shift = sums[drawn].sum() / sizes[drawn].sum() - values.mean()
    whole = error(sums, sizes)
    reach = abs(shift) / max(error(sums[drawn], sizes[drawn]), whole / 3) * whole
    got = bootstrap_interval(values, identities=identities, num_resamples=1, seed=5)
    assert got == pytest.approx((values.mean() - reach, values.mean() + reach))


def test_a_paired_difference_with_one_seed_is_a_cluster_robust_t_test() -> None:
    """Where all identities ask equally often, it is the t test of their means."""
    first, second = np.random.default_rng(0).random((2, 60))
    identities = np.repeat(np.arange(12), 5)
    got = paired_difference(first, second, identities=identities)
    means = (second - first).reshape(12, 5).mean(axis=1)
    expected = stats.ttest_1samp(means, 0)
    assert got.p_value == pytest.approx(expected.pvalue)
    assert got.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert (got.num_identities, got.num_queries) == (12, 60)


@pytest.mark.parametrize("effect", [0.0, 0.5])
def test_simulated_intervals_and_tests_hold_what_they_promise(effect: float) -> None:
    """A small run of benchmarks/intervals.py; two standard deviations of 400 repetitions are 2.2 points."""
    score = simulation.SCORES[0]
    covered = simulation.coverage(score, 50, effect, 400, clustered=True)
    assert 0.925 <= covered <= 0.975
    rejected = simulation.rejection(1, 50, effect, 0.0, 400, clustered=True)
    assert 0.025 <= rejected <= 0.075
    if effect:  # what the identities are for
        assert simulation.coverage(score, 50, effect, 400, clustered=False) < 0.85
        assert simulation.rejection(1, 50, effect, 0.0, 400, clustered=False) > 0.15


def test_variances_are_those_of_a_loop_and_add_up_to_the_whole():
    rng = np.random.default_rng(5)
    embeddings = rng.normal(size=(40, 6))
    identities = rng.integers(-1, 5, size=40)
    query = Features(embeddings[:15].astype(np.float32), identities[:15])
    gallery = Features(embeddings[15:].astype(np.float32), identities[15:])
    got = identity_variances(query, gallery)
    unit = [
        e / np.linalg.norm(e) for e, identity in zip(embeddings, identities, strict=True) if identity >= 0
    ]
    labels = [identity for identity in identities if identity >= 0]
    centre = sum(unit) / len(unit)
    intra = inter = 0.0
    for point, label in zip(unit, labels, strict=True):
        own = [other for other, it in zip(unit, labels, strict=True) if it == label]
        mean = sum(own) / len(own)
        intra += sum((point - mean) ** 2) / len(unit)
        inter += sum((mean - centre) ** 2) / len(unit)
    assert got.intra == pytest.approx(intra, rel=1e-5)
    assert got.inter == pytest.approx(inter, rel=1e-5)
    assert got.intra + got.inter == pytest.approx(np.var(unit, axis=0).sum(), rel=1e-5)


def test_variances_of_nothing_are_refused():
    with pytest.raises(DataError, match="every item is junk"):
        identity_variances(Features(np.ones((2, 3), np.float32), np.array([-1, -1])))
