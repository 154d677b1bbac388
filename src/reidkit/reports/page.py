"""The report of a trained and evaluated run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reidkit.analysis.breakdown import choose_queries
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.unit_rows import Indices
from reidkit.files import write_atomically
from reidkit.reports.charts import own_style
from reidkit.reports.inputs import Results, RunDetails
from reidkit.reports.parts import (
    RankedList,
    Shown,
    check_lengths,
    longest_list,
    ranked_lists,
    render,
    sides,
)
from reidkit.reports.reliability import hits_figures
from reidkit.reports.sections import (
    Overlay,
    Probability,
    activation_section,
    analyse,
    camera_figures,
    confusion_rows,
    curve_figures,
    metric_tiles,
    projection_section,
    training_figures,
)
from reidkit.reports.tables import write_lists, write_tables

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder

_OVERLAYS_PER_GROUP = 2

CAMERA_RULES = {
    "same_identity": "Photos of the same person under the query's own camera are left out: they would be "
    "too easy.",
    "other_cameras": "All photos of the query's own camera are left out.",
    "none": "No photo is left out for its camera.",
}

_GROUPS = {
    "worst": (
        "The worst queries",
        "The lowest average precision (AP) of all: here one sees what the model confuses, and labels "
        "that are wrong.",
    ),
    "random": (
        "Queries drawn at random",
        "What is usual: drawn from the queries between the worst and the best shown here.",
    ),
    "best": ("The best queries", "The highest average precision of all."),
}


@dataclass(frozen=True, slots=True)
class Group:
    """Ranked lists under one heading."""

    title: str
    explanation: str
    lists: tuple[RankedList, ...]


@own_style()
def write_report(
    path: str | Path,
    results: Results,
    details: RunDetails,
    *,
    num_ranked_lists: int = 24,
    top: int = 10,
    encoder: Encoder | None = None,
    calibration: Probability | None = None,
    tables: str | Path | None = None,
) -> Path:
    """Write the report of an evaluation to ``path``.

    An image that cannot be read leaves a placeholder with its file name.

    Args:
        path: the HTML file; an older one is replaced in one go.
        results: what was measured.
        details: what else to say of the run.
        num_ranked_lists: queries shown with their hits: half of them the worst, a quarter the best.
        top: hits of each.
        encoder: what embedded the images; with it the page shows which parts of them look alike.
        calibration: turns scores into probabilities; with it the page shows how reliable these are.
        tables: folder for the page's numbers as CSV and JSON and its charts as PNG; none where left out.

    Raises:
        DataError: features, samples and evaluation do not belong together.
        WriteError: a file cannot be written.
    """
    evaluation, reranked = results.evaluation, results.reranked
    query, gallery = sides(results.query, results.gallery, results.query_split, results.gallery_split)
    check_lengths(evaluation, query, gallery)
    chosen = choose_queries(evaluation.average_precisions, num_ranked_lists)
    comparison = compare(
        results.query,
        results.gallery,
        camera_filter=results.camera_filter,
        gallery_rows=results.galleries,
    )
    analysis = analyse(comparison)
    lists = ranked_lists(
        np.concatenate(list(chosen.values())),
        comparison,
        analysis.matches,
        evaluation=evaluation,
        query=query,
        gallery=gallery,
        top=top,
    )
    groups = _groups(chosen, lists)
    metrics = metric_tiles(evaluation, results.query.identities)
    longest = longest_list(evaluation, results.query, results.gallery, results.galleries)
    figures = curve_figures(evaluation, analysis, calibration, longest_list=longest)
    if calibration is not None:
        figures += hits_figures(comparison)
    of_cameras = [] if analysis.cameras is None else camera_figures(analysis.cameras)
    projection, no_projection = projection_section(results.query, gallery)
    of_training = training_figures(details.records)
    overlays, no_overlays = _overlays(groups, encoder, query, gallery)
    page = render(
        "report.html",
        title=details.title,
        evaluation=evaluation,
        camera_rule=CAMERA_RULES[results.camera_filter if query.has_cameras else "none"],
        metrics=metrics,
        reranked=[(metric.name, metric.value, reranked.metrics[metric.name]) for metric in metrics]
        if reranked
        else [],
        notes=list(dict.fromkeys([*evaluation.notes, *(reranked.notes if reranked else ())])),
        figures=figures,
        cameras=analysis.cameras,
        no_cameras=analysis.no_cameras,
        camera_figures=of_cameras,
        confusions=confusion_rows(analysis.confusions),
        num_confused=sum(item.num_queries for item in analysis.confusions),
        num_ranked=int(analysis.matches.valid.sum()),
        projection=projection,
        no_projection=no_projection,
        training_figures=of_training,
        groups=groups,
        list_cameras=sorted({item.query.camera for item in lists} - {""}),
        # The evaluation ranked as the page shows, unless it used another distance.
        other_order=any(item.match_ranks[:1] != (item.first_match_rank,) for item in lists),
        top=top,
        overlays=overlays,
        no_overlays=no_overlays,
        configuration=details.configuration,
        provenance=details.provenance,
    )
    if tables is not None:
        charts = [figure.chart for figure in (*figures, *of_cameras, *of_training)]
        charts += [] if projection is None else [projection.chart]
        write_tables(tables, evaluation, analysis, metrics, query, charts)
        write_lists(tables, _by_name(chosen, lists), overlays)
    return write_atomically(path, page)


def _overlays(
    groups: Sequence[Group], encoder: Encoder | None, query: Shown, gallery: Shown
) -> tuple[list[Overlay], str]:
    """Activation maps of the first queries of each group, and why there are none."""
    if encoder is None or query.split is None or gallery.split is None:
        return [], ""
    first = [item for group in groups for item in group.lists[:_OVERLAYS_PER_GROUP]]
    return activation_section(first, encoder, query, gallery)


def _groups(chosen: Mapping[str, Indices], lists: Sequence[RankedList]) -> list[Group]:
    return [Group(*_GROUPS[name], tuple(shown)) for name, shown in _by_name(chosen, lists).items() if shown]


def _by_name(chosen: Mapping[str, Indices], lists: Sequence[RankedList]) -> dict[str, Sequence[RankedList]]:
    """The ranked lists of each group of queries."""
    ends = np.cumsum([len(rows) for rows in chosen.values()])
    return {
        name: lists[end - len(rows) : end]
        for (name, rows), end in zip(chosen.items(), ends.tolist(), strict=True)
    }
