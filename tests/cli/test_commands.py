"""The commands as a user runs them: what they print, write and answer to bad input.

Most run in the tests' process, from their words to their exit code; those whose meaning is a process of their
own are started as one.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reidkit.files import is_unfinished
from tests.cli.running import ended, process


def ok(*words, by=ended):
    result = by(*words)
    assert result.code == 0, result.stderr
    return result


def refused(*words, by=ended):
    """The one line that a mistake is answered with."""
    result = by(*words)
    assert result.code == 2, result
    assert "Traceback" not in result.stderr
    return result.stderr.strip()


@pytest.fixture(scope="module")
def run(tiny_market, tiny_recipe, tmp_path_factory):
    """A run trained by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    result = ok("train", tiny_recipe, f"data.root={tiny_market}", "--out", folder / "run")
    assert "epoch 3/3" in result.stderr
    assert f"next: reid evaluate {folder / 'run'}" in result.stderr
    return folder / "run"


def test_evaluate_prints_scores_and_writes_a_report(run):
    result = ok("evaluate", run)
    assert "mAP" in result.stdout
    assert "12 of 12 queries valid" in result.stdout
    scores = json.loads((run / "evaluation.json").read_text())
    assert scores["mAP"] > 0.5
    assert "<svg" in (run / "report.html").read_text()


def test_evaluate_as_json_elsewhere_with_the_other_average_precision(run, tmp_path):
    step = json.loads((run / "evaluation.json").read_text()) if (run / "evaluation.json").exists() else None
    result = ok(
        "evaluate", run, "--average-precision", "trapezoid", "--out", tmp_path, "--no-report", "--json"
    )
    scores = json.loads(result.stdout)
    assert scores["average_precision"] == "trapezoid"
    assert not (tmp_path / "report.html").exists()
    if step:
        assert scores["rank-1"] == step["rank-1"]


def test_a_gallery_is_filled_once_searched_and_filtered(run, tiny_market, tmp_path):
    gallery, pattern = tmp_path / "people.gallery", "{identity}_c{camera}s1_{frame}_01.jpg"
    index = ("index", run, tiny_market / "bounding_box_test", "--gallery", gallery, "--pattern", pattern)
    assert "36 images" in ok(*index).stdout
    assert "36 images" in ok(*index).stdout, "indexing again does not double it"
    query = sorted((tiny_market / "query").iterdir())[0]
    search = ("search", query, "--gallery", gallery, "--top", 5, "--json")
    hits = json.loads(ok(*search).stdout)[0]["hits"]
    assert len(hits) == 5
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    elsewhere = json.loads(ok(*search, "--where", "camera!=1").stdout)[0]["hits"]
    assert {hit["camera"] for hit in elsewhere} <= {2, 3}
    table = ok("search", query, "--gallery", gallery, "--picture", tmp_path / "hits.png").stdout
    assert "score" in table
    assert Image.open(tmp_path / "hits.png").width > 200


def test_encode_writes_unit_embeddings_with_their_paths(run, tiny_market, tmp_path):
    ok("encode", run, tiny_market / "query", "--out", tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as features:
        np.testing.assert_allclose(np.linalg.norm(features["embeddings"], axis=1), 1, atol=1e-5)
        assert len(features["paths"]) == len(features["embeddings"]) == 12


def test_check_counts_and_complains(tiny_market):
    result = json.loads(ok("check", "market1501", tiny_market, "--json").stdout)
    assert result["counts"]["train"]["images"] == 96
    assert "bounding_box" not in ok("check", "market1501", tiny_market).stderr


def test_synthetic_people_are_drawn_on_demand(tmp_path):
    options = [
        "num_train_identities=2",
        "num_test_identities=2",
        "num_cameras=2",
        "num_distractors=2",
        "num_junk=1",
    ]
    result = ok("check", "synthetic", tmp_path / "w", "--make", *options, "height=48", "width=24")
    assert "train" in result.stdout
    assert "no option 'num_persons'" in refused(
        "check", "synthetic", tmp_path / "x", "--make", "num_persons=3"
    )
    assert not (tmp_path / "x").exists()


def test_recipes_lists_and_config():
    assert "small-cpu" in ok("recipes").stdout
    assert "lr = 0.5" in ok("config", "small-cpu", "optim.lr=0.5").stdout
    for kind in ("losses", "models", "datasets", "galleries"):
        assert ok("list", kind).stdout.strip()
    assert json.loads(ok("list", "losses", "--json").stdout)["msml"]["options"]["margin"] == 0.3


def test_a_recipe_is_copied_once(tmp_path):
    ok("recipes", "copy", "small-cpu", tmp_path / "mine.toml")
    assert "exists already" in refused("recipes", "copy", "small-cpu", tmp_path / "mine.toml")
    ok("config", tmp_path / "mine.toml")


def test_help_and_import_are_quick():
    """Neither torch nor NumPy is imported for either: they alone take a second."""
    heavy = "{'torch', 'numpy', 'rich', 'pydantic'}"
    probe = f"import sys, reidkit, reidkit.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    before = os.times()
    ok("--help", by=process)
    after = os.times()
    assert after.children_user - before.children_user < 1.0, "seconds of the processor"


# Bad input: one line that says what, where and what to do, and nothing half-written.


def test_unknown_commands_recipes_and_keys(tmp_path):
    assert "did you mean 'train'" in refused("trian", by=process)
    assert "did you mean 'small-cpu'" in refused("train", "smal-cpu", "--out", tmp_path / "r")
    message = refused("train", "small-cpu", "optim.lrr=1", "--out", tmp_path / "r")
    assert "unknown key 'optim.lrr'; did you mean 'lr'" in message
    assert not (tmp_path / "r").exists()


def test_a_missing_folder_and_a_wrong_layout(tmp_path):
    message = refused("train", "small-cpu", f"data.root={tmp_path / 'nowhere'}", "--out", tmp_path / "r")
    assert "nowhere does not exist" in message
    (tmp_path / "photos").mkdir()
    message = refused("train", "small-cpu", f"data.root={tmp_path / 'photos'}", "--out", tmp_path / "r")
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        assert folder in message
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty (0 bytes)"), (b"hello", "is not an image"), ("half", "is truncated")],
)
def test_a_broken_image_stops_training_and_is_named(tiny_market, tiny_recipe, tmp_path, content, said):
    root = copy_of(tiny_market, tmp_path / "data")
    victim = sorted((root / "bounding_box_train").iterdir())[5]
    whole = victim.read_bytes()
    victim.unlink()
    victim.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    ways = [(0, ended), (1, process)] if content == "half" else [(0, ended)]
    for workers, by in ways:
        message = refused(
            "train", tiny_recipe, f"data.root={root}", f"train.num_workers={workers}",
            "--out", tmp_path / f"run{workers}", by=by,
        )  # fmt: skip
        assert said in message
        assert victim.name in message
        assert "\n" not in message
    result = ended("check", "market1501", root)
    assert result.code == 1
    assert victim.name in result.stdout
    assert said in result.stdout


