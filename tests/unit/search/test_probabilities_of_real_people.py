"""Real people searched with a published network: are the probabilities right, and what is said of noise?"""

from __future__ import annotations

import numpy as np
import pytest

import reidkit as rk
from reidkit.analysis.calibration import fit_calibration
from reidkit.analysis.reliability import held_out_reliability, hits_reliability
from reidkit.evaluation.comparison import compare
from reidkit.search.searcher import Searcher

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def people(real_data):
    pytest.importorskip("openvino")
    name = "person-reidentification-retail-0288"
    encoder = rk.load_encoder(real_data / "models" / name / f"{name}.xml")
    data = rk.load_dataset("market1501", real_data / "market1501-500")
    comparison = compare(encoder.features(data.query), encoder.features(data.gallery))
    return encoder, data, comparison


def test_probabilities_of_hits_are_right_to_five_points(people):
    _, _, comparison = people
    errors = [held_out_reliability(comparison, seed=seed).expected_error for seed in range(4)]
    assert np.mean(errors) <= 0.05, errors


def test_noise_is_nobody(people, tmp_path):
    encoder, data, comparison = people
    encoder.calibrate(fit_calibration(comparison, num_resamples=2, source="market1501-500"))
    noise = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    with Searcher(tmp_path / "g", encoder=encoder) as searcher:
        searcher.add(data.gallery[:400])
        of_noise, of_someone = searcher.search([noise, data.query[0].path])
        calibrated = searcher.calibration
        prior = searcher.prior().value
    assert "unlike those of the gallery" in of_noise.no_probability
    assert of_noise.probabilities == ()
    assert (
        calibrated.probability([hit.score for hit in of_noise.hits], prior=prior).max() < 0.25
    )  # if it were told
    assert of_someone.probabilities
    assert hits_reliability([(comparison, calibrated)]).expected_error < 0.05
