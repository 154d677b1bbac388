"""Studies: which grid of runs to train, how to measure them, and what the papers say beside them.

A study is one TOML file: a recipe, axes whose cells change it, and seeds. Each cell of the grid with each
seed is a run; cells that come to the same configuration are trained once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidkit import config, registry
from reidkit.config.faults import explain
from reidkit.config.overrides import Table
from reidkit.config.tables import NonNegativeInt
from reidkit.errors import ConfigError, UnknownName, did_you_mean, shortened
from reidkit.texts.files import is_bare_name, is_there, odd_values, parse_toml, read_text

_CLOSED = ConfigDict(extra="forbid")

SCORES = ("mAP", "rank-1", "rank-5", "rank-10", "rank-20", "mINP")
"""Columns that are shares, written in percent; the ones that papers publish."""

MOST_CELLS = 10_000
"""Of a grid, seeds included: more than anybody trains, and laid out in seconds."""

_WITHOUT_EFFECT = (
    "num_workers",
    "checkpoint_minutes",
    "log_every",
    "cache",
    "cache_gb",
    "cache_folder",
    "trackers",
)
"""Keys of [train] that do not change what comes out."""

MEAN = "mean"
"""What rows of a mean over an axis are called on it."""

OTHER_COLUMNS = {
    "intra": "variance of test embeddings within identities",
    "inter": "variance of test embeddings between identities",
    "epochs to 90 %": "epochs until validation mAP reached 90 % of its last value",
}


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class AxisCell:
    """One choice on an axis: its name in tables, keys to drop, then values to set, and how to measure it."""

    label: str
    drop: list[str] = Field(default_factory=list)
    set: list[str] = Field(default_factory=list)
    measure: Table = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Axis:
    """What is varied. The grid is the product of all axes.

    With ``mean``, tables end with the means over its cells, as over the splits of a data set; published
    numbers that name none of its cells stand beside these.
    """

    name: str
    cells: list[AxisCell] = Field(min_length=1)
    mean: bool = False


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class TestPart:
    """Images to test every cell on: those of the training data's own set where ``data`` is left out.

    ``folder`` lies in the configuration's data.root; ``options`` are those of the layout ``data``.
    """

    name: str
    data: str | None = None
    folder: str = "."
    options: Table = Field(default_factory=dict)
    measure: Table = Field(default_factory=dict)

    __test__ = False  # its name begins like a test's


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Published:
    """Metrics in percent that a paper published for a cell; axes left out of ``cell`` fit every cell."""

    cell: dict[str, str]
    scores: dict[str, float]
    test: str | None = None
    source: str | None = None
    caveat: str | None = None


@dataclass(frozen=True, kw_only=True, config=_CLOSED)
class Study:
    """A study's file.

    ``base`` is a recipe's name, a file (seen from the study's folder), or a configuration written in place.
    ``measure`` holds options of :func:`reidkit.evaluate`, and ``feature``, the network's feature to measure.
    ``baseline`` names a cell on some of the axes: each row is compared with the row that differs from it on
    these axes alone. ``source`` and ``caveat`` are those of published numbers that name none.
    """

    title: str
    base: str | Table
    axis: list[Axis] = Field(min_length=1)
    seeds: list[NonNegativeInt] = Field(default_factory=lambda: [0], min_length=1)
    drop: list[str] = Field(default_factory=list)
    set: list[str] = Field(default_factory=list)
    columns: list[str] = Field(default_factory=lambda: ["mAP", "rank-1"], min_length=1)
    weights: Literal["best", "last"] = "last"
    measure: Table = Field(default_factory=dict)
    test: list[TestPart] = Field(default_factory=lambda: [TestPart(name="test")], min_length=1)
    baseline: dict[str, str] = Field(default_factory=dict)
    source: str = ""
    caveat: str = ""
    published: list[Published] = Field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its folder's name and its configuration."""

    name: str
    configuration: config.Config


@dataclasses.dataclass(frozen=True)
class Cell:
    """A place of the grid with one seed: its labels, one an axis, the run it needs, how it is measured."""

    labels: tuple[str, ...]
    seed: int
    run: Run
    measure: Table

    @property
    def name(self) -> str:
        return "/".join([*self.labels, f"seed-{self.seed}"])


