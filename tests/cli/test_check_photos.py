"""``reid check photos/``: a reading is proposed, shown and asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError


def reid(*words: object) -> Result:
    return CliRunner().invoke(cli, ["check", *map(str, words)], env={"COLUMNS": "100"})


def ok(*words: object) -> Result:
    result = reid(*words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four people under two cameras, told apart by folders of cameras and by names."""
    monkeypatch.chdir(tmp_path)
    for person in range(4):
        for camera in ("a", "b"):
            for number in range(2):
                path = tmp_path / "photos" / f"cam_{camera}" / f"{person:03}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 32), (60 * person, 100 * (camera == "a"), 90 * number)).save(path)
    return Path("photos")


PATTERN = "cam_{camera}/{identity}_*.*"


def test_without_a_terminal_the_command_is_printed(photos: Path) -> None:
    result = ok(photos)
    assert f"proposed: labels by the pattern {PATTERN}" in result.stderr
    assert result.stdout.count(".png") == 5, "five samples, as they are read"
    assert f"if that is right: reid check folder photos 'pattern={PATTERN}'" in result.stderr
    assert "queries have a match" not in result.stdout
    assert ok("folder", photos, f"pattern={PATTERN}").stdout.startswith("folder in photos")


def test_yes_checks_at_once(photos: Path) -> None:
    result = ok(photos, "--yes")
    assert "folder in photos" in result.stdout
    assert "without camera labels" not in result.stdout


def test_json_is_the_check_and_nothing_else(photos: Path) -> None:
    counts = json.loads(ok(photos, "--yes", "--json").stdout)["counts"]
    assert counts["train"]["identities"] == 4
    assert counts["train"]["cameras"] == 2


@pytest.mark.parametrize(("answer", "checked"), [("y\n", True), ("n\n", False)])
def test_on_a_terminal_it_is_asked(
    photos: Path, answer: str, checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reidkit.cli.check.stands_at_terminal", lambda: True)
    result = CliRunner().invoke(cli, ["check", str(photos)], input=answer)
    assert ("folder in photos" in result.stdout) == checked


def test_a_pattern_of_ones_own_needs_no_layout(photos: Path) -> None:
    assert "folder in photos" in ok(photos, "pattern=cam_{camera}/{identity}_{frame}.png").stdout


def test_options_of_ones_own_are_asked_for_nothing_else(photos: Path) -> None:
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(photos / f"IMG_{number}.png")  # of which nothing could be proposed
    assert "folder in photos" in ok(photos, "pattern=IMG_{identity}.*").stdout
    Path("list.csv").write_text("\n".join(["file,who", *(f"photos/IMG_{n}.png,{n // 4}" for n in range(16))]))
    with pytest.raises(DataError, match=r"give column\.path=file"):
        ok("list.csv")
    assert "table in list.csv" in ok("list.csv", "column.path=file", "column.identity=who").stdout


def test_a_table_is_known_by_its_name(photos: Path) -> None:
    rows = [f"{path},{path.stem[:3]}" for path in sorted(photos.rglob("*.png"))]
    Path("list.csv").write_text("\n".join(["path,identity", *rows]))
    assert "table in list.csv" in ok("list.csv", "--yes").stdout


def test_what_cannot_be_read_says_so(photos: Path) -> None:
    with pytest.raises(ConfigError, match="'market1501' is no folder or table here; give one, or a layout"):
        ok("market1501")
    Path("empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        ok("empty")


def test_what_cannot_be_cut_is_led_to_the_gallery(photos: Path) -> None:
    for path in photos.rglob("*.png"):
        if not path.name.startswith("000"):
            path.unlink()
    result = ok("folder", photos, f"pattern={PATTERN}")
    assert "to search, but not to train on: photos shows 1 identity, and 3 are the least" in result.stderr
    assert "\\n" not in result.stderr
    assert f"next: reid index photos --pattern '{PATTERN}' --gallery people.gallery" in result.stderr


def test_photos_without_names_are_led_to_the_gallery(photos: Path) -> None:
    Path("loose ones").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(Path("loose ones") / f"IMG_{number}.png")
    result = ok("loose ones")
    assert result.exit_code == 0
    assert "the names do not say who is in the photos" in result.stderr
    assert "next: reid index 'loose ones' --gallery people.gallery" in result.stderr
    with pytest.raises(DataError, match="reid index 'loose ones' --gallery"):
        ok("loose ones", "--yes")
    with pytest.raises(DataError, match="reid index 'loose ones' --gallery"):
        ok("folder", "loose ones")
