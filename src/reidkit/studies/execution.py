"""Carrying out a study: each run is trained and measured once, by whichever process takes it first.

A study's folder holds ``runs/`` (the run folders, with ``cost.jsonl`` and one ``evaluation-*.json`` and
``.npz`` a measurement beside what training writes) and ``runs-state/`` (of each run a lock, how often it was
begun, and perhaps its error). A lock is the operating system's: it ends with the process that holds it,
however that ends.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit import logs
from reidkit.files import exclusive, write_atomically
from reidkit.provenance import images_hash
from reidkit.studies.data_check import LoadedData
from reidkit.studies.files import read_attempts, read_costs, read_failure
from reidkit.studies.measured import COST_FILE, is_measured, write_queries
from reidkit.studies.study import Run, fingerprint
from reidkit.studies.tasks import Folders, Measurement, Task
from reidkit.training.trackers import Record

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder
    from reidkit.types import Dataset, Features, Split

logger = logs.get_logger(__name__)

MOST_ATTEMPTS = 2  # at a run whose process dies
_WAIT_SECONDS = 0.5


def carry_out(tasks: Sequence[Task], folders: Folders) -> None:
    """Train and measure every run that is not finished, has not failed and is not held by another process.

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
    from reidkit.encoders.loading import load_encoder

    folder = folders.run(task.run)
    todo = [measurement for measurement in task.measurements if not is_measured(measurement, folders)]
    loaded = LoadedData()
    data = [
        loaded.testing(measurement) for measurement in todo
    ]  # loaded before hours of training, since it may be missing
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
    with logs.muted():  # messages of each epoch would drown those about whole runs
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
    write_queries(folder / f"{measurement.file_stem}.npz", evaluation.average_precisions, tested)
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
