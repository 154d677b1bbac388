"""From features to CMC, mean average precision and mINP, under the protocols of the field's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.features import pool_tracklets, rows_of, with_frames
from reidkit.protocols import CAMERA_FILTERS, Comparison, Indices, Pairs, check_choice, compare, first_few
from reidkit.ranks import has_choice, match_ranks, shot_ranks, spans
from reidkit.types import JUNK, Dataset, Evaluation, Features, Ranking, Split

PROTOCOLS = {
    "market1501": "same_identity",
    "single_gallery_shot": "other_cameras",
    "recall": "none",
    "tracklets": "same_identity",
}
"""Protocols, each with its usual camera filter."""

AVERAGE_PRECISIONS = ("step", "trapezoid")
NUM_DRAWS = 10
RECALL_RANKS = (1, 2, 4, 8)


class FeatureSource(Protocol):
    """What :func:`evaluate` needs of an encoder."""

    def features(self, split: Split, /) -> Features:
        """Embeddings and labels of the samples of a split, in its order."""


def evaluate(
    encoder: FeatureSource,
    data: Dataset,
    *,
    camera_filter: str | None = None,
    distance: str = "cosine",
    average_precision: str = "step",
    max_rank: int = 50,
    num_frames: int | None = None,
) -> Evaluation:
    """Encode a data set's query and gallery and evaluate them under the set's own protocol.

    Args:
        encoder: gives the embeddings.
        data: of its splits, where it has several, the one it was loaded with.
        camera_filter: in place of the set's own.
        distance: "cosine" or "l1".
        average_precision: "step" or "trapezoid".
        max_rank: length of the CMC.
        num_frames: evenly spaced frames of each tracklet to encode; all where left out.

    Raises:
        DataError: the set has no test part, or no query is valid.
        ConfigError: an option that the protocol does not know.
    """
    camera_filter = camera_filter or own_camera_filter(data)
    # All that can be wrong is said before the images are encoded, which takes minutes.
    _check_options(data.protocol, camera_filter, average_precision, max_rank)
    check_test_part(data)
    data = with_frames(data, num_frames)
    evaluation = evaluate_features(
        encoder.features(data.query),
        encoder.features(data.gallery) if data.gallery else None,
        protocol=data.protocol,
        camera_filter=camera_filter,
        distance=distance,
        average_precision=average_precision,
        max_rank=max_rank,
        galleries=data.galleries,
    )
    split_name = f", {data.split_name}" if data.split_name else ""
    return replace(evaluation, protocol=evaluation.protocol + split_name)


def own_camera_filter(data: Dataset) -> str:
    """The data set's camera filter; none where it has no camera labels."""
    return data.camera_filter if data.has_cameras else "none"


def check_test_part(data: Dataset) -> None:
    """Raise :class:`DataError` where the data set has not the images that its protocol needs."""
    if data.query and (data.gallery or data.protocol == "recall"):
        return
    raise DataError(
        f"data set {data.name!r} in {data.root} has no test part ({len(data.query)} query and "
        f"{len(data.gallery)} gallery images); add its query and gallery folders, or score a held-out "
        "part: evaluate_features(*validation_features(encoder.features(data.val)))"
    )


