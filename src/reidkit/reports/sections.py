"""Sections of a run's report: what is drawn and said about each kind of number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.analysis.bootstrap import share_interval
from reidkit.analysis.breakdown import (
    RECALL_LEVELS,
    CameraPairCounter,
    CameraPairs,
    Confusion,
    MatchRankCounter,
    MatchRanks,
    choose_identities,
    confusions,
    precision_recall,
)
from reidkit.analysis.projection import project
from reidkit.analysis.roc import DistanceCounter, DistanceDistributions, Roc, RocCounter
from reidkit.errors import ConfigError, MissingExtra
from reidkit.evaluation.comparison import Comparison
from reidkit.evaluation.nearest import NearestNegatives
from reidkit.evaluation.row_labels import camera_names, label_name
from reidkit.reports import breakdown_charts as viz_breakdown
from reidkit.reports import charts as viz
from reidkit.reports import training_charts as viz_training
from reidkit.reports.parts import Cell, Figure, RankedList, Shown, as_data_uri
from reidkit.types import Evaluation, Features

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)

_MAX_CAMERAS = 40
_NUM_CONFUSIONS = 15
_NUM_IDENTITIES, _MAX_POINTS = 12, 600
_NUM_RELIABILITY_BINS = 10
_MIN_POINTS = 3
_LEAST_CONCENTRATION = 0.4  # a flat map has 0.25; one with a peak on a person 0.5 to 1


class Probability(Protocol):
    """What a reliability diagram needs of a calibration."""

    def probability(self, scores: NDArray[np.float64], /) -> NDArray[np.float64]:
        """Probability that pairs with these cosine scores show one person, were both kinds as frequent."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number at the head of the report, in fractions; ``interval`` is the 95 % interval over identities."""

    name: str
    value: float
    meaning: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Analysis:
    """Everything counted for a report.

    ``cameras`` is ``None`` where there is nothing to break down by; ``no_cameras`` then says why, if that is
    worth a word.
    """

    distances: DistanceDistributions
    roc: Roc
    matches: MatchRanks
    precisions: NDArray[np.float64]
    cameras: CameraPairs | None
    no_cameras: str
    confusions: list[Confusion]


@dataclass(frozen=True, slots=True)
class Overlay:
    """A query and its nearest hit, each as a photo and with its activation map laid over."""

    query: Cell
    hit: Cell
    query_map: str
    hit_map: str


def analyse(comparison: Comparison) -> Analysis:
    """Count everything, in one pass over the pairs of two identities."""
    distances, curve = DistanceCounter(comparison), RocCounter(comparison)
    ranks, nearest = MatchRankCounter(comparison), NearestNegatives(comparison)
    by_camera, no_cameras = _camera_counter(comparison)
    comparison.read_negatives(distances, curve, ranks, nearest, *([by_camera] if by_camera else []))
    matches, cameras = ranks.result(), by_camera.result() if by_camera else None
    return Analysis(
        distances=distances.result(),
        roc=curve.result(),
        matches=matches,
        precisions=precision_recall(matches),
        cameras=cameras if cameras is not None and cameras.num_queries.any() else None,
        no_cameras=no_cameras,
        confusions=confusions(comparison, matches, nearest.items),
    )


def _camera_counter(comparison: Comparison) -> tuple[CameraPairCounter | None, str]:
    """What counts pairs of cameras; or ``None``, and what there is to say of that."""
    labels = comparison.query_features.cameras, comparison.gallery_features.cameras
    num_cameras = max(0 if side is None else len({*camera_names(side)} - {""}) for side in labels)
    if labels[0] is None or labels[1] is None or num_cameras < 2:
        return None, ""
    if num_cameras > _MAX_CAMERAS:
        return (
            None,
            f"{num_cameras} cameras are too many to show their pairs; {_MAX_CAMERAS} at most are.",
        )
    return CameraPairCounter(comparison), ""


