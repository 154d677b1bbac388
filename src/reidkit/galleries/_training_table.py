"""A gallery's labelled items as a table to train on: the data set "table"."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.errors import DataError
from reidkit.files import write_atomically
from reidkit.galleries._items import Item
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries import Gallery
    from reidkit.galleries._where import Where

_COLUMNS = ("path", "identity", "camera", "tracklet", "time")


def write_training_table(
    gallery: Gallery, path: str | Path, *, where: Where | None = None
) -> tuple[int, list[str]]:
    """Write path, identity, camera, tracklet and time of the items whose identity is known, as CSV.

    Tracklets are numbered; a camera that is not known is -1. Columns of which nothing is known are left out.

    Returns:
        How many items were written, and what was left out, in sentences.

    Raises:
        DataError: no item can be written.
        WriteError: the file cannot be written.
    """
    items = gallery.items(where=where)
    left_out: dict[str, list[Item]] = {}
    kept = []
    for item in items:
        reason = _why_not(item)
        if reason is None:
            kept.append(item)
        else:
            left_out.setdefault(reason, []).append(item)
    told = [
        f"{counted(len(some), 'item')} {reason}, #{some[0].id} first" for reason, some in left_out.items()
    ]
    if not kept:
        raise DataError("no item can be trained on: " + ("; ".join(told) or "there are none"))
    numbers = {name: number for number, name in enumerate(sorted({item.tracklet or "" for item in kept}))}
    rows = [_row(item, numbers) for item in kept]
    columns = [name for name in _COLUMNS if any(getattr(item, name, True) is not None for item in kept)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
    return len(kept), told


def _why_not(item: Item) -> str | None:
    if item.identity is None:
        return "without an identity"
    if item.source is None:
        return "without a picture's path"
    try:
        item.source.encode()
    except UnicodeEncodeError:
        return "whose path is not Unicode, which a table cannot hold"
    if Path(item.source).is_file():
        return None
    is_crop = Path(item.source.rpartition("#")[0]).is_file()
    return "cut out of larger pictures, which a table cannot say" if is_crop else "whose picture is gone"


def _row(item: Item, tracklets: Mapping[str, int]) -> dict[str, object]:
    return {
        "path": item.source,
        "identity": item.identity,
        "camera": -1 if item.camera is None else item.camera,
        "tracklet": "" if item.tracklet is None else tracklets[item.tracklet],
        "time": "" if item.time is None else item.time,
    }
