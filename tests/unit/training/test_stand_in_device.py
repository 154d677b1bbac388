"""Losses, networks and training on another device than the CPU give what they give there.

The tests start this file once, as a process of its own, and read what it found.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import reidkit as rk
from reidkit import ops, registry
from reidkit.config import OptimConfig, TransformConfig
from reidkit.losses import BatchHardTripletLoss, IdentityLoss, TripletLoss, VerificationLoss
from reidkit.training.objective import Objective
from reidkit.training.trackers import read_metrics
from tests import stand_in_device
from tests.reference_losses import CASES, WEIGHT_LOSSES, build, case_name
from tests.trainings import NETWORKS, ON_EVERY_DEVICE, Small, Stop, batch, stopper

MISTAKES = ["mixes devices", "mixes indices", "asks for numpy"]
LATE = Objective(VerificationLoss(), from_epoch=1)
TRAININGS: dict[str, dict[str, Any]] = {
    **ON_EVERY_DEVICE,
    "sgd in float16": {  # on few images, of a small network: CPUs emulate it
        "network": Small,
        "data": {"train_identities": 2},
        "optim": {"name": "sgd"},
        "train": {"precision": "float16", "identities_per_batch": 2},
    },
    "adam in bfloat16, statistics frozen": {
        "optim": {"name": "adam"},
        "train": {"precision": "bfloat16", "batch_norm": "frozen"},
    },
}


# --- in the tests' process -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tiny_market, tmp_path_factory) -> dict[str, str]:
    """Of each thing tried what went wrong, nothing where it went as on the CPU."""
    folder = tmp_path_factory.mktemp("stand_in")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, str(tiny_market), str(folder)],
        cwd=Path(__file__).parents[3],
        env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("case", [*CASES, *((name, {}) for name in WEIGHT_LOSSES)], ids=case_name)
def test_losses_are_those_of_the_cpu(found, case):
    assert found[f"loss {case_name(case)}"] == ""


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_losses_need_no_float64_of_a_device(found, case):
    assert found[f"float32 {case_name(case)}"] == ""


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_those_of_the_cpu(found, name):
    assert found[f"network {name}"] == ""


@pytest.mark.parametrize("name", TRAININGS)
def test_trainings_are_those_of_the_cpu(found, name):
    assert found[f"training {name}"] == ""


def test_statistics_of_a_batch_are_those_of_the_cpu(found):
    assert found["statistics"] == ""


@pytest.mark.parametrize("name", MISTAKES)
def test_the_stand_in_catches_what_a_gpu_would(found, name):
    assert "is on cpu" in found[name] or "numpy() is not supported" in found[name]


# --- in its own process --------------------------------------------------------------------------------


def what_fails(trial: Callable[[], None]) -> str:
    try:
        trial()
    except Exception:
        return traceback.format_exc(limit=-6)
    return ""


def same(found: Tensor, expected: Tensor, tolerance: float = 0.0) -> None:
    assert found.device.type == stand_in_device.NAME, f"a result is on {found.device}"
    torch.testing.assert_close(found.detach().cpu(), expected.detach(), rtol=tolerance, atol=tolerance)


def try_loss(case: tuple[str, dict[str, Any]], device: torch.device) -> None:
    torch.manual_seed(0)
    loss = registry.build("loss", *case) if case[0] in WEIGHT_LOSSES else build(case, num_identities=6, dim=5)
    inputs = (torch.randn(5, 12),) if case[0] in WEIGHT_LOSSES else batch()
    results = []
    for place in (device, torch.device("cpu")):
        torch.manual_seed(1)  # of dropout
        there = copy.deepcopy(loss).to(place)
        first, *labels = (values.to(place) for values in inputs)
        first.requires_grad_()
        value = there(first, *labels)
        value.backward()
        with torch.inference_mode():
            torch.manual_seed(1)
            again = there(first.detach().clone(), *labels)
        results.append([value, again, first.grad, *(p.grad for p in there.parameters())])
    for on_device, on_cpu in zip(*results, strict=True):
        same(on_device, on_cpu)


def try_loss_without_float64(case: tuple[str, dict[str, Any]], device: torch.device) -> None:
    with stand_in_device.without_float64():
        loss = build(case, num_identities=6, dim=5).to(device)
        embeddings, labels = (values.to(device) for values in batch())
        value = loss(embeddings.requires_grad_(), labels)
        value.backward()
    expected = copy.deepcopy(loss).cpu()(*batch())
    same(value, expected, 1e-5)


def try_network(name: str, device: torch.device) -> None:
    torch.manual_seed(0)
    options = {"image_size": [64, 32]} if name == "timm:test_vit" else {}
    model = rk.build_model(name, **options)
    images = torch.randn(2, 3, 64, 32)
    results = []
    for place in (device, torch.device("cpu")):
        there = copy.deepcopy(model).to(place)
        torch.manual_seed(1)
        features = there.train()(images.to(place))
        sum(feature.square().mean() for feature in features.values()).backward()
        of_first = next(iter(there.parameters())).grad
        there.eval()
        with torch.inference_mode():
            results.append([*features.values(), of_first, there.embed(images.to(place))])
    for on_device, on_cpu in zip(*results, strict=True):
        same(on_device, on_cpu, 1e-5)


def try_training(name: str, root: Path, folder: Path, device: torch.device) -> None:
    stopped = make_trainer(name, root, folder / device.type, device)
    stopped.trackers = [stopper(7)]
    with contextlib.suppress(Stop):
        stopped.fit()
    for place in (device, torch.device("cpu")):  # on the device it goes on from its checkpoint
        trainer = make_trainer(name, root, folder / place.type, place)
        trainer.fit()
        for parameter in trainer.learner.module.parameters():
            assert parameter.device.type == place.type
    states = [torch.load(folder / kind / "last.ckpt", weights_only=True) for kind in (device.type, "cpu")]
    on_device, on_cpu = (state["weights"] for state in states)
    for weight in on_cpu:
        torch.testing.assert_close(on_device[weight], on_cpu[weight], rtol=1e-5, atol=1e-6)
    records = [read_metrics(folder / kind / "metrics.jsonl") for kind in (device.type, "cpu")]
    assert len(records[0]) == len(records[1]) > 10
    for there, here in zip(*records, strict=True):
        for key in here.keys() - {"images_per_second", "waiting_for_data", "memory_gb"}:
            close = there[key] == here[key]
            if isinstance(here[key], float):
                close = there[key] == pytest.approx(here[key], rel=1e-3, abs=1e-5)
            assert close, f"{key} of step {here['step']}: {there[key]} on the device, {here[key]} on the CPU"


def make_trainer(name: str, root: Path, out: Path, device: torch.device) -> rk.Trainer:
    settings = TRAININGS[name]
    made: dict[str, Callable[[], nn.Module | Objective]] = {
        "identity": lambda: IdentityLoss(dropout=0.2),
        "trihard": BatchHardTripletLoss,
        "quadruplet": lambda: registry.build("loss", "quadruplet", {}),
        "triplet": TripletLoss,
        "late verification": lambda: copy.deepcopy(LATE),
    }
    torch.manual_seed(0)
    return rk.Trainer(
        settings.get("network", partial(rk.build_model, "timm:test_resnet"))(),
        rk.load_dataset("market1501", root, val_identities=3, **settings.get("data", {})),
        [made[loss]() for loss in settings.get("losses", ["identity", "triplet"])],
        out=out, epochs=2, images_per_identity=3,
        # Two columns in the last stage: of one, a CPU's convolutions in half types are made otherwise.
        transform=TransformConfig(height=48, width=48, shift=2),
        optim=OptimConfig(lr=1e-3, schedule="constant", warmup_epochs=0, **settings["optim"]),
        device=device, num_workers=0, log_every=1, validate_every=1,
        **{"precision": "float32", "identities_per_batch": 4, **settings.get("train", {})},
    )  # fmt: skip


def try_statistics(device: torch.device) -> None:
    embeddings, labels = batch()
    found = ops.batch_statistics(embeddings.to(device), labels.to(device))
    assert found == ops.batch_statistics(embeddings, labels)


class Mistaken(nn.Module):
    """A loss that is right on the CPU alone."""

    def __init__(self, mistake: str) -> None:
        super().__init__()
        self.mistake = mistake

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if self.mistake == "mixes devices":
            return (embeddings * torch.ones(len(embeddings), 1)).mean()
        if self.mistake == "mixes indices":
            return embeddings[torch.arange(2)].mean()
        return embeddings.sum() * labels.numpy().mean()


def main(root: Path, folder: Path) -> None:
    device = stand_in_device.register()
    found = {}
    for case in [*CASES, *((name, {}) for name in WEIGHT_LOSSES)]:
        found[f"loss {case_name(case)}"] = what_fails(lambda case=case: try_loss(case, device))
    for case in CASES:
        found[f"float32 {case_name(case)}"] = what_fails(
            lambda case=case: try_loss_without_float64(case, device)
        )
    for name in NETWORKS:
        found[f"network {name}"] = what_fails(lambda name=name: try_network(name, device))
    for number, name in enumerate(TRAININGS):
        found[f"training {name}"] = what_fails(
            lambda name=name, number=number: try_training(name, root, folder / str(number), device)
        )
    found["statistics"] = what_fails(lambda: try_statistics(device))
    for mistake in MISTAKES:
        on_device = [values.to(device) for values in batch()]
        found[mistake] = what_fails(lambda m=mistake, inputs=on_device: Mistaken(m)(*inputs))
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
