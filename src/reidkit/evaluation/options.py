"""How to evaluate, as one value: checked when it is made, and handed down whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import TypedDict

from reidkit.errors import ConfigError, did_you_mean, listed_names, shown
from reidkit.evaluation.features import POOLINGS
from reidkit.evaluation.metric_learning import METRICS, FittedMetric
from reidkit.evaluation.protocols import (
    AVERAGE_PRECISIONS,
    CAMERA_FILTERS,
    DISTANCES,
    PROTOCOLS,
    check_choice,
)
from reidkit.evaluation.spatial_similarity import LearnedSimilarity
from reidkit.reranking import RerankOptions
from reidkit.types import Features


class EvaluationKeywords(TypedDict, total=False):
    """The fields of :class:`EvaluationOptions`, for functions that take them as keywords."""

    protocol: str | None
    camera_filter: str | None
    distance: str
    average_precision: str
    max_rank: int
    rerank: bool | RerankOptions | None
    metric: str | FittedMetric | None
    multi_query: str | None
    num_frames: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationOptions:
    """How to evaluate.

    Attributes:
        protocol: "market1501"; "single_gallery_shot", where a query meets one image of each identity, drawn
            at random, and the mean over ten seeded draws is given; "recall", where every item queries all
            others, for Recall@1, 2, 4 and 8 and mAP@R; or "tracklets", where the frames of each tracklet
            are averaged first and then Market-1501's rules hold. A data set has its own; features by
            themselves are measured by "market1501" where it is left out.
        camera_filter: which gallery items leave a query's list: "same_identity", those of its identity
            under its camera (the Market rule); "other_cameras", all under its camera; "none". The data
            set's, or else the protocol's, usual one where left out.
        distance: between unit embeddings, "cosine" or "l1".
        average_precision: "step", the field's default, or "trapezoid", as Market-1501's MATLAB code and
            older papers have it; they differ by up to three points. Recall knows neither.
        max_rank: length of the CMC; the last value repeats where the gallery is shorter.
        rerank: rank by k-reciprocal distances (:func:`reidkit.reranking.rerank`); ``True`` is for the
            paper's options. A note says so where this lowered mAP or rank-1.
        metric: a learned distance in place of ``distance``, applied to the embeddings as they stand: it is
            not normalised before or after. It can be re-ranked. "kissme", "xqda" and "her" are fitted on the
            embeddings of a data set's training images, which are encoded too.
        multi_query: "mean" or "max": each query is pooled over all images of its identity and camera, those
            of ``data.multi_query`` where the set has them, else the query images and, out of the gallery,
            the query's junk. For data sets measured by Market-1501's rule.
        num_frames: evenly spaced frames of each tracklet of a data set to encode; all where left out.

    Raises:
        UnknownName: an unknown protocol, camera filter, distance, average precision, metric or pooling.
        ConfigError: values out of range, or options that do not go together.
    """

    protocol: str | None = None
    camera_filter: str | None = None
    distance: str = "cosine"
    average_precision: str = "step"
    max_rank: int = 50
    rerank: bool | RerankOptions | None = None
    metric: str | FittedMetric | None = None
    multi_query: str | None = None
    num_frames: int | None = None

    def __post_init__(self) -> None:
        if self.protocol is not None:
            check_choice("protocol", self.protocol, tuple(PROTOCOLS))
        if self.camera_filter is not None:
            check_choice("camera filter", self.camera_filter, CAMERA_FILTERS)
        check_choice("average precision", self.average_precision, AVERAGE_PRECISIONS)
        check_choice("distance", self.distance, DISTANCES)
        if self.multi_query is not None:
            check_choice("multi-query pooling", self.multi_query, POOLINGS)
        max_rank: object = self.max_rank
        if not isinstance(max_rank, Integral) or max_rank < 1:
            raise ConfigError(f"max_rank is {shown(max_rank)}; give at least 1")
        if self.protocol == "recall" and self.average_precision != "step":
            raise ConfigError(
                f"average_precision = {self.average_precision!r}, but recall measures mAP@R; leave it out"
            )
        self._check_metric()
        self._check_rerank()

    @property
    def used_protocol(self) -> str:
        """The protocol, where none is given that of features by themselves."""
        return self.protocol or "market1501"

    @property
    def used_camera_filter(self) -> str:
        """The camera filter, where none is given the protocol's usual one."""
        return self.camera_filter or PROTOCOLS[self.used_protocol]

    @property
    def used_average_precision(self) -> str:
        """The kind of average precision; always "at R" for the recall protocol."""
        return "at R" if self.protocol == "recall" else self.average_precision

    @property
    def rerank_options(self) -> RerankOptions | None:
        """Options of re-ranking; ``None`` for no re-ranking."""
        if isinstance(self.rerank, RerankOptions):
            return self.rerank
        return RerankOptions() if self.rerank else None

    def check_sides(self, gallery: Features | None, galleries: Sequence[Sequence[int]] | None) -> None:
        """Raise :class:`ConfigError` for a gallery, or galleries, that the protocol does not know."""
        protocol = self.used_protocol
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
        self.check_neighbours(has_gallery=gallery is not None)

    def check_neighbours(self, *, has_gallery: bool) -> None:
        """Raise :class:`ConfigError` where re-ranking would look at images that no query meets."""
        if self.rerank and self.protocol == "single_gallery_shot" and not has_gallery:
            raise ConfigError(
                "rerank with protocol = 'single_gallery_shot' and no gallery: images that are not drawn "
                "would be neighbours as queries; give the gallery, or protocol = 'market1501'"
            )

    def _check_metric(self) -> None:
        metric: object = self.metric
        if isinstance(metric, str):
            check_choice("metric", metric, tuple(METRICS))
        elif not isinstance(metric, FittedMetric | None):
            raise ConfigError(
                f"metric is {shown(metric)}; give one of {', '.join(map(repr, METRICS))}, or a metric "
                "that was fitted: fit_metric(name, features of training images)"
            )
        if self.metric is not None and self.distance != "cosine":
            raise ConfigError(
                f"a metric and distance = {self.distance!r} are two distances; leave one of them out"
            )

    def _check_rerank(self) -> None:
        rerank: object = self.rerank
        if rerank and (self.metric == "scs" or isinstance(self.metric, LearnedSimilarity)):
            raise ConfigError(
                "rerank with metric SCS: its similarities are not distances in a space, in which neighbours "
                "would be sought; leave one of the two out, or take xqda"
            )
        if not isinstance(rerank, bool | RerankOptions | None):
            raise ConfigError(
                f"rerank is {shown(rerank)}; give True, or RerankOptions(k1=..., k2=..., "
                "lambda_value=...) for other options than the paper's"
            )
        if self.rerank and self.distance != "cosine":
            raise ConfigError(
                f"rerank with distance = {self.distance!r}: k-reciprocal distances are made of squared "
                "Euclidean ones, which rank as cosine does; leave one of the two out"
            )


def options_with(options: EvaluationOptions | None, keywords: EvaluationKeywords) -> EvaluationOptions:
    """The options, with fields changed by keywords; raises :class:`ConfigError` for an unknown keyword."""
    if not isinstance(options, EvaluationOptions | None):
        raise ConfigError(
            f"options = {shown(options)}; give EvaluationOptions(...), or its fields as keywords"
        )
    known = [field.name for field in fields(EvaluationOptions)]
    unknown = [name for name in keywords if name not in known]
    if unknown:
        raise ConfigError(
            [f"unknown option {shown(n)};{did_you_mean(n, known)} {listed_names(n, known)}" for n in unknown]
        )
    return replace(options or EvaluationOptions(), **keywords)
