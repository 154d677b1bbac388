"""Small trainings that several tests do: seconds on one core, on a set that a network can learn."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reidkit as rk
from reidkit.config import OptimConfig, TransformConfig
from reidkit.losses import BatchHardTripletLoss, IdentityLoss
from reidkit.models import Embedder
from reidkit.training.trackers import read_metrics

MEASURED = ("images_per_second", "waiting_for_data", "memory_gb", "gpu_memory_gb")
"""Keys of records that differ from one run to the next."""

load = functools.cache(
    lambda root, val_identities: rk.load_dataset("market1501", root, val_identities=val_identities)
)


def make_trainer(
    root: Path,
    out: Path,
    *,
    losses: list[Any] | None = None,
    val_identities: int = 0,
    **options: Any,
) -> rk.Trainer:
    """On ``tiny_market``: 96 images, 12 a batch, so 8 steps an epoch, 2 epochs."""
    settings = {
        "epochs": 2,
        "optim": OptimConfig(name="adamw", lr=1e-3, schedule="onecycle"),
        "precision": "float32",
        "log_every": 2,
        "validate_every": 1,
    }
    losses = losses or [IdentityLoss(dropout=0.5), BatchHardTripletLoss()]
    return trainer_of(load(root, val_identities), out, losses, **{**settings, **options})


def trainer_of(
    data: rk.Dataset, out: Path, losses: list[Any] | None = None, *, model_seed: int = 0, **options: Any
) -> rk.Trainer:
    """On any data, with the options' defaults where they do not cost time."""
    torch.manual_seed(model_seed)
    settings = {
        "identities_per_batch": 4,
        "images_per_identity": 3,
        "transform": TransformConfig(height=48, width=24, shift=2),
        "num_workers": 0,
    }
    model = rk.build_model("timm:test_resnet")
    return rk.Trainer(model, data, losses or [BatchHardTripletLoss()], out=out, **{**settings, **options})


NETWORKS = [
    *("resnet18", "resnet50", "osnet_x0_25", "osnet_ain_x1_0", "bninception", "jlml"),
    *("timm:test_resnet", "timm:test_vit", "timm:convnext_atto"),
]
ON_EVERY_DEVICE: dict[str, dict[str, Any]] = {
    "adam, averaged, in pieces": {
        "optim": {"name": "adam"},
        "train": {"ema_decay": 0.9, "accumulate": 2},
    },
    "adamw, clipped, compared by quadruplets": {
        "optim": {"name": "adamw", "clip_norm": 1.0},
        "losses": ["identity", "quadruplet"],
    },
    "sgd, frozen at first, a late loss": {
        "optim": {"name": "sgd", "freeze_epochs": 1},
        "losses": ["identity", "trihard", "late verification"],
    },
}
"""Settings of trainings that another device than the CPU has to give alike."""


def batch() -> tuple[Tensor, Tensor]:
    embeddings = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    return embeddings, torch.tensor([3, 0, 0, 1, 3, 2, 2, 3, 3, 5, 1, 0])


class Small(Embedder):
    """A convolution with batch norm, a linear layer and a batch norm of its output."""

    def __init__(self) -> None:
        super().__init__(
            {"embedding": 16},
            metric_feature="embedding",
            classification_feature="embedding",
            embedding_feature="embedding",
        )
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU())
        self.feature, self.neck = nn.Linear(6, 16), nn.BatchNorm1d(16)

    def named_features(self, images: Tensor) -> dict[str, Tensor]:
        return {"embedding": self.neck(self.feature(self.backbone(images).mean(dim=(2, 3))))}


class Stop(Exception):
    """Raised by a tracker: training ends as if it had been killed there."""


def stopper(step: int, kind: str | None = None) -> Any:
    """A tracker that stops training at the first record (of a kind) of that step or a later one."""

    def track(record: Any) -> None:
        if record["step"] >= step and kind in (None, record["kind"]):
            raise Stop

    return track


def weights(out: Path) -> dict[str, Tensor]:
    """What the last checkpoint of a run holds."""
    state: dict[str, Tensor] = torch.load(out / "last.ckpt", weights_only=True)["weights"]
    return state


def assert_same_weights(a: Path, b: Path) -> None:
    ours, theirs = weights(a), weights(b)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def assert_same_run(a: Path, b: Path) -> None:
    """Equal weights, training and kept, and equal records but for what was measured of time and memory."""
    assert_same_weights(a, b)
    for name in ("best.safetensors", "last.safetensors"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    ours, theirs = (
        [{key: value for key, value in record.items() if key not in MEASURED} for record in records]
        for records in (read_metrics(out / "metrics.jsonl") for out in (a, b))
    )
    assert ours == theirs


class SimpleLoss(nn.Module):
    """What losses made for a test have in common: they read pairs, and are equal from run to run."""

    reads = "metric"

    def extra_repr(self) -> str:
        return "test"
