"""Losses, networks and training on a CUDA GPU give what they give on the CPU; without one, all of it skips.

Trainings are compared in float64: in float32 another order of sums is enough to part two curves.
"""

from __future__ import annotations

import contextlib
import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import reidkit as rk
from reidkit import ops, registry
from reidkit.cli import cli
from reidkit.config import OptimConfig, TransformConfig
from reidkit.encoders.devices import default_device, full_memory_explained, has_native_bfloat16
from reidkit.errors import TrainingError
from reidkit.evaluation import evaluate
from reidkit.losses import BatchHardTripletLoss, IdentityLoss, TripletLoss, VerificationLoss
from reidkit.training.objective import Objective
from reidkit.training.trackers import read_metrics
from tests.reference_losses import CASES, WEIGHT_LOSSES, build, case_name
from tests.trainings import MEASURED, NETWORKS, ON_EVERY_DEVICE, Stop, batch, stopper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
TRAININGS: dict[str, dict[str, Any]] = {
    **ON_EVERY_DEVICE,
    "sgd, statistics frozen": {"optim": {"name": "sgd"}, "train": {"batch_norm": "frozen"}},
}


@pytest.fixture(autouse=True)
def exact_products():
    """No TensorFloat-32 in convolutions."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)


# --- losses and networks -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", [*CASES, *((name, {}) for name in WEIGHT_LOSSES)], ids=case_name)
def test_losses_are_those_of_the_cpu(case, dtype):
    torch.manual_seed(0)
    of_weights = case[0] in WEIGHT_LOSSES
    loss = registry.build("loss", *case) if of_weights else build(case, num_identities=6, dim=5)
    inputs = (torch.randn(5, 12),) if of_weights else batch()
    results = []
    for place in (CUDA, CPU):
        there = copy.deepcopy(loss).to(place, dtype)
        first, *labels = (values.to(place) for values in inputs)
        first = first.to(dtype).requires_grad_()
        value = there(first, *labels)
        value.backward()
        with torch.inference_mode():
            again = there(first.detach().clone(), *labels)
        results.append([value, again, first.grad, *(p.grad for p in there.parameters())])
    for on_device, on_cpu in zip(*results, strict=True):
        close(on_device, on_cpu, 2e-5 if dtype == torch.float32 else 1e-10)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_losses_of_half_types_are_finite_and_near(case):
    """As under autocast: embeddings come in a half type, and distances are not taken in it."""
    loss = build(case, num_identities=6, dim=5)
    embeddings, labels = batch()
    expected = copy.deepcopy(loss)(embeddings.bfloat16().float(), labels)
    with torch.autocast("cuda", torch.bfloat16):
        found = loss.to(CUDA)(embeddings.bfloat16().to(CUDA).requires_grad_(), labels.to(CUDA))
        found.backward()
    torch.testing.assert_close(found.detach().cpu().float(), expected.detach(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    options = {"image_size": [64, 32]} if name == "timm:test_vit" else {}
    model = rk.build_model(name, **options).double()
    images = torch.randn(8, 3, 64, 32, dtype=torch.float64)
    results = []
    for place in (CUDA, CPU):
        there = copy.deepcopy(model).to(place)
        features = there.train()(images.to(place))
        sum(feature.square().mean() for feature in features.values()).backward()
        of_first = next(iter(there.parameters())).grad
        there.eval()
        with torch.inference_mode():
            results.append([*features.values(), of_first, there.embed(images.to(place))])
    for on_device, on_cpu in zip(*results, strict=True):
        close(on_device, on_cpu, 1e-6)


def test_statistics_of_a_batch_are_those_of_the_cpu():
    embeddings, labels = batch()
    found = asdict(ops.batch_statistics(embeddings.to(CUDA), labels.to(CUDA)))
    assert found == pytest.approx(asdict(ops.batch_statistics(embeddings, labels)), rel=1e-5)


# --- training ------------------------------------------------------------------------------------------


def make_trainer(settings: dict[str, Any], root: Path, out: Path, device: torch.device, **options: Any):
    losses = {
        "identity": IdentityLoss,
        "trihard": BatchHardTripletLoss,
        "quadruplet": lambda: registry.build("loss", "quadruplet", {}),
        "triplet": TripletLoss,
        "late verification": lambda: Objective(VerificationLoss(), from_epoch=1),
    }
    dtype, size = options.pop("dtype", torch.float64), options.pop("size", 48)
    torch.manual_seed(0)
    return rk.Trainer(
        rk.build_model("timm:test_resnet").to(dtype),
        rk.load_dataset("market1501", root, val_identities=3),
        [losses[name]() for name in settings.get("losses", ["identity", "triplet"])],
        out=out, identities_per_batch=4, images_per_identity=3,
        transform=TransformConfig(height=size, width=size, shift=2),
        optim=OptimConfig(lr=1e-3, schedule="constant", warmup_epochs=0, **settings.get("optim", {})),
        device=device, log_every=1, validate_every=1,
        **{"epochs": 2, "num_workers": 0, "precision": "float32", **settings.get("train", {}), **options},
    )  # fmt: skip


def stopped_in_the_second_epoch(trainer):
    trainer.trackers = [stopper(7)]
    with contextlib.suppress(Stop):
        trainer.fit()


def records(out: Path) -> list[dict]:
    return read_metrics(out / "metrics.jsonl")


def loss_terms(out: Path) -> list[dict]:
    steps = [record for record in records(out) if record["kind"] == "step"]
    return [{key: value for key, value in step.items() if key.startswith("loss/")} for step in steps]


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_are_those_of_the_cpu(tiny_market, tmp_path, name):
    """On the GPU they stop in the second epoch, and go on from the checkpoint."""
    stopped_in_the_second_epoch(make_trainer(TRAININGS[name], tiny_market, tmp_path / "cuda", CUDA))
    for place in (CUDA, CPU):
        trainer = make_trainer(TRAININGS[name], tiny_market, tmp_path / place.type, place)
        trainer.fit()
        assert {parameter.device.type for parameter in trainer.learner.module.parameters()} == {place.type}
    on_cuda, on_cpu = (records(tmp_path / place.type) for place in (CUDA, CPU))
    assert len(on_cuda) == len(on_cpu) > 10
    for there, here in zip(on_cuda, on_cpu, strict=True):
        for key in here.keys() - set(MEASURED):
            assert there[key] == pytest.approx(here[key], rel=1e-5, abs=1e-6), f"{key} of step {here['step']}"


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_types_stay_near_float32(tiny_market, tmp_path, optimizer, precision):
    """SGD in float16 once learned from memory that nobody had filled, when its first step overflowed."""
    settings = {"optim": {"name": optimizer}}
    for kind in (precision, "float32"):
        make_trainer(settings, tiny_market, tmp_path / kind, CUDA, precision=kind, dtype=torch.float32).fit()
    half, full = loss_terms(tmp_path / precision), loss_terms(tmp_path / "float32")
    assert half[0] == pytest.approx(full[0], rel=0.05)
    assert sum(half[-1].values()) == pytest.approx(sum(full[-1].values()), rel=0.3)
    assert sum(half[-1].values()) < sum(half[0].values())


def test_what_goes_on_is_what_was_never_stopped(tiny_market, tmp_path):
    settings = {"optim": {"name": "sgd"}, "losses": ["identity", "trihard"], "train": {"ema_decay": 0.9}}
    stopped_in_the_second_epoch(make_trainer(settings, tiny_market, tmp_path / "stopped", CUDA))
    for name in ("stopped", "whole"):
        make_trainer(settings, tiny_market, tmp_path / name, CUDA).fit()
    for there, here in zip(loss_terms(tmp_path / "stopped"), loss_terms(tmp_path / "whole"), strict=True):
        assert there == pytest.approx(here, rel=1e-9)


def test_a_run_of_a_gpu_goes_on_on_a_cpu_and_back(tiny_market, tmp_path):
    settings = {"optim": {"name": "adamw"}}
    stopped_in_the_second_epoch(make_trainer(settings, tiny_market, tmp_path / "run", CUDA))
    make_trainer(settings, tiny_market, tmp_path / "run", CPU).fit()
    make_trainer(settings, tiny_market, tmp_path / "whole", CPU).fit()
    for there, here in zip(loss_terms(tmp_path / "run"), loss_terms(tmp_path / "whole"), strict=True):
        assert there == pytest.approx(here, rel=1e-6)


def test_worker_processes_bring_the_same_batches_in_pinned_memory(tiny_market, tmp_path):
    for workers in (0, 2):
        trainer = make_trainer({}, tiny_market, tmp_path / str(workers), CUDA, num_workers=workers)
        assert trainer.loader.pin_memory
        trainer.fit()
    for there, here in zip(loss_terms(tmp_path / "2"), loss_terms(tmp_path / "0"), strict=True):
        assert there == pytest.approx(here, rel=1e-9)


def test_a_compiled_network_learns_what_a_plain_one_does(tiny_market, tmp_path):
    for compiled in (True, False):
        make_trainer({}, tiny_market, tmp_path / str(compiled), CUDA, compile=compiled, epochs=1).fit()
    for there, here in zip(loss_terms(tmp_path / "True"), loss_terms(tmp_path / "False"), strict=True):
        assert there == pytest.approx(here, rel=1e-5)


def test_memory_of_the_gpu_is_told(tiny_market, tmp_path):
    make_trainer({}, tiny_market, tmp_path, CUDA, epochs=1).fit()
    assert any(record.get("gpu_memory_gb", 0) > 0 for record in records(tmp_path))


def test_a_full_memory_is_one_sentence_with_a_way_out():
    with (
        pytest.raises(TrainingError, match=r"the memory of cuda is full, [\d.]+ \w+ more were asked for. Do"),
        full_memory_explained(CUDA, "Do something."),
    ):
        torch.empty(1 << 50, device=CUDA)


def test_a_training_that_needs_more_memory_than_there_is_says_what_to_change(tiny_market, tmp_path):
    torch.cuda.set_per_process_memory_fraction(1e-3)
    try:
        with pytest.raises(TrainingError, match=r"the memory of cuda is full.*Raise train.accumulate"):
            make_trainer({}, tiny_market, tmp_path, CUDA, size=512).fit()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


# --- encoders and commands -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_market, tiny_recipe, tmp_path_factory) -> Path:
    """A run that the command trained, with what it takes by itself: the GPU, bfloat16."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["train", tiny_recipe, f"data.root={tiny_market}", "--out", out]
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return out


