"""Thumbnails of a gallery's items on Milvus: texts of its book, in base 64."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from reidkit.galleries._milvus.book import Book, State, Text
from reidkit.galleries._milvus.changes import View
from reidkit.galleries._milvus.where import of_numbers
from reidkit.galleries._thumbnails_table import checksum_of, told

AT_ONCE = 200  # items whose thumbnails are asked for in one request


class Thumbnails:
    """Those of one gallery. Of each there is one, or none."""

    def __init__(self, book: Book) -> None:
        self._book = book

    def read(self, view: View, ids: Sequence[int]) -> tuple[dict[int, bytes], list[int]]:
        """Those of these items that have one, and the ids of those that are not what was written."""
        rows = [
            row
            for start in range(0, len(ids), AT_ONCE)
            for row in self._rows(view, of_numbers("item", ids[start : start + AT_ONCE]))
        ]
        return told(rows)

    def damaged(self, view: View) -> list[int]:
        """Ids of all thumbnails that are not what was written."""
        return sorted(self.read(view, self._ids(view))[1])

    def count(self, view: View) -> int:
        return len(self._ids(view))

    def keys(self, view: View, ids: Collection[int]) -> list[str]:
        """Keys of what there is of these items; for who changes it."""
        if not ids:
            return []
        there = self._book.keys("thumbnail", f"{view.counting} and {of_numbers('item', ids)}", strong=True)
        return [key for key, _ in there]

    def _ids(self, view: View) -> list[int]:
        there = self._book.keys("thumbnail", view.counting)
        return [item for key, item in there if key not in view.removed_texts]

    def _rows(self, view: View, where: str) -> Iterator[tuple[int, object, object]]:
        for kept in self._book.texts("thumbnail", f"{view.counting} and {where}"):
            if kept.key not in view.removed_texts:
                checksum, _, data = kept.text.partition(" ")
                yield kept.item, *_read(checksum, data)


def as_texts(thumbnails: Mapping[int, bytes | None], state: State) -> tuple[list[Text], State]:
    """Thumbnails by id as they are written, under keys that are drawn from the state."""
    known = [(id, data) for id, data in thumbnails.items() if data is not None]
    first = state.next_version
    texts = [
        Text("thumbnail", f"thumbnail {version:019}", _written(id, data), id)
        for version, (id, data) in enumerate(known, first)
    ]
    return texts, replace(state, next_version=first + len(known))


def _written(id: int, data: bytes) -> str:
    return f"{checksum_of(id, data)} {base64.b64encode(data).decode()}"


def _read(checksum: str, data: str) -> tuple[int, bytes] | tuple[None, None]:
    try:
        return int(checksum), base64.b64decode(data, validate=True)
    except ValueError:
        return None, None