def metric_tiles(evaluation: Evaluation, identities: NDArray[Any]) -> list[Metric]:
    """The headline metrics, by the names of their protocol; ``identities`` (Q,) are those of the queries."""
    valid = np.isfinite(evaluation.average_precisions)
    first_is_right = (evaluation.first_match_ranks[valid] == 1).astype(np.float64)
    # With several draws of the gallery the ranks are medians, of which the CMC is not the mean.
    ranks_are_of_cmc = np.isclose(first_is_right.mean(), evaluation.rank(1))
    means = share_interval(evaluation.average_precisions, identities=identities)
    intervals = {"mAP": means, "mAP@R": means}
    if ranks_are_of_cmc:
        firsts = share_interval(first_is_right, identities=identities[valid])
        intervals |= {"rank-1": firsts, "Recall@1": firsts}
    return [
        Metric(name, evaluation.metrics[name], _MEANINGS[name], intervals.get(name))
        for name in metric_names(evaluation)
    ]


def metric_names(evaluation: Evaluation) -> list[str]:
    """The metrics that a page shows, in its order."""
    names = [name for name in evaluation.metrics if name != "rank-20"]
    return sorted(names, key=lambda name: name == "mINP")  # last


_MEANINGS = {
    "mAP": "Mean average precision: 100 if, for every query, all right photos come before all wrong ones.",
    "mAP@R": "Mean average precision among as many nearest photos as there are right ones.",
    "rank-1": "Queries whose nearest photo is right.",
    "Recall@1": "Queries whose nearest photo is right.",
    **{f"rank-{k}": f"Queries with a right photo among the nearest {k}." for k in (5, 10)},
    **{f"Recall@{k}": f"Queries with a right photo among the nearest {k}." for k in (2, 4, 8)},
    "mINP": "Mean inverse negative penalty: low if even one right photo comes late in the list.",
}


def curve_figures(
    evaluation: Evaluation, analysis: Analysis, calibration: Probability | None, *, longest_list: int
) -> list[Figure]:
    """CMC, precision-recall, distances, ROC and, if there is a calibration, its reliability.

    ``longest_list`` is how many items a query's list may have: beyond it no rank is drawn.
    """
    figures = [
        _cmc(evaluation, longest_list),
        _precision_recall(analysis.precisions),
        distance_figure(analysis.distances),
        _roc(analysis.roc),
    ]
    if calibration is not None:
        figures.append(_reliability(analysis.roc, calibration))
    return figures


