"""Features of splits: embeddings with labels, each image embedded once, tracklets pooled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.protocols import check_choice
from reidkit.evaluation.row_labels import camera_labels, identity_labels
from reidkit.evaluation.same_picture import picture_names
from reidkit.evaluation.unit_rows import Indices, UnitRows
from reidkit.types import JUNK, Dataset, Features, Sample, Split

POOLINGS = ("mean", "max")
"""How the images of a query are made one embedding."""

_ROWS_PER_PART = 4096


class EmbeddedImages:
    """Embeddings by image, for any split of these images, whatever its labels.

    ``embeddings`` (N, D) are those of ``images``, in their order.
    """

    def __init__(self, images: Split, embeddings: NDArray[np.floating[Any]]) -> None:
        self._embeddings = embeddings
        self._rows = {_image(sample): row for row, sample in enumerate(images)}

    def features(self, split: Split, /) -> Features:
        """Embeddings and labels of the samples of a split, in its order."""
        rows = [self._rows[_image(sample)] for sample in split]
        return label_features(self._embeddings[rows], split)


def distinct_images(splits: Iterable[Split]) -> Split:
    """One sample for each image that the splits show."""
    return tuple({_image(sample): sample for split in splits for sample in split}.values())


def label_features(embeddings: NDArray[np.floating[Any]], split: Split) -> Features:
    """Embeddings (N, D) with the labels of the N samples, and what tells their pictures apart.

    Identities and cameras are names where samples have names, else integers; cameras are ``None`` where no
    sample has one, tracklets unless every one does. Each image file is read once more, for its content: a
    copy under another name is the same picture.
    """
    tracklets = [sample.tracklet for sample in split]
    return Features(
        embeddings,
        identity_labels(split),
        camera_labels(split),
        indices=np.array([sample.index for sample in split], dtype=np.int64),
        tracklets=None if None in tracklets else np.array(tracklets, dtype=np.int64),
        sources=np.array(picture_names(split), dtype=np.str_),
    )


def rows_of(features: Features, rows: Indices) -> Features:
    """These rows of every array."""
    optional = {
        name: None if getattr(features, name) is None else getattr(features, name)[rows]
        for name in ("cameras", "indices", "tracklets", "times", "sources")
    }
    return Features(features.embeddings[rows], features.identities[rows], **optional)


def pool_tracklets(features: Features, *, name: str = "tracklets") -> Features:
    """One embedding a tracklet: the mean of its unit frame embeddings, made of unit length.

    Tracklets come in the order of their first frames, with the labels of these. The sums are exact, so that
    the order of the frames does not matter.

    Args:
        features: of frames; their ``tracklets`` say which belong together.
        name: of the features, for messages.

    Raises:
        DataError: no tracklet numbers, a tracklet of two identities or cameras, or values not finite.
    """
    return pooled_tracklets(features, name)[0]


def pooled_tracklets(features: Features, name: str) -> tuple[Features, tuple[str, ...]]:
    """:func:`pool_tracklets`, and what the reader must know of the frames' embeddings."""
    if features.tracklets is None:
        raise DataError(f"the {name} features say of no frame to which tracklet it belongs; give tracklets")
    first, place = _first_and_place(features.tracklets)
    for kind in ("identities", "cameras"):
        labels = getattr(features, kind)
        if labels is not None and (labels != labels[first][place]).any():
            odd = np.flatnonzero(labels != labels[first][place])
            raise DataError(
                f"tracklet {features.tracklets[odd[0]]} of the {name} has frames of two {kind} (row "
                f"{odd[0]} is the first that differs); a tracklet shows one person under one camera"
            )
    frames = UnitRows(features.embeddings, name)
    pooled = _pool(frames, np.arange(len(frames)), place, len(first))
    tracklets = replace(
        rows_of(features, first), embeddings=pooled, sources=_joined_sources(features, place, len(first))
    )
    return tracklets, frames.notes


def _joined_sources(features: Features, place: Indices, num_tracklets: int) -> NDArray[np.str_] | None:
    """One text a tracklet, equal where two are of the same frames in any order; empty if one is unknown."""
    if features.sources is None:
        return None
    frames: list[list[str]] = [[] for _ in range(num_tracklets)]
    for tracklet, source in zip(place.tolist(), features.sources.tolist(), strict=True):
        frames[tracklet].append(str(source))
    joined = ["\n".join(sorted(texts)) if all(texts) else "" for texts in frames]
    digests = [text and hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in joined]
    return np.array(digests, dtype=np.str_)


