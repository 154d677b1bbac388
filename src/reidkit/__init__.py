"""Person re-identification: train, measure, search.

Public names, and the modules below, are imported when they are first used: ``import reidkit`` is quick.
"""

from __future__ import annotations

import sys
import warnings
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from reidkit import losses
    from reidkit.analysis.calibration import Calibration
    from reidkit.datasets import load_dataset
    from reidkit.encoders.encoder import Encoder
    from reidkit.encoders.export import export
    from reidkit.encoders.loading import load_encoder
    from reidkit.evaluation.evaluation import evaluate, evaluate_features
    from reidkit.evaluation.feature_files import load_features, save_features
    from reidkit.evaluation.options import EvaluationOptions
    from reidkit.galleries import open_gallery
    from reidkit.models import build_model
    from reidkit.reports.run_report import report
    from reidkit.reranking import RerankOptions
    from reidkit.training.objective import Objective
    from reidkit.training.trainer import Trainer
    from reidkit.types import Dataset, Evaluation, Features, Ranking, Sample
    from reidkit.web.client import connect

__all__ = [
    "Calibration",
    "Dataset",
    "Encoder",
    "Evaluation",
    "EvaluationOptions",
    "Features",
    "Objective",
    "Ranking",
    "RerankOptions",
    "Sample",
    "Trainer",
    "__version__",
    "build_model",
    "connect",
    "evaluate",
    "evaluate_features",
    "export",
    "load_dataset",
    "load_encoder",
    "load_features",
    "losses",
    "open_gallery",
    "report",
    "save_features",
]

_HOMES = {
    "Calibration": "analysis.calibration",
    "Dataset": "types",
    "Encoder": "encoders.encoder",
    "Evaluation": "types",
    "EvaluationOptions": "evaluation.options",
    "Features": "types",
    "Objective": "training.objective",
    "Ranking": "types",
    "RerankOptions": "reranking",
    "Sample": "types",
    "Trainer": "training.trainer",
    "build_model": "models",
    "connect": "web.client",
    "evaluate": "evaluation.evaluation",
    "evaluate_features": "evaluation.evaluation",
    "export": "encoders.export",
    "load_dataset": "datasets",
    "load_encoder": "encoders.loading",
    "load_features": "evaluation.feature_files",
    "open_gallery": "galleries",
    "report": "reports.run_report",
    "save_features": "evaluation.feature_files",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"reidkit.{_HOMES[name]}"), name)
    if name in _modules():
        return import_module(f"reidkit.{name}")
    raise AttributeError(f"module 'reidkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_modules()})


def _modules() -> set[str]:
    return {module.name for module in iter_modules(__path__) if not module.name.startswith("_")}


class _FormerNames:
    """Finds modules by the names that they had in version 0.1.0, and says where they are now."""

    @staticmethod
    @cache
    def table() -> dict[str, str]:
        lines = Path(__file__).with_name("former_modules.txt").read_text("utf-8").splitlines()
        return {f"reidkit.{former}": f"reidkit.{name}" for former, name in map(str.split, lines)}

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_former = name.startswith("reidkit.") and name in self.table()
        return ModuleSpec(name, self) if is_former else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """As usual: an empty module, whose place another takes."""

    def exec_module(self, module: ModuleType) -> None:
        former = module.__name__
        name = self.table()[former]
        warnings.warn(f"{former} is {name} now; its former name will go", DeprecationWarning, stacklevel=2)
        sys.modules[former] = import_module(name)


sys.meta_path.append(_FormerNames())
