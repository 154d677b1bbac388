"""Two runs side by side on the same queries: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.bootstrap import OneIdentity, PairedDifference, paired_difference
from reidkit.analysis.breakdown import ranks_of_matches
from reidkit.analysis.roc import DistanceDistributions, distance_distributions
from reidkit.errors import DataError
from reidkit.evaluation.comparison import Comparison, compare
from reidkit.evaluation.row_labels import label_name, shared_codes
from reidkit.evaluation.unit_rows import Indices
from reidkit.files import write_atomically
from reidkit.reports.breakdown_charts import two_cmc_figure
from reidkit.reports.charts import occupied_range, own_style
from reidkit.reports.parts import Figure, RankedList, check_lengths, longest_list, ranked_lists, render, sides
from reidkit.reports.sections import distance_figure, metric_names
from reidkit.reports.training_charts import runs_figure, shows_a_course
from reidkit.types import Evaluation, Features, Split

_NUM_CHANGED = 6
_TOP = 10


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """One side of a comparison.

    Attributes:
        name: as the page calls it.
        evaluation: ranks of ``query`` against ``gallery``.
        query, gallery: features; without a gallery every item queries all others.
        query_split, gallery_split: samples; without them no picture is shown and rows are named by number.
        camera_filter: the one ``evaluation`` was made with.
        galleries: gallery rows of each query, where queries have galleries of their own.
        records: lines of the run's ``metrics.jsonl``; where both have some, their courses are drawn.
    """

    name: str
    evaluation: Evaluation
    query: Features
    gallery: Features | None
    query_split: Split | None = None
    gallery_split: Split | None = None
    camera_filter: str = "same_identity"
    galleries: Sequence[Sequence[int]] | None = None
    records: Sequence[Mapping[str, Any]] = ()

    @cached_property
    def comparison(self) -> Comparison:
        """The features set against each other."""
        return compare(
            self.query, self.gallery, camera_filter=self.camera_filter, gallery_rows=self.galleries
        )


@dataclass(frozen=True, slots=True)
class Row:
    """A score of both runs, in fractions.

    Without a difference where the score is no mean over queries, or one identity asks alone.
    """

    name: str
    first: float
    second: float
    paired: PairedDifference | None


@dataclass(frozen=True, slots=True)
class Changed:
    """A query with the nearest photos of both runs."""

    first: RankedList
    second: RankedList

    @property
    def difference(self) -> float:
        return self.second.average_precision - self.first.average_precision


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Metrics that both runs have, mean average precision first, and the distance distributions of both."""

    rows: tuple[Row, ...]
    distances: tuple[DistanceDistributions, DistanceDistributions]


def differences(first: ComparedRun, second: ComparedRun) -> Differences:
    """Count what sets two runs on the same queries apart; differences are second less first.

    Raises :class:`DataError` for other queries or another gallery, or a query valid in one run only.
    """
    _check_alike(first, second)
    one, other = first.evaluation, second.evaluation
    names = [name for name in metric_names(one) if name in other.metrics]
    rows = [
        Row(name, one.metrics[name], other.metrics[name], _paired(name, one, other, first.query.identities))
        for name in sorted(names, key=lambda name: not name.startswith("mAP"))
    ]
    distances = distance_distributions(first.comparison), distance_distributions(second.comparison)
    return Differences(tuple(rows), distances)


@own_style()
def write_comparison(
    path: str | Path, first: ComparedRun, second: ComparedRun, found: Differences | None = None
) -> Path:
    """Write a page that sets two runs on the same queries side by side; differences are second less first.

    Args:
        path: the HTML file; an older one is replaced in one go.
        first: what is compared with: the older run, the baseline.
        second: what is compared.
        found: their :func:`differences`, where these have been counted.

    Raises:
        DataError: other queries or another gallery, a query valid in one run only, or features, samples and
            evaluation that do not belong together.
        WriteError: the file cannot be written.
    """
    shown = [sides(run.query, run.gallery, run.query_split, run.gallery_split) for run in (first, second)]
    for run, (query, gallery) in zip((first, second), shown, strict=True):
        check_lengths(run.evaluation, query, gallery)
    names = _two_names(first.name, second.name)
    found = found or differences(first, second)
    changes = second.evaluation.average_precisions - first.evaluation.average_precisions
    worse, better = _most_changed(changes)
    rows = np.concatenate([worse, better])
    lists = [
        ranked_lists(
            rows,
            run.comparison,
            ranks_of_matches(run.comparison, rows=rows),
            evaluation=run.evaluation,
            query=query,
            gallery=gallery,
            top=_TOP,
        )
        for run, (query, gallery) in zip((first, second), shown, strict=True)
    ]
    changed = [Changed(*pair) for pair in zip(*lists, strict=True)]
    page = render(
        "comparison.html",
        title=f"{names[1]} against {names[0]}",
        names=names,
        runs=(first, second),
        rows=found.rows,
        num_better=int((changes > 0).sum()),
        num_worse=int((changes < 0).sum()),
        num_equal=int((changes == 0).sum()),
        figures=[
            _cmc(names, first, second),
            *_distances(names, found.distances),
            *_courses(names, first, second),
        ],
        groups=[
            (
                f"Where {names[1]} is worse",
                f"The queries whose average precision (AP) falls most from {names[0]} to {names[1]}.",
                changed[: len(worse)],
            ),
            (
                f"Where {names[1]} is better",
                f"The queries whose average precision rises most from {names[0]} to {names[1]}.",
                changed[len(worse) :],
            ),
        ],
        same_protocol=_how(first.evaluation) == _how(second.evaluation),
        other_order=any(item.match_ranks[:1] != (item.first_match_rank,) for side in lists for item in side),
        top=_TOP,
    )
    return write_atomically(path, page)


