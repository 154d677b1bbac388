"""`reid study` and `reid runs` as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from reidkit.cli import cli
from reidkit.errors import ConfigError, DataError

STUDY = """
title = "Tiny study"
base = "{base}"
seeds = [0]
baseline = {{ rate = "usual" }}
set = ["train.epochs=1"]
[[axis]]
name = "rate"
cells = [
  {{ label = "usual" }},
  {{ label = "low", set = ["optim.lr=1e-5"] }},
  {{ label = "far too high", set = ["optim.lr=1e9", "optim.name=sgd"] }},
]
"""


@pytest.fixture
def reid(tiny_recipe, tiny_market, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "tiny.toml").write_text(STUDY.format(base=tiny_recipe))

    def run(*words, data=True):
        options = [f"data.root={tiny_market}"] if data else []
        return CliRunner().invoke(cli, [*map(str, words), *options])

    return run


def test_several_processes_share_the_cells_and_the_exit_code_tells_of_failures(reid, tmp_path):
    command = ("study", tmp_path / "tiny.toml", "--out", tmp_path / "out")
    result = reid(*command, "--processes", 2)
    assert result.exit_code == 1
    assert "1 of 3 runs failed" in result.stderr
    assert "far too high/seed-0 failed: TrainingError" in result.stdout
    assert "0/1 failed" in result.stdout
    rows = json.loads((tmp_path / "out" / "table.json").read_text())["tables"][0]["rows"]
    assert [len(row["seeds"]) for row in rows] == [1, 1, 0]
    assert (tmp_path / "out" / "study.toml").read_text() == (tmp_path / "tiny.toml").read_text()

    again = reid(*command, "--only", "[UL]*", "--json")
    assert again.exit_code == 0
    assert "2 runs to look at, 2 of them finished" in again.stderr
    assert json.loads(again.stdout)[0]["rows"] == rows

    # Results as 0.1.0 kept them, without identities: these come from the data, and nothing is trained.
    for file in (tmp_path / "out" / "runs").glob("*/evaluation-*.npz"):
        np.savez(file, average_precisions=np.load(file)["average_precisions"])
    tables = reid(*command, "--tables", "--json")
    assert tables.exit_code == 1
    assert "started" not in tables.stderr
    assert json.loads(tables.stdout)[0]["rows"] == rows
    assert rows[1]["versus"]["num_identities"] == 4

    listed = reid("runs", tmp_path / "out", "--sort", "mAP", data=False)
    assert listed.exit_code == 0
    assert listed.stdout.count("Identity + BatchHardTriplet") == 3
    values = json.loads(reid("runs", tmp_path / "out", "--json", data=False).stdout)
    assert sorted(run["epochs_done"] for run in values) == [0, 1, 1]


def test_shipped_studies_are_listed(reid):
    result = reid("study", "--list", data=False)
    assert result.exit_code == 0
    assert "small-losses" in result.stdout
    names = json.loads(reid("study", "--list", "--json", data=False).stdout)
    assert {"msml-table1", "jlml-ablations", "sn-table", "sn-scaling", "hap2s-losses", "outliers"} <= set(
        names
    )


def test_mistakes_are_told(reid, tmp_path):
    assert reid("study", data=False).exit_code == 2
    result = reid("study", tmp_path / "tiny.toml", "optim.lrr=1", "--out", tmp_path / "out")
    assert isinstance(result.exception, ConfigError)
    assert "unknown key 'optim.lrr'; did you mean 'lr'?" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_studys_file_is_shown_to_be_copied(reid):
    shown = reid("study", "small-losses", "--show", data=False).stdout
    assert shown.startswith("# The losses of all four papers")
    assert "[[axis]]" in shown


def test_images_that_are_not_there_end_a_study_before_it_begins(reid, tmp_path):
    result = reid("study", tmp_path / "tiny.toml", "--out", tmp_path / "out", "data.root=nowhere", data=False)
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "out").exists()


def test_no_runs_are_told(reid, tmp_path):
    result = reid("runs", tmp_path, data=False)
    assert result.exit_code == 0
    assert "no runs below" in result.stderr


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    """The first three starts are killed; each is followed by another, as often as allowed."""
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\necho x >> $0.starts\n[ $(wc -l < $0.starts) -gt 3 ] || kill -9 $$\n")
    worker.chmod(0o755)
    code = f"import sys; from reidkit.studies.workers import run_workers; sys.executable = {str(worker)!r}; "
    code += "run_workers(['x'], 2, most_restarts=int(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, "10"], check=True)
    assert (tmp_path / "worker.starts").read_text().count("x") in (5, 4)
    (tmp_path / "worker.starts").unlink()
    ended = subprocess.run([sys.executable, "-c", code, "1"], check=True, capture_output=True, text=True)
    assert (tmp_path / "worker.starts").read_text().count("x") == 3
    assert "2 of 2 worker processes ended early" in ended.stderr


ASKED_WHILE_STARTING = """
import os, pathlib, subprocess, time
start = subprocess.Popen
def popen(*words, **options):
    worker = start(*words, **options)
    while not pathlib.Path(f"{sys.executable}.started.{worker.pid}").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), 15)
    return worker
subprocess.Popen = popen
"""


@pytest.mark.parametrize("while_starting", [False, True])
def test_sigterm_reaches_the_workers_which_are_waited_for(tmp_path, while_starting):
    worker = tmp_path / "worker"
    worker.write_text(
        "#!/bin/sh\ntrap 'touch $0.saved.$$; exit 0' TERM\ntouch $0.started.$$\n"
        "for i in $(seq 3000); do sleep 0.1; done\n"
    )
    worker.chmod(0o755)
    code = f"import sys; from reidkit.studies.workers import run_workers; sys.executable = {str(worker)!r}\n"
    code += ASKED_WHILE_STARTING * while_starting + "run_workers(['x'], 2)"
    study = subprocess.Popen([sys.executable, "-c", code])
    until = time.monotonic() + 200
    while len(list(tmp_path.glob("worker.started.*"))) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    if not while_starting:
        study.terminate()
    assert study.wait(60) == 143
    assert len(list(tmp_path.glob("worker.saved.*"))) == 2
