"""A study's results as tables: mean and spread over seeds, cost, significance, published numbers beside."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from reidkit.analysis.bootstrap import PairedDifference, paired_difference
from reidkit.errors import DataError
from reidkit.files import write_atomically
from reidkit.studies.execution import failure_text
from reidkit.studies.measured import Result, read_result
from reidkit.studies.study import MEAN, OTHER_COLUMNS, SCORES, Cell, Published, Study, TestPart
from reidkit.studies.tasks import Folders, measurement_of

COST = ("seconds", "CPU seconds")
TEST_USED = (
    "Difference in mAP points to the baseline on the same queries and seeds, with the 95 % interval and the "
    "two-sided p of a t test that takes identities, with all their queries, and seeds as drawn at random; "
    "not corrected for the number of rows. Two or three seeds tell little of how other trainings would vary."
)


Labels = tuple[str, ...]
Grid = dict[Labels, dict[int, Result]]
"""The results of each cell by seed."""


@dataclass(frozen=True)
class Row:
    """A cell of the grid over its seeds, on one test part; or all cells of an axis together, over its mean.

    ``seeds`` are those of the finished runs, of ``num_seeds``.
    ``values`` holds by column one value a finished run, shares as shares; ``seconds`` and
    ``processor_seconds`` what training cost.
    ``versus`` is the comparison with the baseline row, None for the baseline itself and where one of them is
    not done.
    """

    labels: Labels
    seeds: tuple[int, ...]
    num_seeds: int
    values: dict[str, list[float]]
    seconds: list[float]
    processor_seconds: list[float]
    num_threads: int
    is_baseline: bool = False
    versus: PairedDifference | None = None
    published: Published | None = None
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyTable:
    """All rows on one test part. ``notes`` are what the reader must know."""

    test: str
    axes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: list[Row]
    has_baseline: bool
    notes: list[str] = field(default_factory=list)

    def header(self) -> list[str]:
        """Names of the columns of :meth:`lines`."""
        versus = ["vs baseline", "p"] if self.has_baseline else []
        return [*self.axes, "seeds", *self.columns, *COST, *versus, *map(_paper, self._published)]

    def lines(self) -> list[list[str]]:
        """The rows as text, metrics in percent."""
        return [self._line(row) for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        """The rows as flat values for CSV, metrics in percent, None where there is no value."""
        return [self._record(row) for row in self.rows]

    @property
    def _published(self) -> list[str]:
        named = {score for row in self.rows if row.published for score in row.published.scores}
        return [score for score in SCORES if score in named]

    def _line(self, row: Row) -> list[str]:
        line = [*row.labels, f"{len(row.seeds)}/{row.num_seeds}" + (" failed" if row.failures else "")]
        line += [_spread(_scaled(column, row.values.get(column, []))) for column in self.columns]
        line += [_spread(cost, digits=0) for cost in (row.seconds, row.processor_seconds)]
        if self.has_baseline:
            line += ["baseline", ""] if row.is_baseline else _versus_text(row.versus)
        return line + [_published_text(row.published, score) for score in self._published]

    def _record(self, row: Row) -> dict[str, Any]:
        record: dict[str, Any] = {"test": self.test, **dict(zip(self.axes, row.labels, strict=True))}
        record["seeds"] = len(row.seeds)
        for column in self.columns:
            values = _scaled(column, row.values.get(column, []))
            record[column] = mean(values) if values else None
            record[f"{column} sd"] = stdev(values) if len(values) > 1 else None
        for name, cost in zip(COST, (row.seconds, row.processor_seconds), strict=True):
            record[name] = mean(cost) if cost else None
        versus = (None,) * 3 if row.versus is None else (row.versus.difference, *row.versus.interval)
        for name, value in zip(("difference", "low", "high"), versus, strict=True):
            record[name] = None if value is None else 100 * value
        record["p"] = None if row.versus is None else row.versus.p_value
        for score in self._published:
            record[_paper(score)] = row.published.scores.get(score) if row.published else None
        return record

    def as_dict(self) -> dict[str, Any]:
        """Everything, each seed's values included, as plain values."""
        return {"test": self.test, "notes": self.notes, "rows": [self._row_values(row) for row in self.rows]}

    def _row_values(self, row: Row) -> dict[str, Any]:
        return {**asdict(row), "labels": dict(zip(self.axes, row.labels, strict=True))}


