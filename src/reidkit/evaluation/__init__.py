"""Evaluation: from embeddings and labels to rankings, mAP and CMC. Anything that gives features is taken.

The public names are imported when they are first used, so that their neighbours can be had for little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reidkit.evaluation.evaluation import evaluate, evaluate_features
    from reidkit.evaluation.nearest import rank_features
    from reidkit.evaluation.options import EvaluationOptions

__all__ = ["EvaluationOptions", "evaluate", "evaluate_features", "rank_features"]

_HOMES = {
    "EvaluationOptions": "options",
    "evaluate": "evaluation",
    "evaluate_features": "evaluation",
    "rank_features": "nearest",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
