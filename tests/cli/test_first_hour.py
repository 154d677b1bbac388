"""The way from a folder of photos to a gallery, by following what each command says is next."""

from __future__ import annotations

import shlex
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from reidkit import config
from reidkit.cli import cli
from reidkit.datasets import load_dataset


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve people, each seen from two places, as nobody's recipe names them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for person, place in product(range(12), ("north door", "car park")):
        file = (
            tmp_path / "photos" / place / f"2024-05-0{1 + person % 3}" / f"p{7 * person:03}_{len(place)}.png"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(file)
    return Path("photos")


def ok(command: str) -> Result:
    result = CliRunner().invoke(cli, shlex.split(command)[1:], standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def said_next(result: Result, *, mark: str = "next: ") -> str:
    [line] = [line for line in result.stderr.splitlines() if mark in line]
    return line.partition(mark)[2]


def test_each_command_leads_to_one_that_works(photos):
    command = said_next(ok("reid check photos"), mark="if that is right: ")
    assert "{camera}/*/p{identity}_{frame}.*" in command
    command = said_next(ok(command))
    assert command.startswith("reid split photos --pattern")
    split = ok(command)
    assert ": identity 000, camera car park, frame 8" in split.stderr
    command = said_next(split)
    assert command == "reid check table people.csv"
    command = said_next(ok(command))
    _, train, recipe, *overrides, _, run = shlex.split(command)
    assert (train, run) == ("train", "runs/mine")
    resolved = config.load(recipe, overrides)
    assert resolved.sampler.identities_per_batch == 6, "batches of no more people than there are"
    data = resolved.data
    loaded = load_dataset(data.name, data.root, **data.options)
    assert (len(loaded.train), len(loaded.query), len(loaded.gallery)) == (12, 6, 6)
    assert {sample.camera for sample in loaded.query} == {1, 2}


def test_what_was_said_of_the_labels_is_said_to_the_next_command_too(photos):
    for file in list(photos.rglob("*.png")):
        place = Path("own photos", "train" if file.stem[1:4] < "040" else file.stem[1:4])
        place.mkdir(parents=True, exist_ok=True)
        file.rename(place / f"{file.parts[1]}.png")
    command = said_next(ok("reid check folder 'own photos' parts=none"))
    assert command == "reid split 'own photos' --parts none --out people.csv"
    ok(command)


def test_a_table_of_other_columns_is_split_by_them(photos):
    rows = [f"{file},{file.stem[1:4]},{file.parts[1]}" for file in sorted(photos.rglob("*.png"))]
    Path("list.csv").write_text("\n".join(["file,who,place", *rows]))
    columns = "column.path=file column.identity=who column.camera=place"
    command = said_next(ok(f"reid check table list.csv {columns}"))
    assert "--column path=file --column identity=who --column camera=place" in command
    result = ok(command)
    assert said_next(result) == "reid check table people.csv"


def test_a_gallery_is_searched_by_the_command_that_index_says(photos, tiny_encoder):
    result = ok(f"reid index {tiny_encoder} photos --gallery 'my people'")
    labelled = ok("reid index photos --gallery 'my people' --pattern '{camera}/*/p{identity}_*.*'")
    assert (
        "labels as read, for example photos/car park/2024-05-01/p000_8.png: identity 000, camera car park"
        in (labelled.stderr)
    )
    again = ok("reid index photos --gallery 'my people'")  # it knows its encoder
    assert "24 there already" in again.stderr
    assert said_next(again) == said_next(result)
    found = ok(said_next(result))  # as it stands
    assert "left out: 1 hit that is the query's own picture" in found.stderr


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Path:
    import reidkit as rk

    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save(
        tmp_path / "tiny.safetensors"
    )
