"""What a study keeps in its folders, read back: they may have been passed on, or damaged.

Each reader raises :class:`CheckpointError` where a file is not what a study writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import CheckpointError, shown
from reidkit.evaluation.feature_archives import read_npz
from reidkit.texts.files import read_json, read_text
from reidkit.training.trackers import Record, read_metrics

_MEASUREMENT: Mapping[str, type] = {"images": str, "protocol": str, "average_precision": str}
_COST: Mapping[str, type] = {"epoch": int, "seconds": float, "processor_seconds": float, "threads": int}
_ATTEMPT_DIGITS = 9


def read_measurement(file: Path) -> dict[str, Any]:
    """What was written down of a measurement."""
    saved = read_json(file, error=CheckpointError)
    if not isinstance(saved, dict) or not _has(saved, _MEASUREMENT):
        raise _foreign(file, saved)
    for name, value in saved.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _foreign(file, {name: value})
    return saved


def read_queries(file: Path) -> tuple[NDArray[np.float64], NDArray[Any] | None]:
    """Of each query its average precision (Q,) and its identity (Q,), None in what was measured before that
    was kept.

    Also raises :class:`DataError` for a damaged archive.
    """
    arrays = read_npz(file)
    average_precisions, identities = arrays.get("average_precisions"), arrays.get("identities")
    if (
        average_precisions is None
        or average_precisions.ndim != 1
        or average_precisions.dtype != np.float64
        or (identities is not None and identities.shape != average_precisions.shape)
    ):
        raise _foreign(file, {name: (array.shape, str(array.dtype)) for name, array in arrays.items()})
    return average_precisions, identities


def read_costs(file: Path) -> list[dict[str, Any]]:
    """What each epoch cost; empty if there is no file."""
    costs = read_metrics(file, required=_COST)
    for cost in costs:
        if not math.isfinite(cost["seconds"] + cost["processor_seconds"]):
            raise _foreign(file, cost)
    return costs


def read_validations(file: Path) -> list[Record]:
    """Records of a run's validations; empty if there is no file."""
    records: list[Record] = [*read_metrics(file)]
    validations = [record for record in records if record["kind"] == "validation"]
    for record in validations:
        if not (_has(record, {"epoch": int, "mAP": float}) and 0 <= record["mAP"] <= 1):
            raise _foreign(file, record)
    return validations


def read_failure(file: Path) -> str:
    """Why a run failed."""
    failure = read_json(file, error=CheckpointError)
    if not isinstance(failure, dict) or not isinstance(error := failure.get("error"), str):
        raise _foreign(file, failure)
    return error


def read_attempts(file: Path) -> int:
    """How often a run was begun; 0 if there is no file."""
    if not file.is_file():
        return 0
    text = read_text(file, error=CheckpointError).strip()
    if not (text.isascii() and text.isdigit() and len(text) <= _ATTEMPT_DIGITS):
        raise _foreign(file, text)
    return int(text)


def _has(record: Mapping[str, Any], types: Mapping[str, type]) -> bool:
    return all(isinstance(record.get(name), kind) for name, kind in types.items())


def _foreign(file: Path, found: object) -> CheckpointError:
    return CheckpointError(
        f"{file} holds {shown(found)}, which is not what a study writes; move it away, and the study makes "
        "it anew"
    )
