"""From features to CMC, mean average precision and mINP, under the protocols of the field's data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.comparison import Comparison, Pairs, compare
from reidkit.evaluation.distance_ranks import DistancesOf, distance_ranks
from reidkit.evaluation.distances import learned_distances, lowered_notes, reranked_distances
from reidkit.evaluation.features import pool_queries, pool_tracklets, pooled_tracklets, rows_of, with_frames
from reidkit.evaluation.metric_learning import FittedMetric, fit_metric
from reidkit.evaluation.metrics import Metrics, mean_metrics, metrics_of_ranks
from reidkit.evaluation.multi_query import check_multi_query, multi_query_images, own_images, pooling_texts
from reidkit.evaluation.options import EvaluationKeywords, EvaluationOptions, options_with
from reidkit.evaluation.ranks import has_choice, match_ranks, shot_ranks
from reidkit.evaluation.row_labels import camera_codes
from reidkit.evaluation.same_picture import picture_names
from reidkit.evaluation.spatial_similarity import LearnedSimilarity
from reidkit.evaluation.unit_rows import first_few
from reidkit.types import JUNK, Dataset, Evaluation, Features, Split

NUM_DRAWS = 10


class FeatureSource(Protocol):
    """What :func:`evaluate` needs of an encoder."""

    def features(self, split: Split, /) -> Features:
        """Embeddings and labels of the samples of a split, in its order."""


def evaluate(
    encoder: FeatureSource,
    data: Dataset,
    *,
    options: EvaluationOptions | None = None,
    **keywords: Unpack[EvaluationKeywords],
) -> Evaluation:
    """Encode a data set's query and gallery and evaluate them under the set's own protocol.

    Args:
        encoder: gives the embeddings.
        data: of its splits, where it has several, the one it was loaded with.
        options: how to evaluate; the usual way where left out.
        keywords: fields of :class:`EvaluationOptions`, which override those of ``options``.

    Raises:
        DataError: the set has no test part, no query is valid, or there is nothing to fit a metric on.
        ConfigError: an option that the protocol does not know.
    """
    options = _options_for(data, options, keywords)
    # All that can be wrong is said before the images are encoded, which takes minutes.
    _check(data, options)
    data = with_frames(data, options.num_frames)
    query = _with_sources(encoder.features(data.query), data.query)
    gallery = _with_sources(encoder.features(data.gallery), data.gallery) if data.gallery else None
    pooled = ""
    notes: tuple[str, ...] = ()
    if options.multi_query is not None and gallery is not None:
        samples = multi_query_images(data)
        images = encoder.features(samples) if samples else own_images(query, gallery)
        query = pool_queries(query, images, pooling=options.multi_query)
        pooled, notes = pooling_texts(data, samples, options.multi_query)
    options = replace(options, multi_query=None, num_frames=None)  # that has been done
    if isinstance(options.metric, str):
        options = replace(options, metric=_fitted(options.metric, encoder, data))
    evaluation = evaluate_features(query, gallery, options=options, galleries=data.galleries)
    split_name = f", {data.split_name}" if data.split_name else ""
    return replace(
        evaluation,
        protocol=evaluation.protocol + pooled + split_name,
        notes=(*evaluation.notes, *notes),
    )


def check_evaluation(
    data: Dataset, *, options: EvaluationOptions | None = None, **keywords: Unpack[EvaluationKeywords]
) -> None:
    """Raise what :func:`evaluate` would raise for this data set and these options, before any encoding."""
    _check(data, _options_for(data, options, keywords))


def images_to_encode(
    data: Dataset, *, metric: str | FittedMetric | None = None, multi_query: str | None = None
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
    options: EvaluationOptions | None = None,
    galleries: Sequence[Sequence[int]] | None = None,
    block_size: int | None = None,
    **keywords: Unpack[EvaluationKeywords],
) -> Evaluation:
    """Rank the gallery for every query and measure the rankings.

    >>> query = Features(np.eye(2), identities=["anna", "ben"], cameras=[1, 1])
    >>> gallery = Features(np.eye(2)[[0, 1, 1]], identities=["anna", "anna", "ben"], cameras=[2, 2, 2])
    >>> evaluate_features(query, gallery, camera_filter="none").first_match_ranks
    array([1, 2])

    With ``rerank`` the neighbourhoods are those of the gallery that a query searches and of all queries that
    search it: items that a camera filter hides from one query count, since a search does not know which
    identity it looks for; items with identity -1 do not, nor such queries. Where queries have galleries of
    their own, each is re-ranked by itself, which takes long where these are large; with
    "single_gallery_shot", each draw is, without the images not drawn.

    Args:
        query: what to search for.
        gallery: what to search in; without one every item queries all others.
        options: how to evaluate; the usual way where left out. ``multi_query`` and ``num_frames`` are for
            data sets, and a metric must be a fitted one.
        galleries: if each query has its own gallery, the rows of ``gallery`` in it, query by query.
        block_size: gallery items looked at together, by default about 64 MB of them; queries with ``rerank``
            or ``metric``. The result does not depend on it.
        keywords: fields of :class:`EvaluationOptions`, which override those of ``options``.

    Returns:
        The metrics. With several draws the arrays of each query are means over these, and
        ``first_match_ranks`` medians; with "recall" mean average precision is mAP@R (Musgrave et al.,
        ECCV 2020), and the CMC is Recall@K; with "tracklets" queries and gallery items are tracklets.

    Raises:
        DataError: an empty side, different dimensions, values that are not finite, no valid query,
            tracklets without numbers or of two identities.
        UnknownName: an unknown protocol, camera filter, distance or average precision.
        ConfigError: max_rank or block_size below 1; options that the protocol does not know, or that do not
            go together.
    """
    options = options_with(options, keywords)
    _check_features(options, gallery, galleries, block_size)
    num_rows = len(query) + len(gallery or ())
    frame_notes: tuple[str, ...] = ()
    if options.protocol == "tracklets":
        query, frame_notes = pooled_tracklets(query, "query")
        if gallery is not None:
            gallery, gallery_notes = pooled_tracklets(gallery, "gallery")
            frame_notes += gallery_notes
    comparison = compare(
        query,
        gallery,
        camera_filter=options.used_camera_filter,
        distance=options.distance,
        gallery_rows=galleries,
    )
    left_out = _left_out_notes(comparison)
    if not comparison.same_identity_pairs.positive.any():
        raise DataError(f"no query is valid: {'; '.join(left_out)}")
    draws: Sequence[int | None] = [None]
    if options.protocol == "single_gallery_shot":
        draws = range(NUM_DRAWS if has_choice(comparison) else 1)
    metrics, notes = _measure(comparison, options, draws, block_size)
    valid = np.isfinite(metrics.average_precisions)
    return Evaluation(
        mean_average_precision=metrics.mean_average_precision,
        cmc=metrics.cmc,
        mean_inverse_negative_penalty=float(metrics.inverse_negative_penalties[valid].mean()),
        average_precisions=metrics.average_precisions,
        first_match_ranks=metrics.first_match_ranks,
        inverse_negative_penalties=metrics.inverse_negative_penalties,
        num_valid_queries=int(valid.sum()),
        num_gallery=len(comparison.gallery),
        protocol=_in_words(options, comparison, num_draws=len(draws), num_rows=num_rows),
        average_precision=options.used_average_precision,
        notes=(*frame_notes, *notes, *left_out),
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
    identified = comparison.identified_queries
    first_of_each = (comparison.query_identities * (codes.max() + 1) + codes)[identified]
    queries = identified[np.sort(np.unique(first_of_each, return_index=True)[1])]
    # A query without a camera is not hidden from itself by its camera.
    if features.sources is None and (comparison.query_cameras < 0).any():
        features = replace(features, sources=np.arange(len(features)).astype(np.str_))
    if codes.max() > 0:
        return rows_of(features, queries), features
    without_cameras = replace(features, cameras=None)
    others = np.setdiff1d(np.arange(len(features)), queries)
    return rows_of(without_cameras, queries), rows_of(without_cameras, others)


def _options_for(
    data: Dataset, options: EvaluationOptions | None, keywords: EvaluationKeywords
) -> EvaluationOptions:
    """The options with the data set's own protocol and, where no other is given, its camera filter."""
    options = options_with(options, keywords)
    if options.protocol not in (None, data.protocol):
        raise ConfigError(
            f"protocol = {options.protocol!r}, but {data.name!r} is measured by its own, {data.protocol!r}; "
            "leave it out"
        )
    camera_filter = options.camera_filter or own_camera_filter(data)
    return replace(options, protocol=data.protocol, camera_filter=camera_filter)


