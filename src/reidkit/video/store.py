"""Tracks in a gallery: one item a picture, one a track; what is there is known again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.errors import ConfigError, DataError
from reidkit.galleries import Gallery, Item, Where
from reidkit.images.thumbnails import thumbnail
from reidkit.texts.addresses import is_address
from reidkit.video.view import Crop, Origin


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedTrack:
    """A track with an embedding a picture (N, D), and their mean by quality (D,), of unit length."""

    origin: Origin
    number: int
    crops: list[Crop]
    tracklet: str
    embeddings: NDArray[np.float32]
    mean: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class KnownTrack:
    """A track that the gallery holds: the name of its tracklet, its mean embedding (D,), its identity."""

    tracklet: str
    mean: NDArray[np.float32]
    identity: str | None


def known_tracks(gallery: Gallery, origin: Origin) -> dict[int, KnownTrack]:
    """Those of a video that a gallery holds already, by number.

    Raises:
        DataError: it holds tracks of this video that other boxes or options have made.
    """
    others = _labelled(gallery, {"video": origin.source, "plan": {"not": origin.plan}})
    if others:
        raise DataError(
            f"the gallery holds {len(others):,} pictures of {origin.source} that were taken by other boxes, "
            "options, camera or start; use the same, or another gallery, or take them out: "
            f"`reid gallery remove GALLERY --where 'video={origin.source}'`"
        )
    where = {"plan": origin.plan, "kind": "track"}
    items = _labelled(gallery, where)
    means = gallery.embeddings(ids=[item.id for item in items]) if items else ()
    return {
        int(item.labels["track"]): KnownTrack(item.tracklet or "", mean, item.identity)  # type: ignore[arg-type]
        for item, mean in zip(items, means, strict=True)
    }


def add_tracks(gallery: Gallery, tracks: Sequence[EmbeddedTrack]) -> None:
    """Store tracks, all of them or none: an item for each picture, one of the kind "track" for each mean,
    with frame, box and thumbnail of the best picture."""
    rows = [(track, crop) for track in tracks for crop in track.crops]
    rows_and_means = [*rows, *((track, _best(track)) for track in tracks)]
    num = len(rows)
    kinds = ["crop"] * num + ["track"] * len(tracks)
    small = {id(crop): thumbnail(Image.fromarray(crop.pixels)) for _, crop in rows}
    origins = [track.origin for track, _ in rows_and_means]
    gallery.add(
        np.concatenate([*(track.embeddings for track in tracks), np.stack([track.mean for track in tracks])]),
        sources=[
            _source(track, crop, kind) for (track, crop), kind in zip(rows_and_means, kinds, strict=True)
        ],
        cameras=[origin.camera for origin in origins],
        times=[origin.moment(crop.time) for origin, (_, crop) in zip(origins, rows_and_means, strict=True)],
        tracklets=[track.tracklet for track, _ in rows_and_means],
        frames=[crop.frame for _, crop in rows_and_means],
        boxes=[[round(value, 1) for value in crop.box] for _, crop in rows_and_means],
        thumbnails=[small[id(crop)] for _, crop in rows_and_means],
        labels={
            "kind": kinds,
            "video": [origin.source for origin in origins],
            "plan": [origin.plan for origin in origins],
            "track": [track.number for track, _ in rows_and_means],
            "quality": [round(crop.quality, 4) for _, crop in rows_and_means],
        },
    )


def _labelled(gallery: Gallery, where: Where) -> list[Item]:
    """Items by labels of ours, which a gallery does not know before the first tracks are in it."""
    try:
        return gallery.items(where=where)
    except ConfigError:
        return []


def _best(track: EmbeddedTrack) -> Crop:
    """The picture that stands for a track."""
    return max(track.crops, key=lambda crop: crop.quality)


def _source(track: EmbeddedTrack, crop: Crop, kind: str) -> str:
    """The same whenever the same video is read; a stream is another one in each run."""
    run = f"{track.origin.plan}," if is_address(track.origin.source) else ""
    frame = f",frame={crop.frame}" if kind == "crop" else ""
    return f"{track.origin.source}#{run}track={track.number}{frame}"
