"""From features to CMC, mean average precision and mINP: protocols, and ranks that stream.

Only the ranks of the true matches matter, and a rank is a count: 1 + the kept items before the match. The
gallery passes by in blocks; each float32 block is counted against the scores of every query's positives,
and what comes too close to one of them to be told apart in float32 is scored again exactly. Neither the
Q x G matrix nor a sorted row is ever held, and the result is that of a full sort in exact arithmetic.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.protocols import CAMERA_FILTERS, Comparison, Indices, Pairs, check_choice, compare, first_few
from reidkit.types import JUNK, Dataset, Evaluation, Features, Ranking, Split

PROTOCOLS = ("market1501",)
AVERAGE_PRECISIONS = ("step", "trapezoid")


class FeatureSource(Protocol):
    """What :func:`evaluate` needs of an encoder."""

    def features(self, split: Split, /) -> Features:
        """Embeddings and labels of the samples of a split, in its order."""


def evaluate(
    encoder: FeatureSource,
    data: Dataset,
    *,
    camera_filter: str | None = None,
    average_precision: str = "step",
    max_rank: int = 50,
) -> Evaluation:
    """Encode a data set's query and gallery and evaluate them under the set's own protocol.

    ``camera_filter=None`` is the protocol's own: the Market rule, or none where the set has no camera
    labels. Raises :class:`DataError` where the set has no test part or no query is valid.
    """
    camera_filter = camera_filter or ("same_identity" if data.has_cameras else "none")
    # All that can be wrong is said before the images are encoded, which takes minutes.
    _check_options(data.protocol, camera_filter, average_precision, max_rank)
    check_test_part(data)
    return evaluate_features(
        encoder.features(data.query),
        encoder.features(data.gallery),
        protocol=data.protocol,
        camera_filter=camera_filter,
        average_precision=average_precision,
        max_rank=max_rank,
    )


def check_test_part(data: Dataset) -> None:
    """Raise :class:`DataError` where the data set has no query or no gallery images."""
    if not data.query or not data.gallery:
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
    camera_filter: str = "same_identity",
    distance: str = "cosine",
    average_precision: str = "step",
    max_rank: int = 50,
    block_size: int | None = None,
) -> Evaluation:
    """Rank the gallery for every query and score the rankings.

    Args:
        query: what to search for.
        gallery: what to search in; without one every item queries all others.
        protocol: only "market1501" so far.
        camera_filter: which gallery items leave a query's list: "same_identity", those of its identity
            under its camera (the Market rule); "other_cameras", all under its camera; "none".
        distance: between unit embeddings.
        average_precision: "step", the field's default, or "trapezoid", as Market-1501's MATLAB code and
            older papers have it; they differ by up to three points.
        max_rank: length of the CMC; the last value repeats where the gallery is shorter.
        block_size: gallery items looked at together; by default about 64 MB of them. The result does not
            depend on it.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite, no valid query.
        UnknownName: an unknown protocol, camera filter, distance or average precision.
        ConfigError: max_rank or block_size below 1.
    """
    _check_options(protocol, camera_filter, average_precision, max_rank)
    if block_size is not None and block_size < 1:
        raise ConfigError(f"block_size is {block_size}; give at least 1, or None to have it chosen")
    comparison = compare(query, gallery, camera_filter=camera_filter, distance=distance)
    pairs = comparison.same_identity_pairs()
    left_out = _left_out_notes(comparison, pairs)
    if not pairs.positive.any():
        raise DataError(f"no query is valid: {'; '.join(left_out)}")
    matches, ranks = match_ranks(comparison, pairs, block_size=block_size)
    first, count = _spans(matches, len(comparison.query))
    valid = count > 0
    first_match_ranks = np.where(valid, ranks[np.minimum(first, len(ranks) - 1)], 0)
    last_match_ranks = ranks[first + count - 1]
    inverse_negative_penalties = np.full(len(valid), np.nan)
    inverse_negative_penalties[valid] = count[valid] / last_match_ranks[valid]
    average_precisions = _average_precisions(matches.queries, ranks, first, count, average_precision)
    return Evaluation(
        mean_average_precision=float(average_precisions[valid].mean()),
        cmc=_cmc(first_match_ranks[valid], max_rank),
        mean_inverse_negative_penalty=float(inverse_negative_penalties[valid].mean()),
        average_precisions=average_precisions,
        first_match_ranks=first_match_ranks,
        inverse_negative_penalties=inverse_negative_penalties,
        num_valid_queries=int(valid.sum()),
        num_gallery=len(comparison.gallery),
        protocol=f"{protocol}, camera filter {comparison.camera_filter}, {distance} distance"
        + (", every item queries all others" if gallery is None else ""),
        average_precision=average_precision,
        notes=(*comparison.notes, *left_out),
    )


def rank_features(
    query: Features,
    gallery: Features | None = None,
    *,
    top: int = 10,
    camera_filter: str = "same_identity",
) -> Ranking:
    """The nearest kept gallery items of each query, best first, ties by gallery order.

    Without a gallery every item queries all others; without camera labels no camera filter is used.
    Raises as :func:`evaluate_features` does, but a query without a positive is ranked like any other.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; give at least 1")
    comparison = compare(query, gallery, camera_filter=camera_filter)
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
        return _rows(features, queries), features
    without_cameras = replace(features, cameras=None)
    others = np.setdiff1d(np.arange(len(features)), queries)
    return _rows(without_cameras, queries), _rows(without_cameras, others)


