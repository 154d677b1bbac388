"""From features to CMC, mean average precision and mINP, under the protocols of the field's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from reidkit.distance_ranks import DistancesOf, distance_ranks
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation_distances import learned_distances, lowered_notes, reranked_distances
from reidkit.evaluation_options import PROTOCOLS, check_distances, check_options, check_sides
from reidkit.features import pool_queries, pool_tracklets, pooled_tracklets, rows_of, with_frames
from reidkit.metric_learning import LearnedMetric, fit_metric
from reidkit.multi_query import check_multi_query, multi_query_images, own_images, pooling_texts
from reidkit.protocols import Comparison, Indices, Pairs, compare, first_few
from reidkit.ranks import has_choice, lowest, match_ranks, shot_ranks
from reidkit.reranking import RerankOptions
from reidkit.row_labels import camera_codes
from reidkit.same_picture import picture_names
from reidkit.scores import Scores, mean_scores, score_ranks
from reidkit.types import JUNK, Dataset, Evaluation, Features, Ranking, Split

NUM_DRAWS = 10


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
    rerank: bool | RerankOptions | None = None,
    metric: str | LearnedMetric | None = None,
    multi_query: str | None = None,
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
        rerank: as :func:`evaluate_features` takes it.
        metric: a learned distance in place of ``distance``; "kissme" or "xqda" are fitted on the embeddings
            of the set's training images, which are encoded too.
        multi_query: "mean" or "max": each query is pooled over all images of its identity and camera, those
            of ``data.multi_query`` where the set has them, else the query images and, out of the gallery, the
            query's junk. For Market-1501's rule.

    Raises:
        DataError: the set has no test part, no query is valid, or there is nothing to fit a metric on.
        ConfigError: an option that the protocol does not know.
    """
    camera_filter = camera_filter or own_camera_filter(data)
    # All that can be wrong is said before the images are encoded, which takes minutes.
    check_evaluation(
        data,
        camera_filter=camera_filter,
        distance=distance,
        average_precision=average_precision,
        max_rank=max_rank,
        rerank=rerank,
        metric=metric,
        multi_query=multi_query,
    )
    data = with_frames(data, num_frames)
    query = _with_sources(encoder.features(data.query), data.query)
    gallery = _with_sources(encoder.features(data.gallery), data.gallery) if data.gallery else None
    pooled = ""
    notes: tuple[str, ...] = ()
    if multi_query is not None and gallery is not None:
        samples = multi_query_images(data)
        images = encoder.features(samples) if samples else own_images(query, gallery)
        query = pool_queries(query, images, pooling=multi_query)
        pooled, notes = pooling_texts(data, samples, multi_query)
    if isinstance(metric, str):
        metric = _fitted(metric, encoder, data)
    evaluation = evaluate_features(
        query,
        gallery,
        protocol=data.protocol,
        camera_filter=camera_filter,
        distance=distance,
        average_precision=average_precision,
        max_rank=max_rank,
        galleries=data.galleries,
        rerank=rerank,
        metric=metric,
    )
    split_name = f", {data.split_name}" if data.split_name else ""
    return replace(
        evaluation,
        protocol=evaluation.protocol + pooled + split_name,
        notes=(*evaluation.notes, *notes),
    )


def check_evaluation(
    data: Dataset,
    *,
    camera_filter: str | None = None,
    distance: str = "cosine",
    average_precision: str = "step",
    max_rank: int = 50,
    rerank: bool | RerankOptions | None = None,
    metric: str | LearnedMetric | None = None,
    multi_query: str | None = None,
) -> None:
    """Raise what :func:`evaluate` would raise for this data set and these options, before any encoding."""
    camera_filter = camera_filter or own_camera_filter(data)
    check_options(data.protocol, camera_filter, average_precision, max_rank)
    check_distances(data.protocol, distance, rerank, metric, has_gallery=bool(data.gallery))
    check_multi_query(data, camera_filter, multi_query)
    check_test_part(data)
    if isinstance(metric, str) and not data.train:
        raise DataError(
            f"metric = {metric!r} is fitted on training images, and data set {data.name!r} in {data.place} "
            "has none; give a LearnedMetric fitted on other data"
        )


