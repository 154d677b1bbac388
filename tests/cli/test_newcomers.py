"""What a newcomer stumbles over: messages that mislead, results that vanish, options that are missing."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import reidkit as rk
from reidkit import trust
from reidkit.cli import cli
from reidkit.errors import ConfigError
from reidkit.evaluation.feature_files import save_features
from reidkit.galleries import open_gallery
from reidkit.types import Features

OWN_CODE = """
import reidkit as rk

def network(**options):
    return rk.build_model("timm:test_resnet", **options)
"""


def reid(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), env={"COLUMNS": "200"})


def ok(*words: object) -> Result:
    result = reid(*words)
    if result.exception is not None:
        raise result.exception
    return result


def refused(*words: object) -> str:
    with pytest.raises(ConfigError) as caught:
        ok(*words)
    return str(caught.value)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    encoder = rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)
    return encoder.save(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six people under two cameras, listed in a table whose columns are called as their owner likes."""
    monkeypatch.chdir(tmp_path)
    rows = ["Datei,Wer,Kamera,time"]
    for person in range(6):
        for camera in ("hall", "yard"):
            for number in range(2):
                rng = np.random.default_rng([person, camera == "hall", number])
                name = f"photos/p{person}_{camera}_{number}.png"
                Path(name).parent.mkdir(exist_ok=True)
                Image.fromarray(rng.integers(0, 255, (48, 24, 3), dtype=np.uint8)).save(name)
                rows.append(f"{name},{person:04},{camera},{1714557600 + number}")
    Path("list.csv").write_text("\n".join(rows))
    return tmp_path


COLUMNS = ("--column", "path=Datei", "--column", "identity=Wer", "--column", "camera=Kamera")
PATTERN = ("--pattern", "p{identity}_{camera}_*.png")


def test_split_and_index_are_told_what_columns_are_called(file: Path) -> None:
    message = str(reid("split", "list.csv", "--out", "cut.csv").exception)
    assert (
        "columns of other names are told by column.KEY=NAME (`reid index ... --column KEY=NAME`)" in message
    )
    ok("split", "list.csv", "--out", "cut.csv", *COLUMNS)
    assert rk.load_dataset("table", "cut.csv").has_cameras
    ok(
        "index",
        file,
        "list.csv",
        "--gallery",
        "g",
        *COLUMNS[:2],
        *COLUMNS[2:4],
        "--column",
        "column.camera=Kamera",
    )
    with open_gallery("g") as gallery:
        assert {item.identity for item in gallery.items()} == {f"{person:04}" for person in range(6)}
        assert {item.camera for item in gallery.items()} == {"hall", "yard"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("split", "list.csv", "--out", "x.csv", "--column", "path"), "'path': write KEY=NAME"),
        (("split", "list.csv", "--out", "x.csv", "--column", "pfad=Datei"), "column has no key 'pfad'"),
        (("split", "list.csv", "--out", "x.csv", *COLUMNS[:2], *COLUMNS[:2]), "named twice"),
        (("split", "photos", "--out", "x.csv", *COLUMNS), "column names columns of a table"),
        (("index", "FILE", "photos", "--gallery", "g", *COLUMNS), "column: there is no table"),
    ],
)
def test_columns_that_cannot_be_meant(words: tuple[str, ...], message: str, file: Path) -> None:
    assert message in refused(*(file if word == "FILE" else word for word in words))
    assert not Path("x.csv").exists()
    assert not Path("g").exists()


def test_a_search_without_a_hit_prints_a_sentence(file: Path) -> None:
    ok("index", file, "photos", "--gallery", "g", *PATTERN)
    query = "photos/p0_hall_0.png"
    result = ok("search", query, "--gallery", "g", "--where", "camera=door")
    assert result.stdout.strip() == f"{query}: nothing found"
    assert "the condition on camera alone leaves 0 of 24" in result.stderr
    some = ok("search", query, "photos/p1_yard_0.png", "--gallery", "g", "--where", f"source={query}").stdout
    assert f"{query}: nothing found" in some
    assert some.count("score") == 1


def test_a_gallerys_info_is_words(file: Path) -> None:
    ok("index", file, "photos", "--gallery", "g", *PATTERN)
    info = ok("gallery", "info", "g").stdout
    assert "[" not in info
    assert "converted" not in info
    assert "False" not in info
    assert "former" not in info
    assert re.search(r"^items +24", info, re.MULTILINE)
    assert "former_fingerprints" in json.loads(ok("gallery", "info", "g", "--json").stdout)["encoder"]


