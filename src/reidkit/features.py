"""Features of splits: embeddings with labels, each image embedded once, tracklets pooled."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError
from reidkit.protocols import Indices, UnitRows
from reidkit.types import Dataset, Features, Sample, Split

_FRAMES_PER_PART = 4096


class EmbeddedImages:
    """Embeddings by image, for every split that shows these images under whatever labels.

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
    """Embeddings (N, D) with the labels of the N samples; tracklets only where every sample has one."""
    tracklets = [sample.tracklet for sample in split]
    return Features(
        embeddings,
        np.array([sample.identity for sample in split], dtype=np.int64),
        np.array([sample.camera for sample in split], dtype=np.int64),
        indices=np.array([sample.index for sample in split], dtype=np.int64),
        tracklets=None if None in tracklets else np.array(tracklets, dtype=np.int64),
    )


def rows_of(features: Features, rows: Indices) -> Features:
    """These rows of every array."""
    optional = {
        name: None if getattr(features, name) is None else getattr(features, name)[rows]
        for name in ("cameras", "indices", "tracklets", "times")
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
    pooled = np.zeros((len(first), frames.num_dimensions))
    for start in range(0, len(place), _FRAMES_PER_PART):
        part = np.arange(start, min(start + _FRAMES_PER_PART, len(place)))
        np.add.at(pooled, place[part], frames.take(part))
    lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
    pooled /= np.where(lengths > 0, lengths, 1)
    return replace(rows_of(features, first), embeddings=pooled)


def with_frames(data: Dataset, num_frames: int | None) -> Dataset:
    """A set of tracklets with at most ``num_frames`` evenly spaced frames of each to test on; None is all.

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
