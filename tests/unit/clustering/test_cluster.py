"""Clustering: constraints hold whatever happens, average linkage equals a loop, few items and bad input."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import pair_confusion_matrix, v_measure_score

from reidkit.clustering import ClusterOptions, Constraints, agreement, cluster
from reidkit.errors import ConfigError, DataError, MissingExtra
from reidkit.reranking import jaccard_nearness, rerank

SMALL = {"k1": 5, "k2": 2}


def people(num, each, *, noise=0.3, dim=16, seed=0):
    """Embeddings of people around their own directions, in mixed order, and who each shows."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(num), each))
    vectors = rng.normal(size=(num, dim))[truth] + noise * rng.normal(size=(num * each, dim))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), truth


@pytest.mark.parametrize("method", ["agglomerative", "dbscan"])
def test_people_who_differ_are_found(method):
    embeddings, truth = people(12, 8)
    found = cluster(embeddings, ClusterOptions(method=method, k1=8, farthest=0.6))
    assert agreement(truth, found).pairwise_f1 == 1
    assert found[0] == 0
    first = np.unique(found, return_index=True)[1]
    assert np.all(np.diff(first) > 0)


def test_nearness_is_that_of_reranking():
    embeddings, _ = people(6, 5)
    nearness = jaccard_nearness(embeddings, k1=6, k2=3, least=0.1).toarray()
    [distances] = rerank(embeddings[:1], embeddings[1:], k1=6, k2=3, lambda_value=0)
    assert np.array_equal(nearness, nearness.T)
    assert not nearness.diagonal().any()
    np.testing.assert_allclose(nearness[0, 1:], np.where(distances <= 0.9, 1 - distances, 0), atol=1e-6)


def average_linkage(nearness, least, allowed):
    """The nearest two clusters at a time, each mean summed up anew."""
    clusters = [[place] for place in range(len(nearness))]
    while True:
        best = None
        for one in range(len(clusters)):
            for other in range(one + 1, len(clusters)):
                mean = nearness[np.ix_(clusters[one], clusters[other])].mean()
                if mean >= least and allowed(clusters[one] + clusters[other]):
                    best = max(best or (0, 0, 0), (mean, one, other))
        if best is None:
            return clusters
        clusters[best[1]] += clusters.pop(best[2])


@pytest.mark.parametrize("seed", range(5))
def test_average_linkage_equals_a_loop(seed):
    embeddings, _ = people(5, 6, noise=0.9, seed=seed)
    rng = np.random.default_rng(seed)
    pairs = rng.choice(30, (6, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    apart = {frozenset(pair) for pair in pairs.tolist()}

    def allowed(members):
        return not any(pair <= set(members) for pair in apart)

    nearness = jaccard_nearness(embeddings, **SMALL, least=0.05).toarray().astype(np.float64)
    expected = average_linkage(nearness, 0.25 - 1e-6, allowed)
    found = cluster(embeddings, ClusterOptions(**SMALL), constraints=Constraints(cannot_link=pairs))
    assert {frozenset(c) for c in expected} == {
        frozenset(np.flatnonzero(found == c).tolist()) for c in range(found.max() + 1)
    }


def contradict(num, tracklets, identities, pairs):
    """Whether what must be together has two identities, or is told apart."""
    group = list(range(num))
    for codes in (tracklets, identities):
        for one, other in itertools.combinations(range(num), 2):
            if codes[one] == codes[other] >= 0:
                group = [group[one] if value == group[other] else value for value in group]
    names = {(group[n], identities[n]) for n in range(num) if identities[n] >= 0}
    return len({g for g, _ in names}) < len(names) or any(group[a] == group[b] for a, b in pairs)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data(), method=st.sampled_from(["agglomerative", "dbscan"]))
def test_no_cluster_breaks_a_constraint(data, method):
    num = data.draw(st.integers(2, 24))
    embeddings, _ = people(3, 8, noise=data.draw(st.sampled_from([0.05, 0.5])), seed=1)
    tracklets = np.array(data.draw(st.lists(st.integers(-1, 6), min_size=num, max_size=num)))
    identities = np.array(data.draw(st.lists(st.integers(-1, 2), min_size=num, max_size=num)))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, num - 1), st.integers(0, num - 1)), max_size=20))
    constraints = Constraints(tracklets, identities, pairs)
    options = ClusterOptions(method=method, farthest=data.draw(st.sampled_from([0.5, 0.94])), **SMALL)
    if contradict(num, tracklets, identities, pairs):
        with pytest.raises(DataError, match="must be together"):
            cluster(embeddings[:num], options, constraints=constraints)
        return
    found = cluster(embeddings[:num], options, constraints=constraints)
    for one in range(num):
        for other in range(num):
            same = found[one] == found[other]
            for codes in (tracklets, identities):
                assert same or codes[one] < 0 or codes[one] != codes[other]
            assert (
                not same
                or min(identities[one], identities[other]) < 0
                or identities[one] == identities[other]
            )
    assert not any(found[one] == found[other] for one, other in pairs)


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        (Constraints(must_link=[1, 1, -1], cannot_link=[(0, 1)]), "told apart that must be together"),
        (Constraints(must_link=[1, 1, -1], identities=[5, 6, -1]), "have two identities"),
        (Constraints(cannot_link=[(0, 3)]), "outside of 0 to 2"),
        (Constraints(cannot_link=[(0, 0)]), "told apart that must be together"),
        (Constraints(must_link=[1, 1]), "expected 3 integers"),
        (Constraints(identities=[1.5, 2, 3]), "expected 3 integers"),
    ],
)
def test_constraints_that_cannot_be(constraints, message):
    with pytest.raises(DataError, match=message):
        cluster(np.eye(3), constraints=constraints)


