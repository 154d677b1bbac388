"""Multi-query evaluation: which images stand for a query, and how a result says so."""

from __future__ import annotations

from collections import Counter

import numpy as np

from reidkit.errors import ConfigError
from reidkit.evaluation.features import POOLINGS
from reidkit.evaluation.protocols import check_choice
from reidkit.types import Dataset, Features, Split


def check_multi_query(data: Dataset, camera_filter: str, pooling: str | None) -> None:
    """Raise :class:`ConfigError` for an unknown pooling, or where the set's protocol does not allow any."""
    if pooling is None:
        return
    check_choice("multi-query pooling", pooling, POOLINGS)
    reason = None
    if data.protocol != "market1501":
        reasons = {
            "single_gallery_shot": "there a query is one image",
            "recall": "there every image queries all others, and has no camera",
            "tracklets": "there a query is the mean of a tracklet's frames already",
        }
        reason = f"the protocol {data.protocol!r}: {reasons[data.protocol]}"
    elif not data.has_cameras:
        reason = "no camera labels: all images of a query's identity would be taken, its true matches too"
    elif camera_filter == "none":
        reason = "camera filter none: images under the query's own camera are true matches there"
    if reason is not None:
        raise ConfigError(f"multi_query = {pooling!r}, but {data.name!r} is measured with {reason}")


def multi_query_images(data: Dataset) -> Split:
    """The set's own multi-query images that show a query's identity under its camera."""
    asked = {(sample.identity, sample.camera) for sample in data.query if sample.camera is not None}
    return tuple(sample for sample in data.multi_query if (sample.identity, sample.camera) in asked)


def own_images(query: Features, gallery: Features) -> Features:
    """All query and gallery images: those of a query's identity and camera are its junk and itself."""
    known = query.cameras is not None and gallery.cameras is not None
    return Features(
        np.concatenate([query.embeddings, gallery.embeddings]),
        np.concatenate([query.identities, gallery.identities]),
        np.concatenate([query.cameras, gallery.cameras]) if known else None,
    )


def pooling_texts(data: Dataset, samples: Split, pooling: str) -> tuple[str, tuple[str, ...]]:
    """What to add to the protocol, and a note; ``samples`` are the set's own images, where it has some."""
    source = "the set's multi-query images" if samples else "query and junk images"
    images = samples or data.query + data.gallery
    num_images: Counter[tuple[int, int | None]] = Counter(
        (sample.identity, sample.camera) for sample in images if sample.camera is not None
    )
    counts = [max(1, num_images[sample.identity, sample.camera]) for sample in data.query]
    note = (
        f"multi-query: each query is the {pooling} of {min(counts)} to {max(counts)} images, "
        f"{sum(counts) / len(counts):.1f} on average, of its identity under its camera: {source}"
    )
    if data.multi_query and not samples:
        note += f" (none of the set's {len(data.multi_query)} multi-query images shows a query's)"
    return f", multi-query ({pooling} of {source})", (note,)
