"""When probabilities of hits are told, by which prior, and when not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reidkit.analysis.calibration import fit_calibration
from reidkit.errors import ConfigError
from reidkit.evaluation.comparison import compare
from reidkit.galleries import Item, open_gallery
from reidkit.search.probabilities import Plausibility, gallery_prior, given_prior
from reidkit.types import Features


def embedded(num, *, each=6, seed=0, common=0.3):
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num, 32)) + common
    identities = np.repeat(np.arange(num), each)
    embeddings = centres[identities] + 0.8 * generator.normal(size=(num * each, 32))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Features(embeddings.astype(np.float32), identities, np.tile(np.arange(each), num))


@pytest.fixture(scope="module")
def calibration():
    return fit_calibration(compare(embedded(80)), num_resamples=2, source="drawn people")


def gallery_of(path, features, *, labelled=True):
    gallery = open_gallery(path)
    gallery.add(
        features.embeddings,
        identities=features.identities if labelled else None,
        cameras=features.cameras,
    )
    return gallery


def items(*identities):
    return [Item(number, None, identity, None, None) for number, identity in enumerate(identities)]


def test_the_prior_is_that_of_the_labels():
    prior = gallery_prior(items("a", "a", "a", "b", *[None] * 4, "-1", "-1"))
    assert prior.value == 0.2
    assert str(prior) == "0.2 (2 images of one identity by the labels, among 10)"
    assert str(gallery_prior(items("a", "b"))) == "0.5 (1 image of one identity by the labels, among 2)"


def test_without_labels_the_prior_is_a_guess_that_says_so():
    prior = gallery_prior(items(*[None] * 1000))
    assert prior.value == 0.005
    assert "a guess, among 1,000" in str(prior)


def test_no_prior_is_certain():
    assert gallery_prior(items("a", "a")).value == 0.5
    for value in (0, 1, -1, 2, float("nan")):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            given_prior(value)


@pytest.mark.parametrize("labelled", [True, False])
def test_people_of_the_same_kind_are_believed(tmp_path, calibration, labelled):
    people = embedded(60, seed=1)
    with gallery_of(tmp_path / "g", people, labelled=labelled) as gallery:
        found = Plausibility(gallery, calibration)
        assert found.doubt == ""
        assert found.doubt_of(people.embeddings[0]) == ""


@pytest.mark.parametrize("labelled", [True, False])
def test_scores_of_another_spread_are_doubted(tmp_path, calibration, labelled):
    with gallery_of(tmp_path / "g", embedded(60, seed=1, common=1.5), labelled=labelled) as gallery:
        doubt = Plausibility(gallery, calibration).doubt
    assert "% of this gallery's pairs score as high as 10 %" in doubt
    assert "drawn people" in doubt


def test_probabilities_that_the_labels_contradict_are_doubted(tmp_path, calibration):
    people = embedded(60, seed=1)
    shuffled = np.random.default_rng(0).permutation(people.identities)
    with gallery_of(tmp_path / "g", dataclasses.replace(people, identities=shuffled)) as gallery:
        assert "labelled items they are" in Plausibility(gallery, calibration).doubt


def test_a_calibration_on_a_handful_of_pairs_says_nothing(tmp_path):
    few = fit_calibration(compare(embedded(6, each=3)), num_resamples=2)
    with gallery_of(tmp_path / "g", embedded(30, seed=1)) as gallery:
        doubt = Plausibility(gallery, few).doubt
    assert doubt == "the encoder was calibrated on 36 pairs of one person, too few to tell a probability by"


def test_a_handful_of_items_says_nothing(tmp_path, calibration):
    with gallery_of(tmp_path / "g", embedded(2)) as gallery:
        assert "the gallery holds 12 items, too few" in Plausibility(gallery, calibration).doubt


def test_a_picture_unlike_all_others_is_doubted(tmp_path, calibration):
    people = embedded(60, seed=1)
    with gallery_of(tmp_path / "g", people) as gallery:
        away = -people.embeddings.mean(axis=0)
        assert "unlike those of the gallery" in Plausibility(gallery, calibration).doubt_of(
            away / np.linalg.norm(away)
        )
