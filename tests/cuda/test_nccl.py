"""One process of a group that talks over NCCL trains, validates and evaluates as a process alone does.

The tests start this file under torchrun and read what it wrote. More processes than one need more GPUs than
one; what several do together is tested over gloo in ``tests/distributed``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from reidkit.training import distributed
from reidkit.training.embed_validation import embed_together
from tests.cuda.test_cuda import CUDA, loss_terms, make_trainer, stopped_in_the_second_epoch
from tests.reference_losses import CASES, build, case_name

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")
REPOSITORY = Path(__file__).parents[2]
TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "frozen, in pieces": {"batch_norm": "frozen", "accumulate": 3},
    "synchronised": {"batch_norm": "synchronised"},
    "synchronised, in pieces": {"batch_norm": "synchronised", "accumulate": 3},
    "averaged": {"ema_decay": 0.9},
}
LOSSES = {"losses": ["identity", "trihard", "late verification"]}


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m"]
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=REPOSITORY, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


# --- in the tests' process -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped(tiny_market, tmp_path_factory) -> Path:
    """What the process of the group made, and said in ``report.json``."""
    folder = tmp_path_factory.mktemp("nccl")
    done = torchrun(__spec__.name, tiny_market, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def report(grouped) -> dict[str, Any]:
    return json.loads((grouped / "report.json").read_text())


def test_the_group_talks_over_nccl_and_its_words_over_gloo(report):
    assert report["backends"] == ["nccl", "gloo"]
    assert report["words"] == [["here"], ["here"], "here", 7]
    assert report["after shutdown"] == [0, 1]


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_gathered_losses_are_those_of_a_process_alone(report, case):
    value, gradient = report["losses"][case_name(case)]
    expected, of_weight = loss_and_gradient(case, gather=False)
    assert value == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(torch.tensor(gradient), torch.tensor(of_weight), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_are_those_of_a_process_alone(grouped, tiny_market, tmp_path, name):
    make_trainer(LOSSES, tiny_market, tmp_path, CUDA, **TRAININGS[name]).fit()
    alone, together = loss_terms(tmp_path), loss_terms(grouped / name)
    assert len(alone) == len(together) > 8
    for there, here in zip(together, alone, strict=True):
        assert there == pytest.approx(here, rel=1e-6)


def test_a_run_that_was_stopped_goes_on(grouped, tiny_market, tmp_path):
    make_trainer(LOSSES, tiny_market, tmp_path, CUDA).fit()
    for there, here in zip(loss_terms(grouped / "stopped"), loss_terms(tmp_path), strict=True):
        assert there == pytest.approx(here, rel=1e-6)


def test_embeddings_of_a_validation_are_those_of_a_process_alone(grouped, tiny_market, tmp_path):
    trainer = make_trainer(LOSSES, tiny_market, tmp_path, CUDA, dtype=torch.float32)
    alone = trainer.encoder().features(trainer.data.train, batch_size=7).embeddings
    np.testing.assert_allclose(np.load(grouped / "embeddings.npy"), alone, atol=1e-5)


def test_commands_train_and_evaluate_under_torchrun(tiny_market, tiny_recipe, tmp_path):
    out = tmp_path / "run"
    done = torchrun("reidkit", "train", tiny_recipe, f"data.root={tiny_market}", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "epoch 3/3" in done.stderr
    done = torchrun("reidkit", "evaluate", out, "--json", "--no-report")
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["mAP"] <= 1


# --- in the process of the group -----------------------------------------------------------------------


def loss_and_gradient(case: tuple[str, dict[str, Any]], *, gather: bool) -> tuple[float, list]:
    torch.manual_seed(0)
    linear = nn.Linear(7, 5).double().to(CUDA)
    loss = build(case, num_identities=4, dim=5).double().to(CUDA)
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(10, 7, generator=generator, dtype=torch.float64).to(CUDA)
    embeddings, labels = linear(images), torch.tensor([0, 0, 1, 1, 2, 0, 1, 3, 3, 3], device=CUDA)
    if gather:
        embeddings = distributed.gather_with_gradient(embeddings)
        labels = distributed.gather_labels(labels)
    value = loss(embeddings, labels)
    value.backward()
    assert linear.weight.grad is not None
    return value.item(), linear.weight.grad.tolist()


def main(root: Path, folder: Path) -> None:
    distributed.initialise()
    report: dict[str, Any] = {
        "backends": [
            dist.distributed_c10d._get_default_group()._get_backend(CUDA).name(),
            dist.get_backend(distributed._cpu_group),
        ],
        "words": [
            distributed.gather_objects("here"),
            distributed.gather_on_main("here"),
            distributed.from_main("here"),
            distributed.largest(7),
        ],
        "losses": {case_name(case): loss_and_gradient(case, gather=True) for case in CASES},
    }
    for name, settings in TRAININGS.items():
        make_trainer(LOSSES, root, folder / name, CUDA, **settings).fit()
    stopped_in_the_second_epoch(make_trainer(LOSSES, root, folder / "stopped", CUDA))
    make_trainer(LOSSES, root, folder / "stopped", CUDA).fit()
    trainer = make_trainer(LOSSES, root, folder / "never", CUDA, dtype=torch.float32)
    embeddings = embed_together(trainer.encoder(), trainer.data.train, batch_size=7)
    assert embeddings is not None
    np.save(folder / "embeddings.npy", embeddings)
    del trainer
    distributed.shutdown()
    report["after shutdown"] = [distributed.rank(), distributed.world_size()]
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