def load_study(path: str | Path) -> Study:
    """Read a study from a TOML file, or the shipped one of that name.

    Raises:
        ConfigError: with every fault found, each naming its key.
    """
    source, text = _find(path)
    tree = parse_toml(text, source)
    if problems := [f"{source}: {problem}" for problem in odd_values(tree)]:
        raise ConfigError(problems)
    try:
        study = TypeAdapter(Study).validate_python(tree)
    except ValidationError as error:
        raise ConfigError([f"{source}: {explain(f, _known_keys)}" for f in error.errors()]) from None
    _check_size(study)
    if problems := _name_problems(study):
        raise ConfigError([f"{source}: {problem}" for problem in problems])
    if isinstance(study.base, str) and (file := Path(path).parent / study.base).is_file():
        study = dataclasses.replace(study, base=str(file))
    return study


def study_text(path: str | Path) -> str:
    """The text of a study's file, or of the shipped one of that name."""
    return _find(path)[1]


def shipped_studies() -> dict[str, str]:
    """Names of the shipped studies with their titles."""
    folder = resources.files("reidkit") / "recipes" / "studies"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda file: file.name)
    return {f.name.removesuffix(".toml"): tomllib.loads(f.read_text("utf-8"))["title"] for f in files}


def cells_of(study: Study, overrides: Sequence[str] = ()) -> list[Cell]:
    """The whole grid, row by row and seed by seed, every configuration checked.

    Args:
        study: what to lay out.
        overrides: ``key=value`` texts for every cell; they win over the study's own.

    Raises:
        ConfigError: with every fault found, and the cell where it is first met.
    """
    base = (
        config.parse(study.base, source="base") if isinstance(study.base, dict) else config.load(study.base)
    )
    problems: dict[str, str] = {}  # each with the first cell that has it
    if any(override.partition("=")[0].strip() == "seed" for override in overrides):
        problems["seed is one of the study's own seeds; choose among its cells, as only '*/seed-0' does"] = ""
    cells: list[Cell] = []
    runs: dict[str, Run] = {}
    for choice in itertools.product(*(axis.cells for axis in study.axis)):
        labels = tuple(cell.label for cell in choice)
        changes = [(study.drop, study.set), *((cell.drop, cell.set) for cell in choice), ([], overrides)]
        measure = {**study.measure, **{key: v for cell in choice for key, v in cell.measure.items()}}
        try:
            configurations = [_configuration(base, changes, seed) for seed in study.seeds]
            config.check_components(configurations[0])
            _check_measurable(study, configurations[0], measure)
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(problem, f"cell {'/'.join(labels)!r}: ")
            continue
        for seed, configuration in zip(study.seeds, configurations, strict=True):
            run = runs.setdefault(run_fingerprint(configuration), _run(configuration))
            cells.append(Cell(labels, seed, run, measure))
    if problems:
        raise ConfigError([where + problem for problem, where in problems.items()])
    return cells


