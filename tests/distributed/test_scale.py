"""Several processes train as one: the same curve as one process, stops, restarts and refusals.

The tests call functions of this file in two processes and read what these wrote.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import reidkit as rk
from reidkit.config import OptimConfig, TransformConfig
from reidkit.errors import ConfigError, TrainingError
from reidkit.losses import (
    HardAwarePointToSetLoss,
    IdentityLoss,
    MarginSampleMiningLoss,
    StructuredSparsity,
    SupportNeighborLoss,
)
from reidkit.training import distributed
from reidkit.training.embed_validation import embed_together
from reidkit.training.samplers import IdentitySampler
from reidkit.training.trackers import read_metrics
from tests.distributed.ranks import run_ranks, run_well
from tests.trainings import Small

pytestmark = pytest.mark.usefixtures("one_thread")  # as each of the two processes has
BATCH_NORMS = ("frozen", "synchronised")
RECIPES = ("msml", "hap2s", "sn")  # jlml takes as long as all else
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


# JLML itself, with the paper's batch of 32 and SGD. With 12 images a batch, where its batch norms have few
# values, rounding alone grows past 1e-9 within 20 steps, on one process too.
JLML = {
    "epochs": 7,  # of 3 steps
    "identities_per_batch": 8,
    "images_per_identity": 4,
    "transform": TransformConfig(height=64, width=32, shift=2),
    "optim": OptimConfig(name="sgd", lr=1e-3, warmup_epochs=0),
}


def losses_of(recipe):
    if recipe == "msml":
        return [IdentityLoss(), MarginSampleMiningLoss()]
    if recipe == "hap2s":
        return [HardAwarePointToSetLoss(margin=2.0)]  # wide, so that it never is 0
    if recipe == "sn":
        return [SupportNeighborLoss()]
    parts = ("global", "local")
    identity = [rk.Objective(IdentityLoss(), feature=part, name=f"identity of {part}") for part in parts]
    return [
        *identity,
        rk.Objective(
            StructuredSparsity(norm="l21"), weight=5e-4, feature="global_feature.weight", name="l21"
        ),
        rk.Objective(
            StructuredSparsity(norm="l12", groups="stripes"),
            weight=5e-4,
            feature="local_feature.weight",
            name="l12",
        ),
    ]


def make_trainer(
    root, out, recipe="msml", *, losses=None, val_identities=0, lr=1e-3, dtype=torch.float64, **options
):
    torch.manual_seed(0)
    settings = {
        "epochs": 3,  # of 8 steps
        "identities_per_batch": 4,
        "images_per_identity": 3,
        "transform": TransformConfig(height=32, width=24, shift=2),
        "optim": OptimConfig(lr=lr, warmup_epochs=0),
        "precision": "float32",
        "num_workers": 0,
        "log_every": 1,
        "device": "cpu",
    }
    model = Small()
    if recipe == "jlml":
        model, settings = rk.build_model("jlml"), {**settings, **JLML}
    data = rk.load_dataset("market1501", root, val_identities=val_identities)
    return rk.Trainer(model.to(dtype), data, losses or losses_of(recipe), out=out, **{**settings, **options})


def curve(out):
    """Of each step the loss terms."""
    steps = [record for record in read_metrics(out / "metrics.jsonl") if record["kind"] == "step"]
    return [{key: value for key, value in step.items() if key.startswith("loss/")} for step in steps]


def largest_difference(a, b):
    assert len(a) == len(b) >= 20
    return max(abs(x[key] - y[key]) for x, y in zip(a, b, strict=True) for key in x.keys() | y.keys())


class KillAt(nn.Module):
    """A loss that sends its own process a signal, once in the life of a marker file."""

    reads = "metric"

    def __init__(self, step, number, *, rank, marker):
        super().__init__()
        self.left, self.number, self.rank, self.marker = step, number, rank, marker

    def forward(self, embeddings, labels):
        self.left -= 1
        if self.left == 0 and distributed.rank() == self.rank and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), self.number)
        return (embeddings * 0).sum()

    def extra_repr(self):
        return "test"


def killed_at(step, number, folder, *, rank=1):
    return [*losses_of("msml"), KillAt(step, number, rank=rank, marker=folder / "killed")]


# --- in the tests' process -----------------------------------------------------------------------------


def restart(root, folder):
    """Two processes that torchrun starts once more when one of them has died."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "-m", __spec__.name, str(root), str(folder)]
    torchrun = subprocess.Popen(
        command,
        cwd=Path(__file__).parents[2],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = torchrun.communicate(timeout=250)
    finally:
        torchrun.terminate()  # it stops its processes; killed, it would leave them behind
    assert torchrun.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def together(tiny_market, tmp_path_factory) -> Path:
    """What two processes made, and said in ``0.json`` and ``1.json``."""
    folder = tmp_path_factory.mktemp("together")
    run_well(together_main, tiny_market, folder, folder=folder)
    return folder


@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_follow_the_curve_of_one(together, tiny_market, tmp_path, recipe, batch_norm):
    check_curves(together, tiny_market, tmp_path, recipe, batch_norm)


@pytest.fixture(scope="module")
def jlml_together(tiny_market, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("jlml_together")
    run_well(jlml_main, tiny_market, folder, folder=folder, seconds=3000)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", BATCH_NORMS)
def test_so_they_do_with_jlml(jlml_together, tiny_market, tmp_path, batch_norm):
    check_curves(jlml_together, tiny_market, tmp_path, "jlml", batch_norm)


def check_curves(together, tiny_market, tmp_path, recipe, batch_norm):
    make_trainer(tiny_market, tmp_path / "alone", recipe, batch_norm=batch_norm).fit()
    alone = curve(tmp_path / "alone")
    assert alone[0] != alone[-1], "nothing was learned, so nothing is tested"
    assert largest_difference(alone, curve(together / f"{recipe}-{batch_norm}")) < 1e-9


def test_batch_norm_of_each_process_is_another_function(together, tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "alone").fit()
    assert largest_difference(curve(tmp_path / "alone"), curve(together / "msml-local")) > 1e-4


def test_pieces_on_two_processes_follow_the_curve_of_one(together, tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "alone", batch_norm="frozen").fit()
    assert largest_difference(curve(tmp_path / "alone"), curve(together / "pieces")) < 1e-9


class Interleaved(IdentitySampler):
    """One process's batches of 12 in the order in which two processes have their three pieces of two."""

    def __iter__(self):
        for draws in super().__iter__():
            yield [draws[i] for i in (0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11)]


def test_pieces_with_synchronised_statistics_see_those_of_both_processes(together, tiny_market, tmp_path):
    """Another function than one process's pieces, which hold other images; with the same ones, the same."""
    options = {"batch_norm": "synchronised", "accumulate": 3}
    shared = curve(together / "synchronised pieces")
    make_trainer(tiny_market, tmp_path / "alone", **options).fit()
    assert largest_difference(curve(tmp_path / "alone"), shared) > 1e-4
    trainer = make_trainer(tiny_market, tmp_path / "interleaved", **options)
    trainer.sampler.__class__ = Interleaved
    trainer.fit()
    assert largest_difference(curve(tmp_path / "interleaved"), shared) < 1e-9


def test_shared_validation_scores_as_one_process_does(together, tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "alone", val_identities=3, validate_every=1, **VALIDATED).fit()
    alone, shared = (
        [r for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "validation"]
        for out in (tmp_path / "alone", together / "validated")
    )
    assert len(alone) == 3
    assert shared == alone


def test_shared_embeddings_are_those_of_one_process_bit_for_bit(together, tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "alone", dtype=torch.float32)
    alone = trainer.encoder().features(trainer.data.train, batch_size=7).embeddings
    assert np.array_equal(np.load(together / "embeddings.npy"), alone)


def test_all_processes_stop_at_one_step_and_any_number_goes_on(together, tiny_market, tmp_path, told):
    """SIGTERM reached one of them; one process goes on, on the curve of an undisturbed run."""
    reports = [json.loads((together / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["stopped"] for report in reports] == [[143, 11], [143, 11]]
    make_trainer(
        tiny_market,
        together / "stopped",
        losses=killed_at(0, signal.SIGTERM, tmp_path),
        batch_norm="frozen",
    ).fit()
    assert any("was saved by 2 processes, and 1 go on with it" in text for text in told)
    losses = killed_at(0, signal.SIGTERM, tmp_path)
    make_trainer(tiny_market, tmp_path / "whole", losses=losses, batch_norm="frozen").fit()
    assert largest_difference(curve(tmp_path / "whole"), curve(together / "stopped")) < 1e-9


def test_different_settings_or_data_are_refused_on_every_process(together):
    for rank in (0, 1):
        report = json.loads((together / f"{rank}.json").read_text())
        assert "optim.lr: 0.001 on rank 0, 0.002 on rank 1" in report["other settings"]
        assert "data.train_images: 96 on rank 0, 60 on rank 1" in report["other data"]


def test_validation_names_who_does_not_come(together):
    report = json.loads((together / "0.json").read_text())
    assert "rank 0 waited for the other processes in vain" in report["barrier"]
    assert "Ranks 1 failed to pass" in report["barrier"].replace("Rank 1", "Ranks 1")
    assert report["waited"] < 60  # not for a day


def test_a_restarted_run_goes_on_from_its_last_checkpoint(tiny_market, tmp_path):
    """One process is killed once; torchrun starts both again, on the curve of an undisturbed run."""
    output = restart(tiny_market, tmp_path)
    assert (tmp_path / "killed").exists()
    assert output.count("going on with") == output.count("epoch 3/3") == 1, "the first process alone tells"
    steps = [r["step"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, 25))
    losses = killed_at(0, signal.SIGKILL, tmp_path)
    make_trainer(tiny_market, tmp_path / "whole", losses=losses, batch_norm="frozen").fit()
    assert largest_difference(curve(tmp_path / "whole"), curve(tmp_path / "run")) < 1e-9


def test_no_process_hangs_when_another_dies(tiny_market, tmp_path):
    """Without torchrun, which would end the others by itself."""
    first, second = run_ranks(restarted_main, tiny_market, tmp_path, folder=tmp_path)
    assert second.code == -signal.SIGKILL
    assert first.code == 1
    assert "TrainingError: rank 0 lost the other processes: " in first.stderr
    assert "Usually one of them ended or hangs: look at what the other ranks said last" in first.stderr


def test_an_error_of_the_model_stays_what_it_is():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="mat1 and mat2"), distributed.failures_explained():
            torch.ones(2, 3) @ torch.ones(2, 3)
    finally:
        distributed.shutdown()


# --- in each of the two processes ----------------------------------------------------------------------

VALIDATED = {"batch_norm": "frozen", "dtype": torch.float32}


def message_of(action, kind):
    try:
        action()
    except kind as error:
        return str(error)
    return "no error"


def train_all(root: Path, folder: Path, recipes: tuple[str, ...]) -> None:
    for recipe in recipes:
        for batch_norm in BATCH_NORMS:
            make_trainer(root, folder / f"{recipe}-{batch_norm}", recipe, batch_norm=batch_norm).fit()


def jlml_main(root: Path, folder: Path) -> None:
    distributed.initialise()
    train_all(root, folder, ("jlml",))
    distributed.shutdown()


def together_main(root: Path, folder: Path) -> None:
    distributed.initialise()
    report = {}
    train_all(root, folder, RECIPES)
    make_trainer(root, folder / "msml-local").fit()
    make_trainer(root, folder / "pieces", batch_norm="frozen", accumulate=3).fit()
    options = {"batch_norm": "synchronised", "accumulate": 3}
    make_trainer(root, folder / "synchronised pieces", **options).fit()
    make_trainer(root, folder / "validated", val_identities=3, validate_every=1, **VALIDATED).fit()

    losses = killed_at(11, signal.SIGTERM, folder)
    trainer = make_trainer(root, folder / "stopped", losses=losses, batch_norm="frozen")
    try:
        trainer.fit()
    except SystemExit as stop:
        report["stopped"] = [stop.code, trainer.step]

    rank = distributed.rank()
    other = make_trainer(root, folder / "refused", lr=[1e-3, 2e-3][rank])
    report["other settings"] = message_of(other.fit, ConfigError)
    other = make_trainer(root, folder / "refused", val_identities=[0, 3][rank])
    report["other data"] = message_of(other.fit, ConfigError)

    trainer = make_trainer(root, folder / "never", dtype=torch.float32)
    encoder, part = trainer.encoder(), trainer.data.train
    embeddings = embed_together(encoder, part, batch_size=7)
    if embeddings is not None:
        np.save(folder / "embeddings.npy", embeddings)

    began = time.monotonic()
    if rank == 0:
        distributed.barrier = partial(distributed.barrier, minutes=1 / 60)
        report["barrier"] = message_of(lambda: embed_together(encoder, part), TrainingError)
    else:
        for _ in range(12_000):  # in its share of the images, until the other has given up
            if (folder / "0.json").exists():
                break
            time.sleep(0.01)
    report["waited"] = time.monotonic() - began
    (folder / f"{rank}.json").write_text(json.dumps(report))
    distributed.shutdown()


def restarted_main(root: Path, folder: Path) -> None:
    distributed.initialise()
    losses = killed_at(10, signal.SIGKILL, folder)
    options = {"batch_norm": "frozen", "checkpoint_minutes": 1e-9}
    make_trainer(root, folder / "run", losses=losses, **options).fit()
    distributed.shutdown()


if __name__ == "__main__":
    restarted_main(Path(sys.argv[1]), Path(sys.argv[2]))
