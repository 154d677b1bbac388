import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError, DataError
from reidkit.significance import _resampled_means, paired_bootstrap
from reidkit.types import Features
from reidkit.variances import identity_variances


def test_resampled_means_are_those_of_a_loop_over_the_drawn_seeds_and_queries():
    rng = np.random.default_rng(0)
    differences = rng.normal(size=(3, 7))
    seeds, queries = rng.integers(3, size=(5, 3)), rng.integers(7, size=(5, 7))
    expected = [
        sum(differences[seed, query] for seed in seeds[r] for query in queries[r]) / 21 for r in range(5)
    ]
    seed_counts = np.stack([np.bincount(draw, minlength=3) for draw in seeds])
    query_counts = np.stack([np.bincount(draw, minlength=7) for draw in queries])
    np.testing.assert_allclose(_resampled_means(differences, seed_counts, query_counts), expected, atol=1e-12)


def test_one_seed_gives_the_interval_of_the_normal_approximation():
    rng = np.random.default_rng(1)
    first = rng.uniform(size=(1, 2000))
    second = first + rng.normal(0.01, 0.1, size=first.shape)
    got = paired_bootstrap(first, second)
    error = (second - first).std(ddof=1) / np.sqrt(2000)
    assert got.difference == pytest.approx((second - first).mean())
    low, high = got.interval
    assert low == pytest.approx(got.difference - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(got.difference + 1.96 * error, abs=0.1 * error)
    assert (got.num_seeds, got.num_queries) == (1, 2000)


def test_p_is_small_for_a_clear_difference_and_never_0_and_large_for_none():
    rng = np.random.default_rng(2)
    first = rng.uniform(size=(3, 100))
    better = first + rng.uniform(0, 0.1, size=first.shape)
    assert paired_bootstrap(first, better).p_value == pytest.approx(2 / 10_001)
    assert paired_bootstrap(better, first).difference < 0
    assert paired_bootstrap(first, first).p_value == 1.0


def test_about_one_in_twenty_p_values_is_below_005_where_nothing_differs():
    rng = np.random.default_rng(3)
    p_values = [
        paired_bootstrap(*rng.uniform(size=(2, 1, 100)), num_resamples=400).p_value for _ in range(200)
    ]
    assert 2 <= sum(p < 0.05 for p in p_values) <= 20


def test_seeds_that_disagree_widen_the_interval():
    rng = np.random.default_rng(4)
    first = rng.uniform(size=(4, 500))
    same = paired_bootstrap(first, first + 0.02 + rng.normal(0, 0.01, size=first.shape))
    spread = paired_bootstrap(first, first + np.array([[-0.1], [0.14], [-0.1], [0.14]]))
    assert np.diff(spread.interval) > 10 * np.diff(same.interval)


@given(st.integers(0, 2**16), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_exchanging_the_runs_turns_the_difference_round(seed, num):
    first, second = np.random.default_rng(seed).random((2, num))
    there = paired_bootstrap(first, second, num_resamples=50)
    back = paired_bootstrap(second, first, num_resamples=50)
    assert there.difference == pytest.approx(-back.difference)
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert there.p_value == back.p_value


def test_invalid_queries_are_left_out_and_must_be_the_same():
    first = np.array([[0.5, np.nan, 0.2]])
    got = paired_bootstrap(first, first + 0.1)
    assert got.num_queries == 2
    assert got.difference == pytest.approx(0.1)
    with pytest.raises(DataError, match=r"1 queries are valid in some runs only \(row 1\)"):
        paired_bootstrap(first, np.array([[0.5, 0.1, 0.2]]))


@pytest.mark.parametrize(
    ("first", "second", "options", "error", "message"),
    [
        (np.ones((1, 3)), np.ones((1, 4)), {}, DataError, r"\(1, 3\) and \(1, 4\)"),
        (np.ones(2), np.ones(1), {}, DataError, r"\(1, 2\) and \(1, 1\)"),
        (np.ones((1, 1, 3)), np.ones((1, 1, 3)), {}, DataError, "seeds, queries"),
        (np.array([]), np.array([]), {}, DataError, "no valid query"),
        (np.ones(3), np.ones(3), {"num_resamples": 0}, ConfigError, "num_resamples 0"),
        (np.full((1, 3), np.nan), np.full((1, 3), np.nan), {}, DataError, "no valid query"),
        (np.ones((1, 3)), np.ones((1, 3)), {"confidence": 95}, ConfigError, "confidence is 95"),
    ],
)
def test_arrays_that_are_not_paired_are_refused(first, second, options, error, message):
    with pytest.raises(error, match=message):
        paired_bootstrap(first, second, **options)


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
