"""Person re-identification: train, measure, search.

The public names are imported when they are first used, so that ``import reidkit`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from reidkit import losses
    from reidkit.datasets import load_dataset
    from reidkit.encoder import Encoder, load_encoder
    from reidkit.evaluation import evaluate, evaluate_features
    from reidkit.galleries import open_gallery
    from reidkit.models import build_model
    from reidkit.objectives import Objective
    from reidkit.trainer import Trainer
    from reidkit.types import Dataset, Evaluation, Features, Ranking, Sample

__all__ = [
    "Dataset",
    "Encoder",
    "Evaluation",
    "Features",
    "Objective",
    "Ranking",
    "Sample",
    "Trainer",
    "__version__",
    "build_model",
    "evaluate",
    "evaluate_features",
    "load_dataset",
    "load_encoder",
    "losses",
    "open_gallery",
]

_HOMES = {
    "Dataset": "types",
    "Encoder": "encoder",
    "Evaluation": "types",
    "Features": "types",
    "Objective": "objectives",
    "Ranking": "types",
    "Sample": "types",
    "Trainer": "trainer",
    "build_model": "models",
    "evaluate": "evaluation",
    "evaluate_features": "evaluation",
    "load_dataset": "datasets",
    "load_encoder": "encoder",
    "open_gallery": "galleries",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"reidkit.{_HOMES[name]}"), name)
    if name == "losses":
        return import_module("reidkit.losses")
    raise AttributeError(f"module 'reidkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
