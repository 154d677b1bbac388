"""What a study has to do: each run once, with its measurements, and where they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from reidkit.config import Table
from reidkit.errors import ConfigError
from reidkit.files import check_own_folder
from reidkit.studies.study import Cell, Run, Study, TestPart, fingerprint, run_fingerprint


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
