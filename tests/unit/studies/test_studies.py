import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import reidkit as rk
from reidkit import config
from reidkit.analysis.variances import identity_variances
from reidkit.errors import CheckpointError, ConfigError, DataError
from reidkit.files import WriteError, exclusive
from reidkit.studies import execution as study_runs
from reidkit.studies import tables
from reidkit.studies.data_check import check_data
from reidkit.studies.execution import carry_out, forget_failures, state_of
from reidkit.studies.files import read_attempts, read_failure
from reidkit.studies.measured import Result, epochs_to_share_of_final, read_result
from reidkit.studies.study import cells_of, load_study, run_fingerprint, shipped_studies
from reidkit.studies.tables import published_for, tables_of, write_tables
from reidkit.studies.tasks import Folders, measurement_of, tasks_of
from reidkit.training.runs import load_data
from reidkit.training.trackers import read_metrics
from tests import dataset_writers, warm

STUDY = """
title = "Tiny"
base = "{base}"
set = ["train.epochs={epochs}", "train.precision=float32"]
seeds = [0, 1]
baseline = {{ loss = "trihard" }}
source = "Nobody 2020"
published = [
  {{ cell = {{ loss = "msml" }}, scores = {{ mAP = 70.0 }}, caveat = "Other people." }},
]
[[axis]]
name = "loss"
cells = [
  {{ label = "trihard" }},
  {{ label = "trihard, L1", measure = {{ distance = "l1" }} }},
  {{ label = "msml", drop = ["loss.trihard"], set = ["loss.msml={{margin = 0.5}}"] }},
  {more}
]
"""


@pytest.fixture
def study_file(tiny_recipe, tmp_path):
    def write(*, epochs=1, more=""):
        path = tmp_path / "tiny.toml"
        path.write_text(STUDY.format(base=tiny_recipe, epochs=epochs, more=more))
        return path

    return write


def lay_out(path, root, out):
    study = load_study(path)
    cells = cells_of(study, [f"data.root={root}"])
    return study, cells, tasks_of(study, cells), Folders(out, out / "runs")


@pytest.mark.parametrize("name", shipped_studies())
def test_shipped_studies_can_be_laid_out(name):
    study = load_study(name)
    cells = cells_of(study)
    assert len(cells) == len({cell.name for cell in cells})
    assert len(cells) % len(study.seeds) == 0
    assert len(tasks_of(study, cells)) <= len(cells)


def test_jlmls_tables_find_their_data(tmp_path):
    """Stand-ins of all sets in one folder, as their layouts call them."""
    root = tmp_path / "data"
    for layout in ("cuhk03", "cuhk01", "viper", "grid"):
        getattr(dataset_writers, layout)(root / layout)
    found = {}
    for name in ("jlml-cuhk03", "jlml-table"):
        for cell in cells_of(load_study(name), [f"data.root={root}"]):
            if cell.labels[1] == "0" and "486" not in cell.labels[0]:  # of whom the stand-in has too few
                data = load_data(cell.run.configuration)
                found[cell.labels[0]] = (data.name, cell.run.configuration.train.init)
    assert found == {
        "labelled": ("cuhk03", "runs/jlml-imagenet"),
        "detected": ("cuhk03", "runs/jlml-imagenet"),
        "CUHK01, 871/100": ("cuhk01", "runs/jlml-base"),
        "CUHK01, 871/100, multi-shot": ("cuhk01", "runs/jlml-base"),
        "VIPeR": ("viper", "runs/jlml-base"),
        "GRID": ("grid", "runs/jlml-base"),
    }
    for name, num_splits in (("jlml-cuhk03", 20), ("jlml-table", 10)):
        study = load_study(name)
        published = {*itertools.chain.from_iterable(paper.cell.values() for paper in study.published)}
        assert {cell.labels for cell in cells_of(study)} == {
            (label, str(split)) for label in published for split in range(num_splits)
        }


