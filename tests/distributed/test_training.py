"""Commands under torchrun: two processes make one run."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import reidkit as rk
from reidkit.cli import cli
from reidkit.encoders.encoder import Encoder
from reidkit.training.trackers import read_metrics
from tests import warm
from tests.distributed.ranks import run_ranks


def torchrun(*words):
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    line += ["-m", "reidkit", *map(str, words)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240)


def reid(folder, *words):
    """The command as each of two processes, without torchrun's imports."""
    return run_ranks(warm.command, *words, folder=folder)


def test_two_processes_train_one_run_and_say_everything_once(tiny_market, tiny_recipe, tmp_path):
    words = ("train", tiny_recipe, f"data.root={tiny_market}", "train.epochs=2", "train.log_every=1")
    words += ("--out", tmp_path / "run")
    done = torchrun(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 2/2") == 1
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 17))
    batch = next(r for r in records if r["kind"] == "step")
    assert batch["batch/num_images"] == 12, "losses see the global batch"
    assert rk.load_encoder(tmp_path / "run").dim > 0

    refused = reid(tmp_path, *words, "optim.lr=0.5")
    assert [rank.code for rank in refused] == [2, 2]
    assert all("optim.lr: 0.001 there, 0.5 now" in rank.stderr for rank in refused)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A set in Market-1501's tree without any likeness: each image weighs in the scores. 108 to embed."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for identity, camera, frame in itertools.product(range(12), (1, 2, 3), range(4)):
        folder = ("bounding_box_train", "query", "bounding_box_test", "bounding_box_test")[frame]
        path = root / folder / f"{identity:04}_c{camera}s1_{frame:06}_01.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    model = rk.build_model("timm:test_resnet")
    return Encoder(model, height=48, width=24).save(tmp_path_factory.mktemp("encoder") / "net.safetensors")


@pytest.mark.usefixtures("one_thread")
def test_two_processes_evaluate_as_one_and_write_once(encoder, noise, tmp_path):
    words = ["evaluate", encoder, "--data", "market1501", "--root", noise, "--json", "--rerank"]
    words += ["--no-report", "--out"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    one, two = CliRunner().invoke(cli, [*map(str, words), str(alone)]), reid(tmp_path, *words, together)
    assert [one.exit_code, *(rank.code for rank in two)] == [0, 0, 0], two
    assert "".join(rank.stdout for rank in two) == one.stdout
    assert 0 < json.loads(one.stdout)["mAP"] < 0.5
    assert (together / "evaluation.json").read_bytes() == (alone / "evaluation.json").read_bytes()
    assert sum(rank.stderr.count("wrote ") for rank in two) == one.stderr.count("wrote ") == 1


def test_an_error_of_the_main_process_ends_an_evaluation(encoder, noise, tmp_path):
    (tmp_path / "plain").write_text("a file, not a folder")
    words = ("evaluate", encoder, "--data", "market1501", "--root", noise)
    ranks = reid(tmp_path, *words, "--out", tmp_path / "plain" / "results")
    assert all(rank.code for rank in ranks)
    assert "error: cannot write" in ranks[0].stderr