def distance_figure(
    found: DistanceDistributions,
    *,
    title: str = "How far apart people are",
    name: str = "distances",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Both histograms of distances; ``limits`` as in :func:`reidkit.reports.charts.distance_figure`."""
    chart = viz.distance_figure(
        found.edges,
        found.positive,
        found.negative,
        hardest_positive=found.hardest_positive,
        hardest_negative=found.hardest_negative,
        name=name,
        limits=limits,
    )
    verdict = "no threshold parts" if found.gap <= 0 else "a threshold in between parts"
    return Figure(
        title,
        chart,
        "Pairs of photos by the distance of their embeddings, from 0 (equal) to 2 (opposite): the less the "
        "two hills overlap, the easier it is to say whether two photos show one person.",
        f"The hills overlap by {100 * found.overlap:.1f} %. The hardest pairs (dotted) are one person at "
        f"distance {found.hardest_positive:.3f} and two people at {found.hardest_negative:.3f}, a gap of "
        f"{found.gap:+.3f}: {verdict} all pairs of one person from all pairs of two.",
    )


def camera_figures(found: CameraPairs) -> list[Figure]:
    """mAP and rank-1 by camera pair."""
    return [
        _cameras(found, "mAP", "camera_map", found.mean_average_precision),
        _cameras(found, "rank-1", "camera_rank1", found.rank1),
    ]


def projection_section(query: Features, gallery: Shown) -> tuple[Figure | None, str]:
    """t-SNE of some identities' gallery images; or what there is instead, in words."""
    rows = choose_identities(query, gallery.features, num=_NUM_IDENTITIES, max_rows=_MAX_POINTS)
    if len(rows) < _MIN_POINTS:
        return None, ""
    embeddings = np.asarray(gallery.features.embeddings[rows], dtype=np.float64)
    embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    try:
        points = project(embeddings)
    except MissingExtra as error:
        return None, f"The map of some people's photos is left out: {error}."
    names = [gallery.identity(row) for row in rows]
    figure = Figure(
        "A map of some people's photos",
        viz_breakdown.projection_figure(points, names),
        f"Each mark is a gallery photo of one of the {len(set(names))} people with most photos; photos that "
        "the model finds alike lie together (t-SNE). Look for islands of one kind of mark: distances between "
        "islands mean little.",
    )
    return figure, ""


def activation_section(
    lists: Sequence[RankedList], encoder: Encoder, query: Shown, gallery: Shown
) -> tuple[list[Overlay], str]:
    """Each list's query and first hit with their maps; or what there is instead, in words.

    Pairs of which a map shows no place that stands out say nothing, and are left out.
    """
    # torch is imported only where a network is at hand.
    from reidkit.reports.maps import similarity_maps

    overlays, num_flat = [], 0
    for shown in lists:
        if not shown.hits:
            continue
        query_map = hit_map = ""
        if shown.query.data_uri and shown.hits[0].data_uri:
            photos = query.photo(shown.row), gallery.photo(shown.rows[0])
            try:
                maps = similarity_maps(encoder, *photos)
            except ConfigError as error:
                return [], f"Where the likeness of two photos lies is not shown: {error}."
            if min(_concentration(heat) for heat in maps) < _LEAST_CONCENTRATION:
                num_flat += 1
                continue
            query_map, hit_map = (
                as_data_uri(viz_breakdown.heat_overlay(photo, heat))
                for photo, heat in zip(photos, maps, strict=True)
            )
        overlays.append(Overlay(shown.query, shown.hits[0], query_map, hit_map))
    if not num_flat:
        return overlays, ""
    kept = "" if overlays else "Where the likeness of two photos lies is not shown: "
    pairs = "1 pair is" if num_flat == 1 else f"{num_flat} pairs are"
    return overlays, f"{kept}{pairs} left out, since no place stands out."


def _concentration(heat: NDArray[np.floating[Any]]) -> float:
    """Share of a map (H, W) that lies in its strongest quarter: 0.25 of a flat one, 0 of an empty one."""
    places = np.sort(np.asarray(heat, dtype=np.float64), axis=None)[::-1]
    total = places.sum()
    return float(places[: -(-len(places) // 4)].sum() / total) if total > 0 else 0.0


def confusion_rows(found: Sequence[Confusion]) -> list[tuple[str, str, int]]:
    """The most frequent confusions: identity, the identity it is taken for, number of queries."""
    return [
        (label_name(item.identity), label_name(item.taken_for), item.num_queries)
        for item in found[:_NUM_CONFUSIONS]
    ]


def training_figures(records: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Loss, validation and learning rate, as far as they were recorded."""
    charts = [
        (
            "Loss",
            viz_training.loss_figure(records),
            "What training makes small: it should fall quickly at first and then level out.",
        ),
        (
            "Validation",
            viz_training.validation_figure(records),
            "Scores on people held out of training: rising means learning, falling means learning by heart.",
        ),
        (
            "Gradients of the losses",
            viz_training.gradient_norm_figure(records),
            "How strongly each loss, times its weight, pulls at the network: the strongest one decides.",
        ),
        (
            "Do the losses agree?",
            viz_training.gradient_cosine_figure(records),
            "1 is one direction, 0 is none in common, below 0 they work against each other.",
        ),
        (
            "Learning rate",
            viz_training.learning_rate_figure(records),
            "How large the steps were.",
        ),
    ]
    return [
        Figure(title, chart, explanation)
        for title, chart, explanation in charts
        if chart is not None and viz_training.shows_a_course(chart)
    ]


def reliability(found: Roc, calibration: Probability) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean probability given and share that do show one person, of ten equal ranges of probability.

    Both kinds of pairs count the same in all, however many they are. Ranges without a pair are left out.
    """
    # Pairs of each kind between one threshold and the next; their score is taken as the middle.
    positive = np.diff(found.true_positive_rates)
    negative = np.diff(found.false_positive_rates)
    width = found.thresholds[1] - found.thresholds[2]
    given = calibration.probability(found.thresholds[1:] + width / 2)
    place = np.clip((given * _NUM_RELIABILITY_BINS).astype(np.intp), 0, _NUM_RELIABILITY_BINS - 1)
    right, wrong, sums = (
        np.bincount(place, weights, minlength=_NUM_RELIABILITY_BINS)
        for weights in (positive, negative, given * (positive + negative))
    )
    seen = right + wrong > 0
    return sums[seen] / (right + wrong)[seen], right[seen] / (right + wrong)[seen]


def _cmc(evaluation: Evaluation, longest_list: int) -> Figure:
    first_ranks = np.sort(evaluation.first_match_ranks[evaluation.first_match_ranks > 0])
    median_rank = first_ranks[(len(first_ranks) - 1) // 2]
    return Figure(
        "How soon the right person appears",
        viz.cmc_figure(evaluation.cmc[:longest_list]),
        "The curve (cumulative match characteristic, CMC) gives, for every k, the share of queries that "
        "have a right photo among the nearest k: the higher and the further left it rises, the better.",
        f"At least half of the queries find their first right photo within rank {median_rank}.",
    )


def _precision_recall(precisions: NDArray[np.float64]) -> Figure:
    half = len(RECALL_LEVELS) // 2
    return Figure(
        "How clean the list stays",
        viz_breakdown.precision_recall_figure(RECALL_LEVELS, precisions),
        "Going down each query's list until some share of its right photos is found (recall, to the right), "
        "how many of the photos seen are right (precision, interpolated; mean over queries): the longer the "
        "curve stays up, the better.",
        f"To find half of the right photos, {100 * precisions[half]:.1f} % of the photos one looks at are "
        f"right; to find all, {100 * precisions[-1]:.1f} %.",
    )


def _roc(found: Roc) -> Figure:
    at_rates = {rate: found.true_positive_rate_at(rate) for rate in rates_seen(found)}
    few_wrong = ""
    if at_rates:
        least = min(at_rates)
        passing = f"{100 * at_rates[least]:.1f} % of the right ones pass"
        few_wrong = f"; one wrong pair in {round(1 / least):,} lets {passing}"
    return Figure(
        "One person or two?",
        viz_breakdown.roc_figure(found.false_positive_rates, found.true_positive_rates, marked=at_rates),
        "If every pair of photos above some score is accepted as one person (receiver operating "
        "characteristic, ROC): how many pairs of one person are accepted, for how many pairs of different "
        "people wrongly accepted. The further up and left, the better.",
        f"Where both errors are equal, each is {100 * found.equal_error_rate:.2f} % (equal error "
        f"rate){few_wrong}. {found.num_positive:,} pairs of one person and {found.num_negative:,} of two "
        "were counted.",
    )


def rates_seen(found: Roc) -> list[float]:
    """Those false-positive rates that at least one pair of two people stands for."""
    return [rate for rate in FALSE_POSITIVE_RATES if rate * found.num_negative >= 1]


def _reliability(found: Roc, calibration: Probability) -> Figure:
    predicted, observed = reliability(found, calibration)
    return Figure(
        "Can the probabilities be believed?",
        viz_breakdown.reliability_figure(predicted, observed),
        "Pairs of photos by the probability of showing one person that the calibration gives them, and the "
        "share that really do, as if both kinds of pairs were equally frequent: on the dashed line the "
        "probabilities are right, below it they promise too much.",
        f"The greatest difference is {100 * np.abs(predicted - observed).max():.1f} points.",
    )


def _cameras(found: CameraPairs, score: str, name: str, fractions: NDArray[np.float64]) -> Figure:
    many = np.isfinite(fractions) & (found.num_queries >= viz_breakdown.FEW_QUERIES)
    told = np.where(many, fractions, np.nan) if many.any() else fractions
    row, column = np.unravel_index(np.nanargmin(told), fractions.shape)
    names = camera_names(found.query_cameras), camera_names(found.gallery_cameras)
    return Figure(
        f"{score} by pair of cameras",
        viz_breakdown.camera_figure(name, *names, fractions, found.num_queries),
        f"{score} in percent, the deeper the blue the higher, for queries of the row's camera that look "
        "among gallery photos of the column's camera only; n is how many queries that are. Fields of fewer "
        f"than {viz_breakdown.FEW_QUERIES} are not coloured, empty ones have none with a right photo.",
        f"Hardest: from camera {names[0][row]} to camera {names[1][column]}, "
        f"{100 * fractions[row, column]:.1f} % over {found.num_queries[row, column]:,} queries.",
    )
