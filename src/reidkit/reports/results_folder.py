"""Default folders of results: the run's own folder, or one in ``runs/``.

Two tables may be called alike, and so may two files of features or two networks. Results therefore say what
they were made from, and those of something else are not overwritten.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reidkit.errors import ReidError
from reidkit.reports.chosen_data import is_own_data
from reidkit.texts.files import read_json
from reidkit.types import Dataset

RUNS = Path("runs")

MADE_FROM = "made_from"
"""Key of a results file under which it says what was tested on what."""

RESULTS = ("evaluation.json", "branches.json", "comparison.json")

_NOT_SAID = "not said"


def folder_of_run(run: Path, data: Dataset) -> Path:
    """A run folder itself, where it was trained on this data and may be written; else ``runs/RUN-DATA``.

    Never the folder of a network's file, which is not ours.
    """
    if run.is_dir() and os.access(run, os.W_OK) and is_own_data(run, data):
        return run
    label = data.place.stem if data.name == "table" else data.name
    return folder_in_runs(
        f"{run.name if run.is_dir() else run.stem}-{label}", made_from(network=run, data=data.place)
    )


def folder_in_runs(name: str, origin: Mapping[str, str]) -> Path:
    """``runs/NAME``, or the first of ``runs/NAME-2``, ... that holds no results of another origin."""
    numbered = (RUNS / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(
        folder for folder in numbered if all(_origin(folder / file) in (None, origin) for file in RESULTS)
    )


def made_from(**places: str | Path) -> dict[str, str]:
    """What results were made from, as they say it: whole paths, and texts that are none."""
    return {
        name: str(place.resolve()) if isinstance(place, Path) else place for name, place in places.items()
    }


def _origin(file: Path) -> Any:
    """What results were made from; None where there are none."""
    if not file.is_file():
        return None
    try:
        values = read_json(file, error=ReidError)
    except ReidError:
        return _NOT_SAID
    return values.get(MADE_FROM, _NOT_SAID) if isinstance(values, dict) else _NOT_SAID
