"""What a training does and leaves behind."""

import json
import time

import pytest
import torch
from torch import nn

import reidkit as rk
from reidkit.config import OptimConfig
from reidkit.errors import CheckpointError, ConfigError, TrainingError
from reidkit.losses import BatchHardTripletLoss, IdentityLoss, MarginSampleMiningLoss
from reidkit.training import trainer
from reidkit.training.freeze import TrainingMode
from reidkit.training.trackers import read_metrics
from tests.trainings import SimpleLoss, Stop, assert_same_weights, load, make_trainer, weights


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
    data = load(tiny_market, 0)
    assert rk.evaluate(encoder, data).mean_average_precision > 0.5


def test_run_json_says_what_the_run_was_made_from(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1).fit()
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["settings"]["data"]["train_images"] == 96
    assert run["settings"]["model"] == {"name": "timm:test_resnet"}
    assert {"reidkit", "torch", "timm"} <= set(run["versions"])


def test_validation_identities_are_not_trained_on(tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "run", val_identities=3)
    trained = {sample.identity for sample in trainer.data.train}
    held_out = {sample.identity for sample in trainer.data.val}
    assert len(trained) == 5
    assert len(held_out) == 3
    assert not trained & held_out


def test_the_same_seed_gives_the_same_weights_whatever_the_workers(tiny_market, tmp_path):
    for name, workers in [("a", 0), ("b", 2)]:
        make_trainer(tiny_market, tmp_path / name, num_workers=workers, epochs=1).fit()
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    make_trainer(tiny_market, tmp_path / "c", seed=1, epochs=1).fit()
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not all(torch.equal(a[key], c[key]) for key in a)


def test_any_seed_that_torch_takes_can_be_used(tiny_market, tmp_path):
    make_trainer(tiny_market, tmp_path / "run", epochs=1, seed=2**64 - 1).fit()
    assert (tmp_path / "run" / "last.safetensors").is_file()


def test_losses_can_start_and_end(tiny_market, tmp_path):
    losses = [
        rk.Objective(IdentityLoss(), name="early", until_epoch=1),
        rk.Objective(MarginSampleMiningLoss(), weight=0.5, name="late", from_epoch=1),
    ]
    make_trainer(tiny_market, tmp_path / "run", losses=losses).fit()
    epochs = [r for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "epoch"]
    terms = [{key for key in record if key.startswith("loss/")} for record in epochs]
    assert terms == [{"loss/early"}, {"loss/late"}]


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


def test_stages_learn_from_epochs_of_their_own_on():
    model = rk.build_model("timm:test_resnet")
    stages = {"backbone": 1, "layer1": 3, "layer2": 2}
    mode = TrainingMode(model, freeze_statistics=False, freeze_epochs=0, freeze_until=stages)
    backbone = model.backbone.network
    parts = {"layer1": backbone.layer1, "layer2": backbone.layer2, "neck": model.neck}

    def learning(epoch):
        mode.start(epoch)
        return {
            name
            for name, part in parts.items()
            if part.training and any(parameter.requires_grad for parameter in part.parameters())
        }

    assert [learning(epoch) for epoch in (0, 1, 2, 3)] == [
        {"neck"},
        {"neck"},
        {"neck", "layer2"},
        {"neck", "layer1", "layer2"},
    ]
    with pytest.raises(ConfigError, match=r"names 'layr1', .*[Dd]id you mean 'layer1'"):
        TrainingMode(model, freeze_statistics=False, freeze_epochs=0, freeze_until={"layr1": 1})


def test_init_starts_from_the_weights_of_another_run(tiny_market, tmp_path, told):
    make_trainer(tiny_market, tmp_path / "first", epochs=1).fit()
    told.clear()
    options = {"epochs": 1, "init": tmp_path / "first", "model_seed": 5}
    optim = OptimConfig(lr=1e-30, warmup_epochs=0)
    trainer = make_trainer(
        tiny_market, tmp_path / "second", optim=optim, batch_norm="frozen", **options
    ).fit()
    assert f"weights from {tmp_path / 'first' / 'last.safetensors'}" in told[0]
    first = rk.load_encoder(tmp_path / "first").model.state_dict()
    second = trainer.model.state_dict()
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)
    trainer = rk.Trainer(
        rk.build_model("jlml"), trainer.data, [IdentityLoss()], out=tmp_path / "third",
        identities_per_batch=4, images_per_identity=3, init=tmp_path / "first",
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="fits this network by name and shape"):
        trainer.fit()


class Exploding(SimpleLoss):
    """Finite for some steps, then NaN."""

    def __init__(self, good_steps):
        super().__init__()
        self.left = good_steps

    def forward(self, embeddings, labels):
        self.left -= 1
        return embeddings.float().square().mean() * (1.0 if self.left >= 0 else float("nan"))


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


class NanGradient(SimpleLoss):
    """Finite, with a gradient that is not, at the last step of the first epoch."""

    def __init__(self):
        super().__init__()
        self.step = 0

    def forward(self, embeddings, labels):
        self.step += 1
        zero = embeddings.float().square().sum() * 0
        return embeddings.float().square().mean() + (zero.sqrt() if self.step == 8 else zero)


def test_weights_that_are_not_finite_are_never_kept(tiny_market, tmp_path):
    trainer = make_trainer(tiny_market, tmp_path / "run", losses=[NanGradient()])
    with pytest.raises(TrainingError, match=r"stopped at step 8 \(epoch 0\): weight 'model.*' is not finite"):
        trainer.fit()
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run").values())
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_collapse_is_detected_and_said(tiny_market, tmp_path, told):
    trainer = make_trainer(
        tiny_market, tmp_path / "run", losses=[BatchHardTripletLoss()], epochs=1, log_every=1
    )
    for parameter in trainer.model.pooling.parameters():
        parameter.data.zero_()
    for module in trainer.model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    trainer.fit()
    assert any("fallen onto one point" in text for text in told)


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


class Full(SimpleLoss):
    __module__ = "reidkit.losses.full"  # as one of ours: what a loss from elsewhere raises is told otherwise

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, embeddings, labels):
        raise self.error


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
    monkeypatch.setattr(trainer, "Learner", lambda *parts, **options: None)  # there is no such GPU
    assert make_trainer(tiny_market, tmp_path / "run", device="cuda:1").loader.pin_memory
