"""Training under torchrun: two processes make one run."""

from __future__ import annotations

import os
import subprocess
import sys

import reidkit as rk
from reidkit.tracking import read_metrics


def torchrun(*words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command += ["-m", "reidkit", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)


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

    refused = torchrun(*words, "optim.lr=0.5")
    assert refused.returncode != 0
    assert "optim.lr: 0.001 there, 0.5 now" in refused.stderr
