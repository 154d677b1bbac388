"""``reid split`` from photos to a table that every other command reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from reidkit.checks.check import check_dataset
from reidkit.cli import cli
from reidkit.datasets import load_dataset
from reidkit.errors import ConfigError, DataError

PATTERN = "{identity}_c{camera}_{frame}.jpg"


def ok(*words: object) -> Result:
    result = CliRunner().invoke(cli, ["split", *map(str, words)], env={"COLUMNS": "100"})
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten people under two cameras, three photos each, no two alike."""
    root = tmp_path / "photos"
    root.mkdir()
    for person in range(10):
        for camera in (1, 2):
            for frame in range(3):
                colour = (25 * person, 100 * camera, 80 * frame)
                Image.new("RGB", (16, 32), colour).save(root / f"p{person}_c{camera}_{frame}.jpg")
    return root


def test_photos_become_a_sound_data_set(photos: Path, tmp_path: Path) -> None:
    (photos / "Thumbs.db").write_text("x")
    out = tmp_path / "people.csv"
    result = ok(photos, "--out", out, "--pattern", PATTERN, "--val-identities", 2, "--seed", 7)
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["split", "images", "identities"],
        ["train", "18", "3"],
        ["val", "12", "2"],
        ["query", "10", "5"],
        ["gallery", "20", "5"],
    ]
    assert f"1 file left out, {photos / 'Thumbs.db'} first" in result.stderr
    assert f"next: reid check table {out}" in result.stderr
    check = check_dataset(load_dataset("table", out))
    assert not check.has_errors
    assert check.num_valid_queries == 10


def test_cutting_again_gives_the_same_table_and_another_seed_another(photos: Path, tmp_path: Path) -> None:
    words = ("--pattern", PATTERN, "--test-identities", 4)
    texts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ok(photos, "--out", tmp_path / f"{name}.csv", *words, "--seed", seed)
        texts.append((tmp_path / f"{name}.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_a_table_is_cut_anew(photos: Path, tmp_path: Path) -> None:
    ok(photos, "--out", tmp_path / "first.csv", "--pattern", PATTERN)
    result = ok(tmp_path / "first.csv", "--out", tmp_path / "second.csv", "--seed", 5, "--json")
    counts = json.loads(result.stdout)["splits"]
    assert sum(part["images"] for part in counts.values()) == 60
    assert "(train, query, gallery) were put together and cut anew" in result.stderr


def test_a_folder_that_holds_a_table(photos: Path, tmp_path: Path) -> None:
    ok(photos, "--out", photos / "people.csv", "--pattern", PATTERN)
    ok(photos, "--data", "table", "--out", tmp_path / "again.csv")
    assert load_dataset("table", tmp_path / "again.csv").has_cameras


def test_identity_folders_without_cameras(photos: Path, tmp_path: Path) -> None:
    for path in photos.iterdir():
        folder = tmp_path / "folders" / path.name.partition("_")[0]
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    ok(tmp_path / "folders", "--out", tmp_path / "people.csv")
    data = load_dataset("table", tmp_path / "people.csv")
    assert not data.has_cameras
    assert len(data.query) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "old.csv"), r"old\.csv exists already; delete it or choose another name"),
        (("--out", "people.xlsx"), r"must end in \.csv"),
        (("--out", "new.csv", "--test-identities", "10"), "10 test and 0 val identities"),
    ],
)
def test_mistakes_write_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.csv").write_text("mine")
    with pytest.raises(ConfigError, match=message):
        ok(photos, "--pattern", PATTERN, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.csv", "photos"]
    assert Path("old.csv").read_text() == "mine"


def test_a_pattern_is_not_for_tables_and_a_source_must_be_there(photos: Path, tmp_path: Path) -> None:
    ok(photos, "--out", tmp_path / "people.csv", "--pattern", PATTERN)
    with pytest.raises(ConfigError, match="a table has labels and parts in columns"):
        ok(tmp_path / "people.csv", "--out", tmp_path / "b.csv", "--pattern", PATTERN)
    with pytest.raises(DataError, match="nowhere does not exist"):
        ok(tmp_path / "nowhere", "--out", tmp_path / "b.csv")
