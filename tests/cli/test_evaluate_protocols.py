"""``reid evaluate`` on data sets of every protocol: scores, splits, what is said, and where it is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import reidkit as rk
from reidkit import config
from reidkit.cli import cli
from reidkit.datasets import load_dataset
from reidkit.errors import ConfigError
from reidkit.evaluation.split_average import evaluate_splits
from reidkit.reports.run_report import Output, Scoring, evaluate_run
from reidkit.reranking import RerankOptions
from tests import dataset_writers as writers


@pytest.fixture(scope="module")
def encoder() -> rk.Encoder:
    torch.manual_seed(0)
    return rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24)


@pytest.fixture(scope="module")
def file(encoder: rk.Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder.save(tmp_path_factory.mktemp("model") / "tiny.safetensors")


def reid(*words: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, words)])


def ok(*words: object) -> Result:
    result = reid(*words)
    if result.exception is not None:
        raise result.exception
    return result


def write_viper(root: Path, *, num_persons: int = 12) -> Path:
    names = [f"cam_{camera}/{person:03}_0.bmp" for camera in "ab" for person in range(num_persons)]
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (24, 12, 3), np.uint8)
        writers.Image.fromarray(pixels).save(path)
    return root


@pytest.mark.parametrize("name", sorted(writers.WRITERS))
def test_every_layout_is_scored_by_its_own_protocol(encoder: rk.Encoder, name: str, tmp_path: Path) -> None:
    writers.WRITERS[name](tmp_path / "data")
    data = load_dataset(name, tmp_path / "data")
    searched = {sample.identity for sample in data.gallery or data.query}
    output = Output(tmp_path / "out", page=len(searched) > 1)
    [result] = evaluate_run(encoder, data, Scoring(), output).evaluations
    assert result.protocol.startswith(data.protocol)
    assert f"camera filter {data.camera_filter}" in result.protocol
    assert result.protocol.endswith(data.split_name)
    assert 0 < result.cmc[-1] <= 1
    assert 0 <= result.mean_average_precision <= 1  # at R, a network that learned nothing may have none
    assert json.loads((tmp_path / "out/evaluation.json").read_text())["data"] == name
    if len(searched) > 1:
        assert (tmp_path / "out/report.html").stat().st_size > 10_000


def test_the_report_of_a_set_without_a_gallery_shows_no_image_as_its_own_hit(
    encoder: rk.Encoder, tmp_path: Path
) -> None:
    writers.cub200(tmp_path / "data")
    data = load_dataset("cub200", tmp_path / "data")
    [evaluation] = evaluate_run(encoder, data, Scoring(), Output(tmp_path)).evaluations
    page = (tmp_path / "report.html").read_text()
    assert "Recall@8" in page
    assert "mAP@R" in page
    num_lists = evaluation.num_valid_queries
    assert 1 < num_lists <= 12
    # Once in each list: as its query, or as a hit.
    lists = page.split('<section id="lists">')[1].split("</section>")[0]
    for sample in data.query:
        assert lists.count(f'title="{sample.path.name}"') == num_lists


def test_one_split_and_all_splits(file: Path, encoder: rk.Encoder, tmp_path: Path) -> None:
    root = write_viper(tmp_path / "data")
    splits = [load_dataset("viper", root, split=split, direction="a_to_b") for split in range(10)]
    words = (file, "--data", "viper", "--root", root, "direction=a_to_b", "--out", tmp_path / "out")

    third = ok(*words, "--split", 3, "--no-report")
    expected = rk.evaluate(encoder, splits[3])
    assert third.stdout.strip().splitlines()[-3:] == str(expected).splitlines()
    assert "split 3 of 0..9, drawn from seed 3" in third.stdout
    assert "6 of 6 queries valid" in third.stdout

    result = ok(*words, "--split", "all")
    average = evaluate_splits(encoder, splits)
    assert str(average) in result.stdout
    assert "images embedded: 24" in result.stderr, "each image once"
    values = json.loads((tmp_path / "out/evaluation.json").read_text())
    scores = [rk.evaluate(encoder, data).rank(5) for data in splits]
    assert values["rank-5"] == pytest.approx(np.mean(scores))
    assert values["standard_deviation"]["rank-5"] == pytest.approx(np.std(scores, ddof=1))
    assert f"{100 * np.mean(scores):.1f} ± {100 * np.std(scores, ddof=1):.1f}" in result.stdout
    assert [split["rank-5"] for split in values["splits"]] == pytest.approx(scores)
    assert values["num_splits"] == 10
    assert json.loads(ok(*words, "--split", "all", "--json").stdout) == values

    average = evaluate_splits(encoder, splits, camera_filter="none")
    assert str(average) in ok(*words, "--split", "all", "--camera-filter", "none").stdout


def test_frames_of_tracklets(file: Path, encoder: rk.Encoder, tmp_path: Path) -> None:
    writers.mars(tmp_path / "data")
    expected = rk.evaluate(encoder, load_dataset("mars", tmp_path / "data"))
    words = (file, "--data", "mars", "--root", tmp_path / "data", "--out", tmp_path / "out")
    assert ok(*words).stdout.splitlines() == str(expected).splitlines()
    assert "tracklets (13 frames averaged)" in str(expected)
    assert "tracklets (8 frames averaged)" in ok(*words, "--frames", 1).stdout
    with pytest.raises(ConfigError, match="num_frames is 0"):
        ok(*words, "--frames", 0)


def run_folder(path: Path, file: Path, root: Path, *, split: int) -> Path:
    """As training leaves it, as far as evaluation looks."""
    path.mkdir(parents=True)
    (path / "best.safetensors").write_bytes(file.read_bytes())
    recipe = config.load("small-cpu", ["data.name=viper", f"data.root={root}", f"data.split={split}"])
    (path / "config.toml").write_text(config.dump(recipe))
    return path


@pytest.mark.parametrize("split", ["0", "all"])
def test_l1_distance(split: str, file: Path, tmp_path: Path) -> None:
    words = [file, "--data", "viper", "--root", write_viper(tmp_path / "data"), "--split", split]
    result = ok(*words, "--no-report", "--distance", "l1", "--out", tmp_path / "out")
    assert "l1 distance" in result.stdout


def test_a_trained_run_is_tested_on_its_own_split_and_says_so(file: Path, tmp_path: Path) -> None:
    root = write_viper(tmp_path / "data")
    run = run_folder(tmp_path / "run", file, root, split=4)
    result = ok(run, "--no-report")
    assert "split 4 of 0..9" in result.stdout
    assert f"{run} was trained on split 4 of viper; it has seen the test persons of all" in result.stderr
    assert json.loads((run / "evaluation.json").read_text())["data"] == "viper"
    assert "split 6 of 0..9" in ok(run, "--no-report", "--split", 6).stdout


@pytest.mark.parametrize("kind", ["file", "read-only run"])
def test_results_do_not_go_where_the_model_lies(
    kind: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_viper(tmp_path / "data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    model = file
    if kind == "read-only run":
        model = run_folder(tmp_path / "runs of others/tiny", file, root, split=0)
        # Permissions do not bind the superuser, as whom tests often run.
        monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    before = sorted(model.parent.iterdir())
    result = ok(model, "--data", "viper", "--root", root)
    written = Path("runs/tiny-viper")
    assert sorted(path.name for path in written.iterdir()) == ["evaluation.json", "report.html"]
    assert f"wrote {written / 'evaluation.json'}" in result.stderr
    assert sorted(model.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--split", "al"), "split is 'al'; give a number from 0 on, or 'all'"),
        (("--split", "10"), r"split = 10 is outside 0\.\.9"),
        (("--frames", "3"), "which knows no tracklets"),
        (("splitt=3",), "no option 'splitt'; did you mean 'split'"),
    ],
)
def test_mistakes(file: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    root = write_viper(tmp_path / "data")
    with pytest.raises(ConfigError, match=message):
        ok(file, "--data", "viper", "--root", root, "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_all_splits_of_a_set_that_has_one(file: Path, tmp_path: Path) -> None:
    writers.market1501(tmp_path / "data")
    with pytest.raises(ConfigError, match="data set 'market1501' has one split here; leave split out"):
        ok(file, "--data", "market1501", "--root", tmp_path / "data", "--split", "all")


def test_mistakes_are_told_before_images_are_embedded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_viper(tmp_path / "data")
    monkeypatch.setattr(rk.Encoder, "features", None)
    with pytest.raises(ConfigError, match="unknown metric 'lda'"):
        ok(file, "--data", "viper", "--root", root, "--split", "all", "--metric", "lda")


def test_one_split_is_no_average(encoder: rk.Encoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 split to average over; give at least 2, or use evaluate"):
        evaluate_splits(encoder, [load_dataset("viper", write_viper(tmp_path))])


def test_learned_and_reranked_distances_over_all_splits(
    file: Path, encoder: rk.Encoder, tmp_path: Path
) -> None:
    root = write_viper(tmp_path / "data")
    words = (file, "--data", "viper", "--root", root, "--split", "all", "--out", tmp_path / "out")
    splits = [load_dataset("viper", root, split=split) for split in range(10)]
    result = ok(*words, "--metric", "xqda", "--rerank", "--k1", 3, "--k2", 2)
    options = RerankOptions(k1=3, k2=2)
    expected = [evaluate_splits(encoder, splits, metric="xqda", rerank=way) for way in (None, options)]
    assert result.stdout.strip() == "\n\n".join(map(str, expected))
    values = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert values["reranked"]["mAP"] == pytest.approx(expected[1].as_dict()["mAP"])
    with pytest.raises(ConfigError, match="--tables: looks at one split"):
        ok(*words, "--tables")