def images_to_encode(
    data: Dataset, *, metric: str | LearnedMetric | None = None, multi_query: str | None = None
) -> tuple[Split, ...]:
    """The splits whose features :func:`evaluate` asks for with these options."""
    return (
        data.query,
        data.gallery,
        data.train if isinstance(metric, str) else (),
        multi_query_images(data) if multi_query is not None else (),
    )


def own_camera_filter(data: Dataset) -> str:
    """The data set's camera filter; none where it has no camera labels."""
    return data.camera_filter if data.has_cameras else "none"


def check_test_part(data: Dataset) -> None:
    """Raise :class:`DataError` where the data set has not the images that its protocol needs."""
    if data.query and (data.gallery or data.protocol == "recall"):
        return
    raise DataError(
        f"data set {data.name!r} in {data.place} has no test part ({len(data.query)} query and "
        f"{len(data.gallery)} gallery images); add its query and gallery images; your own images are "
        "cut into parts to train and to test on by `reid split`"
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
    rerank: bool | RerankOptions | None = None,
    metric: LearnedMetric | None = None,
    block_size: int | None = None,
) -> Evaluation:
    """Rank the gallery for every query and score the rankings.

    With ``rerank`` the neighbourhoods are those of the gallery that a query searches and of all queries that
    search it: items that a camera filter hides from one query count, since a search does not know whom it
    looks for; items with identity -1 do not, nor such queries. Where queries have galleries of their own,
    each is re-ranked by itself, which takes long where these are large; with "single_gallery_shot", each
    draw is, without the images not drawn.

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
        rerank: rank by k-reciprocal distances (:func:`reidkit.reranking.rerank`); ``True`` is for the
            paper's options. A note says so where this lowered mAP or rank-1.
        metric: a learned distance, applied to the embeddings as they stand: it is not normalised before or
            after. It can be re-ranked.
        block_size: gallery items looked at together, by default about 64 MB of them; queries with ``rerank``
            or ``metric``. The result does not depend on it.

    Returns:
        The scores. With several draws the arrays of each query are means over these, and
        ``first_match_ranks`` medians; with "recall" mean average precision is mAP@R (Musgrave et al.,
        ECCV 2020), and the CMC is Recall@K; with "tracklets" queries and gallery items are tracklets.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite, no valid query,
            tracklets without numbers or of two persons.
        UnknownName: an unknown protocol, camera filter, distance or average precision.
        ConfigError: max_rank or block_size below 1; options that the protocol does not know, or that do not
            go together.
    """
    camera_filter = camera_filter or PROTOCOLS.get(protocol, "none")
    check_options(protocol, camera_filter, average_precision, max_rank)
    check_distances(protocol, distance, rerank, metric, has_gallery=gallery is not None)
    check_sides(protocol, gallery, galleries)
    if isinstance(metric, str):
        raise ConfigError(
            f"metric = {metric!r} is not fitted; give fit_metric({metric!r}, features of training images)"
        )
    if block_size is not None and block_size < 1:
        raise ConfigError(f"block_size is {block_size}; give at least 1, or None to have it chosen")
    variant, frame_notes = "", tuple[str, ...]()
    if protocol == "tracklets":
        variant = f" ({len(query) + len(gallery or ()):,} frames averaged)"
        query, frame_notes = pooled_tracklets(query, "query")
        if gallery is not None:
            gallery, gallery_notes = pooled_tracklets(gallery, "gallery")
            frame_notes += gallery_notes
    comparison = compare(query, gallery, camera_filter=camera_filter, distance=distance, galleries=galleries)
    pairs = comparison.same_identity_pairs()
    left_out = _left_out_notes(comparison, pairs)
    if not pairs.positive.any():
        raise DataError(f"no query is valid: {'; '.join(left_out)}")
    draws: Sequence[int | None] = [None]
    if protocol == "single_gallery_shot":
        draws = range(NUM_DRAWS if has_choice(comparison) else 1)
        variant = f" (mean of {len(draws)} draws)" if len(draws) > 1 else ""
    kind = "at R" if protocol == "recall" else average_precision

    def score(distances_of: DistancesOf | None) -> Scores:
        found = [_ranks(comparison, pairs, distances_of, draw, block_size) for draw in draws]
        return mean_scores(
            [
                score_ranks(matches, ranks, num_queries=len(query), average_precision=kind, max_rank=max_rank)
                for matches, ranks in found
            ]
        )

    learned = None if metric is None else learned_distances(metric, query, gallery)
    scores, notes = score(learned), comparison.notes
    if metric is not None:  # which takes embeddings of any length as they stand
        notes = tuple(note for note in notes if note not in comparison.query.notes + comparison.gallery.notes)
    notes = (*frame_notes, *notes)
    reranked = ""
    if rerank:
        options = rerank if isinstance(rerank, RerankOptions) else RerankOptions()
        plain, scores = scores, score(reranked_distances(options, comparison, query, gallery, metric))
        reranked = f", re-ranked (k1={options.k1}, k2={options.k2}, lambda={options.lambda_value:g})"
        notes += lowered_notes(plain, scores, kind)
    valid = np.isfinite(scores.average_precisions)
    return Evaluation(
        mean_average_precision=scores.mean_average_precision,
        cmc=scores.cmc,
        mean_inverse_negative_penalty=float(scores.inverse_negative_penalties[valid].mean()),
        average_precisions=scores.average_precisions,
        first_match_ranks=scores.first_match_ranks,
        inverse_negative_penalties=scores.inverse_negative_penalties,
        num_valid_queries=int(valid.sum()),
        num_gallery=len(comparison.gallery),
        protocol=protocol
        + variant
        + f", camera filter {comparison.camera_filter}, {metric.name if metric else distance} distance"
        + (", every item queries all others" if gallery is None else "")
        + (", each query in a gallery of its own" if galleries is not None else "")
        + reranked,
        average_precision=kind,
        notes=(*notes, *left_out),
    )