def _check(data: Dataset, options: EvaluationOptions) -> None:
    options.check_neighbours(has_gallery=bool(data.gallery))
    check_multi_query(data, options.used_camera_filter, options.multi_query)
    check_test_part(data)
    if isinstance(options.metric, str) and not data.train:
        raise DataError(
            f"metric = {options.metric!r} is fitted on training images, and data set {data.name!r} in "
            f"{data.root} has none; give one fitted on other data"
        )


def _check_features(
    options: EvaluationOptions,
    gallery: Features | None,
    galleries: Sequence[Sequence[int]] | None,
    block_size: int | None,
) -> None:
    options.check_sides(gallery, galleries)
    if isinstance(options.metric, str):
        raise ConfigError(
            f"metric = {options.metric!r} is not fitted; give fit_metric({options.metric!r}, features of "
            "training images)"
        )
    of_images = {"multi_query": options.multi_query, "num_frames": options.num_frames}
    for name, value in of_images.items():
        if value is not None:
            raise ConfigError(
                f"{name} = {value!r} chooses among a data set's images, and features have none; leave it "
                "out, or give it to evaluate with the encoder and the data set"
            )
    if block_size is not None and block_size < 1:
        raise ConfigError(f"block_size is {block_size}; give at least 1, or None to have it chosen")