def test_a_table_with_a_missing_column_or_a_bad_row(tmp_path):
    table = tmp_path / "people.csv"
    write_table(table, [["file", "identity"], ["a.jpg", "1"]])
    assert "people.csv" in (message := refused("check", "table", table))
    assert "'path'" in message
    Image.new("RGB", (8, 16)).save(tmp_path / "a.jpg")
    write_table(table, [["path", "identity", "split"], ["a.jpg", "1", "train"], ["a.jpg", "2", "tset"]])
    message = refused("check", "table", table)
    assert "row 3" in message
    assert "tset" in message


def test_one_camera_and_single_images_are_explained(tmp_path):
    rng = np.random.default_rng(0)
    for identity, count in ((1, 3), (2, 1)):
        for frame in range(count):
            path = tmp_path / "photos" / f"{identity:04}_c1s1_{frame:06}_01.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(path)
    text = ok("check", "folder", tmp_path / "photos", "pattern={identity}_c{camera}s1_{frame}_01.jpg").stdout
    assert "images that all come from one camera" in text
    assert "training identities with a single image" in text


def test_a_run_of_other_settings_is_refused_naming_the_setting(run, tiny_market, tiny_recipe):
    before = (run / "config.toml").read_text()
    message = refused("train", tiny_recipe, f"data.root={tiny_market}", "optim.lr=2e-3", "--out", run)
    assert "optim.lr: 0.001 there, 0.002 now" in message
    assert (run / "config.toml").read_text() == before


def test_a_gallery_of_another_encoder_is_refused(run, tiny_market, tiny_recipe, tmp_path):
    other = tmp_path / "other"
    ok("train", tiny_recipe, f"data.root={tiny_market}", "seed=1", "train.epochs=1", "--out", other)
    gallery = tmp_path / "g.gallery"
    ok("index", run, tiny_market / "query", "--gallery", gallery)
    refused("index", other, tiny_market / "query", "--gallery", gallery)
    query = sorted((tiny_market / "query").iterdir())[0]
    assert "another encoder" in refused("search", query, "--gallery", gallery, "--encoder", other)
    assert "nobody.gallery" in refused("search", query, "--gallery", tmp_path / "nobody.gallery")


def test_a_full_disk_while_saving_keeps_what_was_there(run, tiny_market, tiny_recipe, tmp_path):
    """A real one: a tiny file system in memory, where the machine lets us mount it."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(small)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
    try:
        out = small / "run"
        train = ("train", tiny_recipe, f"data.root={tiny_market}", "--out", out)
        filler = small / "filler"
        filler.write_bytes(b"x" * 400_000)
        message = refused(*train)
        assert "No space left on device" in message
        assert "last.ckpt" in message or "safetensors" in message
        assert not any(map(is_unfinished, out.iterdir())), "no temporary file stays"
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        ok(*train)
        assert (out / "last.safetensors").read_bytes() == (run / "last.safetensors").read_bytes()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def copy_of(tree: Path, to: Path) -> Path:
    import shutil

    shutil.copytree(tree, to, copy_function=os.link)
    return to


def write_table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