def rank_features(
    query: Features,
    gallery: Features | None = None,
    *,
    top: int = 10,
    camera_filter: str = "same_identity",
    galleries: Sequence[Sequence[int]] | None = None,
    rows: Indices | None = None,
) -> Ranking:
    """The nearest kept gallery items of each query, best first, ties by gallery order.

    ``galleries`` gives each query the gallery rows it meets; ``rows``, where given, are the queries to rank,
    in the order of the result. Without a gallery every item queries all others; without camera labels no
    camera filter is used. Raises as :func:`evaluate_features` does, but a query without a positive is ranked
    like any other.
    """
    if top < 1:
        raise ConfigError(f"top is {top}; give at least 1")
    comparison = compare(query, gallery, camera_filter=camera_filter, galleries=galleries)
    rows = np.arange(len(comparison.query)) if rows is None else rows
    asking, place = np.unique(rows, return_inverse=True)
    best_scores = np.full((len(asking), top), -np.inf)
    best_items = np.full((len(asking), top), -1, np.int64)
    pairs = comparison.same_identity_pairs()
    for tile_rows, items, scores in comparison.tiles(asking, pairs.where(~pairs.positive), exact=True):
        for row, row_scores in zip(np.searchsorted(asking, tile_rows), scores, strict=True):
            best = lowest(-row_scores, min(top, len(row_scores)))
            seen_scores = np.concatenate([best_scores[row], row_scores[best]])
            seen_items = np.concatenate([best_items[row], items[best]])
            order = np.argsort(-seen_scores, kind="stable")[:top]
            best_scores[row], best_items[row] = seen_scores[order], seen_items[order]
    best_scores, best_items = best_scores[place], best_items[place]
    kept = np.isfinite(best_scores)
    best_items[~kept] = -1
    same_identity = comparison.query_identities[rows, None] == comparison.gallery_identities[best_items]
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
    codes = (
        camera_codes(features.cameras) if features.cameras is not None else np.zeros(len(features), np.int64)
    )
    comparison = compare(features, camera_filter="none")
    people = comparison.person_queries
    first_of_each = (comparison.query_identities * (codes.max() + 1) + codes)[people]
    queries = people[np.sort(np.unique(first_of_each, return_index=True)[1])]
    # A query without a camera is not hidden from itself by its camera.
    if features.sources is None and (comparison.query_cameras < 0).any():
        features = replace(features, sources=np.arange(len(features)).astype(np.str_))
    if codes.max() > 0:
        return rows_of(features, queries), features
    without_cameras = replace(features, cameras=None)
    others = np.setdiff1d(np.arange(len(features)), queries)
    return rows_of(without_cameras, queries), rows_of(without_cameras, others)