def tables_of(study: Study, cells: Sequence[Cell], folders: Folders) -> list[StudyTable]:
    """One table for each test part, from the runs that are finished."""
    return [_table(study, cells, test, folders) for test in study.test]


def write_tables(study: Study, tables: Sequence[StudyTable], out: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.json``; returns their paths."""
    rows = [record for table in tables for record in table.records()]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    values = {"title": study.title, "tables": [table.as_dict() for table in tables]}
    return [
        write_atomically(out / "table.md", markdown(study, tables)),
        write_atomically(out / "table.csv", text.getvalue()),
        write_atomically(out / "table.json", json.dumps(values, indent=2)),
    ]


def markdown(study: Study, tables: Sequence[StudyTable]) -> str:
    """All tables as Markdown."""
    lines = [f"# {study.title}", ""]
    for table in tables:
        header = table.header()
        if len(tables) > 1:
            lines += [f"## {table.test}", ""]
        lines += [_markdown_row(header), "|" + "---|" * len(header)]
        lines += [_markdown_row(line) for line in table.lines()]
        lines += ["", *itertools.chain.from_iterable((f"{note}", "") for note in table.notes)]
    return "\n".join(lines)


def _table(study: Study, cells: Sequence[Cell], test: TestPart, folders: Folders) -> StudyTable:
    grid: Grid = {}
    failures: dict[Labels, list[str]] = {}
    for cell in cells:
        results = grid.setdefault(cell.labels, {})
        result = read_result(measurement_of(study, cell, test), folders)
        if result is not None:
            results[cell.seed] = result
        elif (failure := failure_text(cell.run, folders)) is not None:
            failures.setdefault(cell.labels, []).append(f"{cell.name} failed: {failure}")
    axes = tuple(axis.name for axis in study.axis)
    rows = []
    for labels, parts in _parts_of_rows(study, grid).items():
        row = _row(study, labels, parts, grid, published_for(study, labels, test.name))
        rows.append(replace(row, failures=tuple(failures.get(labels, []))))
    table = StudyTable(test.name, axes, tuple(study.columns), rows, bool(study.baseline))
    protocols = sorted({result.protocol for results in grid.values() for result in results.values()})
    table.notes.extend(_notes(study, rows, protocols))
    return table


def _parts_of_rows(study: Study, grid: Grid) -> dict[Labels, list[Labels]]:
    """The cells that each row is made of: one each, then those of the means."""
    rows: dict[Labels, list[Labels]] = {labels: [labels] for labels in grid}
    if any(axis.mean for axis in study.axis):
        for labels in grid:
            over = (MEAN if axis.mean else own for axis, own in zip(study.axis, labels, strict=True))
            rows.setdefault(tuple(over), []).append(labels)
    return rows


def published_for(study: Study, labels: Labels, test: str) -> Published | None:
    """The published metrics of a row, with the study's source and caveat where they name none, or None."""
    own = dict(zip((axis.name for axis in study.axis), labels, strict=True))
    of_one_cell = {axis.name for axis in study.axis if axis.mean and own[axis.name] != MEAN}
    for published in study.published:
        if not of_one_cell <= published.cell.keys():
            continue
        if published.test in (None, test) and published.cell.items() <= own.items():
            return Published(
                cell=published.cell,
                scores=published.scores,
                test=published.test,
                source=study.source if published.source is None else published.source,
                caveat=study.caveat if published.caveat is None else published.caveat,
            )
    return None


def _row(
    study: Study, labels: Labels, parts: Sequence[Labels], grid: Grid, published: Published | None
) -> Row:
    results = [result for part in parts for result in grid[part].values()]
    columns = [*SCORES, *OTHER_COLUMNS]
    values = {c: [r.values[c] for r in results if c in r.values] for c in columns}
    baseline = [
        tuple(study.baseline.get(axis.name, own) for axis, own in zip(study.axis, part, strict=True))
        for part in parts
    ]
    is_baseline = bool(study.baseline) and baseline == parts
    versus = None
    if study.baseline and not is_baseline:
        versus = _compare([(grid[there], grid[part]) for there, part in zip(baseline, parts, strict=True)])
    return Row(
        labels,
        tuple(seed for part in parts for seed in grid[part]),
        len(study.seeds) * len(parts),
        values={column: of_runs for column, of_runs in values.items() if of_runs},
        seconds=[result.seconds for result in results],
        processor_seconds=[result.processor_seconds for result in results],
        num_threads=max((result.num_threads for result in results), default=0),
        is_baseline=is_baseline,
        versus=versus,
        published=published,
    )


def _compare(cells: Sequence[tuple[dict[int, Result], dict[int, Result]]]) -> PairedDifference | None:
    """A cell with that of the baseline, by seed; or several with theirs, over the queries of all of them.

    Over the seeds that all have; None where there is none, or they were tested on other queries.
    """
    seeds = sorted(set.intersection(*(baseline.keys() & other.keys() for baseline, other in cells)))
    if not seeds or not all(_same_queries(baseline, other, seeds) for baseline, other in cells):
        return None
    first, second = (
        [np.concatenate([cell[side][seed].average_precisions for cell in cells]) for seed in seeds]
        for side in (0, 1)
    )
    of_queries = [baseline[seeds[0]].identities for baseline, _ in cells]
    known = [identities for identities in of_queries if identities is not None]
    identities = np.concatenate(known) if len(known) == len(cells) else None
    try:
        return paired_difference(np.stack(first), np.stack(second), identities=identities)
    except DataError:
        return None


def _same_queries(baseline: dict[int, Result], other: dict[int, Result], seeds: Sequence[int]) -> bool:
    """Whether there are as many of them; more is not recorded."""
    numbers = {len(results[seed].average_precisions) for results in (baseline, other) for seed in seeds}
    return len(numbers) == 1


def _in_one(protocols: Sequence[str]) -> str:
    """Protocols that differ in one word as one sentence, such as those of the splits of a data set."""
    words = [protocol.split(" ") for protocol in protocols]
    differing = [place for place in zip(*words, strict=False) if len(set(place)) > 1]
    if len(set(map(len, words))) > 1 or len(differing) != 1:
        return "; ".join(protocols)
    [[*first, last]] = differing
    listed = f"{', '.join(one.rstrip(',') for one in first)} and {last}"
    return " ".join(place[0] if len(set(place)) == 1 else listed for place in zip(*words, strict=True))


def _notes(study: Study, rows: Sequence[Row], protocols: Sequence[str]) -> list[str]:
    notes = []
    threads = sorted({row.num_threads for row in rows if row.seconds})
    if threads:
        notes.append(
            "Scores in percent, mean ± sample standard deviation over seeds; seconds of training a run, with "
            f"{' or '.join(map(str, threads))} thread(s), and its process's seconds of processor time. "
            f"Protocol: {_in_one(protocols)}."
        )
    if over := [axis.name for axis in study.axis if axis.mean]:
        notes.append(
            f"Rows called {MEAN}: over all cells of {', '.join(over)} and their seeds, as are the number of "
            "runs and the spread; the difference is over the queries of all, a person in several cells taken "
            "as one."
        )
    if any(row.versus for row in rows):
        notes.append(TEST_USED)
    if study.weights == "best":
        notes.append(
            "Weights of the epoch that validation chose, for which training identities are held out "
            "(data.val_identities)."
        )
    notes += [f"{name}: {text}." for name, text in OTHER_COLUMNS.items() if name in study.columns]
    published = [row.published for row in rows if row.published]
    for source, caveat in dict.fromkeys((p.source or "", p.caveat or "") for p in published):
        notes.append(f"Published: {source}." + (f" {caveat}" if caveat else ""))
    if published:
        notes.append(
            "Papers do not always say which average precision they computed; the trapezoid one of older code "
            "differs from the step one by up to 3 points."
        )
    return notes + [failure for row in rows for failure in row.failures]


def _paper(score: str) -> str:
    return f"paper {score}"


def _scaled(column: str, values: Sequence[float]) -> list[float]:
    """Shares in percent."""
    return [100 * value if column in SCORES else value for value in values]


def _spread(values: Sequence[float], *, digits: int | None = None) -> str:
    if not values:
        return ""
    if digits is None:
        digits = 1 if abs(mean(values)) >= 1 else 3
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}"


def _versus_text(versus: PairedDifference | None) -> list[str]:
    if versus is None:
        return ["", ""]
    ends = ", ".join(f"{100 * end:+.1f}" for end in versus.interval)
    p_value = "< 0.001" if versus.p_value < 0.001 else f"{versus.p_value:.3f}"
    return [f"{100 * versus.difference:+.1f} [{ends}]", p_value]


def _published_text(published: Published | None, score: str) -> str:
    return f"{published.scores[score]:.1f}" if published and score in published.scores else ""


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
