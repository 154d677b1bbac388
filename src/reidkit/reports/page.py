"""The report of a trained and evaluated run: one HTML page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reidkit.analysis.breakdown import choose_queries
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.unit_rows import Indices
from reidkit.files import write_atomically
from reidkit.reports.charts import own_style
from reidkit.reports.parts import RankedList, check_lengths, longest_list, ranked_lists, render, sides
from reidkit.reports.reliability import hits_figures
from reidkit.reports.sections import (
    Overlay,
    Probability,
    activation_section,
    analyse,
    camera_figures,
    confusion_rows,
    curve_figures,
    projection_section,
    score_tiles,
    training_figures,
)
from reidkit.reports.tables import write_lists, write_tables
from reidkit.types import Evaluation, Features, Split

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
    *,
    title: str,
    evaluation: Evaluation,
    query: Features,
    gallery: Features | None,
    query_split: Split | None,
    gallery_split: Split | None,
    galleries: Sequence[Sequence[int]] | None = None,
    records: Sequence[Mapping[str, Any]] = (),
    configuration: str = "",
    provenance: Mapping[str, str] | None = None,
    camera_filter: str = "same_identity",
    num_ranked_lists: int = 12,
    top: int = 10,
    encoder: Encoder | None = None,
    calibration: Probability | None = None,
    reranked: Evaluation | None = None,
    tables: str | Path | None = None,
) -> Path:
    """Write the report of ``evaluation`` to ``path``.

    An image that cannot be read leaves a placeholder with its file name.

    Args:
        path: the HTML file; an older one is replaced in one go.
        title: heading of the page.
        evaluation: scores of ``query`` against ``gallery``.
        query: row i belongs to ``query_split[i]``, as ``gallery`` to ``gallery_split``.
        gallery: ``None`` where every item queries all others; ``gallery_split`` is then ``query_split``.
        query_split, gallery_split: samples; without them no picture is shown and rows are named by number.
        galleries: gallery rows of each query, where queries have galleries of their own.
        records: lines of the run's ``metrics.jsonl``; the training curves are left out without them.
        configuration: TOML text of the run.
        provenance: what else to say of the origin of the numbers, in this order.
        camera_filter: the one ``evaluation`` was made with.
        num_ranked_lists: queries shown with their hits: half of them the worst, a quarter the best.
        top: hits of each.
        encoder: what embedded the images; with it the page shows where in them the likeness lies.
        calibration: turns scores into probabilities; with it the page shows how far these hold.
        reranked: the scores after re-ranking, to stand beside ``evaluation``'s.
        tables: folder for the page's numbers as CSV and JSON and its charts as PNG; none where left out.

    Raises:
        DataError: features, samples and evaluation do not belong together.
        WriteError: a file cannot be written.
    """
    query_side, gallery_side = sides(query, gallery, query_split, gallery_split)
    check_lengths(evaluation, query_side, gallery_side)
    chosen = choose_queries(evaluation.average_precisions, num_ranked_lists)
    comparison = compare(query, gallery, camera_filter=camera_filter, gallery_rows=galleries)
    analysis = analyse(comparison)
    lists = ranked_lists(
        np.concatenate(list(chosen.values())),
        comparison,
        analysis.matches,
        evaluation=evaluation,
        query=query_side,
        gallery=gallery_side,
        top=top,
    )
    groups = _groups(chosen, lists)
    scores = score_tiles(evaluation, query.identities)
    longest = longest_list(evaluation, query, gallery, galleries)
    figures = curve_figures(evaluation, analysis, calibration, longest_list=longest)
    if calibration is not None:
        figures += hits_figures(comparison)
    of_cameras = [] if analysis.cameras is None else camera_figures(analysis.cameras)
    projection, no_projection = projection_section(query, gallery_side)
    of_training = training_figures(records)
    overlays: list[Overlay] = []
    no_overlays = ""
    if encoder is not None and query_side.split is not None and gallery_side.split is not None:
        to_explain = [item for group in groups for item in group.lists[:_OVERLAYS_PER_GROUP]]
        overlays, no_overlays = activation_section(to_explain, encoder, query_side, gallery_side)
    page = render(
        "report.html",
        title=title,
        evaluation=evaluation,
        camera_rule=CAMERA_RULES[camera_filter if query_side.has_cameras else "none"],
        scores=scores,
        reranked=[(score.name, score.value, reranked.scores[score.name]) for score in scores]
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
        # The ranks of the evaluation are those of the order shown, unless it had another one.
        other_order=any(item.match_ranks[:1] != (item.first_match_rank,) for item in lists),
        top=top,
        overlays=overlays,
        no_overlays=no_overlays,
        configuration=configuration,
        provenance=provenance or {},
    )
    if tables is not None:
        charts = [figure.chart for figure in (*figures, *of_cameras, *of_training)]
        charts += [] if projection is None else [projection.chart]
        write_tables(tables, evaluation, analysis, scores, query_side, charts)
        write_lists(tables, _by_name(chosen, lists), overlays)
    return write_atomically(path, page)


def _groups(chosen: Mapping[str, Indices], lists: Sequence[RankedList]) -> list[Group]:
    return [Group(*_GROUPS[name], tuple(shown)) for name, shown in _by_name(chosen, lists).items() if shown]


def _by_name(chosen: Mapping[str, Indices], lists: Sequence[RankedList]) -> dict[str, Sequence[RankedList]]:
    """The ranked lists of each group of queries."""
    ends = np.cumsum([len(rows) for rows in chosen.values()])
    return {
        name: lists[end - len(rows) : end]
        for (name, rows), end in zip(chosen.items(), ends.tolist(), strict=True)
    }