def _ranks(
    comparison: Comparison,
    pairs: Pairs,
    distances_of: DistancesOf | None,
    draw: int | None,
    block_size: int | None,
) -> tuple[Pairs, NDArray[np.int64]]:
    """Matches and their ranks by these distances; without them by the comparison's own scores."""
    if distances_of is not None:
        return distance_ranks(comparison, distances_of, draw=draw, block_size=block_size)
    if draw is not None:
        return shot_ranks(comparison, pairs, draw=draw, block_size=block_size)
    return match_ranks(comparison, pairs, block_size=block_size)


def _with_sources(features: Features, split: Split) -> Features:
    """With what tells pictures apart, where the encoder did not give it."""
    if features.sources is not None or len(features) != len(split):
        return features
    return replace(features, sources=np.array(picture_names(split), dtype=np.str_))


def _fitted(name: str, encoder: FeatureSource, data: Dataset) -> LearnedMetric:
    """The metric of this name, learned from the data set's training images."""
    features = encoder.features(data.train)
    return fit_metric(
        name, pool_tracklets(features, name="train") if data.protocol == "tracklets" else features
    )


def _left_out_notes(comparison: Comparison, pairs: Pairs) -> list[str]:
    """One sentence for each reason why queries are not valid, naming the first of them."""
    num_queries = len(comparison.query)
    meets = comparison.meets(pairs.queries, pairs.items)
    has_company = np.bincount(pairs.queries[meets], minlength=num_queries) > 0
    has_positive = np.bincount(pairs.queries[pairs.positive], minlength=num_queries) > 0
    # Of one set, the row itself is no company either, and that is nothing to explain.
    pictures = comparison.query_pictures[pairs.queries] == comparison.gallery_pictures[pairs.items]
    same_identity = comparison.query_identities[pairs.queries] == comparison.gallery_identities[pairs.items]
    if comparison.query is comparison.gallery:
        pictures &= pairs.queries != pairs.items
    has_itself = np.bincount(pairs.queries[pictures & same_identity], minlength=num_queries) > 0
    is_junk = comparison.query_identities == JUNK
    cameras = np.union1d(comparison.query_cameras, comparison.gallery_cameras)
    if len(cameras) > 1 or cameras[0] < 0:
        no_positive = "all positives are under the query's own camera"
    else:
        no_positive = "camera labels are all equal, so every positive is under the query's own camera; "
        no_positive += 'camera_filter="none" ignores cameras'
    reasons = {
        "identity is -1 (junk)": is_junk,
        "identity absent from the gallery": ~is_junk & ~has_company & ~has_itself,
        "nothing but the query's own picture shows its identity": ~is_junk & ~has_company & has_itself,
        no_positive: has_company & ~has_positive,
    }
    return [
        f"{chosen.sum()} of {num_queries} queries left out ({first_few(np.flatnonzero(chosen))}): {reason}"
        for reason, chosen in reasons.items()
        if chosen.any()
    ]
