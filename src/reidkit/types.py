"""The values that the parts of reidkit exchange: frozen, plain, free of torch.

One word each: a *sample* is an image with its labels; a *split* is a tuple of samples; *features* are
embeddings with their labels; a *ranking* is the nearest gallery items of each query; an *evaluation*
is what a ranking is worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.arrays import embedding_array, plain_array
from reidkit.errors import DataError

JUNK = -1
"""Identity of images that count neither as right nor as wrong (Market-1501's bad detections)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of one person under one camera.

    ``identity`` is an integer; :data:`JUNK` marks an image to ignore. ``index`` is the sample's place in
    its split: it travels with the image through workers and ranks, so that order never matters.
    ``box`` is (left, top, right, bottom) in pixels where the person is cut out of a larger image.
    ``camera`` is ``None`` where it is not known. ``identity_name`` and ``camera_name`` are the labels as
    they were written (:mod:`reidkit.labels`), where the integer does not say the same: "anna", "0001".
    """

    path: Path
    identity: int
    camera: int | None
    index: int
    tracklet: int | None = field(default=None, kw_only=True)
    frame: int | None = field(default=None, kw_only=True)
    time: float | None = field(default=None, kw_only=True)
    box: tuple[int, int, int, int] | None = field(default=None, kw_only=True)
    dataset: str | None = field(default=None, kw_only=True)
    identity_name: str | None = field(default=None, kw_only=True)
    camera_name: str | None = field(default=None, kw_only=True)


Split = tuple[Sample, ...]
"""The samples of one part of a data set, in path order; ``split[i].index == i``."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Samples in their parts: to learn from, to choose a model by, to ask with, to search in.

    ``val`` is cut from the training identities by :func:`reidkit.load_dataset`; no identity of it is in
    ``train``. ``has_cameras`` is false where camera labels are absent, and always where no sample has one:
    evaluation then cannot leave out same-camera matches. ``skipped`` names files that are not part of the
    set (``Thumbs.db``, names off the pattern). ``reading`` says how parts and labels were read, a sentence
    each, as far as that was not given by the layout.

    How the set is measured: ``protocol`` is "market1501", "single_gallery_shot", "recall" (every query
    item queries all others; there is no gallery) or "tracklets"; ``camera_filter`` is "same_identity",
    "other_cameras" or "none" (see :mod:`reidkit.evaluation.protocols`). ``num_splits`` is how many train/test
    splits the layout has, to average over; ``split_name`` says which one this is and where it comes from.
    ``galleries``, where each query has a gallery of its own, gives its indices into ``gallery``.
    ``multi_query`` are further images of the query identities, to pool with a query's under its camera.

    ``published`` holds the counts of the full release, by part and then by what is counted: images,
    identities (in the gallery, those a query asks for), junk, distractors, tracklets. What was not
    published is absent. ``licence`` says what is known of the terms the images come under; it goes into the
    card of what is trained on them. ``file`` is the table that lists the images, where one does.
    """

    name: str
    root: Path
    train: Split = ()
    query: Split = ()
    gallery: Split = ()
    val: Split = ()
    protocol: str = "market1501"
    has_cameras: bool = True
    skipped: tuple[Path, ...] = ()
    reading: tuple[str, ...] = ()
    camera_filter: str = "same_identity"
    num_splits: int = 1
    split_name: str = ""
    galleries: tuple[tuple[int, ...], ...] | None = None
    multi_query: Split = ()
    published: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    licence: str = "not stated: ask those who made the images"
    file: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        samples = [sample for split in self.splits.values() for sample in split]
        if samples and all(sample.camera is None for sample in samples):
            object.__setattr__(self, "has_cameras", False)

    @property
    def place(self) -> Path:
        """What to give as root to load it again: the table where there is one, else ``root``."""
        return self.root if self.file is None else self.file

    @property
    def num_identities(self) -> int:
        """Identities to train on (those of ``train``)."""
        return len({sample.identity for sample in self.train})

    @property
    def splits(self) -> dict[str, Split]:
        """The parts that hold samples, by name."""
        parts = {"train": self.train, "val": self.val, "query": self.query, "gallery": self.gallery}
        return {name: split for name, split in parts.items() if split}


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Embeddings with the labels that evaluation needs.

    Shapes: ``embeddings`` (N, D), any float type, may be memory-mapped; lists and tensors become arrays.
    ``identities`` (N,) integers or strings; ``cameras`` (N,) integers or strings, or ``None`` where camera
    labels are absent; the optional arrays (N,). ``sources`` are texts that are equal where two rows show the
    same picture (see :mod:`reidkit.evaluation.same_picture`). Raises :class:`DataError` where lengths differ.
    """

    embeddings: NDArray[np.floating[Any]]
    identities: NDArray[Any]
    cameras: NDArray[Any] | None = None
    indices: NDArray[np.int64] | None = field(default=None, kw_only=True)
    tracklets: NDArray[np.int64] | None = field(default=None, kw_only=True)
    times: NDArray[np.float64] | None = field(default=None, kw_only=True)
    sources: NDArray[Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        embeddings = embedding_array(self.embeddings, "embeddings")
        object.__setattr__(self, "embeddings", embeddings)
        for name in ("identities", "cameras", "indices", "tracklets", "times", "sources"):
            values = getattr(self, name)
            if values is None:
                continue
            values = plain_array(values, name)
            if values.shape != (len(embeddings),):
                raise DataError(
                    f"{name} has shape {values.shape}, but there are {len(embeddings)} embeddings; "
                    f"expected ({len(embeddings)},)"
                )
            object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """The nearest kept gallery items of each query, best first.

    Shapes: all (Q, top). ``indices`` are gallery rows, -1 where fewer than ``top`` items are kept;
    ``scores`` cosine similarities (NaN there); ``matches`` whether the item shows the query's identity.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]
    matches: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What a ranking is worth. Scores are fractions in [0, 1]; printing shows percent.

    Attributes:
        mean_average_precision: mean over valid queries.
        cmc: (max_rank,), index 0 is rank 1.
        mean_inverse_negative_penalty: mean over valid queries of matches / rank of the last match.
        average_precisions: (Q,), NaN where a query is not valid.
        first_match_ranks: (Q,), 1-based rank of the first match, 0 where a query is not valid.
        inverse_negative_penalties: (Q,), NaN where a query is not valid.
        num_valid_queries: queries that have a match left under the protocol.
        protocol: name of the protocol and its options, as one would print it.
        average_precision: "step" or "trapezoid", which differ by up to three points; "at R" where
            ``mean_average_precision`` is mAP@R and the CMC Recall@K.
        notes: what the reader must know: queries left out and why, embeddings normalised, ...
    """

    mean_average_precision: float
    cmc: NDArray[np.float64]
    mean_inverse_negative_penalty: float
    average_precisions: NDArray[np.float64]
    first_match_ranks: NDArray[np.int64]
    inverse_negative_penalties: NDArray[np.float64]
    num_valid_queries: int
    num_gallery: int
    protocol: str
    average_precision: str = "step"
    notes: Sequence[str] = ()

    @property
    def num_queries(self) -> int:
        return len(self.average_precisions)

    def rank(self, k: int) -> float:
        """CMC at rank ``k`` (1-based): share of valid queries whose first match is within rank ``k``."""
        if not 1 <= k <= len(self.cmc):
            raise ValueError(f"rank {k} is outside 1..{len(self.cmc)}; evaluate with a larger max_rank")
        return float(self.cmc[k - 1])

    @property
    def metrics(self) -> dict[str, float]:
        """The headline numbers by the names papers give them, those of the protocol "recall" by its own."""
        if self.average_precision == "at R":
            recalls = {f"Recall@{k}": self.rank(k) for k in (1, 2, 4, 8) if k <= len(self.cmc)}
            return {**recalls, "mAP@R": self.mean_average_precision}
        return {
            "mAP": self.mean_average_precision,
            "mINP": self.mean_inverse_negative_penalty,
            **{f"rank-{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= len(self.cmc)},
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON, without the per-query arrays."""
        return {
            "protocol": self.protocol,
            "average_precision": self.average_precision,
            "num_queries": self.num_queries,
            "num_valid_queries": self.num_valid_queries,
            "num_gallery": self.num_gallery,
            **self.metrics,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        columns = {name: value for name, value in self.metrics.items() if name not in ("mINP", "rank-20")}
        if "mAP" in columns:
            columns["mINP"] = self.mean_inverse_negative_penalty
        lines = [
            f"{self.protocol}, {self.average_precision} AP: {self.num_valid_queries} of "
            f"{self.num_queries} queries valid, {self.num_gallery} gallery images",
            "  ".join(f"{name:>7}" for name in columns),
            "  ".join(f"{100 * value:{max(7, len(name))}.1f}" for name, value in columns.items()),
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