def test_birds_and_cars_are_found_and_measured_by_their_protocol(tmp_path):
    for layout in ("cub200", "cars196"):
        getattr(dataset_writers, layout)(tmp_path / layout)
    found = {}
    for cell in cells_of(load_study("hap2s-general"), [f"data.root={tmp_path}"]):
        if cell.labels[1] == "TriHard" and cell.seed == 0:
            found[cell.labels[0]] = load_data(cell.run.configuration)
    assert {label: (data.name, data.protocol) for label, data in found.items()} == {
        "CUB-200-2011": ("cub200", "recall"),
        "Cars196": ("cars196", "recall"),
    }


@pytest.fixture
def viper_study(monkeypatch):
    """The small study of VIPeR's splits, with results that a test gives: (started, split) -> precisions."""
    of_runs = {}

    def read(measurement, folders):
        configuration = measurement.run.configuration
        place = bool(configuration.train.init), configuration.data.options["split"]
        if place not in of_runs:
            return None
        precisions = np.array(of_runs[place])
        scores = {"mAP": precisions.mean(), "rank-1": 0.5}
        people = np.array([0, 1, 2]) + place[1]  # of whom the next split has some, too
        return Result(scores, precisions, people, f"cosine distance, split {place[1]}, step AP", 1.0, 1.0, 1)

    monkeypatch.setattr(tables, "read_result", read)
    study = load_study("small-jlml-viper")
    cells = cells_of(study)

    def rows():
        (table,) = tables_of(study, cells, Folders(Path("out"), Path("runs")))
        assert any(note.startswith("Rows called mean: over all cells of split") for note in table.notes)
        return {row.labels: row for row in table.rows}, table

    return of_runs, rows


def test_a_table_ends_with_means_over_splits_and_papers_stand_beside_these(viper_study):
    of_runs, rows = viper_study
    draws = np.random.default_rng(0)
    for split in range(10):
        of_runs[False, split] = draws.uniform(size=3)
        of_runs[True, split] = of_runs[False, split] + draws.uniform(size=3) / 5
    found, table = rows()
    assert list(found)[-2:] == [("random weights", "mean"), ("Market-1501", "mean")]
    plain, started = found["random weights", "mean"], found["Market-1501", "mean"]
    assert plain.is_baseline
    assert started.values["mAP"] == [of_runs[True, split].mean() for split in range(10)]
    assert (len(started.seeds), started.num_seeds) == (10, 10)
    gained = np.mean([of_runs[True, split] - of_runs[False, split] for split in range(10)])
    assert started.versus.difference == pytest.approx(gained)
    assert (started.versus.num_queries, started.versus.num_identities) == (30, 12)
    assert started.published.scores["rank-1"] == 50.2
    assert [labels for labels, row in found.items() if row.published] == [("Market-1501", "mean")]
    assert table.lines()[-1][2] == "10/10"
    assert "Protocol: cosine distance, split 0, 1, 2, 3, 4, 5, 6, 7, 8 and 9, step AP." in table.notes[0]


def test_means_of_unfinished_splits_say_so_and_are_not_compared(viper_study):
    of_runs, rows = viper_study
    for split in range(10):
        of_runs[False, split] = [0.1, 0.2, 0.3]
    of_runs[True, 4] = [0.3, 0.4, 0.5]
    found, table = rows()
    assert found["Market-1501", "4"].versus.difference == pytest.approx(0.2)
    assert found["Market-1501", "mean"].versus is None
    assert table.lines()[-1][2] == "1/10"
    assert table.records()[-1]["mAP"] == pytest.approx(40.0)


def test_a_mean_that_could_be_taken_for_a_cell_is_refused(tmp_path):
    text = STUDY.format(base="small-cpu", epochs=1, more='{ label = "mean" },')
    file = tmp_path / "study.toml"
    file.write_text(text.replace('name = "loss"', 'name = "loss"\nmean = true'))
    with pytest.raises(ConfigError) as caught:
        load_study(file)
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "axis 'loss' has a cell 'mean', as the rows of its mean are called; rename it",
        "the baseline is a cell of axis 'loss', over which a mean is taken; leave one out",
    ]


