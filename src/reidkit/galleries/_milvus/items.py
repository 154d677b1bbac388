"""Items of a gallery on Milvus: one row each, with its labels as text, their tags, and checksums.

The primary key is a row's ``version``, new each time something of an item changes: so that what was and what
will be can stand beside each other until the change is done.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient

from reidkit.errors import DataError
from reidkit.galleries._milvus.book import LONGEST_TEXT
from reidkit.galleries._milvus.changes import View
from reidkit.galleries._milvus.server import IDS_AT_ONCE, Entity, Server
from reidkit.galleries._milvus.where import compared, of_numbers, source_key, tags
from reidkit.galleries._records import Row
from reidkit.galleries._served import Stored, embedding_checksum

LARGEST_DIMENSION = 32_768  # of Milvus
SMALLEST_DIMENSION = 2
MOST_TAGS = 4096  # that a row carries
INDEXES: dict[str, dict[str, Any]] = {
    "exact": {"index_type": "FLAT", "params": {}},
    "hnsw": {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}},
}

_LABEL_FIELDS = ("version", "record", "labels_checksum")
ALL_FIELDS = (*_LABEL_FIELDS, "embedding_checksum", "embedding")
_ROW_FIELDS = tuple(field.name for field in fields(Row))


@dataclass(frozen=True, slots=True, eq=False)
class Version(Stored):
    """An item as it was read, and the key of the row that it was read from."""

    version: int = 0


class Items:
    """The collection, of one gallery."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def make(self, dimension: int, index: str) -> str:
        """Make a collection for embeddings of this length; its name, which no other has.

        So a writer that comes back late cannot have made, or dropped, that of its successor.
        """
        if not SMALLEST_DIMENSION <= dimension <= LARGEST_DIMENSION:
            raise DataError(
                f"embeddings have {dimension:,} numbers each; {self._server.address} takes "
                f"{SMALLEST_DIMENSION} to {LARGEST_DIMENSION:,}, as Milvus does: keep them in a folder"
            )
        name = f"reid_{self._server.address.gallery}_items_{uuid.uuid4().hex[:12]}"
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("version", DataType.INT64, is_primary=True)
        for number in ("id", "change", "labels_checksum", "embedding_checksum"):
            schema.add_field(number, DataType.INT64)
        schema.add_field("time", DataType.DOUBLE)
        schema.add_field("source", DataType.VARCHAR, max_length=32)
        tag = {"element_type": DataType.VARCHAR, "max_length": 32}
        schema.add_field("tags", DataType.ARRAY, max_capacity=MOST_TAGS, **tag)
        schema.add_field("own", DataType.JSON)
        schema.add_field("record", DataType.VARCHAR, max_length=LONGEST_TEXT)
        schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=dimension)
        described = {"field_name": "embedding", "metric_type": "IP", **INDEXES[index]}
        self._server.create(name, schema, described)
        return name

    # --- reading ------------------------------------------------------------------------------------------

    def read(
        self, view: View, where: str, *, embeddings: bool = False, strong: bool = False
    ) -> list[Version]:
        """Items in the order in which they were written; compare them by ``check``."""
        if not view.state.items:
            return []
        found = self._server.query(view.state.items, view.items(where), _fields(embeddings), strong=strong)
        return sorted(map(version_of, found), key=lambda item: item.row.row)

    def with_numbers(
        self,
        view: View,
        field: str,
        numbers: Iterable[int],
        *,
        embeddings: bool = False,
        strong: bool = False,
    ) -> list[Version]:
        """The items whose id or version is one of these numbers."""
        listed = sorted(set(numbers))
        return [
            item
            for start in range(0, len(listed), IDS_AT_ONCE)
            for item in self.read(
                view,
                of_numbers(field, listed[start : start + IDS_AT_ONCE]),
                embeddings=embeddings,
                strong=strong,
            )
        ]

    def pieces(self, view: View, where: str = "") -> Iterator[list[Version]]:
        """All items that an expression lets through, with their embeddings, some at a time, in no order."""
        if view.state.items:
            for some in self._server.pieces(view.state.items, view.items(where), ALL_FIELDS):
                yield [version_of(row) for row in some]

    def count(self, view: View, where: str = "", *, strong: bool = False) -> int:
        if not view.state.items:
            return 0
        return self._server.count(view.state.items, view.items(where), strong=strong)

    def has(self, view: View, where: str) -> bool:
        """Whether there is an item that an expression lets through."""
        return self.count(view, where) > 0


def entity(row: Row, version: int, embedding: NDArray[np.float32], location: str) -> Entity:
    """An item as it is stored, but for its change. :class:`DataError` where it has more than Milvus keeps."""
    record = json.dumps([getattr(row, name) for name in _ROW_FIELDS], separators=(",", ":"))
    carried, own = tags(row), compared(row)
    if max(len(record), len(json.dumps(own))) > LONGEST_TEXT or len(carried) > MOST_TAGS:
        raise DataError(
            f"an item has labels of {len(record):,} characters under {len(carried) // 2:,} names; {location} "
            f"keeps {LONGEST_TEXT:,} characters and {MOST_TAGS // 2:,} names: write them shorter"
        )
    return {
        "version": version,
        "id": row.id,
        "time": 0.0 if row.time is None else row.time,
        "source": source_key(row.source),
        "tags": carried,
        "own": own,
        "record": record,
        "labels_checksum": row.values()[-1],
        "embedding_checksum": embedding_checksum(row.id, embedding),
        "embedding": embedding,
    }


def bytes_each(entities: Sequence[Entity]) -> int:
    """About how many bytes a row takes in a request."""
    sizes = [4 * len(one["embedding"]) + len(one["record"]) + 35 * len(one["tags"]) for one in entities]
    return max(sizes, default=1)


def _fields(embeddings: bool) -> tuple[str, ...]:
    return ALL_FIELDS if embeddings else _LABEL_FIELDS


def version_of(found: Entity) -> Version:
    """An item from the fields of its row."""
    try:
        row = Row(*json.loads(found["record"]))
    except (ValueError, TypeError):
        row = Row(0, 0, None, None, None, None, None)  # whose checksum then is another
    if "embedding" not in found:
        return Version(row, found["labels_checksum"], version=found["version"])
    embedding = np.array(found["embedding"], np.float32)
    return Version(
        row, found["labels_checksum"], found["embedding_checksum"], embedding, version=found["version"]
    )