def pool_queries(query: Features, images: Features, *, pooling: str = "mean") -> Features:
    """Each query's embedding pooled over the unit embeddings of all images of its identity and camera.

    For multi-query evaluation (Zheng et al., "Scalable Person Re-identification", ICCV 2015). A query of
    which there are no images stays as it is, and so does one with identity -1. The result is of unit length,
    with the queries' labels; means are exact, so that the order of the images does not matter.

    Args:
        query: labels and embeddings (Q, D).
        images: (N, D), those of the queries themselves among them, if they are to count.
        pooling: "mean", or "max", the largest of each of the D values.

    Raises:
        DataError: no camera labels, an empty side, different dimensions, labels of two kinds, values that
            are not finite.
        UnknownName: another pooling.
    """
    check_choice("pooling", pooling, POOLINGS)
    for name, features in (("query", query), ("multi-query image", images)):
        if features.cameras is None:
            raise DataError(
                f"the {name} features have no camera labels; a query is pooled over images under one camera"
            )
    comparison = compare(query, images, camera_filter="none")
    labelled = comparison.gallery_identities != JUNK
    # Missing cameras are -1 and -2, unequal: such a query has no images but itself.
    num_cameras = 3 + max(comparison.query_cameras.max(), comparison.gallery_cameras.max())
    query_groups = comparison.query_identities * num_cameras + comparison.query_cameras + 2
    image_groups = comparison.gallery_identities * num_cameras + comparison.gallery_cameras + 2
    groups, group_of = np.unique(query_groups, return_inverse=True)
    rows = np.flatnonzero(labelled & np.isin(image_groups, groups))
    place = np.searchsorted(groups, image_groups[rows])
    pooled = _pool(comparison.gallery, rows, place, len(groups), pooling)
    has_images = np.isin(np.arange(len(groups)), place)[group_of] & (comparison.query_identities != JUNK)
    single = comparison.query.take(np.arange(len(query)))
    return replace(query, embeddings=np.where(has_images[:, None], pooled[group_of], single))


def _pool(
    unit: UnitRows, rows: Indices, place: Indices, num_groups: int, pooling: str = "mean"
) -> NDArray[np.float64]:
    """Rows pooled by their places among the groups (num_groups, D), made of unit length."""
    pooled = np.zeros((num_groups, unit.num_dimensions))
    if pooling == "max":
        pooled[place] = -np.inf
    into = np.add if pooling == "mean" else np.maximum
    for start in range(0, len(rows), _ROWS_PER_PART):
        part = slice(start, start + _ROWS_PER_PART)
        into.at(pooled, place[part], unit.take(rows[part]))
    lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
    pooled /= np.where(lengths > 0, lengths, 1)
    return pooled


def with_frames(data: Dataset, num_frames: int | None) -> Dataset:
    """A set of tracklets with at most ``num_frames`` evenly spaced frames of each; None is all.

    Raises :class:`ConfigError` below one frame, or where the set is not measured by tracklets.
    """
    if num_frames is None:
        return data
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}; give at least 1, or None for all frames")
    if data.protocol != "tracklets":
        raise ConfigError(
            f"num_frames = {num_frames}, but {data.name!r} is measured by the protocol {data.protocol!r}, "
            "which knows no tracklets; leave it out"
        )
    return replace(
        data,
        train=evenly_spaced_frames(data.train, num_frames),
        query=evenly_spaced_frames(data.query, num_frames),
        gallery=evenly_spaced_frames(data.gallery, num_frames),
    )


def evenly_spaced_frames(split: Split, num_frames: int) -> Split:
    """The middle frames of ``num_frames`` equal parts of each tracklet; all of a tracklet that has fewer."""
    kept = [
        frames[place]
        for frames in frames_by_tracklet(split).values()
        for place in _evenly_spaced(len(frames), num_frames)
    ]
    kept.sort(key=lambda sample: sample.index)
    return tuple(replace(sample, index=index) for index, sample in enumerate(kept))


def frames_by_tracklet(split: Split) -> dict[int, list[Sample]]:
    """Frames of each tracklet in their order, tracklets in the order of their first frames.

    Raises :class:`DataError` for a sample without a tracklet.
    """
    groups: dict[int, list[Sample]] = {}
    for sample in split:
        if sample.tracklet is None:
            raise DataError(f"{sample.path} belongs to no tracklet; number the tracklets of all images")
        groups.setdefault(sample.tracklet, []).append(sample)
    return {
        tracklet: sorted(frames, key=lambda sample: (sample.frame or 0, sample.index))
        for tracklet, frames in groups.items()
    }


def _evenly_spaced(num: int, num_wanted: int) -> list[int]:
    if num <= num_wanted:
        return list(range(num))
    return [(2 * part + 1) * num // (2 * num_wanted) for part in range(num_wanted)]


def _first_and_place(tracklets: NDArray[np.int64]) -> tuple[Indices, Indices]:
    """First row of each tracklet (T,), ascending, and the place of each row's tracklet in it (N,)."""
    _, first, code = np.unique(tracklets, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[code]


def _image(sample: Sample) -> tuple[Any, ...]:
    return sample.path, sample.box