def test_every_published_number_of_msmls_table_stands_beside_its_cell():
    study = load_study("msml-table1")
    rows = {cell.labels for cell in cells_of(study)}
    assert all(published_for(study, labels, test.name) for labels in rows for test in study.test)
    there = published_for(study, ("ResNet50-X", "MSML"), "MARS")
    assert there.scores == {"mAP": 72.0, "rank-1": 83.4, "rank-5": 93.3}
    assert "quadruplet and TriHard did not reach their best" in there.caveat


def test_published_numbers_of_multi_query_stand_beside_multi_query():
    sn, jlml = load_study("sn-table"), load_study("jlml-ablations")
    assert published_for(sn, ("SN",), "multi-query, re-ranked").scores == {"mAP": 90.27, "rank-1": 93.68}
    assert published_for(sn, ("TriNet",), "single query, re-ranked") is None
    assert published_for(jlml, ("joint",), "single query").scores == {"mAP": 65.5, "rank-1": 85.1}
    assert published_for(jlml, ("joint",), "multi-query").scores == {"mAP": 74.5, "rank-1": 89.7}


def test_cells_that_come_to_one_configuration_are_one_run():
    cells = cells_of(load_study("small-jlml-ablations"))
    runs = {cell.labels[0]: cell.run.name for cell in cells if cell.seed == 0}
    assert runs["joint"] == runs["L1 matching"] == runs["XQDA on top"]
    assert len(set(runs.values())) == len(runs) - 5  # three of joint's, two of the joint loss's
    small = {cell.run.name for cell in cells_of(load_study("small-losses"))}
    clean = [c.run.name for c in cells_of(load_study("small-outliers")) if c.labels[0] == "0 %"]
    assert set(clean) <= small, "--runs can take them from there"


def test_what_changes_only_the_speed_is_the_same_run():
    recipe = config.load("small-cpu")
    faster = replace(recipe, train=replace(recipe.train, num_workers=7, log_every=3))
    longer = replace(recipe, train=replace(recipe.train, epochs=7))
    assert run_fingerprint(faster) == run_fingerprint(recipe) != run_fingerprint(longer)


def test_a_study_changes_its_base_in_order_and_the_line_wins(study_file):
    path = study_file(more='{ label = "slow", set = ["optim.lr=1e-5", "train.epochs=2"] },')
    by_label = {cell.labels[0]: cell for cell in cells_of(load_study(path), ["train.epochs=9"])}
    slow = by_label["slow"].run.configuration
    assert (slow.optim.lr, slow.train.epochs, slow.seed) == (1e-5, 9, 1)
    msml = by_label["msml"].run.configuration
    assert list(msml.loss) == ["identity", "msml"]
    assert msml.loss["msml"].options == {"margin": 0.5}


def test_every_fault_of_a_study_is_reported_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'title = "x"\nbase = "small-cpu"\nseed = [1]\ncolumms = ["mAP"]\nseeds = [-1]\n'
        '[[axis]]\nname = "loss"\ncells = [{ lable = "a" }]\n[[test]]\nname = "t"\nroot = "x"\n'
    )
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "unknown key 'columms'; did you mean 'columns'?" in text
    assert "unknown key 'seed'; did you mean 'seeds'?" in text
    assert "unknown key 'axis.0.cells.0.lable'; did you mean 'label'?" in text
    assert "unknown key 'test.0.root'" in text
    assert "seeds.0: input should be greater than or equal to 0, not -1" in text


def test_every_wrong_name_of_a_study_is_reported_at_once(study_file):
    text = study_file(more='{ label = "msml" },').read_text()
    for right, wrong in {
        'baseline = { loss = "trihard" }': 'baseline = { loss = "trihrad", los = "" }\ncolumns = ["rank1"]',
        'cell = { loss = "msml" }': 'cell = { loss = "x" }',
    }.items():
        assert right in text
        text = text.replace(right, wrong)
    path = study_file()
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_study(path)
    text = str(error.value)
    assert "columns: there is no 'rank1'; did you mean 'rank-1'?" in text
    assert "baseline.loss: there is no 'trihrad'; did you mean 'trihard'?" in text
    assert "baseline: there is no 'los'; did you mean 'loss'?" in text
    assert "published.0.cell.loss: there is no 'x'" in text
    assert "cell of axis 'loss', 'msml' is there twice" in text


