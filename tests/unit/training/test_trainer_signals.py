"""Trainings in processes of their own: interrupted, told to end, killed, and taken up again."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from reidkit import config
from reidkit.files import is_unfinished
from reidkit.training.checkpoint import load_checkpoint
from reidkit.training.runs import build_trainer
from reidkit.training.trackers import read_metrics
from tests import warm
from tests.trainings import assert_same_weights

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def settings(root, epochs):
    """A checkpoint and a record after every step."""
    return [
        f"data.root={root}",
        f"train.epochs={epochs}",
        "train.num_workers=1",
        "train.log_every=1",
        "train.checkpoint_minutes=1e-9",
        "loss.identity.dropout=0.5",
    ]


def start(recipe, root, out, *, epochs, num_processes):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    words = [*(launch if num_processes > 1 else []), "-m", "reidkit", "train", recipe]
    return subprocess.Popen(
        [sys.executable, *map(str, [*words, *settings(root, epochs), "--out", out])],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_a_step(out, *, is_running, errors, seconds=240):
    seen = len(read_metrics(out / "metrics.jsonl"))
    deadline = time.monotonic() + seconds
    while len(read_metrics(out / "metrics.jsonl")) == seen:
        assert is_running(), f"the run ended before it could be stopped: {errors()}"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.01)


def check_finished(recipe, root, out, *, epochs, whole):
    """One that is finished now, and one that was left alone, have come to the same."""
    for folder in (out, whole):
        build_trainer(config.load(recipe, settings(root, epochs)), folder).fit()
    assert_same_weights(whole, out)
    assert (whole / "last.safetensors").read_bytes() == (out / "last.safetensors").read_bytes()
    steps = [r["step"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert not any(map(is_unfinished, out.iterdir()))


@pytest.mark.usefixtures("one_thread")
def test_whatever_ends_a_run_it_goes_on_to_the_same_weights(tiny_recipe, tiny_market, tmp_path):
    """Ctrl-C, a cluster's SIGTERM and a kill, each to the loader's workers too, one after the other."""
    out = tmp_path / "run"
    for number, code, text in (
        (signal.SIGINT, 130, "run the same command again to go on"),
        (signal.SIGTERM, 143, "asked to stop: saved after step"),
        (signal.SIGKILL, -signal.SIGKILL, "going on with"),
    ):
        resumed = out.exists()
        words = ("train", tiny_recipe, *settings(tiny_market, 6), "--out", out)
        process = warm.start(warm.command, *words, says=tmp_path / str(code))
        say = partial(warm.said, tmp_path / str(code), "stderr")
        wait_for_a_step(out, is_running=process.is_alive, errors=say)
        os.killpg(process.pid, number)
        process.join(240)
        errors = say()
        assert process.exitcode == code, errors
        assert text in errors
        assert ("going on with" in errors) == resumed
        assert "Traceback" not in errors
        check_checkpoints(out, tmp_path / "copies")
    check_finished(tiny_recipe, tiny_market, out, epochs=6, whole=tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("num_processes", [1, 2])
def test_fifty_kills_at_random_moments_change_nothing(tiny_recipe, tiny_market, tmp_path, num_processes):
    rng = random.Random(num_processes)
    delays = [rng.uniform(0, 1.2) for _ in range(50)]  # seconds after the first new sign of life
    out, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(tiny_recipe, tiny_market, whole, epochs=300, num_processes=num_processes)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    torn = 0
    for delay in delays:
        process = start(tiny_recipe, tiny_market, out, epochs=300, num_processes=num_processes)
        wait_for_a_step(out, is_running=lambda p=process: p.poll() is None, errors=process.stderr.read)
        time.sleep(delay)
        kill_all(process)
        assert process.returncode == -signal.SIGKILL, "every kill must hit a run that is still going"
        process.stderr.close()
        torn += any(map(is_unfinished, out.iterdir()))
        check_checkpoints(out, tmp_path / "copies")
    assert 0 < torn < 50, "some kills must hit a file that is being written, and some not"
    process = start(tiny_recipe, tiny_market, out, epochs=300, num_processes=num_processes)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors
    check_finished(tiny_recipe, tiny_market, out, epochs=300, whole=whole)


def check_checkpoints(run, copies):
    """The last checkpoint and the one before it can both be read, each alone, as far as they are there."""
    for name in ("last.ckpt", "previous.ckpt"):
        if (run / name).is_file():
            shutil.rmtree(copies, ignore_errors=True)
            copies.mkdir()
            shutil.copy(run / name, copies / "last.ckpt")
            state, problem = load_checkpoint(copies / "last.ckpt")
            assert problem is None
            assert state["weights"]


def kill_all(process):
    """A process and all it started, which torchrun puts into sessions of their own."""
    family = [process.pid]
    for pid in family:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            family += map(int, task.read_text().split())
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