def _measure(
    comparison: Comparison,
    options: EvaluationOptions,
    draws: Sequence[int | None],
    block_size: int | None,
) -> tuple[Metrics, tuple[str, ...]]:
    """The metrics, those after re-ranking where that is wanted, and notes."""

    def metrics_by(distances_of: DistancesOf | None) -> Metrics:
        return mean_metrics(
            [
                metrics_of_ranks(
                    *_ranks(comparison, distances_of, draw, block_size),
                    num_queries=len(comparison.query),
                    average_precision=options.used_average_precision,
                    max_rank=options.max_rank,
                )
                for draw in draws
            ]
        )

    metric = options.metric if isinstance(options.metric, FittedMetric) else None
    found = metrics_by(None if metric is None else learned_distances(metric, comparison))
    notes = comparison.notes
    if metric is not None:  # which takes embeddings of any length as they stand
        notes = tuple(note for note in notes if note not in comparison.query.notes + comparison.gallery.notes)
    if options.rerank_options is None:
        return found, notes
    assert not isinstance(metric, LearnedSimilarity)  # which options refuse to re-rank
    reranked = metrics_by(reranked_distances(options.rerank_options, comparison, metric))
    return reranked, notes + lowered_notes(found, reranked, options.used_average_precision)


def _ranks(
    comparison: Comparison, distances_of: DistancesOf | None, draw: int | None, block_size: int | None
) -> tuple[Pairs, NDArray[np.int64]]:
    """Matches and their ranks by these distances; without them by the comparison's own scores."""
    if distances_of is not None:
        return distance_ranks(comparison, distances_of, draw=draw, block_size=block_size)
    if draw is not None:
        return shot_ranks(comparison, draw=draw, block_size=block_size)
    return match_ranks(comparison, block_size=block_size)


def _in_words(options: EvaluationOptions, comparison: Comparison, *, num_draws: int, num_rows: int) -> str:
    """The protocol and its options, as one would print them; ``num_rows`` are those of the features given."""
    protocol, metric, reranking = options.used_protocol, options.metric, options.rerank_options
    variant = f" (mean of {num_draws} draws)" if num_draws > 1 else ""
    if protocol == "tracklets":
        variant = f" ({num_rows:,} frames averaged)"
    distance = metric.name if isinstance(metric, FittedMetric) else options.distance
    words = f"{protocol}{variant}, camera filter {comparison.camera_filter}, {distance} distance"
    if comparison.is_one_set:
        words += ", every item queries all others"
    if comparison.listed is not None:
        words += ", each query in a gallery of its own"
    if reranking is not None:
        words += f", re-ranked (k1={reranking.k1}, k2={reranking.k2}, lambda={reranking.lambda_value:g})"
    return words


def _with_sources(features: Features, split: Split) -> Features:
    """With what tells pictures apart, where the encoder did not give it."""
    if features.sources is not None or len(features) != len(split):
        return features
    return replace(features, sources=np.array(picture_names(split), dtype=np.str_))


def _fitted(name: str, encoder: FeatureSource, data: Dataset) -> FittedMetric:
    """The metric of this name, learned from the data set's training images."""
    features = encoder.features(data.train)
    return fit_metric(
        name, pool_tracklets(features, name="train") if data.protocol == "tracklets" else features
    )


def _left_out_notes(comparison: Comparison) -> list[str]:
    """One sentence for each reason why queries are not valid, naming the first of them."""
    num_queries, pairs = len(comparison.query), comparison.same_identity_pairs
    meets = comparison.meets(pairs.queries, pairs.items)
    has_company = np.bincount(pairs.queries[meets], minlength=num_queries) > 0
    has_positive = np.bincount(pairs.queries[pairs.positive], minlength=num_queries) > 0
    # Of one set, the row itself is no company either, and that is nothing to explain.
    pictures = comparison.query_pictures[pairs.queries] == comparison.gallery_pictures[pairs.items]
    same_identity = comparison.query_identities[pairs.queries] == comparison.gallery_identities[pairs.items]
    if comparison.is_one_set:
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