def test_every_fault_of_the_cells_is_reported_once_with_the_first_cell_that_has_it(study_file):
    more = (
        '{ label = "a", drop = ["loss.trihrad"] }, { label = "b", set = ["loss.trihard.margn=1"] }, '
        '{ label = "c", measure = { distanc = "l1", protocol = "recall" } }, '
        '{ label = "d", set = ["train.epochs=0"] },'
    )
    path = study_file(more=more)
    path.write_text(path.read_text().replace("source =", 'weights = "best"\nsource ='))
    with pytest.raises(ConfigError) as error:
        cells_of(load_study(path), ["seed=3"])
    text = str(error.value)
    assert "cell 'a': drop 'loss.trihrad': there is no such key; did you mean 'trihard'?" in text
    assert "cell 'b': [loss.trihard] has no option 'margn'; did you mean 'margin'?" in text
    assert "cell 'c': measure has no option 'distanc'; did you mean 'distance'?" in text
    assert "cell 'c': measure has no option 'protocol'" in text, "a data set has its own"
    assert "cell 'd': configuration: train.epochs: input should be greater than or equal to 1, not 0" in text
    assert text.count("needs held-out identities") == 1
    assert "seed is one of the study's own seeds" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("title = 'é'".encode("utf-16"), "text in UTF-16"),
        (b"title = '\xe9'", "no text in UTF-8"),
        (b"title = " + b"9" * 5000, "not usable as TOML"),
        (b"title = " + b"[" * 5000, "nested more than"),
        (b"title = 2026-01-01", "title: 2026-01-01 is a date, which no key takes"),
    ],
)
def test_a_study_that_is_no_such_text_is_refused(tmp_path, content, said):
    (tmp_path / "odd.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_study(tmp_path / "odd.toml")


def test_a_grid_that_nobody_trains_is_refused_before_it_is_laid_out(study_file):
    file = study_file()
    file.write_text(file.read_text().replace("seeds = [0, 1]", f"seeds = {list(range(100_000))}"))
    with pytest.raises(ConfigError, match="has 300,000 cells, seeds included, and 10,000 are the most"):
        load_study(file)


_MEASURED = {"images": "x", "protocol": "p", "average_precision": "step", "mAP": 0.5}
_COST = {"epoch": 1, "seconds": 1.0, "processor_seconds": 1.0, "threads": 1}
_VALIDATION = {"kind": "validation", "epoch": 1, "step": 1, "mAP": 0.5}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("evaluation.json", b""),
        ("evaluation.json", b"[]"),
        ("evaluation.json", json.dumps({**_MEASURED, "images": 3}).encode()),
        ("evaluation.json", json.dumps({**_MEASURED, "mAP": float("nan")}).encode()),
        ("evaluation.npz", b""),
        ("cost.jsonl", json.dumps({**_COST, "seconds": "long"}).encode() + b"\n"),
        ("cost.jsonl", json.dumps({**_COST, "seconds": float("inf")}).encode() + b"\n"),
        ("metrics.jsonl", json.dumps({**_VALIDATION, "mAP": None}).encode() + b"\n"),
        ("metrics.jsonl", json.dumps({**_VALIDATION, "mAP": -1.0}).encode() + b"\n"),
        ("metrics.jsonl", json.dumps({**_VALIDATION, "epoch": "1"}).encode() + b"\n"),
    ],
)
def test_results_that_no_study_wrote_are_refused(study_file, tmp_path, name, content):
    study = load_study(study_file())
    cell = cells_of(study)[0]
    measurement, folders = measurement_of(study, cell, study.test[0]), Folders(tmp_path, tmp_path / "runs")
    folder = folders.run(cell.run)
    folder.mkdir(parents=True)
    (folder / f"{measurement.file_stem}.json").write_text(json.dumps(_MEASURED))
    np.savez(folder / f"{measurement.file_stem}.npz", average_precisions=np.array([0.5]))
    (folder / "cost.jsonl").write_text(json.dumps(_COST) + "\n")
    (folder / "metrics.jsonl").write_text(json.dumps(_VALIDATION) + "\n")
    assert read_result(measurement, folders).seconds == 1.0
    (folder / name.replace("evaluation", measurement.file_stem)).write_bytes(content)
    with pytest.raises((CheckpointError, DataError), match=folder.name):
        read_result(measurement, folders)


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 5000, "²", ""])
def test_a_count_of_attempts_that_is_none_is_refused(tmp_path, text):
    assert read_attempts(tmp_path / "no-attempts") == 0
    (tmp_path / "attempts").write_text(text)
    with pytest.raises(CheckpointError, match="is not what a study writes"):
        read_attempts(tmp_path / "attempts")


