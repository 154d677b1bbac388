"""Carrying out a study: each run is trained and measured once, by whichever process takes it first.

A study's folder holds ``runs/`` (the run folders, with ``cost.jsonl`` and one ``evaluation*.json`` and
``.npz`` a measurement beside what training writes) and ``runs-state/`` (a lock and perhaps the error of each
run). A lock is the operating system's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import io
import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.config import Table
from reidkit.errors import ConfigError, DataError
from reidkit.files import HAS_LOCKS, exclusive, write_atomically
from reidkit.studies import Cell, Run, Study, TestPart, fingerprint, run_fingerprint
from reidkit.tracking import Record, read_metrics

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.types import Dataset, Features, Split

COST_FILE = "cost.jsonl"
SHARE_OF_FINAL = 0.9
_WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class Measurement:
    """One test of one run, and where its result lies."""

    run: Run
    test: TestPart
    options: Table
    weights: str

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, the training data and settings included."""
        test = {"data": self.test.data, "folder": self.test.folder, "options": self.test.options}
        settings: dict[str, Any] = {
            "run": run_fingerprint(self.run.configuration),
            "test": test,
            "measure": self.options,
            "weights": self.weights,
        }
        return settings

    @property
    def file_stem(self) -> str:
        """``evaluation`` where the run is measured as `reid evaluate` does it."""
        plain = self.test.data is None and not self.options
        return "evaluation" if plain else f"evaluation-{fingerprint(self.settings)}"


@dataclass(frozen=True)
class Task:
    """A run with all that is to be measured of it, and the names of the cells that it stands for."""

    run: Run
    measurements: list[Measurement] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """What one measurement of a run gave. ``values`` are by column; ``average_precisions`` is (Q,).

    ``seconds`` of training passed; ``processor_seconds`` are those of its process alone, whatever else the
    machine did meanwhile.
    """

    values: dict[str, float]
    average_precisions: NDArray[np.float64]
    protocol: str
    seconds: float
    processor_seconds: float
    num_threads: int


@dataclass(frozen=True)
class Folders:
    """Where a study writes; several studies may share their run folders, and with them equal cells."""

    out: Path
    runs: Path

    @property
    def state(self) -> Path:
        return self.runs.with_name(f"{self.runs.name}-state")

    def run(self, run: Run) -> Path:
        return self.runs / run.name

    def failure(self, run: Run) -> Path:
        return self.state / f"{run.name}.error.json"


def measurement_of(study: Study, cell: Cell, test: TestPart) -> Measurement:
    """How a cell is measured on one test part."""
    return Measurement(cell.run, test, {**cell.measure, **test.measure}, study.weights)


def tasks_of(study: Study, cells: Sequence[Cell], *, only: str | None = None) -> list[Task]:
    """Each run once. ``only`` chooses cells by a pattern on their names, ``*msml*/seed-0``.

    Raises :class:`ConfigError` where the pattern fits no cell.
    """
    tasks: dict[str, Task] = {}
    for cell in cells:
        if only is not None and not fnmatchcase(cell.name, only):
            continue
        task = tasks.setdefault(cell.run.name, Task(cell.run))
        task.cells.append(cell.name)
        for test in study.test:
            if (measurement := measurement_of(study, cell, test)) not in task.measurements:
                task.measurements.append(measurement)
    if not tasks:
        raise ConfigError(f"no cell's name fits {only!r}; the first of {len(cells)} is {cells[0].name!r}")
    return list(tasks.values())


def carry_out(tasks: Sequence[Task], folders: Folders, *, say: Callable[[str], None]) -> None:
    """Train and measure whatever is neither finished, nor failed, nor being done by another process.

    Returns when nothing is left to do anywhere. A run whose process has died is taken again.

    Raises :class:`DataError` on Windows, which lacks the locks.
    """
    if not HAS_LOCKS:
        raise DataError("studies need the file locks of Linux or macOS; run them there, or under WSL")
    while pending := [task for task in tasks if state_of(task, folders) == "open"]:
        taken = False
        for task in pending:
            with exclusive(folders.state / f"{task.run.name}.lock") as ours:
                if ours and state_of(task, folders) == "open":
                    taken = True
                    _carry_out_one(task, folders, say=say)
        if not taken:
            time.sleep(_WAIT_SECONDS)


def state_of(task: Task, folders: Folders) -> str:
    """ "finished", "failed" (its error is recorded) or "open"."""
    if all(is_measured(measurement, folders) for measurement in task.measurements):
        return "finished"
    return "failed" if folders.failure(task.run).is_file() else "open"


def forget_failures(tasks: Sequence[Task], folders: Folders) -> None:
    """Let runs that failed be tried again."""
    for task in tasks:
        folders.failure(task.run).unlink(missing_ok=True)


def failure_text(run: Run, folders: Folders) -> str | None:
    """Why a run failed, in one line, or None."""
    file = folders.failure(run)
    return json.loads(file.read_text("utf-8"))["error"] if file.is_file() else None


def is_measured(measurement: Measurement, folders: Folders) -> bool:
    """Whether its result is there, with the same settings."""
    file = folders.run(measurement.run) / f"{measurement.file_stem}.json"
    if not (file.is_file() and file.with_suffix(".npz").is_file()):
        return False
    settings = json.loads(file.read_text("utf-8")).get("settings")
    return bool(settings == json.loads(json.dumps(measurement.settings)))


