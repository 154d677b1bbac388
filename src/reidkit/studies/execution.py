"""Carrying out a study: each run is trained and measured once, by whichever process takes it first.

A study's folder holds ``runs/`` (the run folders, with ``cost.jsonl`` and one ``evaluation-*.json`` and
``.npz`` a measurement beside what training writes) and ``runs-state/`` (of each run a lock, how often it was
begun, and perhaps its error). A lock is the operating system's: it ends with the process that holds it,
however that ends.
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reidkit import config, logs, trust
from reidkit.config import Table
from reidkit.errors import ConfigError, shown
from reidkit.evaluation.features import frames_by_tracklet
from reidkit.evaluation.row_labels import identity_labels
from reidkit.files import check_own_folder, exclusive, write_atomically
from reidkit.provenance import data_fingerprint, images_hash, read_run_file
from reidkit.studies.files import (
    read_attempts,
    read_costs,
    read_failure,
    read_measurement,
    read_queries,
    read_validations,
)
from reidkit.studies.study import Cell, Run, Study, TestPart, fingerprint, run_fingerprint
from reidkit.training.runs import RUN_FILE, load_data
from reidkit.training.trackers import Record

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder
    from reidkit.types import Dataset, Features, Split

logger = logs.get_logger(__name__)

Found = TypeVar("Found")

COST_FILE = "cost.jsonl"
SHARE_OF_FINAL = 0.9
MOST_ATTEMPTS = 2  # at a run whose process dies
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
        """What decides the result, the configuration of the training included."""
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
        return f"evaluation-{fingerprint(self.settings)}"

    @property
    def feature(self) -> str | None:
        """The network's feature to measure; its usual one where None."""
        return self.options.get("feature")

    @property
    def evaluate_options(self) -> Table:
        """Options of :func:`reidkit.evaluate`."""
        return {key: value for key, value in self.options.items() if key != "feature"}

    @property
    def is_plain(self) -> bool:
        """Whether this is how `reid evaluate` measures the run."""
        return self.test.data is None and not self.options


@dataclass(frozen=True)
class Task:
    """A run with all that is to be measured of it, and the names of the cells that it stands for."""

    run: Run
    measurements: list[Measurement] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)


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


@dataclass(frozen=True)
class Folders:
    """Where a study writes; several studies may share their run folders, and with them equal cells."""

    out: Path
    runs: Path

    def check(self) -> None:
        """Raise :class:`reidkit.files.WriteError` where a folder in the study's own is a link."""
        own = [self.state, *([self.runs] if self.runs.parent == self.out else [])]
        runs = self.runs.iterdir() if self.runs.is_dir() else ()
        for folder in (*own, *runs):
            check_own_folder(folder)

    @property
    def state(self) -> Path:
        runs = self.runs.resolve()
        return runs.with_name(f"{runs.name}-state")

    def run(self, run: Run) -> Path:
        return self.runs / run.name

    def failure(self, run: Run) -> Path:
        return self.state / f"{run.name}.error.json"

    def attempts(self, run: Run) -> Path:
        return self.state / f"{run.name}.attempts"


def measurement_of(study: Study, cell: Cell, test: TestPart) -> Measurement:
    """How a cell is measured on one test part."""
    return Measurement(cell.run, test, {**cell.measure, **test.measure}, study.weights)


def tasks_of(study: Study, cells: Sequence[Cell], *, only: str | None = None) -> list[Task]:
    """Each run once. ``only`` chooses cells by a pattern on their names, ``*msml*/seed-0``, in any case.

    Raises :class:`ConfigError` where the pattern fits no cell.
    """
    tasks: dict[str, Task] = {}
    for cell in cells:
        if only is not None and not fnmatchcase(cell.name.lower(), only.lower()):
            continue
        task = tasks.setdefault(cell.run.name, Task(cell.run))
        task.cells.append(cell.name)
        for test in study.test:
            if (measurement := measurement_of(study, cell, test)) not in task.measurements:
                task.measurements.append(measurement)
    if not tasks:
        raise ConfigError(f"no cell's name fits {only!r}; the first of {len(cells)} is {cells[0].name!r}")
    return list(tasks.values())