def test_a_gpu_is_taken_by_itself_with_bfloat16_where_it_has_it(run):
    assert default_device().type == "cuda"
    settings = json.loads((run / "run.json").read_text()) if (run / "run.json").exists() else {}
    assert has_native_bfloat16(CUDA) == (torch.cuda.get_device_capability()[0] >= 8)
    if "precision" in settings:
        assert settings["precision"] == ("bfloat16" if has_native_bfloat16(CUDA) else "float32")


def test_an_encoder_embeds_as_on_the_cpu(run, tiny_market):
    data = rk.load_dataset("market1501", tiny_market)
    on_cuda, on_cpu = (
        rk.load_encoder(run, device=device).features(data.gallery).embeddings for device in ("cuda", "cpu")
    )
    assert isinstance(on_cuda, np.ndarray)
    np.testing.assert_allclose(on_cuda, on_cpu, atol=2e-4)


def test_an_evaluation_scores_as_on_the_cpu(run, tiny_market):
    data = rk.load_dataset("market1501", tiny_market)
    scores = [
        evaluate(rk.load_encoder(run, device=device), data).mean_average_precision
        for device in ("cuda", "cpu")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_an_encoder_of_the_gpu_is_exported(run, tmp_path, kind):
    if kind == "onnx":
        pytest.importorskip("onnxscript")
    words = ["export", run, "--to", kind, "--out", tmp_path / f"net.{'onnx' if kind == 'onnx' else 'pt'}"]
    done = CliRunner().invoke(cli, [*map(str, words)])
    assert done.exit_code == 0, done.output


def test_commands_evaluate_index_and_search_on_the_gpu(run, tiny_market, tmp_path):
    for words in (
        ["evaluate", run, "--out", tmp_path / "evaluation"],
        ["index", run, tiny_market / "bounding_box_test", "--gallery", tmp_path / "gallery"],
        ["search", next((tiny_market / "query").glob("*.jpg")), "--gallery", tmp_path / "gallery"],
    ):
        done = CliRunner().invoke(cli, [*map(str, words)])
        assert done.exit_code == 0, done.output


def test_a_model_outside_of_reidkit_may_live_on_the_gpu():
    """Embeddings of a GPU go into an evaluation and a loss as they are."""
    embeddings, labels = (values.to(CUDA) for values in batch())
    loss = BatchHardTripletLoss()
    linear = nn.Linear(5, 4).to(CUDA)
    loss(linear(embeddings), labels).backward()
    assert linear.weight.grad is not None
