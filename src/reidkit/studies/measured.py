"""Results of measurements: written once, read by whoever tabulates them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.evaluation.features import frames_by_tracklet
from reidkit.evaluation.row_labels import identity_labels
from reidkit.files import write_atomically
from reidkit.studies.files import read_costs, read_measurement, read_queries, read_validations
from reidkit.studies.tasks import Folders, Measurement
from reidkit.training.trackers import Record

if TYPE_CHECKING:
    from reidkit.types import Dataset

COST_FILE = "cost.jsonl"
SHARE_OF_FINAL = 0.9


@dataclass(frozen=True)
class Result:
    """What one measurement of a run gave. ``values`` are by column.

    ``average_precisions`` and ``identities`` are (Q,), of the queries; the latter are unknown in what was
    measured before they were kept, until :func:`check_data` has the data at hand.
    ``seconds`` of training passed; ``processor_seconds`` are those of its process alone, whatever else the
    machine did meanwhile.
    """

    values: dict[str, float]
    average_precisions: NDArray[np.float64]
    identities: NDArray[Any] | None
    protocol: str
    seconds: float
    processor_seconds: float
    num_threads: int


def is_measured(measurement: Measurement, folders: Folders) -> bool:
    """Whether its result is there."""
    return saved_measurement(measurement, folders) is not None


def saved_measurement(measurement: Measurement, folders: Folders) -> dict[str, Any] | None:
    """What was written down of a measurement, or None where it is not done yet."""
    file = folders.run(measurement.run) / f"{measurement.file_stem}.json"
    if not (file.is_file() and file.with_suffix(".npz").is_file()):
        return None
    return read_measurement(file)


def read_result(measurement: Measurement, folders: Folders) -> Result | None:
    """The result of a measurement, or None where it is not done yet."""
    saved = saved_measurement(measurement, folders)
    if saved is None:
        return None
    folder = folders.run(measurement.run)
    average_precisions, identities = read_queries(folder / f"{measurement.file_stem}.npz")
    # An epoch that was interrupted is taken up again: the last time counts.
    cost = {record["epoch"]: record for record in read_costs(folder / COST_FILE)}.values()
    values = {name: value for name, value in saved.items() if isinstance(value, float)}
    epochs = epochs_to_share_of_final(read_validations(folder / "metrics.jsonl"))
    if epochs is not None:
        values[f"epochs to {100 * SHARE_OF_FINAL:.0f} %"] = epochs
    return Result(
        values,
        average_precisions,
        identities,
        f"{saved['protocol']}, {saved['average_precision']} AP",
        sum(record["seconds"] for record in cost),
        sum(record["processor_seconds"] for record in cost),
        max((record["threads"] for record in cost), default=0),
    )


def epochs_to_share_of_final(records: Sequence[Record], share: float = SHARE_OF_FINAL) -> float | None:
    """The first epoch whose validation mAP is at least this share of the last one's; None without any."""
    validations = [record for record in records if record["kind"] == "validation"]
    if not validations:
        return None
    enough = share * validations[-1]["mAP"]
    return float(next(record["epoch"] for record in validations if record["mAP"] >= enough))


def write_queries(file: Path, average_precisions: NDArray[np.float64], tested: Dataset) -> None:
    """Of each query its average precision and its identity."""
    queries = tested.query
    if tested.protocol == "tracklets":
        queries = tuple(frames[0] for frames in frames_by_tracklet(queries).values())
    arrays = io.BytesIO()
    np.savez(arrays, average_precisions=average_precisions, identities=identity_labels(queries))
    write_atomically(file, arrays.getvalue())
