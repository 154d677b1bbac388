"""Protocols and their options: which there are, and which do not go together."""

from __future__ import annotations

from collections.abc import Sequence

from reidkit.errors import ConfigError
from reidkit.metric_learning import METRICS, LearnedMetric
from reidkit.protocols import AVERAGE_PRECISIONS, CAMERA_FILTERS, DISTANCES, PROTOCOLS, check_choice
from reidkit.reranking import RerankOptions
from reidkit.types import Features


def check_options(protocol: str, camera_filter: str, average_precision: str, max_rank: int) -> None:
    """Raise :class:`ConfigError` for unknown names and numbers out of range."""
    check_choice("protocol", protocol, tuple(PROTOCOLS))
    check_choice("camera filter", camera_filter, CAMERA_FILTERS)
    check_choice("average precision", average_precision, AVERAGE_PRECISIONS)
    if max_rank < 1:
        raise ConfigError(f"max_rank is {max_rank}; give at least 1")
    if protocol == "recall" and average_precision != "step":
        raise ConfigError(
            f"average_precision = {average_precision!r}, but recall measures mAP@R; leave it out"
        )


def check_sides(protocol: str, gallery: Features | None, galleries: Sequence[Sequence[int]] | None) -> None:
    """Raise :class:`ConfigError` for a gallery, or galleries, that the protocol does not know."""
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


def check_distances(
    protocol: str,
    distance: str,
    rerank: bool | RerankOptions | None,
    metric: str | LearnedMetric | None,
    *,
    has_gallery: bool,
) -> None:
    """Raise :class:`ConfigError` for options that do not go together; an unknown metric by its name."""
    check_choice("distance", distance, DISTANCES)
    if isinstance(metric, str):
        check_choice("metric", metric, tuple(METRICS))
    if rerank and distance != "cosine":
        raise ConfigError(
            f"rerank with distance = {distance!r}: k-reciprocal distances are made of squared Euclidean "
            "ones, which rank as cosine does; leave one of the two out"
        )
    if metric is not None and distance != "cosine":
        raise ConfigError(f"a metric and distance = {distance!r} are two distances; leave one of them out")
    if rerank and protocol == "single_gallery_shot" and not has_gallery:
        raise ConfigError(
            "rerank with protocol = 'single_gallery_shot' and no gallery: images that are not drawn would "
            "be neighbours as queries; give the gallery, or protocol = 'market1501'"
        )
