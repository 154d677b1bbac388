import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit import run_folder
from reidkit.checkpoint import load_checkpoint
from reidkit.config import OptimConfig, TransformConfig
from reidkit.errors import CheckpointError, ConfigError, DataError, TrainingError
from reidkit.files import is_unfinished
from reidkit.losses import BatchHardTripletLoss, ContrastiveLoss, IdentityLoss, MarginSampleMiningLoss
from reidkit.tracking import read_metrics
from reidkit.types import Dataset


def quiet(text):
    pass


def make_trainer(root, out, *, losses=None, val_identities=0, model_seed=0, **options):
    data = rk.load_dataset("market1501", root, val_identities=val_identities)
    torch.manual_seed(model_seed)
    model = rk.build_model("timm:test_resnet")
    settings = {
        "epochs": 2,
        "identities_per_batch": 4,
        "images_per_identity": 3,
        "transform": TransformConfig(height=48, width=24, shift=2),
        "optim": OptimConfig(name="adamw", lr=1e-3, schedule="onecycle"),
        "precision": "float32",
        "num_workers": 0,
        "log_every": 2,
        "validate_every": 1,
        "say": quiet,
    }
    losses = losses or [IdentityLoss(dropout=0.5), BatchHardTripletLoss()]
    return rk.Trainer(model, data, losses, out=out, **{**settings, **options})


def weights(out):
    return torch.load(out / "last.ckpt", weights_only=True)["weights"]


def test_training_learns_and_leaves_a_usable_run_folder(tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "run", val_identities=3, epochs=6).fit()
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "run.json", "metrics.jsonl", "last.ckpt", "last.safetensors", "best.safetensors",
    }  # fmt: skip
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    records = read_metrics(tmp_path / "run" / "metrics.jsonl")
    epochs = [r for r in records if r["kind"] == "epoch"]
    assert [r["epoch"] for r in epochs] == list(range(6))
    assert epochs[-1]["loss/IdentityLoss"] < epochs[0]["loss/IdentityLoss"]
    best = max((r for r in records if r["kind"] == "validation"), key=lambda r: r["mAP"])
    encoder = rk.load_encoder(tmp_path / "run")
    assert encoder.calibration is not None
    assert encoder.calibration.source.endswith("validation images of market1501")
    assert encoder.card["validation"]["mAP"] == best["mAP"]
    assert encoder.card["data_licence"] == "research only"
    assert encoder.card["recipe"]["losses"][0]["name"] == "IdentityLoss"
    assert encoder.card["epoch"] == trainer.best["epoch"] == best["epoch"]
    data = rk.load_dataset("market1501", tiny_market)
    assert rk.evaluate(encoder, data).mean_average_precision > 0.5


def test_validation_identities_are_not_trained_on(tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "run", val_identities=3)
    trained = {sample.identity for sample in trainer.data.train}
    held_out = {sample.identity for sample in trainer.data.val}
    assert len(trained) == 5
    assert len(held_out) == 3
    assert not trained & held_out


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(tiny_market, tmp_path):
    for name, workers in [("a", 0), ("b", 2)]:
        make_trainer(tiny_market, tmp_path / name, num_workers=workers).fit()
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)
    make_trainer(tiny_market, tmp_path / "c", seed=1).fit()
    c = weights(tmp_path / "c")
    assert not all(torch.equal(a[key], c[key]) for key in a)


class Stop(Exception):
    pass


@pytest.mark.parametrize(("stop_at", "accumulate"), [(1, 1), (5, 1), (8, 1), (11, 1), (5, 2)])
def test_a_stopped_run_goes_on_to_the_same_weights(tiny_market, tmp_path, stop_at, accumulate):
    """Stopped at any step, within or between epochs, with a checkpoint after every step."""
    make_trainer(tiny_market, tmp_path / "whole", accumulate=accumulate).fit()

    def stopper(record):
        if record["step"] >= stop_at:
            raise Stop

    always = {"checkpoint_minutes": 1e-9, "log_every": 1, "accumulate": accumulate}
    with pytest.raises(Stop):
        make_trainer(tiny_market, tmp_path / "stopped", trackers=[stopper], **always).fit()
    # Other random draws in between must not matter; nor must the weights the model was built with.
    make_trainer(tiny_market, tmp_path / "stopped", model_seed=99, **always).fit()
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    steps = [r["step"] for r in read_metrics(tmp_path / "stopped" / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, 17)), "no step is logged twice or missing"