def read_result(measurement: Measurement, folders: Folders) -> Result | None:
    """The result of a measurement, or None where it is not done yet."""
    if not is_measured(measurement, folders):
        return None
    folder = folders.run(measurement.run)
    saved = json.loads((folder / f"{measurement.file_stem}.json").read_text("utf-8"))
    with np.load(folder / f"{measurement.file_stem}.npz", allow_pickle=False) as arrays:
        average_precisions = arrays["average_precisions"]
    # An epoch that was interrupted is taken up again: the last time counts.
    cost = {record["epoch"]: record for record in read_metrics(folder / COST_FILE)}.values()
    values = {name: value for name, value in saved.items() if isinstance(value, float)}
    epochs = epochs_to_share_of_final(read_metrics(folder / "metrics.jsonl"))
    if epochs is not None:
        values[f"epochs to {100 * SHARE_OF_FINAL:.0f} %"] = epochs
    return Result(
        values,
        average_precisions,
        saved["protocol"],
        sum(record["seconds"] for record in cost),
        sum(record["processor_seconds"] for record in cost),
        max(record["threads"] for record in cost),
    )


def epochs_to_share_of_final(records: Sequence[Record], share: float = SHARE_OF_FINAL) -> float | None:
    """The first epoch whose validation mAP is at least this share of the last one's; None without any."""
    validations = [record for record in records if record["kind"] == "validation"]
    if not validations:
        return None
    enough = share * validations[-1]["mAP"]
    return float(next(record["epoch"] for record in validations if record["mAP"] >= enough))


def _carry_out_one(task: Task, folders: Folders, *, say: Callable[[str], None]) -> None:
    """Train and measure one run; an error is recorded and said, and the next run is not touched by it."""
    say(
        f"started {task.cells[0]}" + (f" (the same run: {', '.join(task.cells[1:])})" * (len(task.cells) > 1))
    )
    try:
        _train(task.run, folders.run(task.run))
        scores = _measure(task, folders)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        record = {"error": text, "cells": task.cells, "traceback": traceback.format_exc()}
        write_atomically(folders.failure(task.run), json.dumps(record, indent=2))
        say(f"failed {task.cells[0]}: {text}")
    else:
        say(f"finished {task.cells[0]}: {', '.join(scores)}")


def _train(run: Run, folder: Path) -> None:
    epochs = run.configuration.train.epochs
    if any(record["epoch"] == epochs for record in read_metrics(folder / COST_FILE)):
        return
    from reidkit.runs import build_trainer

    stopwatch = _Stopwatch(folder / COST_FILE)
    trainer = build_trainer(run.configuration, folder, trackers=[stopwatch], say=_silent)
    stopwatch.start()
    trainer.fit()
    stopwatch.lap(epoch=epochs)  # validating and saving the last epoch


class _Stopwatch:
    """A tracker that writes what each epoch cost, so that the cost of a run survives its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.start()

    def start(self) -> None:
        self._mark = time.perf_counter(), time.process_time()

    def __call__(self, record: Record) -> None:
        if record["kind"] == "epoch":
            self.lap(epoch=record["epoch"])

    def lap(self, *, epoch: int) -> None:
        import torch

        line = {
            "epoch": epoch,
            "seconds": time.perf_counter() - self._mark[0],
            "processor_seconds": time.process_time() - self._mark[1],
            "threads": torch.get_num_threads(),
        }
        lines = [*read_metrics(self._path), line]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        self.start()


def _measure(task: Task, folders: Folders) -> list[str]:
    """Do what is not yet measured; returns the mAP of each measurement as text."""
    from reidkit.encoder import load_encoder
    from reidkit.evaluation import evaluate
    from reidkit.variances import identity_variances

    folder = folders.run(task.run)
    scores = []
    sources: dict[str, _EmbedsOnce] = {}
    data: dict[str, Dataset] = {}
    for measurement in task.measurements:
        if is_measured(measurement, folders):
            continue
        images = fingerprint(measurement.settings["test"])  # tests that measure the same images otherwise
        if images not in sources:
            sources[images] = _EmbedsOnce(load_encoder(folder / f"{measurement.weights}.safetensors"))
            data[images] = _test_data(task.run, measurement.test)
        source, tested = sources[images], data[images]
        evaluation = evaluate(source, tested, **measurement.options)
        parts = [source.features(part) for part in (tested.query, tested.gallery) if part]
        saved = {
            "settings": measurement.settings,
            "data": tested.name,
            **evaluation.as_dict(),
            **identity_variances(*parts)._asdict(),
        }
        arrays = io.BytesIO()
        np.savez(arrays, average_precisions=evaluation.average_precisions)
        write_atomically(folder / f"{measurement.file_stem}.npz", arrays.getvalue())
        write_atomically(folder / f"{measurement.file_stem}.json", json.dumps(saved, indent=2))
        scores.append(f"mAP {100 * evaluation.mean_average_precision:.1f}")
    return scores


def _test_data(run: Run, test: TestPart) -> Dataset:
    from reidkit.datasets import load_dataset
    from reidkit.runs import load_data

    if test.data is None:
        return load_data(run.configuration)
    return load_dataset(test.data, Path(run.configuration.data.root) / test.folder, **test.options)


class _EmbedsOnce:
    """Features of splits; each is embedded when it is first asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[Split, Features] = {}

    def features(self, split: Split, /) -> Features:
        if split not in self._known:
            self._known[split] = self._encoder.features(split)
        return self._known[split]


def _silent(text: str) -> None:
    """Progress of single epochs would drown what several processes say."""