def test_a_checked_table_is_named_and_its_times_are_dates() -> None:
    options = ("column.path=Datei", "column.identity=Wer", "column.camera=Kamera")
    for root in ("list.csv", "."):
        printed = ok("check", "table", root, *options).stdout
        assert printed.startswith("table in list.csv\n")
        assert "2024-05-01 10:00:00 UTC" in printed
        assert "1714557600" not in printed
    seconds = Path("list.csv").read_text().replace("171455760", "")
    Path("seconds.csv").write_text(seconds)
    assert "1 s" in ok("check", "table", "seconds.csv", *options).stdout, "no date, but seconds of a video"


def test_a_run_that_cannot_be_measured_says_how_to_cut_a_test_part(
    here: Path, tiny_market: Path, tiny_recipe: Path
) -> None:
    source = tiny_market / "bounding_box_train"
    pattern = "{identity}_c{camera}s1_*.jpg"
    data = ("data.name=folder", f"data.root={source}", f'data.pattern="{pattern}"', "data.val_identities=0")
    said = ok("train", tiny_recipe, *data, "train.epochs=1", "--out", "run").stderr.splitlines()[-1]
    assert "folder has no test part, so that this run cannot be measured; next: reid split" in said
    command = said.partition("next: reid ")[2].partition(", and train")[0]
    ok(*shlex.split(command))
    cut = rk.load_dataset("table", "people.csv")
    assert cut.query
    assert cut.gallery
    assert cut.has_cameras


def test_nobody_trains_for_1_epochs_and_own_code_is_allowed_again(
    here: Path, tiny_market: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "newcomers_code.py").write_text(OWN_CODE)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setenv(trust.ENVIRONMENT, "")
    options = ("model.name=newcomers_code:network", f"data.root={tiny_market}", "train.epochs=1")
    train = ("train", tiny_recipe, *options, "--out", "run")
    said = ok(*train).stderr
    following = next(line for line in said.splitlines() if line.startswith("next: "))
    assert following == "next: reid evaluate run --allow-code newcomers_code"
    assert "training is complete (1 epoch)" in ok(*train).stderr


def test_only_code_of_ones_own_is_to_be_allowed(tiny_market: Path, tiny_recipe: Path) -> None:
    said = ok("train", tiny_recipe, f"data.root={tiny_market}", "train.epochs=1", "--out", "run").stderr
    assert said.splitlines()[-1] == "next: reid evaluate run"


def features(folder: str, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    identities, cameras = np.repeat(np.arange(6), 2), np.tile([1, 2], 6)
    Path(folder).mkdir()
    return save_features(
        Path(folder) / "features.npz", Features(rng.normal(size=(12, 4)), identities, cameras)
    )


def results() -> dict[str, float]:
    files = Path("runs").glob("*/evaluation.json")
    return {str(path.parent): json.loads(path.read_text()).get("mAP") for path in files}


def test_results_of_files_called_alike_stay(file: Path) -> None:
    tables = []
    for name, seed in (("a", 0), ("b", 1)):
        Path(name).mkdir()
        ok("split", "photos", "--out", f"{name}/people.csv", *PATTERN, "--seed", seed)
        tables.append(("evaluate", file, "--data", "table", "--root", f"{name}/people.csv", "--no-report"))
    scores = [json.loads(ok(*words, "--json").stdout)["mAP"] for words in tables]
    assert results() == {"runs/tiny-people": scores[0], "runs/tiny-people-2": scores[1]}
    for words in reversed(tables):
        ok(*words)
    assert len(results()) == 2, "the same again goes where it was"

    files = [features("c", 0), features("d", 1)]
    for path in files:
        ok("evaluate", path, "--no-report", "--protocol", "recall")
    assert {"runs/features-features", "runs/features-features-2"} <= results().keys()
    ok("compare", *files, "--protocol", "recall")
    ok("compare", *reversed(files), "--protocol", "recall")
    assert sorted(path.parent.name for path in Path("runs").glob("*/comparison.json")) == [
        "features-vs-features",
        "features-vs-features-2",
    ]


def test_a_runs_own_results_are_not_overwritten_by_those_on_other_data(
    file: Path, tiny_market: Path, tiny_recipe: Path
) -> None:
    ok("train", tiny_recipe, f"data.root={tiny_market}", "train.epochs=1", "--out", "run")
    own = json.loads(ok("evaluate", "run", "--no-report", "--json").stdout)
    ok("split", "photos", "--out", "people.csv", *PATTERN)
    ok("evaluate", "run", "--data", "table", "--root", "people.csv", "--no-report")
    assert json.loads(Path("run/evaluation.json").read_text()) == own
    assert list(results()) == ["runs/run-people"]
