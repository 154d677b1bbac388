"""What a report is made from: results, details of the run, and both sides as pages show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from reidkit.evaluation.features import EmbeddedImages, frames_by_tracklet, pool_tracklets
from reidkit.types import Dataset, Evaluation, Features, Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Results:
    """An evaluation, and what it was made from.

    Attributes:
        evaluation: ranks of ``query`` against ``gallery``.
        query: row i belongs to ``query_split[i]``, as ``gallery`` to ``gallery_split``.
        gallery: ``None`` where every item queries all others; ``gallery_split`` is then ``query_split``.
        query_split, gallery_split: samples; without them no picture is shown and rows are named by number.
        galleries: gallery rows of each query, where queries have galleries of their own.
        camera_filter: the one ``evaluation`` was made with.
        reranked: the metrics after re-ranking, to stand beside ``evaluation``'s.
    """

    evaluation: Evaluation
    query: Features
    gallery: Features | None = None
    query_split: Split | None = None
    gallery_split: Split | None = None
    galleries: Sequence[Sequence[int]] | None = None
    camera_filter: str = "same_identity"
    reranked: Evaluation | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RunDetails:
    """What the page says of the run.

    Attributes:
        title: heading of the page.
        records: lines of the run's ``metrics.jsonl``; without them there are no training curves.
        configuration: TOML text of the run.
        provenance: where the numbers come from, shown in this order.
    """

    title: str
    records: Sequence[Mapping[str, Any]] = ()
    configuration: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)


class PooledSides(NamedTuple):
    """Both sides of an evaluation as pages show them: tracklets pooled, each with one picture.

    Without a gallery every item queries all others; without splits there are no pictures.
    """

    query: Features
    gallery: Features | None
    query_split: Split | None = None
    gallery_split: Split | None = None


def pooled_sides(source: EmbeddedImages, data: Dataset) -> PooledSides:
    """What pages show of a data set."""
    query = source.features(data.query)
    gallery = source.features(data.gallery) if data.gallery else None
    if not data.has_cameras:  # a set may have labels that are no cameras
        query = replace(query, cameras=None)
        gallery = None if gallery is None else replace(gallery, cameras=None)
    query_split, gallery_split = data.query, data.gallery or data.query
    if data.protocol == "tracklets":
        query_split, gallery_split = middle_frames(query_split), middle_frames(gallery_split)
    return pooled_features(query, gallery, data.protocol)._replace(
        query_split=query_split, gallery_split=gallery_split
    )


def pooled_features(query: Features, gallery: Features | None, protocol: str) -> PooledSides:
    """What pages show of features that came without images."""
    if protocol == "tracklets":
        query, gallery = pool_tracklets(query), None if gallery is None else pool_tracklets(gallery)
    return PooledSides(query, gallery)


def middle_frames(split: Split) -> Split:
    """A picture of each tracklet, in the order in which they are pooled."""
    return tuple(frames[len(frames) // 2] for frames in frames_by_tracklet(split).values())