def check_data(tasks: Sequence[Task], folders: Folders) -> None:
    """Look whether all images are there, and whether they are those that earlier runs saw.

    Raises:
        DataError: the training images of a run, or images to test on, are not there.
        ConfigError: a run was trained, or measured, on other images.
    """
    loaded = _Loaded()
    for task in tasks:
        folder = folders.run(task.run)
        begun = (folder / RUN_FILE).is_file()
        data = loaded.training(task.run, as_drawn=begun)
        if begun:
            there = read_run_file(folder / RUN_FILE)["settings"].get("data")
            if there != loaded.trained(data):
                number = there.get("train_images") if isinstance(there, dict) else there
                raise _other_images(folder, f"trained on other images ({shown(number)})", data)
        for measurement in task.measurements:
            tested = data if measurement.test.data is None else loaded.testing(measurement)
            saved = _saved(measurement, folders)
            if saved and saved["images"] != loaded.tested(tested):
                raise _other_images(folder, "measured on other images", tested)
            if saved:
                _add_identities(folder / f"{measurement.file_stem}.npz", tested)


def _add_identities(file: Path, tested: Dataset) -> None:
    """Keep whom each query shows with a result that was measured before that was kept."""
    average_precisions, identities = read_queries(file)
    if identities is None:
        _write_queries(file, average_precisions, tested)


def _write_queries(file: Path, average_precisions: NDArray[np.float64], tested: Dataset) -> None:
    """Of each query its average precision and its identity."""
    queries = tested.query
    if tested.protocol == "tracklets":
        queries = tuple(frames[0] for frames in frames_by_tracklet(queries).values())
    arrays = io.BytesIO()
    np.savez(arrays, average_precisions=average_precisions, identities=identity_labels(queries))
    write_atomically(file, arrays.getvalue())


def _other_images(folder: Path, what: str, data: Dataset) -> ConfigError:
    return ConfigError(
        f"{folder} was {what} than {data.root} holds now; bring them back, choose another folder (--out, "
        "--runs), or delete that run"
    )


class _Loaded:
    """Data sets, and what stands for their images; each is found out when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def training(self, run: Run, *, as_drawn: bool = True) -> Dataset:
        """A run's own data set; only looked for, and perhaps that of another seed, unless ``as_drawn``."""
        data = config.as_tree(run.configuration)["data"]
        key: Any = [data, run.configuration.seed] if as_drawn else [data["name"], data["root"]]
        return self._once(key, lambda: load_data(run.configuration))

    def testing(self, measurement: Measurement) -> Dataset:
        """What a measurement is made on."""
        from reidkit.datasets import load_dataset

        test = measurement.test
        if test.data is None:
            return self.training(measurement.run)
        layout, root = test.data, Path(measurement.run.configuration.data.root) / test.folder
        key = [layout, str(root), test.options]

        def load() -> Dataset:
            with trust.from_file():
                return load_dataset(layout, root, **test.options)

        return self._once(key, load)

    def trained(self, data: Dataset) -> dict[str, Any]:
        """What stands for the training images of a set that was loaded here."""
        return self._once(["trained", id(data)], lambda: data_fingerprint(data))

    def tested(self, data: Dataset) -> str:
        """What stands for the images to test on."""
        return self._once(["tested", id(data)], lambda: images_hash(data.query, data.gallery))

    def _once(self, key: Any, load: Callable[[], Found]) -> Found:
        name = fingerprint(key)
        if name not in self._known:
            self._known[name] = load()
        found: Found = self._known[name]
        return found


def carry_out(tasks: Sequence[Task], folders: Folders) -> None:
    """Train and measure whatever is neither finished, nor failed, nor being done by another process.

    Returns when nothing is left to do anywhere. A run whose process has died is taken again.
    """
    logs.show_by_default()
    while pending := [task for task in tasks if state_of(task, folders) == "open"]:
        taken = False
        for task in pending:
            with exclusive(folders.state / f"{task.run.name}.lock") as ours:
                if ours and state_of(task, folders) == "open":
                    taken = True
                    _attempt(task, folders)
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
        folders.attempts(task.run).unlink(missing_ok=True)


def failure_text(run: Run, folders: Folders) -> str | None:
    """Why a run failed, in one line, or None."""
    file = folders.failure(run)
    return read_failure(file) if file.is_file() else None


def is_measured(measurement: Measurement, folders: Folders) -> bool:
    """Whether its result is there."""
    return _saved(measurement, folders) is not None


def _saved(measurement: Measurement, folders: Folders) -> dict[str, Any] | None:
    """What was written down of a measurement, or None where it is not done yet."""
    file = folders.run(measurement.run) / f"{measurement.file_stem}.json"
    if not (file.is_file() and file.with_suffix(".npz").is_file()):
        return None
    return read_measurement(file)