def _check_alike(first: ComparedRun, second: ComparedRun) -> None:
    for kind, one, other in (
        ("query", first.query, second.query),
        ("gallery", _items(first), _items(second)),
    ):
        if len(one) != len(other):
            raise DataError(
                f"{first.name} has {len(one)} {kind} items, {second.name} {len(other)}; "
                "compare runs that were tested on the same images"
            )
        codes = shared_codes(one.identities, other.identities, "identities")
        odd = np.flatnonzero(codes[0] != codes[1])
        if len(odd):
            names = [label_name(side.identities[odd[0]]) for side in (one, other)]
            raise DataError(
                f"{kind} row {odd[0]} is identity {names[0]} in {first.name} and {names[1]} in "
                f"{second.name}; compare runs on the same images in the same order"
            )


def _courses(names: tuple[str, str], first: ComparedRun, second: ComparedRun) -> list[Figure]:
    """Loss and validation of both runs in one picture, as far as both were recorded."""
    records = dict(zip(names, (first.records, second.records), strict=True))
    charts = [
        (
            "Loss of both",
            runs_figure(records, "loss"),
            "The sum of the terms: other losses, other sums.",
        ),
        ("Validation of both", runs_figure(records, "mAP"), "On people held out of training, by epoch."),
    ]
    return [
        Figure(title, chart, explanation)
        for title, chart, explanation in charts
        if chart is not None and shows_a_course(chart)
    ]


def _items(run: ComparedRun) -> Features:
    return run.query if run.gallery is None else run.gallery


def _two_names(first: str, second: str) -> tuple[str, str]:
    return (first, second) if first != second else (f"{first} (1)", f"{second} (2)")


def _how(evaluation: Evaluation) -> tuple[str, str]:
    return evaluation.protocol, evaluation.average_precision


def _paired(
    name: str, first: Evaluation, second: Evaluation, identities: NDArray[Any]
) -> PairedDifference | None:
    values = [_values(name, evaluation) for evaluation in (first, second)]
    # With several draws of the gallery the ranks are medians, of which the CMC is not the mean.
    for evaluation, own in zip((first, second), values, strict=True):
        if not np.isclose(np.nanmean(own), evaluation.metrics[name]):
            return None
    try:
        found = paired_difference(*values, identities=identities)
    except OneIdentity:
        return None
    low, high = found.interval
    return replace(found, interval=(max(low, -1.0), min(high, 1.0)))  # of shares


def _values(name: str, evaluation: Evaluation) -> NDArray[np.float64]:
    """What a score is the mean of, (Q,); NaN where a query is not valid."""
    if name in ("mAP", "mAP@R"):
        return evaluation.average_precisions
    if name == "mINP":
        return evaluation.inverse_negative_penalties
    k = int(name.removeprefix("rank-").removeprefix("Recall@"))
    ranks = evaluation.first_match_ranks
    return np.where(ranks > 0, ranks <= k, np.nan)


def _most_changed(changes: NDArray[np.float64]) -> tuple[Indices, Indices]:
    """Rows of the queries that fell most and that rose most, the greatest change first."""
    valid = np.flatnonzero(np.isfinite(changes))
    order = valid[np.argsort(changes[valid], kind="stable")]
    fell, rose = order[changes[order] < 0], order[changes[order] > 0]
    return fell[:_NUM_CHANGED], rose[::-1][:_NUM_CHANGED]


def _cmc(names: tuple[str, str], first: ComparedRun, second: ComparedRun) -> Figure:
    curves = {}
    for name, run in zip(names, (first, second), strict=True):
        longest = longest_list(run.evaluation, run.query, run.gallery, run.galleries)
        curves[name] = run.evaluation.cmc[:longest]
    return Figure(
        "How soon the right person appears",
        two_cmc_figure(curves),
        "For every k, the share of queries that have a right photo among the nearest k (cumulative match "
        "characteristic, CMC): the higher curve is the better one.",
        f"At rank 1: {100 * first.evaluation.rank(1):.1f} % and {100 * second.evaluation.rank(1):.1f} %.",
    )


def _distances(
    names: tuple[str, str], found: tuple[DistanceDistributions, DistanceDistributions]
) -> list[Figure]:
    # Both on one axis, so that their widths can be compared.
    pairs = np.sum([part.positive + part.negative for part in found], axis=0)
    limits = occupied_range(found[0].edges, pairs)
    return [
        distance_figure(part, title=f"Distances of {name}", name=f"distances_{number}", limits=limits)
        for number, (name, part) in enumerate(zip(names, found, strict=True), start=1)
    ]
