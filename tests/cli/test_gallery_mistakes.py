"""Verbs on galleries, given what is none, an empty one, or a full disk: one line each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from reidkit import registry
from reidkit.cli import cli
from reidkit.errors import ReidError
from reidkit.galleries import open_gallery

VERBS = [
    *("gallery info G", "gallery verify G", "gallery repair G", "gallery list G --where camera=1"),
    *("gallery remove G --where camera=1", "gallery forget G p", "gallery expire G --older-than 30d"),
    *("gallery compact G", "gallery index G", "gallery index G --drop", "gallery copy G other"),
    *("gallery export G out", "cluster G", "cluster G --page people.html", "review accept G p"),
    *("review accept G new --item 1", "review reject G 1 2", "review merge G p q", "review split G 1 --as z"),
    *(
        "review log G",
        "review undo G 1",
        "review export G table.csv",
        "timeline G p",
        "timeline G --transitions",
    ),
    *("search a.png --gallery G", "index a.png --gallery G"),
]
WRITING = [verb for verb in VERBS if not verb.startswith(("search", "index"))] + ["gallery copy good G"]

PLACES = {
    "missing": "there is no gallery at missing; check the path, or fill one first",
    "zero": "there is no gallery at zero; check the path, or fill one first",
    "file": "file is a file; a gallery is a folder",
    "good/items.sqlite": "good/items.sqlite is a file; a gallery is a folder",
    "folder": "folder is not a gallery: it holds a.txt but no items.sqlite; choose another folder",
    "picture": "picture: items.sqlite is damaged or not made by reidkit",
    "": "location is ''; expected a folder, or scheme://address",
    "embedded://": "location is 'embedded://', without a folder; write it behind, or alone",
    "a\0b": r"location is 'a\x00b'; expected a folder, or scheme://address",
    "n" * 5000: f"{'n' * 80}... (5,000 characters) cannot be opened: File name too long",
    "mysql://host/people": f"unknown gallery 'mysql'; Known: {', '.join(registry.names('gallery'))}",
}

EMPTY = {
    "gallery forget G p": "the gallery holds no identity 'p'",
    "gallery index G": "empty is empty; add embeddings first, then build the index over them",
    "review accept G p": "there is no proposal 'p'; `reid cluster` makes some",
    "review accept G new --item 1": "empty has no item 1 (1 such of 1 ids)",
    "review reject G 1 2": "empty has no item 1 (1 such of 1 ids)",
    "review merge G p q": "the gallery holds no identity 'p'",
    "review split G 1 --as z": "empty has no item 1 (1 such of 1 ids)",
    "review undo G 1": "there is no decision 1; `reid review log` lists them",
    "review export G table.csv": "no item can be trained on: there are none",
    "timeline G p": "the gallery knows nobody called 'p'",
}


def fill(path: Path, num: int = 6) -> None:
    with open_gallery(path) as gallery:
        gallery.add(
            np.random.default_rng(0).normal(size=(num, 64)).astype(np.float32),
            identities=[str(number // 4) for number in range(num)],
            cameras=[number % 3 for number in range(num)],
            times=[60.0 * number for number in range(num)],
        )


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("file").write_text("hello")
    for name, inside in (("folder", "a.txt"), ("zero", "items.sqlite"), ("picture", "items.sqlite")):
        Path(name).mkdir()
        Path(name, inside).write_bytes(b"\xff\xd8\xff" + bytes(5000) if name == "picture" else b"")
    fill(Path("good"))
    open_gallery("empty").close()
    Image.new("RGB", (16, 32)).save("a.png")
    return tmp_path


def told(verb: str, place: str) -> str:
    """What a command says, in one line, or nothing where it goes well."""
    words = [place if word == "G" else word for word in verb.split()]
    result = CliRunner().invoke(cli, words)
    if result.exception is None:
        return ""
    assert isinstance(result.exception, ReidError), (verb, result.exception)
    [line] = str(result.exception).splitlines()
    return line


@pytest.mark.parametrize("place", PLACES, ids=lambda place: repr(place[:20]))
def test_what_is_no_gallery(here: Path, place: str) -> None:
    before = sorted(here.rglob("*"))
    for verb in VERBS:
        if not (verb.startswith("index") and place in ("missing", "zero")):  # which make one
            assert told(verb, place) == PLACES[place], verb
    assert sorted(here.rglob("*")) == before


def test_an_empty_gallery(here: Path) -> None:
    for verb in WRITING:
        if verb != "gallery copy good G":
            assert told(verb, "empty") == EMPTY.get(verb, ""), verb


@pytest.mark.parametrize(
    "verb", ["gallery import G file", "gallery import G good", "gallery import G missing"]
)
def test_what_is_no_export(here: Path, verb: str) -> None:
    name = verb.rpartition(" ")[2]
    assert told(verb, "new") == f"{name}/gallery.json is missing: there is no such file"
    assert not Path("new").exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "reidkit-test", str(place)]
    if os.name != "posix" or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk can be made by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


NEED_NO_ROOM = ["gallery info G", "gallery verify G", "gallery list G", "review log G", "timeline G 1"]
NEED_ROOM = [
    *("gallery compact G", "gallery remove G --where camera=1", "gallery forget G 7", "gallery index G"),
    *("gallery copy G other", "gallery export G out", "cluster G --page people.html"),
    *(
        "review accept G anna --item 17",
        "review reject G 1 9",
        "review merge G 1 2",
        "review split G 1 --as z",
    ),
    *("timeline G 1 --page where.html", "timeline G 1 --picture where.png"),
]


def test_a_full_disk(full_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(full_disk)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fill(tmp_path / "filled", 200)
    for verb in [*NEED_NO_ROOM, *NEED_ROOM]:
        for path in full_disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(tmp_path / "filled", "g")
        Path("ballast").write_bytes(bytes(shutil.disk_usage(".").free - 3 * 4096))
        before = contents()
        line = told(verb, "g")
        if verb in NEED_NO_ROOM:
            assert line == "", verb
            continue
        assert "disk is full" in line or "No space left on device" in line, (verb, line)
        assert contents() == before, verb
        Path("ballast").unlink()
        with open_gallery("g") as gallery:
            assert (gallery.verify().damaged, len(gallery)) == ((), 200)
        assert told(verb, "g") == "", verb


def contents() -> dict[Path, bytes]:
    """All files, but those of a gallery that was to be made."""
    files = [path for path in Path().rglob("*") if path.is_file() and path.parts[0] != "other"]
    return {path: path.read_bytes() for path in files}