def test_a_stopped_run_chooses_the_same_best_weights(tiny_market, tmp_path):
    """Stopped right after a validation, before the checkpoint that would have recorded it."""
    options = {"val_identities": 3, "epochs": 4, "log_every": 1}
    make_trainer(tiny_market, tmp_path / "whole", **options).fit()

    stop_in_validation(tiny_market, tmp_path / "stopped", epoch=2, **options)
    make_trainer(tiny_market, tmp_path / "stopped", **options).fit()
    for name in ("best.safetensors", "last.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()
    whole, stopped = (
        [r for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["kind"] == "validation"]
        for name in ("whole", "stopped")
    )
    assert whole == stopped


@pytest.mark.parametrize(("kind", "validated"), [("epoch", 1), ("validation", 2)])
def test_a_request_to_stop_after_the_last_step_is_heard_and_loses_nothing(
    tiny_market, tmp_path, kind, validated
):
    """Before the validation it is left for later, in it the validation is finished first."""
    options = {"val_identities": 3, "ema_decay": 0.9}
    make_trainer(tiny_market, tmp_path / "whole", **options).fit()

    def preempt(record):
        if record["kind"] == kind and record["epoch"] == {"epoch": 1, "validation": 2}[kind]:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit, match="143"):
        make_trainer(tiny_market, tmp_path / "stopped", trackers=[preempt], **options).fit()
    validations = [
        r for r in read_metrics(tmp_path / "stopped" / "metrics.jsonl") if r["kind"] == "validation"
    ]
    assert len(validations) == validated
    said = []
    make_trainer(tiny_market, tmp_path / "stopped", say=said.append, model_seed=9, **options).fit()
    expected = {"epoch": "at the validation after 2 epochs", "validation": "training is complete"}[kind]
    assert expected in said[0]
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_killed_in_a_validation_repeats_the_validation_alone(tiny_market, tmp_path):
    options = {"val_identities": 3, "log_every": 1}
    make_trainer(tiny_market, tmp_path / "whole", **options).fit()

    stop_in_validation(tiny_market, tmp_path / "killed", epoch=1, **options)
    seen = []
    make_trainer(tiny_market, tmp_path / "killed", trackers=[seen.append], **options).fit()
    assert [(r["kind"], r["step"]) for r in seen][:2] == [("validation", 5), ("step", 6)]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def stop_in_validation(root, out, *, epoch, **options):
    """Train until this validation is recorded, and not yet in a checkpoint."""

    def stopper(record):
        if record["kind"] == "validation" and record["epoch"] == epoch:
            raise Stop

    with pytest.raises(Stop):
        make_trainer(root, out, trackers=[stopper], **options).fit()