def read_result(measurement: Measurement, folders: Folders) -> Result | None:
    """The result of a measurement, or None where it is not done yet."""
    saved = _saved(measurement, folders)
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


def _attempt(task: Task, folders: Folders) -> None:
    """Carry out one run, unless processes have died at it before; an error does not touch the next run."""
    cell, others = task.cells[0], task.cells[1:]
    attempts = folders.attempts(task.run)
    number = 1 + read_attempts(attempts)
    if number > MOST_ATTEMPTS:
        error = f"the process that trained it was killed {MOST_ATTEMPTS} times; is its memory enough?"
        _record_failure(task, folders, error, "")
        logger.error(f"failed {cell}: {error}")
        return
    write_atomically(attempts, str(number))
    logger.info(f"started {cell}" + (f" (the same run: {', '.join(others)})" if others else ""))
    try:
        scores = _carry_out_one(task, folders)
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _record_failure(task, folders, text, traceback.format_exc())
        logger.error(f"failed {cell}: {text}")
    else:
        logger.info(f"finished {cell}: {', '.join(scores)}")
    attempts.unlink(missing_ok=True)  # another study that shares these runs may have begun meanwhile


def _record_failure(task: Task, folders: Folders, error: str, details: str) -> None:
    record = {"error": error, "cells": task.cells, "traceback": details}
    write_atomically(folders.failure(task.run), json.dumps(record, indent=2))


def _carry_out_one(task: Task, folders: Folders) -> list[str]:
    """Train and measure one run; returns the mAP of each measurement as text."""
    from reidkit.encoders.encoder import load_encoder

    folder = folders.run(task.run)
    todo = [measurement for measurement in task.measurements if not is_measured(measurement, folders)]
    loaded = _Loaded()
    data = [loaded.testing(measurement) for measurement in todo]  # before hours of training: it may be absent
    _train(task.run, folder)
    sources: dict[str, _EmbedsOnce] = {}
    scores = []
    for measurement, tested in zip(todo, data, strict=True):
        # Tests that measure the same images otherwise share their embeddings.
        images = fingerprint([measurement.settings["test"], measurement.feature])
        if images not in sources:
            weights = folder / f"{measurement.weights}.safetensors"
            sources[images] = _EmbedsOnce(load_encoder(weights, feature=measurement.feature))
        scores.append(_measure(measurement, sources[images], tested, folder))
    return scores


def _train(run: Run, folder: Path) -> None:
    epochs = run.configuration.train.epochs
    if any(record["epoch"] == epochs for record in read_costs(folder / COST_FILE)):
        return
    from reidkit.training.runs import build_trainer

    stopwatch = _Stopwatch(folder / COST_FILE)
    with logs.muted():  # what each epoch tells would drown what several processes tell of their runs
        trainer = build_trainer(run.configuration, folder, trackers=[stopwatch])
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
        lines = [*read_costs(self._path), line]
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines))
        self.start()


def _measure(measurement: Measurement, source: _EmbedsOnce, tested: Dataset, folder: Path) -> str:
    """Measure a run and write down the result; returns its mAP as text."""
    from reidkit.analysis.variances import identity_variances
    from reidkit.evaluation.evaluation import evaluate

    evaluation = evaluate(source, tested, **measurement.evaluate_options)
    parts = [source.features(part) for part in (tested.query, tested.gallery) if part]
    saved = {
        "settings": measurement.settings,
        "images": images_hash(tested.query, tested.gallery),
        "data": tested.name,
        **evaluation.as_dict(),
        **identity_variances(*parts)._asdict(),
    }
    _write_queries(folder / f"{measurement.file_stem}.npz", evaluation.average_precisions, tested)
    write_atomically(folder / f"{measurement.file_stem}.json", json.dumps(saved, indent=2))
    if measurement.is_plain:  # where `reid runs` looks
        write_atomically(folder / "evaluation.json", json.dumps(saved, indent=2))
    return f"mAP {100 * evaluation.mean_average_precision:.1f}"


class _EmbedsOnce:
    """Features of splits; each is embedded when it is first asked for."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[Split, Features] = {}

    def features(self, split: Split, /) -> Features:
        if split not in self._known:
            self._known[split] = self._encoder.features(split)
        return self._known[split]