def fingerprint(value: Any) -> str:
    """Eight characters that stand for a value of JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def run_fingerprint(configuration: config.Config) -> str:
    """Eight characters that stand for what a configuration gives.

    What changes only its speed is left out, and where the data lie; whether they are still the same images is
    another question (:func:`reidkit.studies.data_check.check_data`).
    """
    tree = config.as_tree(configuration)
    del tree["data"]["root"]
    tree["train"] = {key: value for key, value in tree["train"].items() if key not in _WITHOUT_EFFECT}
    return fingerprint(tree)


def _configuration(
    base: config.Config, changes: Sequence[tuple[Sequence[str], Sequence[str]]], seed: int
) -> config.Config:
    tree = config.as_tree(base)
    problems = []
    for drop, values in changes:
        problems += [problem for path in drop if (problem := _drop(tree, path))]
        try:
            config.apply_overrides(tree, values)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return config.parse({**tree, "seed": seed})


def _drop(tree: Table, path: str) -> str | None:
    """Take a key or table out of a tree; returns a sentence where it is not there."""
    *above, last = path.split(".")
    table: Any = tree
    for part in above:
        table = table.get(part, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict) or last not in table:
        return f"drop {path!r}: there is no such key;{did_you_mean(last, table)} There: {', '.join(table)}"
    del table[last]
    return None


def _run(configuration: config.Config) -> Run:
    """A run; the last part of its name is a fingerprint, so that only equal configurations share it."""
    kinds = [loss.kind for loss in configuration.loss.values()]
    parts = [configuration.model.name, *kinds, f"seed{configuration.seed}"]
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(parts))[:80]
    return Run(f"{readable}-{run_fingerprint(configuration)}", configuration)


def _check_measurable(study: Study, configuration: config.Config, measure: Table) -> None:
    from reidkit.evaluation.options import EvaluationOptions

    problems = []
    for test in study.test:
        options = {key: value for key, value in {**measure, **test.measure}.items() if key != "feature"}
        # The first is the protocol, which is the data set's own.
        problems += registry.option_problems(EvaluationOptions, options, num_positional=1, where="measure")
        if test.data is not None:
            factory = registry.get("dataset", test.data)
            problems += registry.option_problems(
                factory, test.options, num_positional=1, where=f"test {test.name!r}"
            )
    needs_validation = {
        "the column 'epochs to 90 %'": "epochs to 90 %" in study.columns,
        "weights = 'best'": study.weights == "best",
    }
    problems += [
        f"{name} needs held-out identities: set data.val_identities above 0, or leave it out"
        for name, wanted in needs_validation.items()
        if wanted and not configuration.data.val_identities
    ]
    if problems:
        raise ConfigError(problems)


def _find(path: str | Path) -> tuple[str, str]:
    file = Path(path)
    if is_bare_name(file):
        if file.name not in (known := shipped_studies()):
            raise UnknownName("study", file.name, known)
        shipped = resources.files("reidkit") / "recipes" / "studies" / f"{file.name}.toml"
        return file.name, shipped.read_text("utf-8")
    if not is_there(file):
        raise ConfigError(
            f"{shortened(str(path), 200)}: no such file; `reid study --list` lists what can be used by name"
        )
    return str(file), read_text(file)


def _check_size(study: Study) -> None:
    num_cells = math.prod(len(axis.cells) for axis in study.axis) * len(study.seeds)
    if num_cells > MOST_CELLS:
        raise ConfigError(
            f"the study has {num_cells:,} cells, seeds included, and {MOST_CELLS:,} are the most that is "
            "laid out; leave some out, or make several studies of it"
        )


def _name_problems(study: Study) -> list[str]:
    """Names that must be there, or only once: columns, axes, labels, tests."""
    labels = {axis.name: [cell.label for cell in axis.cells] for axis in study.axis}
    tests = [test.name for test in study.test]
    groups: dict[str, list[Any]] = {
        "axis": [axis.name for axis in study.axis],
        "test": tests,
        "seed": study.seeds,
        **{f"cell of axis {axis!r},": names for axis, names in labels.items()},
    }
    problems = [
        f"{kind} {name!r} is there twice; names must differ"
        for kind, names in groups.items()
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    problems += [
        f"test {test.name!r}: folder and options belong to a layout; say which, data = 'market1501'"
        for test in study.test
        if test.data is None and (test.folder != "." or test.options)
    ]
    for axis in [axis for axis in study.axis if axis.mean]:
        if MEAN in labels[axis.name]:
            problems.append(
                f"axis {axis.name!r} has a cell {MEAN!r}, as the rows of its mean are called; rename it"
            )
        if axis.name in study.baseline:
            problems.append(
                f"the baseline is a cell of axis {axis.name!r}, over which a mean is taken; leave one out"
            )
    problems += _unknown("columns", study.columns, (*SCORES, *OTHER_COLUMNS))
    problems += _cell_problems("baseline", study.baseline, labels)
    for number, published in enumerate(study.published):
        where = f"published.{number}"
        problems += _cell_problems(f"{where}.cell", published.cell, labels)
        problems += _unknown(f"{where}.scores", published.scores, SCORES)
        problems += _unknown(f"{where}.test", [published.test] if published.test else [], tests)
    return problems


def _cell_problems(where: str, cell: Mapping[str, str], labels: Mapping[str, list[str]]) -> list[str]:
    problems = _unknown(where, cell, labels)
    for axis in cell.keys() & labels.keys():
        problems += _unknown(f"{where}.{axis}", [cell[axis]], labels[axis])
    return problems


def _unknown(where: str, names: Any, known: Any) -> list[str]:
    return [
        f"{where}: there is no {name!r};{did_you_mean(name, known)} Known: {', '.join(known)}"
        for name in names
        if name not in known
    ]


def _known_keys(path: Sequence[Any]) -> list[str]:
    tables = {"axis": Axis, "cells": AxisCell, "test": TestPart, "published": Published}
    names = [part for part in path if isinstance(part, str)]
    table: Any = tables[names[-1]] if names else Study
    return [field.name for field in dataclasses.fields(table)]