def assert_same_run(a, b):
    """Equal weights, training and kept, and equal records but for what was measured of time and memory."""
    assert all(torch.equal(weight, weights(b)[name]) for name, weight in weights(a).items())
    for name in ("best.safetensors", "last.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes()

    def lasting(out):
        measured = ("images_per_second", "waiting_for_data", "memory_gb", "gpu_memory_gb")
        records = read_metrics(out / "metrics.jsonl")
        return [{key: value for key, value in r.items() if key not in measured} for r in records]

    assert lasting(a) == lasting(b)


def test_another_shape_of_batch_is_another_run(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    same_size = make_trainer(
        tiny_market, tmp_path / "run", epochs=1, identities_per_batch=3, images_per_identity=4
    )
    with pytest.raises(ConfigError, match=r"sampler\.identities_per_batch: 4 there, 3 now"):
        same_size.fit()


def test_an_unknown_sampler_is_refused(tiny_market, tmp_path):
    with pytest.raises(ConfigError, match="unknown sampler 'identiy'; did you mean 'identity'"):
        make_trainer(tiny_market, tmp_path / "run", sampler="identiy")


def test_a_finished_run_is_left_alone(tiny_market, tmp_path, monkeypatch):
    run = tmp_path / "run"
    make_trainer(tiny_market, run, configuration="first = 1").fit()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"run.json", "config.toml", "metrics.jsonl", "last.ckpt"}
    said = []
    monkeypatch.setattr(run_folder, "versions", lambda: {"reidkit": "of another day"})
    make_trainer(tiny_market, run, say=said.append, configuration="second = 2", validate_every=9).fit()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert any("complete" in text for text in said)


def test_a_run_that_goes_on_notes_what_has_changed_since(tiny_market, tmp_path, monkeypatch):
    def stopper(record):
        if record["step"] >= 8:
            raise Stop

    run, said = tmp_path / "run", []
    options = {"epochs": 3, "trackers": [stopper], "say": said.append, "validate_every": 2}
    with pytest.raises(Stop):
        make_trainer(tiny_market, run, **options).fit()
    first = json.loads((run / "run.json").read_text())
    with pytest.raises(Stop):
        make_trainer(tiny_market, run, **options).fit()
    assert json.loads((run / "run.json").read_text()) == first, "nothing has changed"
    monkeypatch.setattr(run_folder, "versions", lambda: {"reidkit": "of another day"})
    for _ in range(2):
        with pytest.raises(Stop):
            make_trainer(tiny_market, run, **{**options, "validate_every": 3}).fit()
    changed = {"epoch": 0, "versions": {"reidkit": "of another day"}, "validate_every": 3}
    assert json.loads((run / "run.json").read_text()) == {**first, "resumed_with": [changed]}
    assert sum("was validated every 2 epochs so far and is every 3 from now on" in text for text in said) == 1


def test_a_run_of_other_settings_is_refused_and_untouched(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()}
    other = make_trainer(
        tiny_market, tmp_path / "run", epochs=1, optim=OptimConfig(name="adamw", lr=2e-3, schedule="onecycle")
    )
    with pytest.raises(
        ConfigError, match=r"(?s)holds a run with other settings.*optim\.lr: 0\.001 there, 0\.002 now"
    ):
        other.fit()
    make_trainer(tiny_market, tmp_path / "x", epochs=1, losses=[MarginSampleMiningLoss(margin=0.3)]).fit()
    with pytest.raises(ConfigError, match=r"losses\[0\]\.loss: .*margin=0\.3.* there, .*margin=0\.5"):
        make_trainer(tiny_market, tmp_path / "x", epochs=1, losses=[MarginSampleMiningLoss(margin=0.5)]).fit()
    assert {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir() if p.is_file()} == before


def test_a_folder_of_something_else_is_refused(tiny_market, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a run folder"):
        make_trainer(tiny_market, tmp_path).fit()
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


class Exploding(nn.Module):
    """Finite for some steps, then NaN."""

    reads = "metric"

    def __init__(self, good_steps):
        super().__init__()
        self.left = good_steps

    def forward(self, embeddings, labels):
        self.left -= 1
        return embeddings.float().square().mean() * (1.0 if self.left >= 0 else float("nan"))

    def extra_repr(self):
        return "test"


def test_a_loss_that_is_not_finite_stops_names_the_step_and_keeps_the_last_good_checkpoint(
    tiny_market, tmp_path
):
    # 96 images, 12 a batch: 8 steps an epoch; the 11th step is in the second epoch.
    trainer = make_trainer(tiny_market, tmp_path / "run", losses=[Exploding(10)])
    with pytest.raises(
        TrainingError, match=r"stopped at step 10 \(epoch 1\): the loss is not finite \(Exploding nan\)"
    ):
        trainer.fit()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert (state["epoch"], state["batch"]) == (1, 0)
    assert all(torch.isfinite(value).all() for value in state["weights"].values())
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values()), (
        "no bad step was taken"
    )


def test_collapse_is_detected_and_said(tiny_market, tmp_path):
    said = []
    trainer = make_trainer(
        tiny_market, tmp_path / "run", losses=[BatchHardTripletLoss()], epochs=1, log_every=1, say=said.append
    )
    for parameter in trainer.model.pooling.parameters():
        parameter.data.zero_()
    for module in trainer.model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    trainer.fit()
    assert any("fallen onto one point" in text for text in said)


def test_settings_that_cannot_work_are_refused_at_once(tiny_market, tmp_path):
    refuse = [
        (
            {"losses": [rk.Objective(MarginSampleMiningLoss(), feature="nek")]},
            "reads feature 'nek'.*did you mean 'neck'",
        ),
        ({"losses": [MarginSampleMiningLoss(), MarginSampleMiningLoss()]}, "two losses are called"),
        ({"losses": [rk.Objective(MarginSampleMiningLoss(), from_epoch=1)]}, "no loss counts in epoch 0"),
        ({"identities_per_batch": 9}, "identities_per_batch = 9, but the training set has only 8"),
        ({"precision": "float8"}, "precision = 'float8' is not known"),
        ({"optim": OptimConfig(schedule="exponential")}, r"optim.milestones = \[40, 70\], but"),
    ]
    for options, message in refuse:
        with pytest.raises(ConfigError, match=message):
            make_trainer(tiny_market, tmp_path / "never", **options)
    with pytest.raises(DataError, match="has no training images"):
        rk.Trainer(
            rk.build_model("timm:test_resnet"),
            Dataset("empty", tmp_path),
            [IdentityLoss()],
            out=tmp_path / "n",
        )
    assert not (tmp_path / "never").exists()


def test_losses_can_start_and_end(tiny_market, tmp_path):
    losses = [
        rk.Objective(IdentityLoss(), name="early", until_epoch=1),
        rk.Objective(MarginSampleMiningLoss(), weight=0.5, name="late", from_epoch=1),
    ]
    make_trainer(tiny_market, tmp_path / "run", losses=losses).fit()
    epochs = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "epoch"]
    terms = [{key for key in record if key.startswith("loss/")} for record in epochs]
    assert terms == [{"loss/early"}, {"loss/late"}]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def plain_command(recipe, root, out, *, epochs=3):
    """Trains with a checkpoint and a record after every step."""
    words = [sys.executable, "-m", "reidkit", "train", recipe, f"data.root={root}", f"train.epochs={epochs}"]
    words += ["train.num_workers=1", "train.log_every=1", "train.checkpoint_minutes=1e-9"]
    words += ["loss.identity.dropout=0.5", "--out", out]
    return [str(word) for word in words]


