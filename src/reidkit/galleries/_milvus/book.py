"""The small collection beside a gallery's items: its state, who is writing, what people decided.

Milvus has no transactions. What makes a change happen as a whole is that one row here says what counts: the
*state*. Rows carry the number of their change, and a reader passes over those of changes that its state does
not know, or knows to be unfinished. (:mod:`reidkit.galleries._milvus.changes` tells the order of steps.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pymilvus import DataType, MilvusClient

from reidkit.errors import DataError
from reidkit.galleries._milvus.server import Entity, Server

FORMAT = 1
LONGEST_TEXT = 65_535  # bytes that a field holds
_PIECE = 60_000
_FIELDS = ("key", "kind", "change", "item", "text")
_KEYS_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class State:
    """What a gallery is, and which rows count: those of changes before ``next_change`` but not ``left_out``.

    ``pending`` is the change that is being written, and among ``left_out``. ``removing`` is the change whose
    removed rows may still be there. ``num_removals`` counts changes that remove rows.
    """

    items: str = ""  # the collection of items; none before the first
    dimension: int | None = None
    encoder: dict[str, Any] | None = None
    index: str = "exact"
    recall: dict[str, Any] | None = None
    next_id: int = 1
    next_version: int = 1
    next_change: int = 1
    next_decision: int = 1
    left_out: tuple[int, ...] = ()
    pending: int = 0
    removing: int = 0
    num_removals: int = 0
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class Text:
    """What is written in the book under a key; ``item`` is the id of what it is of."""

    kind: str
    key: str
    text: str
    item: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """Which state is the newest: that of the last writer, and of its states the last.

    A writer that was taken for dead, and comes back, has a lower number than its successor. What it writes
    then is no state any more.
    """

    number: int
    writer: str
    step: int


NOTHING = Mark(0, "", 0)


@dataclass(frozen=True, slots=True)
class Claims:
    """The newest state, keys of those before it, and what writers claim: a number, until when, over whom."""

    mark: Mark
    state: State
    former: list[str]
    of_writers: dict[str, dict[str, Any]]


class Book:
    """The collection, of one gallery."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.name = f"reid_{server.address.gallery}_book"

    def make(self) -> None:
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=200)
        schema.add_field("kind", DataType.VARCHAR, max_length=20)
        schema.add_field("change", DataType.INT64)
        schema.add_field("item", DataType.INT64)
        schema.add_field("text", DataType.VARCHAR, max_length=LONGEST_TEXT)
        schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)  # Milvus wants one in each collection
        index = {"field_name": "nothing", "index_type": "FLAT", "metric_type": "L2"}
        self._server.create(self.name, schema, index)

    def put(self, texts: Iterable[Text], change: int) -> None:
        """Write texts under their keys, long ones in pieces."""
        rows = (
            _row(text.kind, f"{text.key}-{piece:04}", text.text[start : start + _PIECE], change, text.item)
            for text in texts
            for piece, start in enumerate(range(0, max(1, len(text.text)), _PIECE))
        )
        self._server.put(self.name, rows, bytes_each=_PIECE)

    def texts(self, kind: str, where: str = "", *, strong: bool = False) -> list[Text]:
        """What is there of a kind, by key; pieces put together."""
        condition = f'kind == "{kind}"' + (f" and {where}" if where else "")
        whole: dict[tuple[str, int], list[str]] = {}
        found = self._server.query(self.name, condition, ("key", "item", "text"), strong=strong)
        for row in sorted(found, key=lambda row: str(row["key"])):
            whole.setdefault((_without_piece(row["key"]), row["item"]), []).append(row["text"])
        return [Text(kind, key, "".join(pieces), item) for (key, item), pieces in whole.items()]

    def keys(self, kind: str, where: str, *, strong: bool = False) -> list[tuple[str, int]]:
        """Keys of what is there of a kind, and of which items it is."""
        condition = f'kind == "{kind}" and {where}'
        found = self._server.query(self.name, condition, ("key", "item"), strong=strong)
        return sorted({(_without_piece(row["key"]), row["item"]) for row in found})

    def drop(self, keys: Iterable[str]) -> None:
        """Delete texts, all pieces of each."""
        wanted = sorted(keys)
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            some = set(wanted[start : start + _KEYS_AT_ONCE])
            between = f'key >= "{min(some)}" and key <= "{max(some)}-9999"'
            there = self._server.query(self.name, between, ("key",), strong=True)
            self._server.delete(
                self.name, [row["key"] for row in there if _without_piece(row["key"]) in some]
            )

    # --- state and claims ---------------------------------------------------------------------------------

    def state(self, *, strong: bool = False) -> tuple[Mark, State]:
        """The newest state; one of an empty gallery where there is none yet."""
        return _newest(self._server.query(self.name, 'kind == "state"', _FIELDS, strong=strong))

    def put_state(self, mark: Mark, state: State) -> None:
        text = json.dumps(asdict(state))
        if len(text) > LONGEST_TEXT:
            raise DataError(
                f"{self._server.address}: what is told of the encoder takes more than the {LONGEST_TEXT:,} "
                "bytes that Milvus keeps; a fingerprint and a path are enough"
            )
        key = f"state {mark.number:019} {mark.writer} {mark.step:019}"
        self._server.put(self.name, [_row("state", key, text)])

    def claims(self) -> Claims:
        """The newest state, and what each writer claims."""
        rows = self._server.query(self.name, 'kind in ["state", "claim"]', _FIELDS, strong=True)
        states = [row for row in rows if row["kind"] == "state"]
        mark, state = _newest(states)
        former = [row["key"] for row in states if _mark(row["key"]) < mark]
        claims = {
            row["key"].removeprefix("claim "): json.loads(row["text"])
            for row in rows
            if row["kind"] == "claim"
        }
        return Claims(mark, state, former, claims)

    def drop_states(self, keys: Sequence[str]) -> None:
        self._server.delete(self.name, keys)

    def put_claim(self, writer: str, **claim: Any) -> None:
        self._server.put(self.name, [_row("claim", f"claim {writer}", json.dumps(claim))])

    def drop_claims(self, writers: Sequence[str]) -> None:
        self._server.delete(self.name, [f"claim {writer}" for writer in writers])

    # --- what is to be removed ----------------------------------------------------------------------------

    def put_removals(self, change: int, versions: Sequence[int], keys: Sequence[str]) -> None:
        """What a change removes: rows of items, and texts."""
        self.put([Text("removal", f"removal {change}", json.dumps([list(versions), list(keys)]))], change)

    def removals(self, change: int) -> tuple[list[int], list[str]]:
        """The same, as it was written; nothing where some of it is gone, since what was on it went before."""
        try:
            [found] = self.texts("removal", f"change == {change}", strong=True)
            versions, keys = json.loads(found.text)
        except ValueError:
            return [], []
        return versions, keys

    def drop_change(self, change: int) -> None:
        """Delete all that a change wrote here."""
        rows = self._server.query(self.name, f"change == {change}", ("key",), strong=True)
        self._server.delete(self.name, [row["key"] for row in rows])


def _row(kind: str, key: str, text: str, change: int = 0, item: int = 0) -> Entity:
    return {"key": key, "kind": kind, "change": change, "item": item, "text": text, "nothing": [0.0, 0.0]}


def _without_piece(key: str) -> str:
    return key.rpartition("-")[0]


def _mark(key: str) -> Mark:
    _, number, writer, step = key.split(" ")
    return Mark(int(number), writer, int(step))


def _newest(rows: Sequence[Entity]) -> tuple[Mark, State]:
    if not rows:
        return NOTHING, State()
    row = max(rows, key=lambda row: _mark(row["key"]))
    kept = json.loads(row["text"])
    if kept["format"] > FORMAT:
        raise DataError(
            f"the gallery has format {kept['format']}; this version of reidkit reads up to format {FORMAT}: "
            "update it"
        )
    return _mark(row["key"]), State(**{**kept, "left_out": tuple(kept["left_out"])})
