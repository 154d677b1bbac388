"""What searches found, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reidkit.errors import DataError
from reidkit.files import write_atomically
from reidkit.galleries import Gallery, Hit
from reidkit.images.reading import load_image
from reidkit.reports.charts import ranked_list_picture
from reidkit.search.found import Found
from reidkit.search.item_pictures import shown_picture, thumbnails_of
from reidkit.search.people import FoundPeople


def draw_hits(
    path: str | Path,
    images: Sequence[Path],
    found: Sequence[Found],
    *,
    identities: Sequence[str] | None = None,
    gallery: Gallery | None = None,
) -> list[str]:
    """Write a PNG with a row for each query: the query, then its hits.

    Args:
        path: the file.
        images: what was searched for.
        found: what :meth:`reidkit.search.searcher.Searcher.search` gave for each of them.
        identities: of each image, if known; hits are then marked right or wrong.
        gallery: whose thumbnails stand in for pictures that are gone.

    Returns:
        Sources of hits that cannot be read any more, moved or deleted since they were indexed; their places
        are grey.
    """
    grey: list[str] = []
    small = thumbnails_of([hit for result in found for hit in result.hits], gallery)

    def shown(hit: Hit) -> Image.Image:
        try:
            return shown_picture(hit, small.get(hit.id))
        except DataError:
            grey.append(hit.source or "an item without a source")
            return Image.new("RGB", (64, 128), "grey")

    def is_match(hit: Hit, query: int) -> bool | None:
        return None if identities is None else hit.identity == identities[query]

    lists = [
        (load_image(image), [(shown(hit), hit.score, is_match(hit, query)) for hit in result.hits])
        for query, (image, result) in enumerate(zip(images, found, strict=True))
    ]
    buffer = io.BytesIO()
    ranked_list_picture(lists).save(buffer, format="PNG", optimize=True)
    write_atomically(path, buffer.getbuffer())
    return grey


def draw_people(
    path: str | Path,
    images: Sequence[Path],
    found: Sequence[FoundPeople],
    *,
    gallery: Gallery | None = None,
) -> list[str]:
    """Write a PNG with a row for each person found for each query: the query, then the person's pictures.

    Returns what :func:`draw_hits` does.
    """
    rows = [
        (image, Found(hits))
        for image, result in zip(images, found, strict=True)
        for hits in [person.hits for person in result.people] or [()]
    ]
    return draw_hits(path, [image for image, _ in rows], [result for _, result in rows], gallery=gallery)
