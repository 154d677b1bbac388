"""Pictures of a gallery's items in pages, as far as they can still be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit.errors import DataError
from reidkit.galleries import Gallery, Item
from reidkit.labels import moment
from reidkit.reports.parts import as_data_uri
from reidkit.search.item_pictures import shown_picture, thumbnails_of


@dataclass(frozen=True, slots=True)
class ItemCell:
    """An item as a page shows it; ``data_uri`` is empty where ``problem`` says why there is no picture."""

    id: int
    name: str
    camera: str
    time: str
    is_proposed: bool
    data_uri: str
    problem: str


def item_cells(items: Sequence[Item], gallery: Gallery | None = None) -> tuple[ItemCell, ...]:
    """Items for a page; the gallery's thumbnails stand in for pictures that are gone."""
    small = thumbnails_of(items, gallery)
    return tuple(_item_cell(item, small.get(item.id)) for item in items)


def _item_cell(item: Item, thumbnail: bytes | None) -> ItemCell:
    name = Path(item.source).name if item.source else f"#{item.id}"
    data_uri = problem = ""
    try:
        data_uri = as_data_uri(shown_picture(item, thumbnail))
    except DataError as error:
        problem = str(error).replace(str(item.source), name)
    return ItemCell(
        id=item.id,
        name=name,
        camera="" if item.camera is None else str(item.camera),
        time="" if item.time is None else moment(item.time),
        is_proposed=item.identity is None,
        data_uri=data_uri,
        problem=problem,
    )
