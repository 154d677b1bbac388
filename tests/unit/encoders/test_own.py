"""The encoder that comes with the package: loaded by its name, exact, and used where none is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.own import OWN, own_file
from reidkit.errors import ConfigError
from reidkit.reports.run_report import Output, Scoring, evaluate_run
from reidkit.search import Searcher

FINGERPRINT = "a9c9f338dc4e4b6d"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        patches = Image.fromarray(rng.integers(0, 256, (8, 4, 3), dtype=np.uint8))
        patches.resize((64, 128)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


def reid(*words: str):
    return CliRunner().invoke(cli, list(words), catch_exceptions=False)


def test_its_weights_are_small_and_come_back_as_they_are_in_the_file():
    assert own_file().stat().st_size <= 5_000_000
    stored, loaded = load_file(own_file()), rk.load_encoder(OWN).model.state_dict()
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16, torch.int64}
    for name, tensor in loaded.items():
        assert torch.equal(tensor, stored[name].to(tensor.dtype)), name


def test_galleries_that_it_filled_stay_its_own():
    assert rk.load_encoder(OWN).fingerprint == FINGERPRINT


def test_its_embedding_is_two_halves_of_equal_weight(photos):
    embeddings = np.asarray(rk.load_encoder(OWN, backend="torch").encode(sorted(photos.iterdir())))
    assert embeddings.shape == (3, 256)
    np.testing.assert_allclose(np.linalg.norm(embeddings[:, :128], axis=1), np.sqrt(0.5), rtol=1e-5)


def test_index_without_an_encoder_takes_it_and_says_how_good_it_is(photos, tmp_path, monkeypatch):
    result = reid("index", "photos", "--gallery", "g")
    assert result.exit_code == 0, result.output
    assert "no encoder was named, so it is reidkit-small" in result.stderr
    assert "`reid encoders`" in result.stderr
    monkeypatch.chdir(tmp_path / "photos")  # the name holds anywhere
    found = json.loads(reid("search", "0.png", "--gallery", str(tmp_path / "g"), "--json").stdout)
    assert "drawn people" in json.dumps(found)
    assert '"probability"' not in json.dumps(found)


def test_more_photos_later_are_embedded_by_the_same(photos):
    reid("index", "photos/0.png", "--gallery", "g")
    with Searcher("g") as searcher:
        assert searcher.place == Path(OWN)
        assert searcher.add(["photos/1.png"]).embedded == 1


def test_no_false_match_rate_is_known_of_it(photos):
    reid("index", "photos", "--gallery", "g")
    with Searcher("g") as searcher, pytest.raises(ConfigError, match="learned from drawn people"):
        searcher.lowest_score(0.01)


def test_nothing_is_stored_in_the_package(tmp_path):
    before = own_file().read_bytes()
    with pytest.raises(ConfigError, match=r"save it as a file of your own first: rk.load_encoder"):
        evaluate_run(
            rk.load_encoder(OWN),
            rk.types.Dataset.__new__(rk.types.Dataset),
            Scoring(),
            Output(tmp_path),
            run=Path(OWN),
            store_calibration=True,
        )
    assert own_file().read_bytes() == before


def test_the_list_says_that_it_is_there():
    told = reid("encoders", OWN).stdout
    assert "comes with reidkit" in told
    assert "drawn people" in told


@pytest.mark.slow
def test_it_tells_real_people_apart_far_better_than_colours_do(real_data):
    viper = rk.load_dataset("viper", real_data / "viper")
    encoder = rk.load_encoder(OWN, backend="torch")
    of_camera = {camera: [s for s in viper.query if s.camera == camera][:100] for camera in (1, 2)}
    query, gallery = (encoder.features(tuple(of_camera[camera])) for camera in (1, 2))
    found = rk.evaluation.evaluate_features(
        query, gallery, protocol="single_gallery_shot", camera_filter="other_cameras"
    )
    assert found.mean_average_precision > 0.5  # histograms of stripes reach 0.34
