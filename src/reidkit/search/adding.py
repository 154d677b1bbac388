"""Pictures added to a gallery: which have to be embedded, their embeddings, and how they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.errors import DataError
from reidkit.galleries import DamagedGallery, Gallery, Item
from reidkit.galleries._decisions import decided_items
from reidkit.images.reading import load_image
from reidkit.images.thumbnails import thumbnail
from reidkit.search.pictures import Added, Picture, is_there, labelled, moved, not_overruling, said
from reidkit.types import Sample


def not_yet_there(gallery: Gallery, pictures: list[Picture], added: Added) -> list[Picture]:
    """The pictures that have to be embedded; what the gallery knows of the others is brought up to date."""
    if not pictures:
        return []
    there: dict[str | None, Item] = {
        i.source: i for i in gallery.items(where={"source": [p.source for p in pictures]})
    }
    same = gallery.items(where={"content": [p.content for p in pictures]})
    gone = [item for item in same if not is_there(item.source)]
    there |= moved([picture for picture in pictures if picture.source not in there], gone)
    pictures = not_overruling(pictures, there, decided_items(gallery.decisions()))
    found = [(picture, there[picture.source]) for picture in pictures if picture.source in there]
    unknown = [picture for picture in pictures if picture.source not in there]
    whole = {item.id for picture, item in found if item.content == picture.content}
    whole -= _damaged(gallery, whole)
    # A damaged item that moved does so first, to be replaced in its new place.
    _update(gallery, [(p, item) for p, item in found if item.id in whole or item.source != p.source], added)
    return unknown + [labelled(*pair) for pair in found if pair[1].id not in whole]


def _damaged(gallery: Gallery, ids: set[int]) -> set[int]:
    """Items whose embeddings are not what was written, and which are embedded anew."""
    try:
        gallery.embeddings(ids=ids)
    except DamagedGallery as error:
        return set(error.ids)
    return set()


def _update(gallery: Gallery, found: list[tuple[Picture, Item]], added: Added) -> None:
    changed = []
    for picture, item in found:
        if picture.source != item.source:
            added.moved += 1
        elif picture.differs_from(item):
            added.relabelled += 1
        else:
            added.known += 1
            continue
        changed.append((picture, item))
    if changed:
        gallery.relabel(
            [item.id for _, item in changed],
            sources=[picture.source for picture, _ in changed],
            identities=[said(picture.identity, item.identity) for picture, item in changed],
            cameras=[said(picture.camera, item.camera) for picture, item in changed],
            times=[said(picture.time, item.time) for picture, item in changed],
            tracklets=[said(picture.tracklet, item.tracklet) for picture, item in changed],
            frames=[said(picture.frame, item.frame) for picture, item in changed],
        )


def show_known(
    gallery: Gallery, pictures: Sequence[Picture], others: Sequence[Picture], added: Added
) -> None:
    """Give the pictures that the gallery holds, all but the others, a thumbnail where they have none."""
    left_out = {picture.source for picture in others}
    known = {picture.source: picture for picture in pictures if picture.source not in left_out}
    ids = {item.id: item.source for item in gallery.items(where={"source": list(known)})}
    missing = ids.keys() - gallery.thumbnails(ids=list(ids)).keys()
    shown = [(id, _thumbnail(known[source])) for id, source in ids.items() if id in missing and source]
    if shown:
        gallery.relabel([id for id, _ in shown], thumbnails=[data for _, data in shown])
    added.newly_shown += len(shown)


def _thumbnail(picture: Picture) -> bytes:
    return thumbnail(load_image(picture.path, box=picture.box))


def store(
    gallery: Gallery,
    pictures: Sequence[Picture],
    embeddings: NDArray[np.float32],
    *,
    with_thumbnails: bool = False,
) -> None:
    """Add pictures with their embeddings (N, D) and labels."""
    gallery.add(
        embeddings,
        sources=[picture.source for picture in pictures],
        identities=[picture.identity for picture in pictures],
        cameras=[picture.camera for picture in pictures],
        times=[picture.time for picture in pictures],
        contents=[picture.content for picture in pictures],
        tracklets=[picture.tracklet for picture in pictures],
        frames=[picture.frame for picture in pictures],
        boxes=[picture.box for picture in pictures],
        thumbnails=list(map(_thumbnail, pictures)) if with_thumbnails else None,
    )


def embedded(
    encoder: Encoder, pictures: list[Picture], added: Added
) -> tuple[list[Picture], NDArray[np.float32]]:
    """The pictures that can be read, and their embeddings (N, D).

    Raises :class:`DataError` where the encoder itself is at fault.
    """
    if not pictures:
        return [], np.empty((0, encoder.dim), np.float32)
    try:
        return pictures, _encoded(encoder, pictures)
    except DataError:  # of one of them, or of the encoder itself, which then fails again
        readable = []
        for picture in pictures:
            try:
                load_image(picture.path, box=picture.box)
                readable.append(picture)
            except DataError as error:
                added.unreadable.append((picture.path, str(error)))
        if len(readable) == len(pictures):
            raise
    return embedded(encoder, readable, added)


def _encoded(encoder: Encoder, pictures: list[Picture]) -> NDArray[np.float32]:
    samples = tuple(Sample(p.path, 0, 0, index, box=p.box) for index, p in enumerate(pictures))
    embeddings = np.asarray(encoder.features(samples).embeddings, np.float32)
    zero = np.flatnonzero(~embeddings.any(axis=1))
    if len(zero):
        raise DataError(
            f"the encoder embeds {len(zero)} of {len(pictures)} pictures as zeros, which are near "
            f"nothing (the first is {pictures[zero[0]].path}); its weights are unusable"
        )
    return embeddings
