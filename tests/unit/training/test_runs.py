import json
import re
import shutil

import pytest

from reidkit import config, trust
from reidkit.errors import ConfigError
from reidkit.training.runs import build_trainer, list_runs


@pytest.fixture(scope="module")
def runs(tiny_recipe, tiny_market, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {
        "a/first": ["loss.trihard.weight=0.5"],
        "second": ["data.val_identities=3", "train.epochs=2", "train.validate_every=1"],
    }.items():
        resolved = config.load(tiny_recipe, [f"data.root={tiny_market}", "train.epochs=1", *changes])
        build_trainer(resolved, folder / name).fit()
    (folder / "a" / "first" / "evaluation.json").write_text(json.dumps({"mAP": 0.5, "rank-1": 0.75}))
    return folder


def test_runs_are_found_at_any_depth_with_their_scores(runs):
    (first, second), problems = list_runs(runs)
    assert not problems
    assert (first.name, first.data, first.model) == ("a/first", "market1501", "timm:test_resnet")
    assert first.losses == ("IdentityLoss", "0.5 BatchHardTripletLoss")
    assert (first.mAP, first.rank_1, first.val_mAP) == (0.5, 0.75, None)
    assert (second.mAP, second.epochs_done, second.epochs) == (None, 2, 2)
    assert 0 < second.val_mAP <= 1
    assert json.dumps(first.as_dict())


def test_each_evaluation_says_on_what_data_it_was_made(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    run = tmp_path / "runs" / "a" / "first"
    for name, network in {"first-viper": run, "by-file": run / "best.safetensors", "other": "/x/y"}.items():
        values = {"data": name, "mAP": 0.25, "rank-1": 0.5, "made_from": {"network": str(network)}}
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "evaluation.json").write_text(json.dumps(values))
    origin = {"network": str(run), "data": "/photos/people.csv"}
    (tmp_path / "runs" / "own").mkdir()
    (tmp_path / "runs" / "own" / "evaluation.json").write_text(
        json.dumps({"data": "table", "made_from": origin})
    )
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "evaluation.json").write_text("{")
    (first, second), problems = list_runs(tmp_path / "runs")
    assert not problems
    assert [(one.data, one.mAP, one.folder) for one in first.evaluations] == [
        ("", 0.5, "a/first"),
        ("by-file", 0.25, "by-file"),
        ("first-viper", 0.25, "first-viper"),
        ("table", None, "own"),
    ]
    assert [one.tested_on for one in first.evaluations[1:]] == ["by-file", "first-viper", "table people.csv"]
    assert first.mAP == 0.5
    assert second.evaluations == ()
    assert json.dumps(first.as_dict())


def test_the_best_come_first_and_those_without_a_score_last(runs):
    assert [run.name for run in list_runs(runs, sort="mAP")[0]] == ["a/first", "second"]
    assert [run.name for run in list_runs(runs, sort="val_mAP")[0]] == ["second", "a/first"]
    assert [run.name for run in list_runs(runs, sort="epochs_done")[0]] == ["second", "a/first"]


def test_a_damaged_run_is_named_and_the_others_are_listed(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs" / "second" / "run.json").write_text('{"settings": ')
    for name, text in {"old": '{"settings": {}}', "cut": "{}"}.items():
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(text)
    summaries, problems = list_runs(tmp_path / "runs")
    assert [run.name for run in summaries] == ["a/first"]
    assert len(problems) == 3
    assert any("second/run.json: not JSON" in problem for problem in problems)
    assert any("old/run.json is not what a training writes" in problem for problem in problems)


def test_a_run_whose_files_are_being_renamed_is_listed(runs, tmp_path):
    shutil.copytree(runs / "second", tmp_path / "run")
    (tmp_path / "run" / ".last.ckpt.x").symlink_to("gone")  # there when listed, gone when asked
    assert [len(found) for found in list_runs(tmp_path)] == [1, 0]


def test_a_folder_or_column_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="cannot sort by 'map'"):
        list_runs(tmp_path, sort="map")
    assert list_runs(tmp_path) == ([], [])


OWN_TRACKER = """
def follow(folder):
    file = folder / "mine.txt"
    file.write_text(f"{(folder / 'run.json').is_file()}")

    def track(record):
        with file.open("a") as lines:
            lines.write(f" {record['kind']}")

    return track
"""


def test_a_tracker_of_ones_own_is_made_of_the_run_folder(tiny_recipe, tiny_market, tmp_path, monkeypatch):
    (tmp_path / "own_tracker.py").write_text(OWN_TRACKER)
    monkeypatch.syspath_prepend(tmp_path)
    changes = [f"data.root={tiny_market}", "train.epochs=2", "train.trackers=['own_tracker:follow']"]
    with trust.allow_code("own_tracker"):
        trainer = build_trainer(config.load(tiny_recipe, changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        trainer.fit()
    assert (tmp_path / "run" / "mine.txt").read_text() == "True epoch epoch"
    changes[-1] = "train.trackers=['mlflo']"
    with pytest.raises(ConfigError, match="unknown tracker 'mlflo'; none is registered"):
        build_trainer(config.load(tiny_recipe, changes), tmp_path / "no")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("run.json", text) for text in ("", "3", "[]", "{}", "\0", "[" * 100_000, '{"settings": 3}')),
        ("run.json", '{"settings": {"data": [], "model": {"name": 3}, "losses": 3, "epochs": "x"}}'),
        *(("metrics.jsonl", text) for text in ("3\n", "{}\n", "\0\n")),
        *(("evaluation.json", text) for text in ("", "{", '{"a": 1, "a": 2}')),
    ],
)
def test_runs_with_files_of_another_shape_are_told_and_the_others_listed(tmp_path, name, content):
    for folder in ("good", "odd"):
        (tmp_path / folder).mkdir()
        settings = {"data": {"name": "a"}, "model": {"name": "b"}, "losses": [], "epochs": 3, "more": 1}
        (tmp_path / folder / "run.json").write_text(json.dumps({"settings": settings}))
    (tmp_path / "odd" / name).write_text(content)
    summaries, problems = list_runs(tmp_path)
    assert [run.name for run in summaries] == ["good"]
    assert [str(tmp_path / "odd" / name) in problem for problem in problems] == [True]
    assert len(problems[0]) < 500


def test_scores_that_are_no_numbers_are_none(tmp_path):
    settings = {"data": {"name": "a"}, "model": {"name": "b"}, "losses": [], "epochs": 3}
    (tmp_path / "run.json").write_text(json.dumps({"settings": settings}))
    for text in ("[]", "3", '{"mAP": "x", "rank-1": []}', "{}", f'{{"mAP": {"9" * 400}}}'):
        (tmp_path / "evaluation.json").write_text(text)
        ((run,), problems) = list_runs(tmp_path)
        assert (run.mAP, run.rank_1, problems) == (None, None, [])


def test_images_that_are_in_no_part_are_told_before_training(tiny_market, tiny_recipe, tmp_path, told):
    changes = ["data.name=folder", f"data.root={tiny_market}", "data.val_identities=0"]
    changes += ["data.pattern='{identity}_c1*.*'"]
    build_trainer(config.load(tiny_recipe, changes), tmp_path / "run")
    assert re.match(r"[0-9]+ images of folder are left out, .* first; `reid check` says why", told[0])
