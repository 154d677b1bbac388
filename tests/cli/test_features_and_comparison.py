"""Feature files, comparison, branches, calibration and learned distances as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import reidkit as rk
from reidkit import config
from reidkit.cli import cli
from reidkit.datasets import load_dataset
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.evaluation.evaluation import evaluate_features
from reidkit.evaluation.feature_files import load_features, save_features
from reidkit.files import WriteError
from reidkit.types import Features


def reid(*words: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, words)), env={"COLUMNS": "200"})


def ok(*words: object) -> Result:
    result = reid(*words)
    if result.exception is not None:
        raise result.exception
    return result


def encoder_file(folder: Path, seed: int, model: str = "timm:test_resnet") -> Path:
    torch.manual_seed(seed)
    return rk.Encoder(rk.build_model(model), height=48, width=24).save(folder / f"seed{seed}.safetensors")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_file(tmp_path_factory.mktemp("model"), 0)


@pytest.fixture(scope="module")
def noisy_market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Market-1501's tree, of people so much alike that no network without training finds all of them."""
    root = tmp_path_factory.mktemp("noisy_market")
    rng = np.random.default_rng(0)
    for identity in range(1, 19):
        person = rng.normal(128, 20, (6, 3, 3)).repeat(8, axis=0).repeat(8, axis=1)
        for camera in (1, 2, 3):
            for frame in range(4):
                test_folder = "query" if frame == 0 else "bounding_box_test"
                folder = "bounding_box_train" if identity > 12 else test_folder
                pixels = person + rng.normal(0, 60, (6, 3, 3)).repeat(8, axis=0).repeat(8, axis=1)
                path = root / folder / f"{identity:04}_c{camera}s1_{frame:06}_01.jpg"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def on_market(noisy_market: Path) -> tuple[object, ...]:
    return ("--data", "market1501", "--root", noisy_market)


