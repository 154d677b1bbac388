"""The slow, obviously right evaluator: sort the whole kept list of every query, then walk down it.

Plain Python loops over float64 numbers, written from the definitions of the metrics alone. A score is the
one that reidkit defines: unit vectors rounded to multiples of 2^-26, whose dot product is exact.
"""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import Any

JUNK = (-1, "-1")


def unit_rows(embeddings: Any) -> list[list[float]]:
    rows = []
    for embedding in embeddings:
        values = [float(value) for value in embedding]
        length = math.sqrt(sum(value * value for value in values)) or 1.0
        rows.append([round(value / length * 2**26) / 2**26 for value in values])
    return rows


def score(first: list[float], second: list[float], distance: str) -> float:
    if distance == "l1":
        return -sum(abs(a - b) for a, b in zip(first, second, strict=True))
    return sum(a * b for a, b in zip(first, second, strict=True))


def is_kept(query: Any, q: int, gallery: Any, g: int, camera_filter: str) -> bool:
    """Whether gallery item g stays in the list of query q. ``gallery=None``: all others."""
    items = query if gallery is None else gallery
    if items.identities[g] in JUNK:
        return False
    if gallery is None and q == g:
        return False
    if camera_filter == "none" or query.cameras is None or items.cameras is None:
        return True
    same_camera = query.cameras[q] == items.cameras[g]
    if camera_filter == "other_cameras":
        return not same_camera
    return not (same_camera and query.identities[q] == items.identities[g])


def ranked_lists(
    query: Any,
    gallery: Any = None,
    *,
    camera_filter: str = "same_identity",
    distance: str = "cosine",
    galleries: Any = None,
) -> list[list[tuple[float, int, bool]]]:
    """For each query its kept items as (score, gallery row, is a match), best first, ties by row."""
    items = query if gallery is None else gallery
    query_rows, gallery_rows = unit_rows(query.embeddings), unit_rows(items.embeddings)
    lists = []
    for q in range(len(query_rows)):
        kept = []
        for g in range(len(gallery_rows)):
            listed = galleries is None or g in galleries[q]
            if listed and is_kept(query, q, gallery, g, camera_filter):
                match = query.identities[q] == items.identities[g]
                kept.append((score(query_rows[q], gallery_rows[g], distance), g, bool(match)))
        lists.append(sorted(kept, key=lambda entry: (-entry[0], entry[1])))
    return lists


def step_average_precision(matches: list[bool]) -> float:
    found, total = 0, 0.0
    for rank, match in enumerate(matches, start=1):
        if match:
            found += 1
            total += found / rank
    return total / found


def trapezoid_average_precision(matches: list[bool]) -> float:
    """Area under the precision-recall curve, joined by straight lines from (0, 1)."""
    area, found, recall_before, precision_before = 0.0, 0, 0.0, 1.0
    for rank, match in enumerate(matches, start=1):
        found += match
        recall, precision = found / sum(matches), found / rank
        area += (recall - recall_before) * (precision_before + precision) / 2
        recall_before, precision_before = recall, precision
    return area


def average_precision_at_r(matches: list[bool]) -> float:
    """mAP@R of one query (Musgrave et al., ECCV 2020), with R matches in all."""
    num_matches, found, total = sum(matches), 0, 0.0
    for rank, match in enumerate(matches[:num_matches], start=1):
        if match:
            found += 1
            total += found / rank
    return total / num_matches


def one_of_each_identity(ranked: Any, identities: Any, draw: int) -> Any:
    """The list with one item of each identity left: the first in a random order of the whole gallery."""
    generator = random.Random(draw)
    order = [generator.random() for _ in identities]
    chosen: dict[Any, int] = {}
    for _, g, _ in ranked:
        if identities[g] not in chosen or order[g] < order[chosen[identities[g]]]:
            chosen[identities[g]] = g
    return [entry for entry in ranked if entry[1] in chosen.values()]


def evaluate_single_gallery_shot(
    query: Any, gallery: Any = None, *, num_draws: int = 10, **options: Any
) -> dict[str, Any]:
    """The mean over draws; ranks of the first match by draw."""
    identities = (query if gallery is None else gallery).identities
    draws = [
        evaluate(
            query,
            gallery,
            thin=lambda ranked, draw=draw: one_of_each_identity(ranked, identities, draw),
            **options,
        )
        for draw in range(num_draws)
    ]
    means = {
        name: [fmean(values) for values in zip(*(draw[name] for draw in draws), strict=True)]
        for name in ("average_precisions", "inverse_negative_penalties", "cmc")
    }
    ranks = [sorted(values) for values in zip(*(draw["first_match_ranks"] for draw in draws), strict=True)]
    return {
        **means,
        "first_match_ranks": [values[(num_draws - 1) // 2] for values in ranks],
        "num_valid_queries": draws[0]["num_valid_queries"],
    }


def pooled_tracklets(features: Any) -> tuple[list[list[float]], list[Any], list[Any]]:
    """Mean of the unit frames of each tracklet, with identities and cameras, by first frame."""
    rows = unit_rows(features.embeddings)
    numbers = list(features.tracklets)
    pooled, identities, cameras = [], [], []
    for number in dict.fromkeys(numbers):
        frames = [row for row, tracklet in zip(rows, numbers, strict=True) if tracklet == number]
        pooled.append([sum(values) / len(frames) for values in zip(*frames, strict=True)])
        first = numbers.index(number)
        identities.append(features.identities[first])
        cameras.append(None if features.cameras is None else features.cameras[first])
    return pooled, identities, cameras


def evaluate(
    query: Any,
    gallery: Any = None,
    *,
    camera_filter: str = "same_identity",
    distance: str = "cosine",
    average_precision: str = "step",
    max_rank: int = 50,
    galleries: Any = None,
    thin: Any = None,
) -> dict[str, Any]:
    """Everything of an evaluation, and the ranks of all matches of all valid queries."""
    score_list = {
        "step": step_average_precision,
        "trapezoid": trapezoid_average_precision,
        "at R": average_precision_at_r,
    }[average_precision]
    average_precisions, first_ranks, penalties, match_ranks = [], [], [], []
    lists = ranked_lists(query, gallery, camera_filter=camera_filter, distance=distance, galleries=galleries)
    for ranked in lists:
        ranked = ranked if thin is None else thin(ranked)
        matches = [match for _, _, match in ranked]
        ranks = [rank for rank, match in enumerate(matches, start=1) if match]
        match_ranks += ranks
        average_precisions.append(score_list(matches) if ranks else math.nan)
        first_ranks.append(ranks[0] if ranks else 0)
        penalties.append(len(ranks) / ranks[-1] if ranks else math.nan)
    valid_firsts = [rank for rank in first_ranks if rank]
    return {
        "average_precisions": average_precisions,
        "first_match_ranks": first_ranks,
        "inverse_negative_penalties": penalties,
        "match_ranks": match_ranks,
        "cmc": [
            sum(rank <= k for rank in valid_firsts) / max(len(valid_firsts), 1)
            for k in range(1, max_rank + 1)
        ],
        "num_valid_queries": len(valid_firsts),
    }
