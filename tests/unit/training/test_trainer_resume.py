"""A training that was stopped anywhere goes on and ends as one that was left alone."""

import json
import shutil
import signal

import pytest
import torch

import reidkit as rk
from reidkit.config import OptimConfig, TransformConfig
from reidkit.losses import IdentityLoss
from reidkit.training import run_folder
from reidkit.training.trackers import read_metrics
from tests.trainings import Stop, assert_same_run, assert_same_weights, make_trainer, stopper, trainer_of

# Three epochs of 5 steps, so that records and epochs end at different steps.
VALIDATED = {"val_identities": 3, "ema_decay": 0.9, "epochs": 3, "log_every": 3}


@pytest.fixture(scope="module")
def whole(tiny_market, tmp_path_factory):
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    make_trainer(tiny_market, out).fit()
    return out


@pytest.fixture(scope="module")
def validated(tiny_market, tmp_path_factory):
    """The same with validations and averaged weights."""
    out = tmp_path_factory.mktemp("validated") / "run"
    make_trainer(tiny_market, out, **VALIDATED).fit()
    return out


def check_resumed(root, out, *, stop_at, **options):
    """Stop at a step, with a checkpoint after every step, and go on."""
    always = {"checkpoint_minutes": 1e-9, "log_every": 1, **options}
    with pytest.raises(Stop):
        make_trainer(root, out, trackers=[stopper(stop_at)], **always).fit()
    # Other random draws in between must not matter; nor must the weights the model was built with.
    make_trainer(root, out, model_seed=99, **always).fit()
    steps = [r["step"] for r in read_metrics(out / "metrics.jsonl") if r["kind"] == "step"]
    assert steps == list(range(1, 17)), "no step is logged twice or missing"


@pytest.mark.parametrize("stop_at", [1, 5, 8, 11])
def test_a_stopped_run_goes_on_to_the_same_weights(whole, tiny_market, tmp_path, stop_at):
    """Within or between epochs."""
    check_resumed(tiny_market, tmp_path, stop_at=stop_at)
    assert_same_weights(whole, tmp_path)


def test_so_does_one_that_embeds_in_pieces(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "whole", accumulate=2).fit()
    check_resumed(tiny_market, tmp_path / "stopped", stop_at=5, accumulate=2)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize(("kind", "epoch", "num_validated"), [("epoch", 2, 2), ("validation", 3, 3)])
def test_a_request_to_stop_after_the_last_step_is_heard_and_loses_nothing(
    validated, tiny_market, tmp_path, told, kind, epoch, num_validated
):
    """Before the validation it is left for later, in it the validation is finished first."""

    def preempt(record):
        if record["kind"] == kind and record["epoch"] == epoch:
            trainer.stop.request(signal.SIGTERM)

    trainer = make_trainer(tiny_market, tmp_path, trackers=[preempt], **VALIDATED)
    with pytest.raises(SystemExit, match="143"):
        trainer.fit()
    kinds = [record["kind"] for record in read_metrics(tmp_path / "metrics.jsonl")]
    assert kinds.count("validation") == num_validated
    told.clear()
    make_trainer(tiny_market, tmp_path, model_seed=9, **VALIDATED).fit()
    expected = {"epoch": "at the validation after 3 epochs", "validation": "training is complete"}[kind]
    assert expected in told[0]
    assert_same_run(validated, tmp_path)


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_killed_in_a_validation_repeats_the_validation_alone(validated, tiny_market, tmp_path, epoch):
    """It is recorded, and perhaps the best, but in no checkpoint yet."""
    with pytest.raises(Stop):
        make_trainer(
            tiny_market, tmp_path, trackers=[stopper(5 * epoch, kind="validation")], **VALIDATED
        ).fit()
    seen = []
    make_trainer(tiny_market, tmp_path, trackers=[seen.append], **VALIDATED).fit()
    assert [(r["kind"], r["step"]) for r in seen][:2] == [("validation", 5 * epoch), ("step", 6 * epoch)]
    assert_same_run(validated, tmp_path)