@pytest.fixture(scope="module")
def features(file: Path, on_market: tuple[object, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the data set's test images, written by the command line."""
    out = tmp_path_factory.mktemp("features") / "features.npz"
    result = ok("encode", file, *on_market, "--out", out)
    assert f"{out}: 36 query and 108 gallery embeddings" in result.stdout
    assert f"next: reid evaluate {out} --protocol market1501 --camera-filter same_identity" in result.stderr
    return out


def made_up(seed: int, noise: float, *, num: int = 40) -> tuple[Features, Features]:
    """Query and gallery of the same people whatever the noise."""
    rng = np.random.default_rng(seed)
    people = np.random.default_rng(7).normal(size=(num, 8))
    identities, cameras = np.repeat(np.arange(num), 3), np.tile([1, 2, 3], num)
    embeddings = people[identities] + noise * rng.normal(size=(3 * num, 8))
    first = cameras == 1
    parts = [Features(embeddings[rows], identities[rows], cameras[rows]) for rows in (first, ~first)]
    return parts[0], parts[1]


# Features


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_features_score_as_the_network_that_made_them(
    suffix: str, file: Path, on_market: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / f"features{suffix}"
    ok("encode", file, *on_market, "--out", out)
    expected = ok("evaluate", file, *on_market, "--out", tmp_path / "a", "--no-report").stdout
    assert ok("evaluate", out, "--out", tmp_path / "b", "--no-report").stdout == expected
    values = json.loads((tmp_path / "b/evaluation.json").read_text())
    assert values["data"] == str(out)
    assert values["num_queries"] == 36


def test_the_report_of_features_has_no_pictures(features: Path, tmp_path: Path) -> None:
    result = ok("evaluate", features, "--out", tmp_path, "--tables")
    assert f"wrote {tmp_path / 'report.html'}" in result.stderr
    page = (tmp_path / "report.html").read_text()
    assert "<svg" in page
    assert "data:image/jpeg" not in page
    assert any((tmp_path / "tables").iterdir())


def test_scores_without_a_pair_of_two_persons(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(0).normal(size=(3, 4))
    query, gallery = (Features(embeddings, np.ones(3, int), np.full(3, camera)) for camera in (1, 2))
    save_features(tmp_path / "one.npz", query, gallery)
    result = ok("evaluate", tmp_path / "one.npz", "--out", tmp_path)
    assert "100.0" in result.stdout
    assert "no report: the protocol keeps no negative pair" in result.stderr


def test_features_under_another_protocol(features: Path, tmp_path: Path) -> None:
    words = ("evaluate", features, "--no-report", "--out", tmp_path)
    assert "single_gallery_shot" in ok(*words, "--protocol", "single_gallery_shot").stdout
    assert "camera filter none" in ok(*words, "--camera-filter", "none").stdout
    query, gallery = load_features(features)
    expected = evaluate_features(query, gallery, camera_filter="other_cameras", average_precision="trapezoid")
    options = ("--camera-filter", "other_cameras", "--average-precision", "trapezoid")
    assert ok(*words, *options).stdout.strip() == str(expected)


def test_results_of_features_go_into_runs(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ok("evaluate", features, "--no-report")
    assert Path("runs/features-features/evaluation.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "viper"), "--data: .*features.npz holds features, not a network; leave it out"),
        (("--metric", "xqda", "--split", "all"), "--split, --metric: "),
        (("--frames", 0), "--frames: "),
        (("--k1", 5), "--k1: goes with --rerank"),
        (("--tables", "--no-report"), "--tables: they are the report's"),
        (("--protocol", "market"), "'market'; did you mean 'market1501'"),
        (("--camera-filter", "same"), "unknown camera filter 'same'"),
    ],
)
def test_what_does_not_go_with_features(
    features: Path, words: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        ok("evaluate", features, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "dist.pkl").write_bytes(b"")
    with pytest.raises(DataError, match=r"numpy\.savez"):
        ok("evaluate", tmp_path / "dist.pkl")


def test_encode_needs_something_to_embed(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to embed; give images, or a data set"):
        ok("encode", file, "--out", tmp_path / "f.npz")
    with pytest.raises(ConfigError, match=r"ending in \.npz or \.parquet"):
        ok("encode", file, tmp_path, "--out", tmp_path / "f.csv")
    with pytest.raises(ConfigError, match="--data: give either images or a data set"):
        ok("encode", file, tmp_path, "--data", "viper", "--out", tmp_path / "f.npz")


# Distances


def test_reranking_prints_both_tables(features: Path, tmp_path: Path) -> None:
    options = ("--rerank", "--k1", 5, "--k2", 2, "--lambda", 0.2)
    result = ok("evaluate", features, "--no-report", "--out", tmp_path, *options)
    plain, reranked = result.stdout.strip().split("\n\n")
    assert "  100.0    100.0    100.0" not in plain, "people who are hard to find"
    assert "re-ranked" not in plain
    assert "re-ranked (k1=5, k2=2, lambda=0.2)" in reranked
    values = json.loads((tmp_path / "evaluation.json").read_text())
    assert "re-ranked" in values["reranked"]["protocol"]
    assert f"{100 * values['reranked']['mAP']:7.1f}" in reranked
    printed = ok("evaluate", features, "--no-report", "--out", tmp_path, *options, "--json").stdout
    assert json.loads(printed) == values


def test_metric_and_multi_query_of_a_network(
    file: Path, on_market: tuple[object, ...], noisy_market: Path, tmp_path: Path
) -> None:
    words = ("evaluate", file, *on_market, "--no-report", "--out", tmp_path)
    data, encoder = load_dataset("market1501", noisy_market), rk.load_encoder(file)
    options = {"metric": "xqda", "multi_query": "mean"}
    result = ok(*words, "--metric", "xqda", "--multi-query", "mean", "--rerank")
    plain, reranked = result.stdout.strip().split("\n\n")
    assert plain == str(rk.evaluate(encoder, data, **options))
    assert reranked == str(rk.evaluate(encoder, data, rerank=True, **options))
    assert "XQDA distance" in plain
    assert "images embedded: 216" in result.stderr, "training images too, each once"
    with pytest.raises(ConfigError, match="did you mean 'xqda'"):
        ok(*words, "--metric", "xqd")


def test_a_feature_that_the_network_has_not(file: Path, on_market: tuple[object, ...]) -> None:
    with pytest.raises(ConfigError, match="'neckk'; did you mean 'neck'"):
        ok("evaluate", file, *on_market, "--feature", "neckk")


# Branches


def test_branches(on_market: tuple[object, ...], tmp_path: Path) -> None:
    file = encoder_file(tmp_path, 0, "jlml")
    words = ("evaluate", file, *on_market, "--out", tmp_path / "out")
    result = ok(*words, "--branches", "--json")
    rows = {row["feature"]: row for row in json.loads(result.stdout)}
    assert list(rows) == ["global", "local", "embedding"]
    assert rows["global"]["mAP"] != rows["local"]["mAP"]
    table = list(csv.DictReader((tmp_path / "out/branches.csv").open()))
    assert len(table) == 36
    for name, row in rows.items():
        alone = ok(*words, "--feature", name, "--no-report", "--json").stdout
        assert row["mAP"] == pytest.approx(json.loads(alone)["mAP"])
        assert row["right"] == sum(line[name] == "1" for line in table)
        others = set(rows) - {name}
        assert row["soonest"] == sum(all(int(line[name]) < int(line[o]) for o in others) for line in table)
        only = [line for line in table if line[name] == "1" and all(line[o] != "1" for o in others)]
        assert row["alone_right"] == len(only)
    assert {Path(line["query"]).name[:4] for line in table} == {f"{line['identity']:0>4}" for line in table}
    local = ok("encode", file, *on_market, "--feature", "local", "--out", tmp_path / "local.npz").stdout
    assert "embeddings of 512 values" in local
    printed = ok(*words, "--branches").stdout
    assert "alone right: by this feature only" in printed
    with pytest.raises(ConfigError, match="--branches compares them all"):
        ok(*words, "--branches", "--feature", "local")
    with pytest.raises(ConfigError, match="--tables: --branches writes no report"):
        ok(*words, "--branches", "--tables")


# Comparison


def test_the_better_features_are_called_better(tmp_path: Path) -> None:
    save_features(tmp_path / "bad.npz", *made_up(0, 2.0))
    save_features(tmp_path / "good.parquet", *made_up(1, 0.5))
    words = ("compare", tmp_path / "bad.npz", tmp_path / "good.parquet", "--out", tmp_path / "out")
    result = ok(*words)
    assert result.stdout.splitlines()[-1].startswith("good is better: mAP +")
    for name in ("comparison.html", "comparison.json"):
        assert f"wrote {tmp_path / 'out' / name}" in result.stderr
    values = json.loads((tmp_path / "out/comparison.json").read_text())
    assert json.loads(ok(*words, "--json").stdout) == values
    scores = [evaluate_features(*load_features(path)) for path in words[1:3]]
    assert values["first"]["mAP"] == pytest.approx(scores[0].mean_average_precision)
    difference = scores[1].mean_average_precision - scores[0].mean_average_precision
    assert values["paired"]["mAP"]["difference"] == pytest.approx(difference)
    low, high = values["paired"]["mAP"]["interval"]
    assert 0 < low < difference < high
    assert values["second"]["distances"]["overlap"] < values["first"]["distances"]["overlap"]
    back = ok("compare", *reversed(words[1:3]), "--out", tmp_path / "back").stdout
    assert back.splitlines()[-1].startswith("bad is worse: mAP -")


def test_no_difference_is_called_none(tmp_path: Path) -> None:
    for seed in (0, 1):
        save_features(tmp_path / f"{seed}.npz", *made_up(seed, 1.0))
    result = ok("compare", tmp_path / "0.npz", tmp_path / "1.npz", "--out", tmp_path / "out")
    assert result.stdout.splitlines()[-1].startswith("no difference shown: mAP ")
    same = ok("compare", tmp_path / "0.npz", tmp_path / "0.npz", "--out", tmp_path / "out")
    assert same.stdout.splitlines()[-1].startswith("no difference shown: mAP +0.0 points")


def test_files_of_one_name_and_without_a_gallery(tmp_path: Path) -> None:
    for seed, noise in enumerate((2.0, 0.2)):
        (tmp_path / str(seed)).mkdir()
        save_features(tmp_path / str(seed) / "f.npz", made_up(0, noise)[1])
    files = [tmp_path / str(seed) / "f.npz" for seed in (0, 1)]
    result = ok("compare", *files, "--protocol", "recall", "--out", tmp_path / "out")
    assert result.stdout.splitlines()[-1].startswith(f"{files[1]} is better: mAP@R +")
    page = (tmp_path / "out/comparison.html").read_text()
    assert "Recall@4" in page
    assert "mINP" not in page


def test_features_of_other_images_are_not_compared(features: Path, tmp_path: Path) -> None:
    save_features(tmp_path / "other.npz", *made_up(0, 1.0))
    with pytest.raises(DataError, match="the same images"):
        ok("compare", features, tmp_path / "other.npz", "--out", tmp_path / "out")


def test_networks_runs_and_features_side_by_side(
    file: Path, features: Path, noisy_market: Path, tiny_recipe: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    encoder_file(tmp_path, 1).rename(run / "best.safetensors")
    recipe = config.load(str(tiny_recipe), [f"data.root={noisy_market}"])
    (run / "config.toml").write_text(config.dump(recipe))
    values = json.loads(ok("compare", file, run, "--out", tmp_path / "out", "--json").stdout)
    assert values["second"]["name"] == "run"
    own = ok("evaluate", run, "--out", tmp_path / "own", "--json", "--no-report").stdout
    assert values["second"]["mAP"] == json.loads(own)["mAP"]
    with_file = ok("compare", features, run, "--out", tmp_path / "out2", "--json").stdout
    assert json.loads(with_file)["paired"] == values["paired"]
    with pytest.raises(ConfigError, match="name data and root"):
        ok("compare", file, features)
    with pytest.raises(CheckpointError, match="none: no such run folder"):
        ok("compare", features, tmp_path / "none")
    with pytest.raises(ConfigError, match="--data: both files hold features"):
        ok("compare", features, features, "--data", "market1501")
    other = tmp_path / "other"
    other.mkdir()
    (other / "best.safetensors").write_bytes(file.read_bytes())
    (other / "config.toml").write_text(config.dump(config.load(str(tiny_recipe), [f"data.root={tmp_path}"])))
    with pytest.raises(ConfigError, match="were trained on different data; say on which to compare them"):
        ok("compare", run, other)


# Calibration


def test_a_stored_calibration_is_used_by_search(
    on_market: tuple[object, ...], noisy_market: Path, tmp_path: Path
) -> None:
    file = encoder_file(tmp_path, 0)
    gallery = tmp_path / "people.gallery"
    ok("index", file, noisy_market / "bounding_box_test", "--gallery", gallery)
    query = sorted((noisy_market / "query").iterdir())[0]
    search = ("search", query, "--gallery", gallery)
    plain = ok(*search, "--json").stdout
    assert "probability" not in plain
    with pytest.raises(ConfigError, match=r"has no calibration.*--store-calibration"):
        ok(*search, "--threshold", 0.1)
    with pytest.raises(ConfigError, match=r"--prior: .*has no calibration"):
        ok(*search, "--prior", 0.1)

    result = ok("evaluate", file, *on_market, "--out", tmp_path / "out", "--no-report", "--store-calibration")
    assert f"wrote {file} with its calibration" in result.stderr
    assert "calibrated on the test images of market1501" in result.stderr
    assert "note: fitted on test images" in result.stderr
    assert [path.name for path in tmp_path.glob(".*")] == [], "no temporary file stays"
    calibration = rk.load_encoder(file).calibration
    assert calibration is not None

    answer = ok(*search, "--json")
    assert "prior 0.046 (5 images of one identity, a guess, among 108); --prior changes it" in answer.stderr
    hits = json.loads(answer.stdout)[0]["hits"]
    for hit, before in zip(hits, json.loads(plain)[0]["hits"], strict=True):
        expected = float(calibration.probability(hit["score"], prior=5 / 108))
        assert hit.pop("probability") == pytest.approx(expected)
        assert hit == before
    table = ok(*search).stdout
    assert "probably same person" in table
    assert "%" in table
    rarely = json.loads(ok(*search, "--json", "--prior", 0.01).stdout)[0]["hits"]
    assert rarely[0]["probability"] < float(calibration.probability(rarely[0]["score"]))

    result = ok(*search, "--json", "--threshold", 0.1, "--top", 108)
    threshold = calibration.threshold_at(0.1)
    scores = [hit["score"] for hit in json.loads(ok(*search, "--json", "--top", 108).stdout)[0]["hits"]]
    kept = [hit["score"] for hit in json.loads(result.stdout)[0]["hits"]]
    assert kept == [score for score in scores if score >= threshold]
    assert 0 < len(kept) < 108
    assert f"shown are hits that score {threshold:.3f} or more" in result.stderr
    with pytest.raises(ConfigError, match="rates that can"):
        ok(*search, "--threshold", 1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--feature", "pooled"), "--feature: a calibration is stored for the network's own embedding only"),
        (("--branches",), "--branches: does not go with --store-calibration"),
    ],
)
def test_what_a_calibration_is_not_stored_for(
    file: Path, on_market: tuple[object, ...], words: tuple[str, ...], message: str
) -> None:
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=message):
        ok("evaluate", file, *on_market, "--store-calibration", *words)
    assert file.read_bytes() == before


def test_a_full_disk_leaves_the_encoder_as_it_was(
    file: Path, on_market: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda old, new: full() if new == file else replace(old, new))
    with pytest.raises(WriteError, match="nothing was changed there"):
        ok("evaluate", file, *on_market, "--out", tmp_path, "--no-report", "--store-calibration")
    assert file.read_bytes() == before
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name]