def match_ranks(
    comparison: Comparison, pairs: Pairs, *, block_size: int | None = None
) -> tuple[Pairs, NDArray[np.int64]]:
    """The positives among ``pairs`` and their ranks (M,), both by query, best first.

    A match's rank is 1 + the better matches of its query + the negatives before it.
    """
    matches = pairs.where(pairs.positive)
    first, count = _spans(matches, len(comparison.query))
    valid = np.flatnonzero(count)
    before = np.zeros(len(matches.queries), np.int64)
    if comparison.distance == "cosine":
        crowded = _count_in_float32(comparison, pairs, matches, valid, before, block_size)
    else:
        crowded = valid
    _count_exactly(comparison, pairs, matches, crowded, before, block_size)
    better_matches = np.arange(len(before)) - first[matches.queries]
    return matches, 1 + better_matches + before


def _count_in_float32(
    comparison: Comparison,
    pairs: Pairs,
    matches: Pairs,
    queries: Indices,
    before: NDArray[np.int64],
    block_size: int | None,
) -> Indices:
    """Add to ``before`` the negatives before each match; scores too close to call are computed again.

    Returns the queries with so many of these (collapsed embeddings) that they are better counted exactly
    as a whole; their entries of ``before`` are zero.
    """
    tolerance = _float32_tolerance(comparison.query.num_dimensions)
    lower = (matches.scores - tolerance).astype(np.float32)
    upper = (matches.scores + tolerance).astype(np.float32)
    first, count = _spans(matches, len(comparison.query))
    crowded = np.zeros(len(comparison.query), np.bool_)
    for rows, items, scores in comparison.tiles(queries, pairs, block_size=block_size):
        near_matches, near_items = [], []
        for query, row in zip(rows, scores, strict=True):
            if crowded[query]:
                continue
            span = slice(first[query], first[query] + count[query])
            columns, values, above, near = _count_row(row, lower[span], upper[span])
            # A pair scored again costs as much as some hundred of a row that is scored as a whole.
            if near.sum() > max(32, len(row) // 64):
                crowded[query] = True
                continue
            before[span] += above
            for match in span.start + np.flatnonzero(near):
                found = columns[(values >= lower[match]) & (values <= upper[match])]
                near_matches.append(np.full(len(found), match))
                near_items.append(items[found])
        if near_matches:
            _count_pairs(
                comparison, matches, np.concatenate(near_matches), np.concatenate(near_items), before
            )
    before[crowded[matches.queries]] = 0
    return np.flatnonzero(crowded)


def _count_pairs(
    comparison: Comparison, matches: Pairs, chosen: Indices, items: Indices, before: NDArray[np.int64]
) -> None:
    """Add 1 to ``before[chosen[n]]`` where ``items[n]`` comes before that match in exact arithmetic."""
    scores = comparison.exact_scores(matches.queries[chosen], items)
    ties = scores == matches.scores[chosen]
    is_before = (scores > matches.scores[chosen]) | (ties & (items < matches.items[chosen]))
    before += np.bincount(chosen[is_before], minlength=len(before))


def _count_exactly(
    comparison: Comparison,
    pairs: Pairs,
    matches: Pairs,
    queries: Indices,
    before: NDArray[np.int64],
    block_size: int | None,
) -> None:
    """Add to ``before`` the negatives before each match of ``queries``, from exact scores throughout."""
    first, count = _spans(matches, len(comparison.query))
    for rows, items, scores in comparison.tiles(queries, pairs, block_size=block_size, exact=True):
        for query, row in zip(rows, scores, strict=True):
            span = slice(first[query], first[query] + count[query])
            match_scores = matches.scores[span]
            columns, values, above, tied = _count_row(row, match_scores, match_scores)
            for score in np.unique(match_scores[tied > 0]):
                equal = match_scores == score
                tied_items = items[columns[values == score]]
                above[equal] += np.searchsorted(tied_items, matches.items[span][equal])
            before[span] += above


def _count_row(
    row: NDArray[Any], lower: NDArray[Any], upper: NDArray[Any]
) -> tuple[Indices, NDArray[Any], Indices, Indices]:
    """Place a row of scores among a query's matches, best first, each an interval [lower, upper].

    Returns columns and values of the scores that reach the lowest interval, how many scores lie above
    each interval, and how many inside. All others are before no match and are not looked at again.
    """
    columns = np.flatnonzero(row >= lower[-1])
    values = row[columns]
    ascending = np.sort(values)
    above = len(ascending) - np.searchsorted(ascending, upper, side="right")
    inside = len(ascending) - np.searchsorted(ascending, lower, side="left") - above
    return columns, values, above, inside


def _float32_tolerance(num_dimensions: int) -> float:
    """How far a float32 product of unit vectors may lie from the exact score, bounds' rounding included.

    Summing D terms to at most 1 errs by sqrt(D) roundings of at most 2^-25 each, 2^-25/sqrt(3) in the
    mean square: this is seven of those standard deviations. A fixed 1e-6 would not do: products of features
    without negative values were seen to be 1.4e-6 off at D = 512 (MKL), 7e-7 with OpenBLAS.
    """
    return float(max(2e-6, 2.0 * np.sqrt(num_dimensions) * 2.0**-24))


def _spans(matches: Pairs, num_queries: int) -> tuple[Indices, Indices]:
    """Where each query's matches begin, and how many they are, both (Q,)."""
    ends = np.searchsorted(matches.queries, np.arange(num_queries + 1))
    return ends[:-1], np.diff(ends)


def _average_precisions(
    queries: Indices, ranks: NDArray[np.int64], first: Indices, count: Indices, kind: str
) -> NDArray[np.float64]:
    """AP (Q,), NaN without matches, from ``queries`` and ``ranks`` (M,) of the matches, best first."""
    num_found = np.arange(len(ranks)) - first[queries] + 1
    precision = num_found / ranks
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
    is_other = ~(comparison.without_self & (pairs.queries == pairs.items))
    has_company = np.bincount(pairs.queries[is_other], minlength=num_queries) > 0
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


def _check_options(protocol: str, camera_filter: str, average_precision: str, max_rank: int) -> None:
    check_choice("protocol", protocol, PROTOCOLS)
    check_choice("camera filter", camera_filter, CAMERA_FILTERS)
    check_choice("average precision", average_precision, AVERAGE_PRECISIONS)
    if max_rank < 1:
        raise ConfigError(f"max_rank is {max_rank}; give at least 1")


def _top(scores: NDArray[np.float64], num: int) -> Indices:
    """Columns of the ``num`` highest scores, best first, ties by column."""
    columns = np.arange(len(scores))
    if num < len(scores):
        columns = np.flatnonzero(scores >= np.partition(scores, -num)[-num])
    return columns[np.argsort(-scores[columns], kind="stable")[:num]]


def _rows(features: Features, rows: Indices) -> Features:
    """These rows of every array."""
    optional = {
        name: None if getattr(features, name) is None else getattr(features, name)[rows]
        for name in ("cameras", "indices", "tracklets", "times")
    }
    return Features(features.embeddings[rows], features.identities[rows], **optional)