@pytest.mark.parametrize("stop_at", [3, 9])
def test_records_of_a_resumed_run_are_those_of_an_undisturbed_one(validated, tiny_market, tmp_path, stop_at):
    """Killed between two records, in the middle of an epoch: means are over all their steps."""
    # The last checkpoint is of the step before.
    with pytest.raises(Stop):
        make_trainer(
            tiny_market, tmp_path, trackers=[stopper(stop_at)], checkpoint_minutes=1e-9, **VALIDATED
        ).fit()
    make_trainer(tiny_market, tmp_path, checkpoint_minutes=1e-9, **VALIDATED).fit()
    assert_same_run(validated, tmp_path)


def test_a_stopped_trainer_can_be_asked_again(whole, tiny_market, tmp_path):
    def press_ctrl_c_once(record):
        if record["step"] == 6 and not stopped:
            stopped.append(record)
            trainer.stop.request(signal.SIGINT)

    stopped = []
    trainer = make_trainer(tiny_market, tmp_path, trackers=[press_ctrl_c_once])
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    trainer.fit()
    steps = [
        record["step"] for record in read_metrics(tmp_path / "metrics.jsonl") if record["kind"] == "step"
    ]
    assert steps == [2, 4, 6, 8, 10, 12, 14, 16]
    assert_same_weights(whole, tmp_path)


def test_a_damaged_last_checkpoint_changes_nothing(whole, tiny_market, tmp_path, told):
    damaged = tmp_path / "damaged"
    shutil.copytree(whole, damaged)
    last = damaged / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    make_trainer(tiny_market, damaged).fit()
    assert "going on from the checkpoint before it" in told[0]
    assert "at epoch 1, batch 0" in told[1]
    assert_same_weights(whole, damaged)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_averaged_weights_are_kept_and_resumed_exactly(tiny_market, tmp_path, precision):
    """With float16 the scaler of gradients, too; few, small images, since CPUs emulate it."""
    data = rk.load_dataset("market1501", tiny_market, train_identities=2)  # 4 steps an epoch
    options = {
        "epochs": 2,
        "identities_per_batch": 2,
        "transform": TransformConfig(height=32, width=24),
        "optim": OptimConfig(name="adamw", lr=1e-3, schedule="onecycle"),
        "precision": precision,
        "ema_decay": 0.9,
        "checkpoint_minutes": 1e-9,
        "log_every": 1,
    }
    trainer = trainer_of(data, tmp_path / "whole", [IdentityLoss()], **options).fit()
    with pytest.raises(Stop):
        trainer_of(data, tmp_path / "stopped", [IdentityLoss()], trackers=[stopper(6)], **options).fit()
    trainer_of(data, tmp_path / "stopped", [IdentityLoss()], model_seed=9, **options).fit()
    kept = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert kept[0] == kept[1]
    saved = rk.load_encoder(tmp_path / "whole").model.state_dict()
    own = trainer.model.state_dict()
    assert all(torch.equal(saved[name], trainer.average.average[name]) for name in saved)
    assert not torch.equal(saved["neck.weight"], own["neck.weight"])


def test_a_finished_run_is_left_alone(tiny_market, tmp_path, monkeypatch, told):
    run = tmp_path / "run"
    make_trainer(tiny_market, run, epochs=1, configuration="first = 1").fit()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert {path.name for path in before} >= {"run.json", "config.toml", "metrics.jsonl", "last.ckpt"}
    monkeypatch.setattr(run_folder, "versions", lambda: {"reidkit": "of another day"})
    told.clear()
    make_trainer(tiny_market, run, epochs=1, configuration="second = 2", validate_every=9).fit()
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert any("complete" in text for text in told)


def test_a_run_that_goes_on_notes_what_has_changed_since(tiny_market, tmp_path, monkeypatch, told):
    run = tmp_path / "run"
    options = {"epochs": 3, "trackers": [stopper(8)], "validate_every": 2}
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
    assert sum("was validated every 2 epochs so far and is every 3 from now on" in text for text in told) == 1