def test_ctrl_c_saves_says_how_to_go_on_and_the_run_goes_on(tiny_recipe, tiny_market, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        plain_command(tiny_recipe, tiny_market, out),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: (out / "last.ckpt").exists(), process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the loader's workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    done = subprocess.run(
        plain_command(tiny_recipe, tiny_market, out),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "going on with" in done.stderr


def test_a_killed_run_goes_on_to_the_same_weights(tiny_recipe, tiny_market, tmp_path):
    """One kill; the slow test beside it does fifty."""
    kill_and_compare(tiny_recipe, tiny_market, tmp_path, delays=[0.3])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("num_processes", [1, 2])
def test_fifty_kills_at_random_moments_change_nothing(tiny_recipe, tiny_market, tmp_path, num_processes):
    rng = random.Random(num_processes)
    delays = [rng.uniform(0, 1.2) for _ in range(50)]
    torn = kill_and_compare(
        tiny_recipe, tiny_market, tmp_path, delays=delays, epochs=300, num_processes=num_processes
    )
    assert 0 < torn < 50, "some kills must hit a file that is being written, and some not"


def kill_and_compare(recipe, root, tmp_path, *, delays, epochs=3, num_processes=1):
    """Kill the run once for each delay (seconds after its first new sign of life), then let it finish.

    Returns how many kills hit a file that was being written.
    """

    def command(recipe, root, out, *, epochs):
        words = plain_command(recipe, root, out, epochs=epochs)
        if num_processes == 1:
            return words
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        return [words[0], *launch, *words[1:]]

    whole = command(recipe, root, tmp_path / "whole", epochs=epochs)
    subprocess.run(whole, env=ENVIRONMENT, check=True, capture_output=True, timeout=600)
    out = tmp_path / "killed"
    killed_at, torn = [], 0
    for delay in delays:
        seen = len(read_metrics(out / "metrics.jsonl"))
        process = subprocess.Popen(
            command(recipe, root, out, epochs=epochs),
            env=ENVIRONMENT,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_for(lambda: len(read_metrics(out / "metrics.jsonl")) != seen, process)  # noqa: B023
        time.sleep(delay)
        kill_all(process)
        killed_at.append(process.returncode)
        torn += any(map(is_unfinished, out.iterdir()))
        check_checkpoints(out, tmp_path / "copies")
    assert set(killed_at) == {-signal.SIGKILL}, "every kill must hit a run that is still going"
    subprocess.run(
        command(recipe, root, out, epochs=epochs),
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        timeout=600,
    )
    a, b = weights(tmp_path / "whole"), weights(out)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert (tmp_path / "whole" / "last.safetensors").read_bytes() == (out / "last.safetensors").read_bytes()
    steps = [r["step"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1))
    assert not any(map(is_unfinished, out.iterdir()))
    return torn


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


def wait_for(condition, process, seconds=150):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline, "the run did not get going"
        time.sleep(0.01)


def test_two_trainings_in_one_folder_are_refused(tiny_market, tmp_path):
    out = tmp_path / "run"
    program = "import sys; from pathlib import Path; from reidkit.files import exclusive; "
    program += "lock = exclusive(Path(sys.argv[1])); lock.__enter__(); print(1, flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(out / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    with pytest.raises(ConfigError, match="is being trained by another process"):
        make_trainer(tiny_market, out, epochs=1).fit()
    assert [path.name for path in out.iterdir()] == [".lock"]
    holder.kill()
    holder.communicate()
    (out / ".run.json.x1.unfinished").write_bytes(b"half")  # of one that was killed at its first file
    make_trainer(tiny_market, out, epochs=1).fit()
    assert not (out / ".run.json.x1.unfinished").exists()


def test_run_json_says_what_the_run_was_made_from(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["data"]["train_images"] == 96
    assert run["settings"]["model"] == {"name": "timm:test_resnet"}
    assert {"reidkit", "torch", "timm"} <= set(run["versions"])


def test_sigterm_saves_says_so_and_the_run_goes_on(tiny_recipe, tiny_market, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(
        plain_command(tiny_recipe, tiny_market, out),
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: read_metrics(out / "metrics.jsonl"), process)
    os.killpg(process.pid, signal.SIGTERM)  # as a cluster does: to the loader's workers too
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "asked to stop: saved after step" in errors
    assert "Traceback" not in errors
    assert torch.load(out / "last.ckpt", weights_only=True)["batch"] > 0


def test_a_damaged_last_checkpoint_changes_nothing(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "whole").fit()
    make_trainer(tiny_market, tmp_path / "damaged").fit()
    last = tmp_path / "damaged" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    said = []
    make_trainer(tiny_market, tmp_path / "damaged", say=said.append).fit()
    assert "going on from the checkpoint before it" in said[0]
    assert "at epoch 1, batch 0" in said[1]
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "damaged")
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_averaged_weights_are_kept_and_resumed_exactly(tiny_market, tmp_path, precision):
    def stopper(record):
        if record["step"] >= 11:
            raise Stop

    options = {"ema_decay": 0.9, "precision": precision, "checkpoint_minutes": 1e-9, "log_every": 1}
    trainer = make_trainer(tiny_market, tmp_path / "whole", **options).fit()
    with pytest.raises(Stop):
        make_trainer(tiny_market, tmp_path / "stopped", trackers=[stopper], **options).fit()
    make_trainer(tiny_market, tmp_path / "stopped", model_seed=9, **options).fit()
    kept = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert kept[0] == kept[1]
    saved = rk.load_encoder(tmp_path / "whole").model.state_dict()
    own = trainer.model.state_dict()
    assert all(torch.equal(saved[name], trainer.average.average[name]) for name in saved)
    assert not torch.equal(saved["neck.weight"], own["neck.weight"])


def test_a_frozen_backbone_stays_while_neck_and_losses_learn(tiny_market, tmp_path):
    optim = OptimConfig(name="adamw", lr=1e-3, schedule="constant", warmup_epochs=0, freeze_epochs=1)
    states = []

    def keep(record):
        if record["kind"] == "epoch":
            states.append({name: t.clone() for name, t in trainer.model.state_dict().items()})

    trainer = make_trainer(tiny_market, tmp_path / "run", optim=optim, trackers=[keep])
    states.append({name: t.clone() for name, t in trainer.model.state_dict().items()})
    trainer.fit()

    def changed(a, b):
        return {name.split(".")[0] for name in a if not torch.equal(a[name], b[name])}

    assert changed(states[0], states[1]) == {"neck"}
    assert changed(states[1], states[2]) == {"neck", "backbone"}


def test_init_starts_from_the_weights_of_another_run(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "first", epochs=1).fit()
    said = []
    options = {"epochs": 1, "init": tmp_path / "first", "say": said.append, "model_seed": 5}
    optim = OptimConfig(lr=1e-30, warmup_epochs=0)
    trainer = make_trainer(
        tiny_market, tmp_path / "second", optim=optim, batch_norm="frozen", **options
    ).fit()
    assert f"weights from {tmp_path / 'first' / 'last.safetensors'}" in said[0]
    first = rk.load_encoder(tmp_path / "first").model.state_dict()
    second = trainer.model.state_dict()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    trainer = rk.Trainer(
        rk.build_model("jlml"), trainer.data, [IdentityLoss()], out=tmp_path / "third",
        identities_per_batch=4, images_per_identity=3, init=tmp_path / "first", say=quiet,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="fits this network by name and shape"):
        trainer.fit()


def test_a_batch_larger_than_the_data_and_a_piece_too_small_are_told(tiny_market, tmp_path):
    said = []
    options = {"identities_per_batch": 8, "images_per_identity": 13, "epochs": 1}
    make_trainer(tiny_market, tmp_path / "run", say=said.append, **options).fit()
    assert any("a batch of 104 is larger than the 96 training images" in text for text in said)
    with pytest.raises(ConfigError, match="accumulate = 7 leaves pieces of less than 2 of the 12 images"):
        make_trainer(tiny_market, tmp_path / "never", accumulate=7)


def test_a_stopped_trainer_can_be_asked_again(tiny_market, tmp_path):
    run, stopped = tmp_path / "run", []

    def press_ctrl_c_once(record):
        if record["step"] == 6 and not stopped:
            stopped.append(record)
            os.kill(os.getpid(), signal.SIGINT)

    trainer = make_trainer(tiny_market, run, trackers=[press_ctrl_c_once])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    steps = [record["step"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "step"]
    assert steps == [2, 4, 6, 8, 10, 12, 14, 16]
    make_trainer(tiny_market, tmp_path / "other").fit()
    assert all(torch.equal(w, weights(tmp_path / "other")[name]) for name, w in weights(run).items())


class NanGradient(nn.Module):
    """Finite, with a gradient that is not, at the last step of the first epoch."""

    def __init__(self):
        super().__init__()
        self.step = 0

    def forward(self, embeddings, labels):
        self.step += 1
        zero = embeddings.float().square().sum() * 0
        return embeddings.float().square().mean() + (zero.sqrt() if self.step == 8 else zero)

    def extra_repr(self):
        return "test"


def test_weights_that_are_not_finite_are_never_kept(tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "run", losses=[NanGradient()])
    with pytest.raises(TrainingError, match=r"stopped at step 8 \(epoch 0\): weight 'model.*' is not finite"):
        trainer.fit()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_time_in_trackers_is_no_waiting_for_data(tiny_market, tmp_path):
    records = []

    def slow(record):
        records.append(record)
        time.sleep(0.1 * (record["kind"] == "step"))

    make_trainer(tiny_market, tmp_path / "run", epochs=1, log_every=1, trackers=[slow]).fit()
    whole_epoch = next(record for record in records if record["kind"] == "epoch")
    assert 0 < whole_epoch["waiting_for_data"] < 0.5


class Closable:
    def __init__(self):
        self.closed = 0

    def __call__(self, record):
        if record["step"] == 4:
            raise Stop

    def close(self):
        self.closed += 1


def test_trackers_are_closed_however_training_ends(tiny_market, tmp_path):
    tracker = Closable()
    with pytest.raises(Stop):
        make_trainer(tiny_market, tmp_path / "run", trackers=[print, tracker]).fit()
    assert tracker.closed == 1


def test_any_seed_that_torch_takes_can_be_used(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1, seed=2**64 - 1).fit()
    assert (tmp_path / "run" / "last.safetensors").is_file()


# --- what cannot teach, or cannot be scored, is told before the first step -----------------------------


def with_train(data, keep):
    """The data set with those training samples."""
    train = tuple(sample for sample in data.train if keep(sample))
    return dataclasses.replace(
        data, train=tuple(dataclasses.replace(s, index=i) for i, s in enumerate(train))
    )


def trainer_of(data, out, losses=None, **options):
    settings = {"identities_per_batch": 4, "images_per_identity": 3, "num_workers": 0, "say": quiet}
    model = rk.build_model("timm:test_resnet")
    transform = TransformConfig(height=48, width=24, shift=2)
    losses = losses or [BatchHardTripletLoss()]
    return rk.Trainer(model, data, losses, out=out, transform=transform, **{**settings, **options})


@pytest.mark.parametrize("loss", [BatchHardTripletLoss, MarginSampleMiningLoss, ContrastiveLoss])
def test_metric_losses_without_pairs_are_refused(tiny_market, tmp_path, loss):
    data = rk.load_dataset("market1501", tiny_market)
    first = min(sample.identity for sample in data.train)
    one = with_train(data, lambda sample: sample.identity == first)
    singles = with_train(data, lambda sample: sample.path.name.endswith("c1s1_000000_01.jpg"))
    refuse = [
        (data, {"images_per_identity": 1}, f"images_per_identity = 1, but loss '{loss.__name__}' compares"),
        (data, {"identities_per_batch": 1}, "identities_per_batch = 1, but"),
        (one, {"sampler": "random", "identities_per_batch": 1}, "training images of 'market1501' are of one"),
        (singles, {}, "no identity of 'market1501' has two training images"),
    ]
    for part, options, message in refuse:
        with pytest.raises(ConfigError, match=message):
            trainer_of(part, tmp_path / "never", [IdentityLoss(), loss()], **options)
        trainer_of(part, tmp_path / "never", [IdentityLoss()], **options)


def test_batches_that_often_lack_pairs_are_told_once(tiny_market, tmp_path):
    data, said = rk.load_dataset("market1501", tiny_market), []
    options = {"sampler": "random", "identities_per_batch": 3, "images_per_identity": 1, "epochs": 1}
    trainer_of(data, tmp_path / "run", say=said.append, **options).fit()
    told = [text for text in said if "do not hold two images of one identity" in text]
    assert len(told) == 1
    assert "of the first 32 batches" in told[0]
    assert not trainer_of(data, tmp_path / "other").remarks


@pytest.mark.parametrize(
    ("camera_of", "need"), [(lambda s: 1, "with two"), (lambda s: s.identity, "seen by")]
)
def test_a_validation_part_without_matches_is_refused(tiny_market, tmp_path, camera_of, need):
    """Nobody is seen by two cameras, or, where all images are under one, nobody twice."""
    data = rk.load_dataset("market1501", tiny_market, val_identities=3)
    first_of_each = {sample.identity: sample for sample in reversed(data.val)}.values()
    kept = first_of_each if need == "with two" else data.val
    val = [dataclasses.replace(s, index=i, camera=camera_of(s)) for i, s in enumerate(kept)]
    with pytest.raises(DataError, match=f"val part of 'market1501' .* holds no identity {need}"):
        trainer_of(dataclasses.replace(data, val=tuple(val)), tmp_path / "run")


def test_whatever_fails_in_a_validation_the_encoder_is_there(tiny_market, tmp_path):
    data = rk.load_dataset("market1501", tiny_market, val_identities=3)
    damaged = tmp_path / "damaged.jpg"
    shutil.copy(data.val[-1].path, damaged)
    val = [*data.val[:-1], dataclasses.replace(data.val[-1], path=damaged)]
    trainer = trainer_of(dataclasses.replace(data, val=tuple(val)), tmp_path / "run", epochs=1)
    damaged.write_bytes(b"")
    with pytest.raises(DataError, match=r"damaged\.jpg"):
        trainer.fit()
    assert rk.load_encoder(tmp_path / "run").card["epoch"] == 1


def test_a_batch_of_one_image_is_refused(tiny_market, tmp_path):
    options = {"sampler": "random", "identities_per_batch": 1, "images_per_identity": 1}
    with pytest.raises(ConfigError, match="has 1 image of each batch, and batch norm needs 2"):
        make_trainer(tiny_market, tmp_path / "run", losses=[IdentityLoss()], **options)
    make_trainer(tiny_market, tmp_path / "run", losses=[IdentityLoss()], batch_norm="frozen", **options)


# --- stopped and resumed -------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_at", [3, 9])
def test_records_of_a_resumed_run_are_those_of_an_undisturbed_one(tiny_market, tmp_path, stop_at):
    """Killed between two records, in the middle of an epoch: means are over all their steps."""
    options = {"val_identities": 3, "log_every": 3}  # epochs of 5 steps
    make_trainer(tiny_market, tmp_path / "whole", **options).fit()

    def stopper(record):
        if record["step"] == stop_at:  # the last checkpoint is of the step before
            raise Stop

    options["checkpoint_minutes"] = 1e-9
    with pytest.raises(Stop):
        make_trainer(tiny_market, tmp_path / "stopped", trackers=[stopper], **options).fit()
    make_trainer(tiny_market, tmp_path / "stopped", **options).fit()
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


# --- devices -------------------------------------------------------------------------------------------


class Full(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, embeddings, labels):
        raise self.error

    def extra_repr(self):
        return "test"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
            "2.50 GiB more",
        ),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 96 bytes."),
            "96 bytes",
        ),
        (RuntimeError("CUDA error: out of memory"), "memory of cpu is full. Raise"),
    ],
)
def test_memory_that_is_full_is_told_in_one_line(tiny_market, tmp_path, error, asked):
    trainer = make_trainer(tiny_market, tmp_path / "run", losses=[Full(error)])
    with pytest.raises(TrainingError, match=asked) as caught:
        trainer.fit()
    for word in ("train.accumulate (now 1)", "identities_per_batch (now 4)", "precision = 'bfloat16'"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_errors_of_a_device_stay_what_they_are(tiny_market, tmp_path):
    with pytest.raises(RuntimeError, match="a bug of ours"):
        make_trainer(tiny_market, tmp_path / "run", losses=[Full(RuntimeError("a bug of ours"))]).fit()


def test_batches_are_pinned_where_a_gpu_fetches_them(tiny_market, tmp_path, monkeypatch):
    assert not make_trainer(tiny_market, tmp_path / "run").loader.pin_memory
    monkeypatch.setattr(rk.Trainer, "_prepare_network", lambda self, compile: None)  # there is no such GPU
    assert make_trainer(tiny_market, tmp_path / "run", device="cuda:1").loader.pin_memory