@pytest.mark.parametrize("text", ["", "3", "{}", '{"error": 3}'])
def test_a_note_of_a_failure_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "error.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"error\.json"):
        read_failure(tmp_path / "error.json")


def test_folders_of_a_study_that_lead_elsewhere_are_refused(tmp_path):
    (tmp_path / "out" / "runs").mkdir(parents=True)
    folders = Folders(tmp_path / "out", tmp_path / "out" / "runs")
    folders.check()
    (tmp_path / "out" / "runs" / "x").symlink_to(tmp_path)
    with pytest.raises(WriteError, match="is a link"):
        folders.check()
    (tmp_path / "given").symlink_to(tmp_path / "out" / "runs")
    (tmp_path / "out" / "runs" / "x").unlink()
    Folders(tmp_path / "out", tmp_path / "given").check()  # the user's own word


def test_names_of_studies_and_patterns_that_fit_nothing_are_told(study_file):
    with pytest.raises(ConfigError, match="unknown study 'smal-losses'; did you mean 'small-losses'"):
        load_study("smal-losses")
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        load_study("nowhere.toml")
    study = load_study(study_file())
    with pytest.raises(
        ConfigError, match=r"no cell's name fits '\*sn\*'; the first of 6 is 'trihard/seed-0'"
    ):
        tasks_of(study, cells_of(study), only="*sn*")


def test_a_study_trains_measures_compares_and_records_what_fails(study_file, tiny_market, tmp_path, told):
    more = '{ label = "diverges", set = ["optim.lr=1e9", "optim.name=sgd"] },'
    study, cells, tasks, folders = lay_out(study_file(more=more), tiny_market, tmp_path / "out")
    carry_out(tasks, folders)
    assert [state_of(task, folders) for task in tasks] == ["finished"] * 4 + ["failed"] * 2
    assert sum(text.startswith("started") for text in told) == 6, "trihard is trained once for two cells"
    assert any(text.startswith("failed diverges/seed-0: TrainingError: ") for text in told)
    assert all(text.startswith(("started", "failed", "finished")) for text in told), "no epochs"

    carry_out(tasks, folders)
    assert sum(text.startswith("started") for text in told) == 6, "nothing is done twice"
    forget_failures(tasks, folders)
    assert state_of(tasks[-1], folders) == "open"

    (table,) = tables_of(study, cells, folders)
    rows = {row.labels[0]: row for row in table.rows}
    for cell in cells[:2]:
        encoder = rk.load_encoder(folders.run(cell.run))
        expected = rk.evaluate(encoder, rk.load_dataset("market1501", tiny_market)).mean_average_precision
        assert rows["trihard"].values["mAP"][cell.seed] == pytest.approx(expected, abs=1e-6)
    assert rows["trihard"].is_baseline
    assert rows["trihard"].values["intra"] == rows["trihard, L1"].values["intra"]
    assert (rows["msml"].versus.num_seeds, rows["msml"].versus.num_queries) == (2, 12)
    difference = sum(rows["msml"].values["mAP"]) / 2 - sum(rows["trihard"].values["mAP"]) / 2
    assert rows["msml"].versus.difference == pytest.approx(difference)
    assert rows["diverges"].versus is None
    assert all(seconds > 0 for seconds in rows["msml"].seconds)
    assert all(seconds > 0 for seconds in rows["msml"].processor_seconds)

    paths = write_tables(study, [table], tmp_path / "out")
    text = paths[0].read_text()
    assert "| loss | seeds | mAP | rank-1 | seconds | CPU seconds | vs baseline | p | paper mAP |" in text
    assert "| 70.0 |" in text
    assert "Published: Nobody 2020. Other people." in text
    assert "a t test that takes identities" in text
    lines = paths[1].read_text().splitlines()
    assert len(lines) == 5
    values = json.loads(paths[2].read_text())["tables"][0]["rows"]
    assert values[2]["labels"] == {"loss": "msml"}
    assert values[2]["values"]["mAP"] == rows["msml"].values["mAP"]


