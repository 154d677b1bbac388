"""Calibration: probabilities that come true, thresholds that keep their rate, against slow counts."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike

from reidkit.analysis.calibration import Calibration, _likelihood_ratios, fit_calibration
from reidkit.analysis.roc import Roc, roc
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.comparison import compare
from reidkit.types import Features


def people(num: int, *, seed: int, images: int = 6, noise: float = 1.2, cameras: bool = True) -> Features:
    rng = np.random.default_rng(seed)
    identities = np.repeat(np.arange(num), images)
    embeddings = rng.normal(size=(num, 16))[identities] + noise * rng.normal(size=(len(identities), 16))
    places = np.tile(np.arange(images) % 3, num) if cameras else None
    return Features(embeddings.astype(np.float32), identities, places)


def pair_scores(features: Features) -> tuple[np.ndarray, np.ndarray]:
    """Scores of positive and of negative pairs, the slow way: every item against all others."""
    unit = features.embeddings.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores = unit @ unit.T
    same = features.identities[:, None] == features.identities
    kept = features.cameras[:, None] != features.cameras
    return scores[same & kept], scores[~same]


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    return fit_calibration(compare(people(200, seed=0)), source="made-up people")


def test_probabilities_come_true_for_other_people(fitted: Calibration) -> None:
    positive, negative = pair_scores(people(200, seed=1))
    edges = np.linspace(0, 1, 11)
    of_one = np.histogram(fitted.probability(positive), edges)[0] / len(positive)
    of_two = np.histogram(fitted.probability(negative), edges)[0] / len(negative)
    share = of_one / (of_one + of_two)  # pairs of both kinds drawn equally often
    middle = (edges[1:] + edges[:-1]) / 2
    assert np.abs(share - middle).max() < 0.06


def test_the_likelihood_ratio_is_that_of_the_densities() -> None:
    """Cosines cannot be chosen freely, but angles in the plane can: 1 or -1 only, in known shares."""
    turned = np.array([[1.0, 0.0], [-1.0, 0.0]])
    # Query 0 is person 0; of its 4 positives 3 point its way, of the 8 negatives 2 do.
    gallery = Features(turned[[0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 1, 1]], np.array([0] * 4 + [1] * 8))
    found = fit_calibration(compare(Features(turned[:1], np.array([0])), gallery, camera_filter="none"))
    high = (3 + 0.5) / (4 + 0.5) / ((2 + 0.5) / (8 + 0.5))
    low = (1 + 0.5) / (4 + 0.5) / ((6 + 0.5) / (8 + 0.5))
    np.testing.assert_allclose(
        found.probability([1.0, -1.0]), [high / (1 + high), low / (1 + low)], atol=1e-4
    )
    prior = 0.01
    odds = high * prior / (1 - prior)
    assert found.probability(1.0, prior=prior) == pytest.approx(odds / (1 + odds), abs=1e-4)
    assert (found.num_positive, found.num_negative, found.num_identities) == (4, 8, 2)


def slow_likelihood_ratios(curve: Roc) -> tuple[list[float], list[float]]:
    """Neighbouring bins are pooled, in whole numbers, until the share of positives rises with the score."""
    positive, negative = (
        np.rint(np.diff(rates) * num)[::-1].astype(int).tolist()
        for rates, num in (
            (curve.true_positive_rates, curve.num_positive),
            (curve.false_positive_rates, curve.num_negative),
        )
    )
    pieces: list[list[Any]] = []
    for bins in zip(positive, negative, curve.thresholds[:0:-1].tolist(), strict=True):
        if bins[0] + bins[1]:
            pieces.append([bins[0], bins[1], (bins[0] + bins[1]) * bins[2]])
        while len(pieces) > 1 and share(pieces[-2]) >= share(pieces[-1]):
            last = pieces.pop()
            pieces[-1] = [a + b for a, b in zip(pieces[-1], last, strict=True)]
    scores = [total / (p + n) for p, n, total in pieces]
    odds = (curve.num_negative + 0.5) / (curve.num_positive + 0.5)
    ratios = [math.log((p + 0.5) / (n + 0.5) * odds) for p, n, _ in pieces]
    return scores, [min(ratios[place:]) for place in range(len(ratios))]


def share(piece: list[Any]) -> Fraction:
    return Fraction(piece[0], piece[0] + piece[1])


def curve_of(positive: ArrayLike, negative: ArrayLike) -> Roc:
    """The curve of these numbers of pairs, from the highest scores down."""
    counts = [np.asarray(kind) for kind in (positive, negative)]
    accepted = [np.concatenate([[0], np.cumsum(kind)]) / kind.sum() for kind in counts]
    thresholds = np.concatenate([[np.inf], np.linspace(1, -1, len(counts[0]))])
    return Roc(thresholds, accepted[1], accepted[0], int(counts[0].sum()), int(counts[1].sum()))


def assert_as_in_whole_numbers(curve: Roc) -> None:
    found, expected = _likelihood_ratios(curve), slow_likelihood_ratios(curve)
    assert len(found[0]) == len(expected[0])
    for values, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(values, others, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_likelihood_ratios_are_those_of_whole_numbers(seed: int) -> None:
    """Few scores and few pairs of each, so that many pieces have the same slope."""
    assert_as_in_whole_numbers(curve_of(*np.random.default_rng(seed).integers(0, 4, (2, 60))))


def test_pieces_of_one_slope_that_rounding_keeps_apart_are_one() -> None:
    positive = [9, 7, 5, 2, 1, 2, 2, 8, 6, 7, 3, 3, 7, 4, 9]
    negative = [7, 9, 1, 0, 1, 6, 0, 8, 3, 2, 3, 3, 4, 9, 6]
    assert_as_in_whole_numbers(curve_of(positive, negative))


def test_the_curve_may_be_given(fitted: Calibration) -> None:
    comparison = compare(people(200, seed=0))
    again = fit_calibration(comparison, curve=roc(comparison), source="made-up people")
    assert again == fitted


def test_probability_rises_with_the_score_and_is_never_certain(fitted: Calibration) -> None:
    scores = np.linspace(-1, 1, 2001).reshape(3, -1)
    probabilities = fitted.probability(scores)
    assert probabilities.shape == scores.shape
    assert (np.diff(probabilities.ravel()) >= 0).all()
    assert 0 < probabilities.min() < 0.01
    assert 0.99 < probabilities.max() < 1
    assert (fitted.probability(scores, prior=0.001) < probabilities).all()
    assert np.isnan(fitted.probability([np.nan])).all()


@pytest.mark.parametrize("rate", [0.1, 0.01, 0.001, 0.03])
def test_a_threshold_keeps_its_false_match_rate(fitted: Calibration, rate: float) -> None:
    positive, negative = pair_scores(people(200, seed=0))
    threshold = fitted.threshold_at(rate)
    assert (negative >= threshold).mean() == pytest.approx(rate, rel=0.02)
    assert (positive >= threshold).mean() == pytest.approx(fitted.true_match_rate_at(rate), abs=2e-3)
    if rate != 0.03:  # between two of the fitted rates
        assert threshold == pytest.approx(roc(compare(people(200, seed=0))).threshold_at(rate), abs=1e-6)


def test_intervals_hold_the_true_threshold_about_as_often_as_they_say() -> None:
    """The truth is that of 1,500 people; each of 40 calibrations sees 60."""
    truth = roc(compare(people(1500, seed=99, images=2, noise=0.4, cameras=False))).threshold_at(0.01)
    hits, widths = 0, []
    for seed in range(40):
        few = people(60, seed=seed, images=4, noise=0.4, cameras=False)
        low, high = fit_calibration(compare(few), num_resamples=200).threshold_interval_at(0.01)
        hits += low <= truth <= high
        widths.append(high - low)
    assert hits >= 33
    assert max(widths) < 0.2


def test_it_survives_json(fitted: Calibration) -> None:
    text = json.dumps(fitted.as_dict())
    assert len(text) < 10_000
    assert Calibration.from_dict(json.loads(text)) == fitted
    again = fit_calibration(compare(people(200, seed=0)), source="made-up people")
    assert again == fitted, "the same every time"


def test_it_reads_well(fitted: Calibration) -> None:
    lines = str(fitted).splitlines()
    assert lines[0].startswith("calibrated on made-up people: 4,800 pairs of one person and 1,432,800 of two")
    assert len(lines) == 7
    assert lines[3].split()[:2] == ["1", "%"]


def test_rates_that_the_pairs_cannot_tell(fitted: Calibration) -> None:
    for rate in (1e-6, 0.2, 0):
        with pytest.raises(
            ConfigError, match=r"cannot be told from 1,432,800 pairs.*rates that can: 7.9e-06"
        ):
            fitted.threshold_at(rate)
    few = fit_calibration(compare(people(3, seed=0, images=3)))
    assert few.false_match_rates == ()
    with pytest.raises(ConfigError, match="rates that can: none"):
        few.threshold_interval_at(0.1)
    assert len(str(few).splitlines()) == 2
    assert Calibration.from_dict(few.as_dict()) == few


def test_no_pairs_of_one_kind() -> None:
    with pytest.raises(DataError, match="keeps no negative pair"):
        fit_calibration(compare(people(1, seed=0)))
    with pytest.raises(ConfigError, match=r"prior is 1"):
        fit_calibration(compare(people(9, seed=0))).probability(0.3, prior=1)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": None},
        {"scores": [0.1]},
        {"scores": []},
        {"scores": "x"},
        {"log_likelihood_ratios": ["a", "b"]},
        {"thresholds": [1.0]},
        {"threshold_intervals": [[1, 2, 3]]},
        {"false_match_rates": [-1.0] * 60},
        {"equal_error_rate": float("nan")},
        {"num_negative": "many"},
        {"source": ["a"]},
    ],
)
def test_a_card_that_holds_something_else(fitted: Calibration, change: dict[str, object]) -> None:
    values = {name: value for name, value in {**fitted.as_dict(), **change}.items() if value is not None}
    with pytest.raises(DataError, match="this is no calibration"):
        Calibration.from_dict(values)


@pytest.mark.parametrize("spread", [0.0, 1e-4])
def test_collapsed_embeddings(spread: float) -> None:
    rng = np.random.default_rng(0)
    embeddings = np.ones((40, 4)) + spread * rng.normal(size=(40, 4))
    found = fit_calibration(compare(Features(embeddings, np.arange(40) % 10)))
    assert found.probability(1.0) == pytest.approx(0.5, abs=0.2)
    assert found.false_match_rates == (), "no threshold parts them"
