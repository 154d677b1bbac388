"""Probabilities of hits against what the hits show."""

from __future__ import annotations

import numpy as np
import pytest

from reidkit.analysis.calibration import fit_calibration
from reidkit.analysis.reliability import held_out_reliability, hits_reliability, prior_of, reliability
from reidkit.errors import DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.nearest import nearest_items
from reidkit.types import Features


def people(num, *, each=8, spread=0.9, seed=0):
    """Images of people around a direction each."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num, 32))
    identities = np.repeat(np.arange(num), each)
    return Features(
        (centres[identities] + spread * generator.normal(size=(num * each, 32))).astype(np.float32),
        identities,
        np.tile(np.arange(each) % 2, num),
    )


def split(features):
    query = np.arange(len(features)) % 4 == 0
    return tuple(
        Features(features.embeddings[rows], features.identities[rows], features.cameras[rows])
        for rows in (query, ~query)
    )


def test_the_error_is_that_of_a_loop_over_ranges():
    generator = np.random.default_rng(1)
    given = generator.random(500)
    right = generator.random(500) < given**2
    found = reliability(given, right, np.arange(500) // 5)
    error = 0.0
    for low in range(10):
        inside = (given >= low / 10) & (given < (low + 1) / 10)
        error += inside.mean() * abs(given[inside].mean() - right[inside].mean())
    assert found.expected_error == pytest.approx(error)
    assert found.counts.sum() == 500


def test_chance_explains_the_error_of_probabilities_that_are_right():
    generator = np.random.default_rng(2)
    given = generator.random(5000)
    honest = reliability(given, generator.random(5000) < given, np.arange(5000))
    assert honest.expected_error < 2 * honest.chance_error < 0.04
    boasting = reliability(np.sqrt(given), generator.random(5000) < given, np.arange(5000))
    assert boasting.expected_error > 5 * boasting.chance_error


def test_hits_of_one_search_are_not_independent():
    given = np.full(1000, 0.5)
    right = np.repeat(np.arange(100) % 2 == 0, 10)
    alone, together = (reliability(given, right, np.arange(1000) // size) for size in (1, 10))
    assert together.chance_error == pytest.approx(np.sqrt(10) * alone.chance_error)


def test_the_prior_is_the_share_of_one_identity():
    assert prior_of(5, 10_000) == 0.0005
    assert prior_of(7, 7) == 0.5, "who is searched for need not be there"


def test_with_the_gallerys_prior_probabilities_of_hits_are_right_and_with_even_odds_they_are_not():
    fitted = fit_calibration(compare(*split(people(150))), num_resamples=2)
    others = compare(*split(people(150, seed=1)))
    assert hits_reliability([(others, fitted)]).expected_error < 0.05
    hits = nearest_items(others, top=10)
    even = reliability(
        fitted.probability(hits.scores.ravel()), hits.matches.ravel(), np.arange(hits.scores.size) // 10
    )
    assert even.expected_error > 0.2
    assert held_out_reliability(others).expected_error < 0.06


def test_a_few_identities_cannot_be_halved():
    with pytest.raises(DataError, match="5 identities are too few to halve"):
        held_out_reliability(compare(*split(people(5))))


def test_halves_share_no_identity(monkeypatch):
    from reidkit.analysis import reliability as module

    seen = []
    original = module.hits_reliability

    def watched(pairs, **options):
        pairs = list(pairs)
        seen.extend(set(side.query_features.identities.tolist()) for side, _ in pairs)
        return original(pairs, **options)

    monkeypatch.setattr(module, "hits_reliability", watched)
    held_out_reliability(compare(*split(people(40))))
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(40))