def test_a_cell_measured_otherwise_is_measured_again_but_not_trained(study_file, tiny_market, tmp_path):
    study, cells, tasks, folders = lay_out(study_file(), tiny_market, tmp_path / "out")
    carry_out(tasks[:1], folders)
    checkpoint = folders.run(cells[0].run) / "last.ckpt"
    before = checkpoint.stat().st_mtime_ns
    other = replace(study, measure={"average_precision": "trapezoid"})
    task = tasks_of(other, cells_of(other, [f"data.root={tiny_market}"]))[0]
    assert task.run.name == tasks[0].run.name
    assert state_of(task, folders) == "open"
    carry_out([task], folders)
    assert state_of(task, folders) == state_of(tasks[0], folders) == "finished"
    assert checkpoint.stat().st_mtime_ns == before


@pytest.mark.usefixtures("one_thread")
def test_a_killed_study_goes_on_and_ends_like_one_that_was_left_alone(study_file, tiny_market, tmp_path):
    """SIGKILL while a run is being trained; its lock is free at once, and its checkpoint is used."""
    path = study_file(epochs=12)
    study, cells, tasks, folders = lay_out(path, tiny_market, tmp_path / "killed")
    words = ["study", path, f"data.root={tiny_market}", "--out", folders.out, "--only", "trihard/seed-0"]
    process = warm.start(warm.command, *words, says=tmp_path / "killed")
    metrics = folders.run(cells[0].run) / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while sum(r["kind"] == "epoch" for r in read_metrics(metrics)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    epochs_done = sum(r["kind"] == "epoch" for r in read_metrics(metrics))
    assert 2 <= epochs_done < 12
    assert state_of(tasks[0], folders) == "open"

    whole = Folders(tmp_path / "whole", tmp_path / "whole" / "runs")
    for each in (folders, whole):
        carry_out(tasks[:1], each)
    measurement = measurement_of(study, cells[0], study.test[0])
    resumed, left_alone = read_result(measurement, folders), read_result(measurement, whole)
    assert resumed.values == left_alone.values
    assert (resumed.average_precisions == left_alone.average_precisions).all()
    epochs = [
        record["epoch"]
        for record in read_metrics(folders.run(cells[0].run) / "cost.jsonl", required={"epoch": int})
    ]
    assert sorted(set(epochs)) == list(range(13)), "the cost of every epoch, and of what comes after"


def test_a_run_held_by_another_process_is_waited_for_and_taken_when_that_dies(
    study_file, tiny_market, tmp_path, monkeypatch
):
    _, _, tasks, folders = lay_out(study_file(), tiny_market, tmp_path / "out")
    lock = folders.state / f"{tasks[0].run.name}.lock"
    lock.parent.mkdir(parents=True)
    program = "import sys, time; from pathlib import Path; from reidkit.files import exclusive; "
    program += "lock = exclusive(Path(sys.argv[1])); lock.__enter__(); print(1, flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", program, str(lock)], stdout=subprocess.PIPE)
    holder.stdout.readline()
    with exclusive(lock) as ours:
        assert not ours
    waits = []

    def wait(seconds):
        waits.append(state_of(tasks[0], folders))
        holder.kill()
        holder.wait()

    monkeypatch.setattr("reidkit.studies.execution.time.sleep", wait)
    carry_out(tasks[:1], folders)
    holder.stdout.close()
    assert waits == ["open"]
    assert state_of(tasks[0], folders) == "finished"