@pytest.mark.parametrize("method", ["agglomerative", "dbscan"])
def test_few_items_and_one_person(method):
    options = ClusterOptions(method=method)
    assert cluster(np.empty((0, 4)), options).tolist() == []
    assert cluster(np.ones((1, 4)), options).tolist() == [0]
    assert cluster(np.ones((2, 4)), options).tolist() == [0, 0]
    assert cluster(np.ones((50, 4)) / 2, options).tolist() == [0] * 50
    assert cluster(np.eye(2), options, constraints=Constraints(must_link=[3, 3])).tolist() == [0, 0]
    same = Constraints(cannot_link=[(0, 1)])
    assert len(set(cluster(np.ones((2, 4)), options, constraints=same).tolist())) == 2


def test_pairs_may_be_ruled_out_by_score_or_weight():
    embeddings, _ = people(1, 12, noise=0.4)
    assert set(cluster(embeddings, ClusterOptions(**SMALL, farthest=0.9)).tolist()) == {0}
    lowest = ClusterOptions(**SMALL, farthest=0.9, lowest=1.1)
    assert len(set(cluster(embeddings, lowest).tolist())) == 12

    def odd_and_even(one, other):
        return ((one + other) % 2 == 0).astype(float)

    found = cluster(embeddings, ClusterOptions(**SMALL, farthest=0.9), weights=odd_and_even)
    assert not {*found[::2].tolist()} & {*found[1::2].tolist()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dbscam"}, "did you mean 'dbscan'"),
        ({"farthest": 1.0}, "farthest is 1.0; give a distance"),
        ({"farthest": "near"}, "farthest is 'near'"),
        ({"lowest": float("nan")}, "lowest is nan"),
        ({"k1": 0}, "k1 is 0"),
        ({"k1": "many"}, "k1 is .many."),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        ClusterOptions(**options)


def test_too_many_items_are_refused_with_the_reason():
    with pytest.raises(DataError, match="compares all pairs of them; at most 100,000"):
        cluster(np.broadcast_to(np.float32([1, 0]), (100_001, 2)))


def test_scikit_learn_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    embeddings, _ = people(2, 5)
    with pytest.raises(MissingExtra, match=r"reidkit\[analysis\]"):
        cluster(embeddings, ClusterOptions(method="dbscan"))
    cluster(embeddings)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_agreement_is_that_of_scikit_learn(labels):
    truth, found = zip(*labels, strict=True)
    result = agreement(truth, found)
    assert result.v_measure == pytest.approx(v_measure_score(truth, found), abs=1e-9)
    (_, split_wrongly), (joined_wrongly, right) = np.array(pair_confusion_matrix(found, truth)).tolist()
    assert result.precision == pytest.approx(
        right / (right + joined_wrongly) if right + joined_wrongly else 1
    )
    assert result.recall == pytest.approx(right / (right + split_wrongly) if right + split_wrongly else 1)
    assert (result.num_clusters, result.num_people) == (len(set(found)), len(set(truth)))


def test_labels_of_two_lengths_do_not_agree():
    with pytest.raises(DataError, match="one label of each an item"):
        agreement([1, 2], [1])
