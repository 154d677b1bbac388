"""Pictures without an encoder: what of the words is pictures, and which encoders are offered."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit.cli import cli
from reidkit.cli.options import EncoderPath
from reidkit.encoders.at_hand import NoEncoder, encoder_and_pictures, encoders_in
from reidkit.encoders.loading import load_encoder
from reidkit.encoders.own import LOMO, OWN
from reidkit.errors import CheckpointError, ConfigError
from reidkit.reports.chosen_data import own_data


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "photos" / "a.jpg")
    return tmp_path


def a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").touch()
    (folder / "best.safetensors").touch()
    return folder


def index(*words: str) -> BaseException | None:
    return CliRunner().invoke(cli, ["index", *words, "--gallery", "g"]).exception


def test_those_at_hand_are_named_with_the_whole_command(here):
    a_run(here / "runs" / "demo" / "run")
    (here / "model.onnx").touch()
    assert set(encoders_in(here)) == {Path("runs/demo/run"), Path("model.onnx")}
    error = index("photos", "photos/a.jpg")
    assert isinstance(error, NoEncoder)
    assert "reid index model.onnx photos ... --gallery g" in str(error)
    assert "and reidkit-small, which comes with reidkit" in str(error)
    assert not (here / "g").exists()


def test_what_is_no_picture_is_an_encoder_even_a_wrong_one(here):
    (here / "untrained").mkdir()
    (here / "untrained" / "config.toml").touch()
    assert encoder_and_pictures([Path("untrained"), Path("photos")]) == (
        Path("untrained"),
        (Path("photos"),),
    )
    assert isinstance(index("untrained", "photos"), CheckpointError)
    assert isinstance(index("mistyped", "photos"), CheckpointError)
    assert "nothing to embed by untrained" in str(index("untrained"))
    assert type(index("untrained")) is ConfigError
    assert "mistyped is missing: there is no such file" in str(index("mistyped"))


@pytest.mark.parametrize("first", ["photos", "photos/a.jpg", "list.csv"])
def test_pictures_are_pictures(first, here):
    (here / "list.csv").write_text("path\nphotos/a.jpg\n")
    assert encoder_and_pictures([Path(first)]) == (None, (Path(first),))


@pytest.mark.parametrize("name", [OWN, LOMO])
def test_a_name_is_ours_and_a_folder_of_that_name_is_meant_by_its_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / name / "1.png")
    Image.new("RGB", (8, 16)).save(tmp_path / "2.png")
    assert encoder_and_pictures([Path(name), Path("2.png")]) == (Path(name), (Path("2.png"),))
    typed = EncoderPath().convert(f"./{name}", None, None)
    assert encoder_and_pictures([typed, Path("2.png")]) == (None, (tmp_path / name, Path("2.png")))
    assert EncoderPath().convert(name, None, None) == Path(name)
    with pytest.raises(CheckpointError, match="holds no encoder"):
        load_encoder(f"./{name}")
    assert load_encoder(name).dim > 0


@pytest.mark.parametrize("name", [OWN, LOMO])
def test_what_a_folder_of_that_name_was_trained_on_is_nothing_of_ours(name: str, here: Path) -> None:
    (here / name).mkdir()
    (here / name / "config.toml").write_text("no TOML")
    assert own_data(Path(name)) is None
    with pytest.raises(ConfigError):
        own_data(here / name)


def test_a_folder_that_may_not_be_entered_is_no_encoder(here, monkeypatch):
    (here / "photos" / "locked").mkdir()
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    assert encoder_and_pictures([Path("photos")]) == (None, (Path("photos"),))
    assert encoders_in(here / "photos") == []
