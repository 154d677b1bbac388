"""What a gallery holds, counted for its owner: people, cameras, and what is not known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit.errors import DataError
from reidkit.labels import is_junk
from reidkit.texts.files import is_file

if TYPE_CHECKING:
    from reidkit.galleries import Gallery

MOST_COUNTED = 1_000_000
"""Items whose labels are read to count them; with more it takes minutes."""
_NUM_LOOKED_FOR = 100  # pictures that may be gone before none is named


def contents(gallery: Gallery) -> dict[str, Any]:
    """``num_people``, ``num_cameras``, how many items are ``num_without_identity``, ``..._camera`` and
    ``..._time``, and the ``first_picture`` that is still in its place; of a very large gallery, or a damaged
    one, ``not_counted`` says why there are none."""
    if len(gallery) > MOST_COUNTED:
        return {"not_counted": f"people and cameras of more than {MOST_COUNTED:,} items"}
    try:
        items = gallery.items()
    except DataError:
        return {"not_counted": "people and cameras, since labels are damaged: see reid gallery verify"}
    people = {item.identity for item in items if item.identity is not None and not is_junk(item.identity)}
    return {
        "num_people": len(people),
        "num_cameras": len({item.camera for item in items} - {None}),
        "num_without_identity": sum(item.identity is None for item in items),
        "num_without_camera": sum(item.camera is None for item in items),
        "num_without_time": sum(item.time is None for item in items),
        "first_picture": next(
            (item.source for item in items[:_NUM_LOOKED_FOR] if item.source and is_file(Path(item.source))),
            None,
        ),
    }
