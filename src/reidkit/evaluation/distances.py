"""Which distances an evaluation ranks by, where these are not the embeddings' own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reidkit.evaluation.comparison import Comparison
from reidkit.evaluation.distance_ranks import DistanceRows, DistancesOf
from reidkit.evaluation.euclidean import EuclideanItems
from reidkit.evaluation.metric_learning import FittedMetric, LearnedMetric
from reidkit.evaluation.metrics import Metrics
from reidkit.evaluation.unit_rows import Indices, UnitRows
from reidkit.reranking import Reranker, RerankOptions
from reidkit.types import Features


def learned_distances(metric: FittedMetric, comparison: Comparison) -> DistancesOf:
    """Distances by a learned metric, up to a number added to all of a query.

    Without a gallery the queries are the gallery.
    """
    query_values, gallery_values = metric.sides(
        comparison.query_features.embeddings,
        None if comparison.is_one_set else comparison.gallery_features.embeddings,
    )
    return lambda queries, items: EuclideanItems(query_values[queries], gallery_values[items])


def reranked_distances(
    options: RerankOptions, comparison: Comparison, metric: LearnedMetric | None
) -> DistancesOf:
    """Re-ranked distances of unit embeddings, or of what a metric makes of them."""

    def values(features: Features, unit_rows: UnitRows, rows: Indices) -> NDArray[np.float32]:
        if metric is not None:
            return metric.transform(features.embeddings[rows])
        return unit_rows.take(rows, np.float32)

    def distances_of(queries: Indices, items: Indices) -> DistanceRows:
        asking = values(comparison.query_features, comparison.query, queries)
        # Without a gallery an item is in the neighbourhoods once, not as a query and as a gallery item.
        if comparison.is_one_set:
            return Reranker(asking, None, options)
        return Reranker(asking, values(comparison.gallery_features, comparison.gallery, items), options)

    return distances_of


def lowered_notes(plain: Metrics, reranked: Metrics, average_precision: str) -> tuple[str, ...]:
    """Where re-ranking did harm, by how much."""
    mean, first = ("mAP@R", "Recall@1") if average_precision == "at R" else ("mAP", "rank-1")
    changes = {
        mean: (plain.mean_average_precision, reranked.mean_average_precision),
        first: (plain.cmc[0], reranked.cmc[0]),
    }
    if all(after >= before for before, after in changes.values()):
        return ()
    texts = [f"{name} {100 * before:.1f} to {100 * after:.1f}" for name, (before, after) in changes.items()]
    return (
        f"re-ranking changed {' and '.join(texts)}: it does harm where most queries have one true match, or "
        "neighbours are mostly of other identities",
    )