def evaluate_features(
    query: Features,
    gallery: Features | None = None,
    *,
    protocol: str = "market1501",
    camera_filter: str | None = None,
    distance: str = "cosine",
    average_precision: str = "step",
    max_rank: int = 50,
    galleries: Sequence[Sequence[int]] | None = None,
    block_size: int | None = None,
) -> Evaluation:
    """Rank the gallery for every query and score the rankings.

    Args:
        query: what to search for.
        gallery: what to search in; without one every item queries all others.
        protocol: "market1501"; "single_gallery_shot", where a query meets one image of each identity, drawn
            at random, and the mean over ten seeded draws is given; "recall", where every item queries all
            others, for Recall@1, 2, 4 and 8 and mAP@R; or "tracklets", where the frames of each tracklet
            are averaged first and then Market-1501's rules hold.
        camera_filter: which gallery items leave a query's list: "same_identity", those of its identity
            under its camera (the Market rule); "other_cameras", all under its camera; "none". The
            protocol's usual one where left out.
        distance: between unit embeddings.
        average_precision: "step", the field's default, or "trapezoid", as Market-1501's MATLAB code and
            older papers have it; they differ by up to three points. Recall knows neither.
        max_rank: length of the CMC; the last value repeats where the gallery is shorter.
        galleries: where each query has a gallery of its own, the rows of ``gallery`` in it, query by query.
        block_size: gallery items looked at together; by default about 64 MB of them. The result does not
            depend on it.

    Returns:
        The scores. With several draws the arrays of each query are means over these, and
        ``first_match_ranks`` medians; with "recall" mean average precision is mAP@R (Musgrave et al.,
        ECCV 2020), and the CMC is Recall@K; with "tracklets" queries and gallery items are tracklets.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite, no valid query,
            tracklets without numbers or of two persons.
        UnknownName: an unknown protocol, camera filter, distance or average precision.
        ConfigError: max_rank or block_size below 1; options that the protocol does not know.
    """
    camera_filter = camera_filter or PROTOCOLS.get(protocol, "none")
    _check_options(protocol, camera_filter, average_precision, max_rank)
    _check_sides(protocol, gallery, galleries)
    if block_size is not None and block_size < 1:
        raise ConfigError(f"block_size is {block_size}; give at least 1, or None to have it chosen")
    variant = ""
    if protocol == "tracklets":
        variant = f" ({len(query) + len(gallery or ()):,} frames averaged)"
        query = pool_tracklets(query, name="query")
        gallery = None if gallery is None else pool_tracklets(gallery, name="gallery")
    comparison = compare(query, gallery, camera_filter=camera_filter, distance=distance, galleries=galleries)
    pairs = comparison.same_identity_pairs()
    left_out = _left_out_notes(comparison, pairs)
    if not pairs.positive.any():
        raise DataError(f"no query is valid: {'; '.join(left_out)}")
    kind = "at R" if protocol == "recall" else average_precision
    if protocol == "single_gallery_shot":
        draws = range(NUM_DRAWS if has_choice(comparison) else 1)
        variant = f" (mean of {len(draws)} draws)" if len(draws) > 1 else ""
        found = [shot_ranks(comparison, pairs, draw=draw, block_size=block_size) for draw in draws]
    else:
        found = [match_ranks(comparison, pairs, block_size=block_size)]
    scores = [_score(matches, ranks, len(query), kind, max_rank) for matches, ranks in found]
    average_precisions = np.mean([score.average_precisions for score in scores], axis=0)
    inverse_negative_penalties = np.mean([score.inverse_negative_penalties for score in scores], axis=0)
    first_match_ranks = np.sort([score.first_match_ranks for score in scores], axis=0)
    cmc = np.mean([score.cmc for score in scores], axis=0)
    valid = np.isfinite(average_precisions)
    return Evaluation(
        mean_average_precision=float(average_precisions[valid].mean()),
        cmc=cmc,
        mean_inverse_negative_penalty=float(inverse_negative_penalties[valid].mean()),
        average_precisions=average_precisions,
        first_match_ranks=first_match_ranks[(len(scores) - 1) // 2],
        inverse_negative_penalties=inverse_negative_penalties,
        num_valid_queries=int(valid.sum()),
        num_gallery=len(comparison.gallery),
        protocol=protocol
        + variant
        + f", camera filter {comparison.camera_filter}, {distance} distance"
        + (", every item queries all others" if gallery is None else "")
        + (", each query in a gallery of its own" if galleries is not None else ""),
        average_precision=kind,
        notes=(*comparison.notes, *left_out, *(_recall_notes(cmc) if protocol == "recall" else ())),
    )


def rank_features(
    query: Features,
    gallery: Features | None = None,
    *,
    top: int = 10,
    camera_filter: str = "same_identity",
    galleries: Sequence[Sequence[int]] | None = None,
) -> Ranking:
    """The nearest kept gallery items of each query, best first, ties by gallery order.

    ``galleries`` gives each query the gallery rows it meets. Without a gallery every item queries all
    others; without camera labels no camera filter is used. Raises as :func:`evaluate_features` does, but a
    query without a positive is ranked like any other.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; give at least 1")
    comparison = compare(query, gallery, camera_filter=camera_filter, galleries=galleries)
    num_queries = len(comparison.query)
    best_scores = np.full((num_queries, top), -np.inf)
    best_items = np.full((num_queries, top), -1, np.int64)
    pairs = comparison.same_identity_pairs()
    for rows, items, scores in comparison.tiles(
        np.arange(num_queries), pairs.where(~pairs.positive), exact=True
    ):
        for row, row_scores in zip(rows, scores, strict=True):
            best = _top(row_scores, top)
            seen_scores = np.concatenate([best_scores[row], row_scores[best]])
            seen_items = np.concatenate([best_items[row], items[best]])
            order = np.argsort(-seen_scores, kind="stable")[:top]
            best_scores[row], best_items[row] = seen_scores[order], seen_items[order]
    kept = np.isfinite(best_scores)
    best_items[~kept] = -1
    same_identity = comparison.query_identities[:, None] == comparison.gallery_identities[best_items]
    return Ranking(
        indices=best_items,
        scores=np.where(kept, best_scores, np.nan).astype(np.float32),
        matches=kept & same_identity,
    )


def validation_features(features: Features) -> tuple[Features, Features]:
    """Query and gallery made from one held-out part: the first item of each (identity, camera) queries.

    The gallery is the whole part: under the Market rule a query leaves its own list, being of its own
    identity and camera. Where cameras are absent, or all the same, the first item of each identity queries,
    is not in the gallery, and both come without cameras. Items with identity -1 do not query.

    Raises :class:`DataError` for no features, values that are not finite or labels of another type.
    """
    comparison = compare(features, camera_filter="none")
    people, cameras = comparison.person_queries, comparison.query_cameras
    first_of_each = (comparison.query_identities * (cameras.max() + 1) + cameras)[people]
    queries = people[np.sort(np.unique(first_of_each, return_index=True)[1])]
    if cameras.max() > 0:
        return rows_of(features, queries), features
    without_cameras = replace(features, cameras=None)
    others = np.setdiff1d(np.arange(len(features)), queries)
    return rows_of(without_cameras, queries), rows_of(without_cameras, others)


class _Scores(NamedTuple):
    """Of one ranking of all queries: (Q,) each, and the CMC (max_rank,)."""

    average_precisions: NDArray[np.float64]
    first_match_ranks: NDArray[np.int64]
    inverse_negative_penalties: NDArray[np.float64]
    cmc: NDArray[np.float64]


def _score(
    matches: Pairs, ranks: NDArray[np.int64], num_queries: int, average_precision: str, max_rank: int
) -> _Scores:
    first, count = spans(matches, num_queries)
    valid = count > 0
    first_match_ranks = np.where(valid, ranks[np.minimum(first, len(ranks) - 1)], 0)
    inverse_negative_penalties = np.full(num_queries, np.nan)
    inverse_negative_penalties[valid] = count[valid] / ranks[first + count - 1][valid]
    return _Scores(
        _average_precisions(matches.queries, ranks, first, count, average_precision),
        first_match_ranks,
        inverse_negative_penalties,
        _cmc(first_match_ranks[valid], max_rank),
    )


def _average_precisions(
    queries: Indices, ranks: NDArray[np.int64], first: Indices, count: Indices, kind: str
) -> NDArray[np.float64]:
    """AP (Q,), NaN without matches, from ``queries`` and ``ranks`` (M,) of the matches, best first."""
    num_found = np.arange(len(ranks)) - first[queries] + 1
    precision = num_found / ranks
    if kind == "at R":
        # Only as deep as the query has matches (R): what comes later counts as not found.
        precision = np.where(ranks <= count[queries], precision, 0)
    if kind == "trapezoid":
        # Precision just before the match; before rank 1 it is 1 (Market-1501's compute_AP.m).
        precision_before = np.where(ranks == 1, 1.0, (num_found - 1) / np.maximum(ranks - 1, 1))
        precision = (precision_before + precision) / 2
    sums = np.bincount(queries, precision, minlength=len(count))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _cmc(first_match_ranks: NDArray[np.int64], max_rank: int) -> NDArray[np.float64]:
    within = first_match_ranks[first_match_ranks <= max_rank]
    return np.cumsum(np.bincount(within - 1, minlength=max_rank)) / len(first_match_ranks)


def _left_out_notes(comparison: Comparison, pairs: Pairs) -> list[str]:
    """One sentence for each reason why queries are not valid, naming the first of them."""
    num_queries = len(comparison.query)
    meets = comparison.meets(pairs.queries, pairs.items)
    has_company = np.bincount(pairs.queries[meets], minlength=num_queries) > 0
    has_positive = np.bincount(pairs.queries[pairs.positive], minlength=num_queries) > 0
    is_junk = comparison.query_identities == JUNK
    cameras = np.union1d(comparison.query_cameras, comparison.gallery_cameras)
    if len(cameras) > 1:
        no_positive = "all positives are under the query's own camera"
    else:
        no_positive = "camera labels are all equal, so every positive is under the query's own camera; "
        no_positive += 'camera_filter="none" ignores cameras'
    reasons = {
        "identity is -1 (junk)": is_junk,
        "identity absent from the gallery": ~is_junk & ~has_company,
        no_positive: has_company & ~has_positive,
    }
    return [
        f"{chosen.sum()} of {num_queries} queries left out ({first_few(np.flatnonzero(chosen))}): {reason}"
        for reason, chosen in reasons.items()
        if chosen.any()
    ]


def _recall_notes(cmc: NDArray[np.float64]) -> list[str]:
    shown = [k for k in RECALL_RANKS if k <= len(cmc)]
    names = "/".join(map(str, shown))
    values = " / ".join(f"{100 * cmc[k - 1]:.1f}" for k in shown)
    return [f"Recall@{names}: {values}; mAP is mAP@R"]


def _check_options(protocol: str, camera_filter: str, average_precision: str, max_rank: int) -> None:
    check_choice("protocol", protocol, tuple(PROTOCOLS))
    check_choice("camera filter", camera_filter, CAMERA_FILTERS)
    check_choice("average precision", average_precision, AVERAGE_PRECISIONS)
    if max_rank < 1:
        raise ConfigError(f"max_rank is {max_rank}; give at least 1")
    if protocol == "recall" and average_precision != "step":
        raise ConfigError(
            f"average_precision = {average_precision!r}, but recall measures mAP@R; leave it out"
        )


def _check_sides(protocol: str, gallery: Features | None, galleries: Sequence[Sequence[int]] | None) -> None:
    if protocol == "recall" and gallery is not None:
        raise ConfigError(
            f"protocol = 'recall' with a gallery of {len(gallery)} items; there every item queries all "
            "others: give all items as query and no gallery"
        )
    if galleries is not None and (protocol != "market1501" or gallery is None):
        raise ConfigError(
            f"galleries of the queries' own go with protocol = 'market1501' and a gallery, not with "
            f"{protocol!r}{' without one' if gallery is None else ''}"
        )


def _top(scores: NDArray[np.float64], num: int) -> Indices:
    """Columns of the ``num`` highest scores, best first, ties by column."""
    columns = np.arange(len(scores))
    if num < len(scores):
        columns = np.flatnonzero(scores >= np.partition(scores, -num)[-num])
    return columns[np.argsort(-scores[columns], kind="stable")[:num]]
