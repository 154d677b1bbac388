"""Settings: how the encoders of galleries are named, in each place where they can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from reidkit.web.settings import Settings, load_settings


def encoder_of(settings: Settings) -> Path | None:
    """As a process of the service gets it, to which settings are sent as JSON."""
    return Settings.model_validate_json(settings.model_dump_json()).galleries["hall"].encoder


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("reidkit-small", "reidkit-small"),
        ("lomo", "lomo"),
        ("./lomo", "{here}/lomo"),
        ("runs/mine", "{here}/runs/mine"),
        ("/runs/mine", "/runs/mine"),
    ],
)
def test_an_encoder_in_a_file_is_a_name_or_a_place_from_its_folder(tmp_path, given, expected):
    file = tmp_path / "serve.toml"
    file.write_text(f'[galleries]\nhall = {{ address = "hall.gallery", encoder = "{given}" }}\n')
    settings = load_settings(file, environment={})
    assert encoder_of(settings) == Path(expected.format(here=tmp_path))


def test_an_encoder_in_the_environment_is_a_name_or_a_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given, expected in (("reidkit-small", Path("reidkit-small")), ("./lomo", tmp_path / "lomo")):
        variables = {
            "REIDKIT_SERVE_GALLERIES__HALL__ADDRESS": "hall.gallery",
            "REIDKIT_SERVE_GALLERIES__HALL__ENCODER": given,
        }
        assert encoder_of(load_settings(environment=variables)) == expected