def test_images_that_changed_or_are_not_there_are_told_before_anything_is_trained(
    study_file, tiny_market, tmp_path
):
    root = shutil.copytree(tiny_market, tmp_path / "market")
    _, _, tasks, folders = lay_out(study_file(), root, tmp_path / "out")
    check_data(tasks, folders)
    carry_out(tasks[:1], folders)
    check_data(tasks, folders)
    query = next((root / "query").iterdir())
    query.rename(tmp_path / "aside.jpg")
    with pytest.raises(ConfigError, match=r"was measured on other images than .*market holds now"):
        check_data(tasks, folders)
    (tmp_path / "aside.jpg").rename(query)
    next((root / "bounding_box_train").iterdir()).unlink()
    with pytest.raises(ConfigError, match=r"was trained on other images \(96\)"):
        check_data(tasks, folders)
    shutil.rmtree(root)
    with pytest.raises(DataError, match="market"):
        check_data(tasks[2:], folders)


def test_weights_to_start_from_are_looked_for_before_anything_is_trained(
    study_file, tiny_market, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    study = load_study(study_file())
    tasks = tasks_of(study, cells_of(study, [f"data.root={tiny_market}", "train.init=runs/first"]))
    folders = Folders(tmp_path / "out", tmp_path / "out" / "runs")
    for missing in ("no such run folder", "holds no encoder"):
        with pytest.raises(ConfigError, match=f"runs/first.*{missing}.*train that first"):
            check_data(tasks, folders)
        Path("runs/first").mkdir(parents=True, exist_ok=True)
    rk.Encoder(rk.build_model("timm:test_resnet"), height=48, width=24).save("runs/first/last.safetensors")
    check_data(tasks, folders)


def test_data_that_moved_are_the_same_runs(study_file, tiny_market):
    names = [
        [cell.run.name for cell in cells_of(load_study(study_file()), [f"data.root={root}"])]
        for root in (tiny_market, f"{tiny_market}/", "elsewhere")
    ]
    assert names[0] == names[1] == names[2]


def test_evaluating_a_run_otherwise_leaves_its_cell_finished(study_file, tiny_market, tmp_path):
    study, cells, tasks, folders = lay_out(study_file(), tiny_market, tmp_path / "out")
    carry_out(tasks[:1], folders)
    shown = folders.run(cells[0].run) / "evaluation.json"  # where `reid runs` looks
    result = read_result(measurement_of(study, cells[0], study.test[0]), folders)
    assert json.loads(shown.read_text())["mAP"] == result.values["mAP"]
    shown.write_text("{}")  # what another `reid evaluate` may do to it
    assert state_of(tasks[0], folders) == "finished"


def test_a_feature_of_the_network_can_be_measured(study_file, tiny_market, tmp_path):
    path = study_file(more='{ label = "pooled", measure = { feature = "pooled" } },')
    study, cells, tasks, folders = lay_out(path, tiny_market, tmp_path / "out")
    carry_out(tasks[:1], folders)
    pooled = next(cell for cell in cells if cell.labels == ("pooled",) and cell.seed == 0)
    assert pooled.run.name == cells[0].run.name
    data = rk.load_dataset("market1501", tiny_market)
    encoder = rk.load_encoder(folders.run(pooled.run), feature="pooled")
    expected = identity_variances(encoder.features(data.query), encoder.features(data.gallery)).intra
    usual, got = (
        read_result(measurement_of(study, cell, study.test[0]), folders).values["intra"]
        for cell in (cells[0], pooled)
    )
    assert got == pytest.approx(expected, rel=1e-5)
    assert abs(got - usual) > 1e-3


def test_a_run_at_which_processes_die_is_given_up(study_file, tiny_market, tmp_path):
    path = study_file(
        more='{ label = "deadly", drop = ["loss"], set = ["loss.x={kind = \'deadly:Loss\'}"] },'
    )
    (tmp_path / "deadly.py").write_text(
        "import os, signal\nfrom torch import nn\nclass Loss(nn.Module):\n    reads = 'metric'\n"
        "    def forward(self, embeddings, labels):\n        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    words = ["study", path, f"data.root={tiny_market}", "--out", tmp_path / "out", "--processes", 1]
    words += ["--only", "DEADLY/seed-0", "--allow-code", "deadly"]
    workers = []
    for _ in range(3):
        worker = warm.start(
            partial(warm.command, path=tmp_path), *words, "--worker", says=tmp_path / "worker"
        )
        worker.join(240)
        workers.append(worker.exitcode)
    assert workers == [-signal.SIGKILL, -signal.SIGKILL, 0]
    told = warm.said(tmp_path / "worker", "stderr")
    assert "failed deadly/seed-0: the process that trained it was killed 2 times" in told


def test_a_study_that_shares_its_runs_does_not_disturb_another(
    study_file, tiny_market, tmp_path, monkeypatch
):
    """It forgets failures when it begins, while the other is training."""
    _, _, tasks, folders = lay_out(study_file(), tiny_market, tmp_path / "out")

    def tell(text):
        if text.startswith("started"):
            forget_failures(tasks, folders)

    monkeypatch.setattr(study_runs.logger, "info", tell)
    carry_out(tasks[:1], folders)
    assert state_of(tasks[0], folders) == "finished"


def test_epochs_to_a_share_of_the_final_map():
    def record(epoch, value):
        return {"kind": "validation", "epoch": epoch, "mAP": value}

    records = [record(1, 0.1), record(2, 0.46), record(3, 0.44), record(4, 0.5)]
    assert epochs_to_share_of_final(records) == 2
    assert epochs_to_share_of_final(records, share=0.95) == 4
    assert epochs_to_share_of_final([{"kind": "epoch", "epoch": 1}]) is None


def test_fewer_training_identities_are_part_of_more_and_spare_the_validation_part(tiny_market):
    def load(number, seed=0):
        return rk.load_dataset(
            "market1501", tiny_market, val_identities=2, train_identities=number, seed=seed
        )

    sets = {number: {s.identity for s in load(number).train} for number in (0, 2, 4, 6)}
    assert [len(identities) for identities in sets.values()] == [6, 2, 4, 6]
    assert sets[2] < sets[4] < sets[6] == sets[0]
    assert load(2).val == load(0).val
    assert [s.index for s in load(2).train] == list(range(24))
    assert load(4) == load(4)
    assert any(load(2, seed).train != load(2).train for seed in range(1, 5))
    for number in (1, 7):
        with pytest.raises(ConfigError, match=rf"train_identities = {number} is outside 2\.\.6"):
            load(number)


def test_corrupted_labels_are_the_share_asked_for_and_only_in_train(tiny_market):
    def load(share, seed=0):
        return rk.load_dataset("market1501", tiny_market, val_identities=2, corrupt_labels=share, seed=seed)

    clean = load(0.0)
    spoilt = {}
    for share in (0.1, 0.25, 1.0):
        data = load(share)
        spoilt[share] = {
            (new.path, new.identity)
            for old, new in zip(clean.train, data.train, strict=True)
            if new.identity != old.identity
        }
        assert len(spoilt[share]) == round(share * len(clean.train))
        assert {s.identity for s in data.train} <= {s.identity for s in clean.train}
        assert [s.path for s in data.train] == [s.path for s in clean.train]
        assert (data.val, data.query, data.gallery) == (clean.val, clean.query, clean.gallery)
    assert spoilt[0.1] < spoilt[0.25] < spoilt[1.0]
    assert load(0.25) == load(0.25) != load(0.25, seed=1)
    with pytest.raises(ConfigError, match=r"corrupt_labels = 1\.5"):
        load(1.5)


def test_the_example_of_the_documentation_is_a_study(tmp_path):
    document = Path(__file__).parents[3] / "docs" / "studies.md"
    path = tmp_path / "example.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", document.read_text(), re.DOTALL)[0])
    cells = cells_of(load_study(path))
    assert len(cells) == 9
    assert len({cell.run.name for cell in cells}) == 6, "the third cell is the first one's run"
