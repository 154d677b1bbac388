"""The report of a trained and evaluated run: one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from reidkit import viz
from reidkit.calibration import bootstrap_interval, distance_distributions
from reidkit.errors import DataError
from reidkit.evaluation import rank_features
from reidkit.files import write_atomically
from reidkit.images import load_image
from reidkit.types import Evaluation, Features, Sample, Split

TEMPLATES = Path(__file__).parent / "templates"

IMAGE_SIZE = (192, 128)
"""Images of ranked lists are made to fit this width and height; the page shows them no larger."""

_RANDOM_SEED = 0  # which queries are "drawn at random" must not change between two reports of one run


@dataclass(frozen=True, slots=True)
class Cell:
    """An image of a ranked list. ``data_uri`` is empty where the file could not be read: see ``problem``.

    ``score`` and ``is_match`` are ``None`` for the query itself.
    """

    name: str
    identity: str
    camera: int
    data_uri: str
    problem: str
    score: float | None = None
    is_match: bool | None = None


@dataclass(frozen=True, slots=True)
class RankedList:
    """A query with its nearest hits.

    ``average_precision`` and ``first_match_rank`` are those of the evaluation, ``match_ranks`` those of
    all right images of the gallery in the order shown.
    """

    query: Cell
    hits: tuple[Cell, ...]
    average_precision: float
    first_match_rank: int
    match_ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Ranked lists under one heading."""

    title: str
    explanation: str
    lists: tuple[RankedList, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """A number at the head of the report, in fractions; ``interval`` is the bootstrap 95 % interval."""

    name: str
    value: float
    meaning: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart with the sentence that says how to read it; ``findings`` are its numbers in words."""

    title: str
    svg: Markup
    explanation: str
    findings: str = ""


def write_report(
    path: str | Path,
    *,
    title: str,
    evaluation: Evaluation,
    query: Features,
    gallery: Features | None,
    query_split: Split,
    gallery_split: Split,
    galleries: Sequence[Sequence[int]] | None = None,
    records: Sequence[Mapping[str, Any]] = (),
    configuration: str = "",
    provenance: Mapping[str, str] | None = None,
    camera_filter: str = "same_identity",
    num_ranked_lists: int = 12,
    top: int = 10,
) -> Path:
    """Write the report of ``evaluation`` to ``path``.

    An image that cannot be read leaves a placeholder with its file name.

    Args:
        path: the HTML file; an older one is replaced in one go.
        title: heading of the page.
        evaluation: scores of ``query`` against ``gallery``.
        query: row i belongs to ``query_split[i]``, as ``gallery`` to ``gallery_split``.
        gallery: ``None`` where every item queries all others; ``gallery_split`` is then ``query_split``.
        galleries: gallery rows of each query, where queries have galleries of their own.
        records: lines of the run's ``metrics.jsonl``; the training curves are left out without them.
        configuration: TOML text of the run.
        provenance: what else to say of the origin of the numbers, in this order.
        camera_filter: the one ``evaluation`` was made with.
        num_ranked_lists: queries shown with their hits: half of them the worst, a quarter the best.
        top: hits of each.

    Raises:
        DataError: features, samples and evaluation do not belong together.
        WriteError: the file cannot be written.
    """
    items = query if gallery is None else gallery
    _check_lengths(evaluation, query, items, query_split, gallery_split)
    chosen = choose_queries(evaluation.average_precisions, num_ranked_lists)
    lists = _ranked_lists(
        np.concatenate(list(chosen.values())),
        evaluation=evaluation,
        query=query,
        gallery=gallery,
        query_split=query_split,
        gallery_split=gallery_split,
        galleries=galleries,
        camera_filter=camera_filter,
        top=top,
    )
    has_cameras = query.cameras is not None and items.cameras is not None
    page = (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            evaluation=evaluation,
            camera_rule=_CAMERA_RULES[camera_filter if has_cameras else "none"],
            has_cameras=has_cameras,
            scores=_scores(evaluation),
            figures=[_cmc(evaluation), _distances(query, gallery, camera_filter)],
            training_figures=_training(records),
            groups=_groups(chosen, lists),
            other_order=any(item.match_ranks[:1] != (item.first_match_rank,) for item in lists),
            top=top,
            configuration=configuration,
            provenance=provenance or {},
        )
    )
    return write_atomically(path, page)


def choose_queries(average_precisions: NDArray[np.float64], num: int) -> dict[str, NDArray[np.intp]]:
    """Rows of valid queries to show: the "worst" (half), some at "random" and the "best" (a quarter each).

    Args:
        average_precisions: (Q,), NaN where a query is not valid.
        num: how many in all; fewer come where fewer are valid. No row comes twice.
    """
    valid = np.flatnonzero(np.isfinite(average_precisions))
    order = valid[np.argsort(average_precisions[valid], kind="stable")]
    num_worst, num_best = num - num // 2, num // 4
    worst, others = order[:num_worst], order[num_worst:]
    num_middle = max(len(others) - num_best, 0)
    middle, best = others[:num_middle], others[num_middle:]
    num_random = min(num - num_worst - num_best, len(middle))
    places = np.random.default_rng(_RANDOM_SEED).choice(len(middle), num_random, replace=False)
    return {"worst": worst, "random": middle[np.sort(places)], "best": best[::-1]}


_CAMERA_RULES = {
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


def _scores(evaluation: Evaluation) -> list[Score]:
    valid = np.isfinite(evaluation.average_precisions)
    first_is_right = (evaluation.first_match_ranks[valid] == 1).astype(np.float64)
    # With several draws of the gallery the ranks are medians, of which the CMC is not the mean.
    ranks_are_of_cmc = np.isclose(first_is_right.mean(), evaluation.rank(1))
    scores = [
        Score(
            "mAP",
            evaluation.mean_average_precision,
            "Mean average precision: 100 if, for every query, all right photos come before all wrong ones.",
            bootstrap_interval(evaluation.average_precisions[valid]),
        ),
        Score(
            "rank-1",
            evaluation.rank(1),
            "Queries whose nearest photo is right.",
            bootstrap_interval(first_is_right) if ranks_are_of_cmc else None,
        ),
    ]
    scores += [
        Score(f"rank-{k}", evaluation.rank(k), f"Queries with a right photo among the nearest {k}.")
        for k in (5, 10)
        if k <= len(evaluation.cmc)
    ]
    meaning = "Mean inverse negative penalty: low if even one right photo comes late in the list."
    return [*scores, Score("mINP", evaluation.mean_inverse_negative_penalty, meaning)]


def _cmc(evaluation: Evaluation) -> Figure:
    first_ranks = np.sort(evaluation.first_match_ranks[evaluation.first_match_ranks > 0])
    median_rank = first_ranks[(len(first_ranks) - 1) // 2]
    return Figure(
        "How soon the right person appears",
        Markup(viz.cmc_figure(evaluation.cmc)),
        "The curve (cumulative match characteristic, CMC) gives, for every k, the share of queries that "
        "have a right photo among the nearest k: the higher and the further left it rises, the better.",
        f"At least half of the queries find their first right photo within rank {median_rank}.",
    )


def _distances(query: Features, gallery: Features | None, camera_filter: str) -> Figure:
    found = distance_distributions(query, gallery, camera_filter=camera_filter, num_bins=100)
    svg = viz.distance_figure(
        found.edges,
        found.positive,
        found.negative,
        hardest_positive=found.hardest_positive,
        hardest_negative=found.hardest_negative,
    )
    verdict = "no threshold parts" if found.gap <= 0 else "a threshold in between parts"
    return Figure(
        "How far apart people are",
        Markup(svg),
        "Pairs of photos by the distance of their embeddings, from 0 (equal) to 2 (opposite): the less the "
        "two hills overlap, the easier it is to say whether two photos show one person.",
        f"The hills overlap by {100 * found.overlap:.1f} %. The hardest pairs (dotted) are one person at "
        f"distance {found.hardest_positive:.3f} and two people at {found.hardest_negative:.3f}, a gap of "
        f"{found.gap:+.3f}: {verdict} all pairs of one person from all pairs of two.",
    )


def _training(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    figures = [
        Figure(
            "Loss",
            Markup(viz.loss_figure(records)),
            "What training makes small: it should fall quickly at first and then level out.",
        ),
        Figure(
            "Validation",
            Markup(viz.validation_figure(records)),
            "Scores on people held out of training: rising means learning, falling means learning by heart.",
        ),
        Figure(
            "Learning rate",
            Markup(viz.learning_rate_figure(records)),
            "How large the steps of training were.",
        ),
    ]
    return [figure for figure in figures if figure.svg]


def _groups(chosen: Mapping[str, NDArray[np.intp]], lists: Sequence[RankedList]) -> list[Group]:
    groups, start = [], 0
    for name, rows in chosen.items():
        if len(rows):
            groups.append(Group(*_GROUPS[name], tuple(lists[start : start + len(rows)])))
        start += len(rows)
    return groups


def _ranked_lists(
    rows: NDArray[np.intp],
    *,
    evaluation: Evaluation,
    query: Features,
    gallery: Features | None,
    query_split: Split,
    gallery_split: Split,
    galleries: Sequence[Sequence[int]] | None,
    camera_filter: str,
    top: int,
) -> list[RankedList]:
    if not len(rows):
        return []
    met = None if galleries is None else [galleries[row] for row in rows]
    if gallery is None:
        gallery, met = query, [np.delete(np.arange(len(query)), row).tolist() for row in rows]
    # Only these are ranked: the thousands of other queries are not on the page.
    cameras = None if query.cameras is None else query.cameras[rows]
    shown = Features(query.embeddings[rows], query.identities[rows], cameras)
    ranking = rank_features(shown, gallery, top=len(gallery), camera_filter=camera_filter, galleries=met)
    return [
        RankedList(
            query=_cell(query_split[row]),
            hits=tuple(
                replace(_cell(gallery_split[item]), score=float(score), is_match=bool(is_match))
                for item, score, is_match in zip(indices[:top], scores[:top], matches[:top], strict=True)
                if item >= 0
            ),
            average_precision=float(evaluation.average_precisions[row]),
            first_match_rank=int(evaluation.first_match_ranks[row]),
            match_ranks=tuple((np.flatnonzero(matches) + 1).tolist()),
        )
        for row, indices, scores, matches in zip(
            rows, ranking.indices, ranking.scores, ranking.matches, strict=True
        )
    ]


def _cell(sample: Sample) -> Cell:
    try:
        image = load_image(sample.path, box=sample.box)
    except DataError as error:
        data_uri, problem = "", str(error).replace(str(sample.path), sample.path.name)
    else:
        image.thumbnail(IMAGE_SIZE)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        data_uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        problem = ""
    return Cell(
        name=sample.path.name,
        identity=sample.identity_name or str(sample.identity),
        camera=sample.camera,
        data_uri=data_uri,
        problem=problem,
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.1f}"
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment


def _check_lengths(
    evaluation: Evaluation, query: Features, gallery: Features, query_split: Split, gallery_split: Split
) -> None:
    for name, number, expected in [
        ("query_split", len(query_split), len(query)),
        ("gallery_split", len(gallery_split), len(gallery)),
        ("evaluation (queries)", evaluation.num_queries, len(query)),
        ("evaluation (gallery)", evaluation.num_gallery, len(gallery)),
    ]:
        if number != expected:
            raise DataError(
                f"{name} has {number} items, the features have {expected}; "
                "a report needs samples, features and evaluation of the same images"
            )
