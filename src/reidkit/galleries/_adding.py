"""Additions to the embedded gallery, several in one transaction: which rows and ids their items get."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import DataError, ReidError
from reidkit.galleries._contract import Addition
from reidkit.galleries._given import unit_embeddings
from reidkit.galleries._origin import check_encoder
from reidkit.galleries._records import Row, State


@dataclass(eq=False)
class Placed:
    """What a gallery gets by additions, one after another.

    ``state`` is that of the gallery with all of it. ``items`` are by id, the last of each: one addition may
    replace what an earlier one put there. ``others`` are ids of items that show another picture than before;
    ``thumbnails`` are by id, ``None`` where an item has none.
    """

    location: str
    state: State
    there: dict[str, Row]
    items: dict[int, Row] = field(default_factory=dict)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)
    others: set[int] = field(default_factory=set)
    thumbnails: dict[int, bytes | None] = field(default_factory=dict)

    @classmethod
    def after(cls, state: State, there: Sequence[Row], location: str) -> Placed:
        """Nothing yet; ``there`` are the items whose sources the additions name."""
        return cls(location, state, {row.source: row for row in there if row.source is not None})

    def try_add(self, addition: Addition) -> NDArray[np.int64] | Exception:
        """Ids (N,) of an addition, which then is among what is placed, or why it cannot be."""
        try:
            return self._add(addition)
        except ReidError as error:
            return error

    def _add(self, addition: Addition) -> NDArray[np.int64]:
        vectors, described = addition.embeddings, addition.labels
        state = self._with_encoder(addition.origin)
        unit_embeddings(vectors[:1], dimension=state.dimension, location=self.location)
        known = [None if label.source is None else self.there.get(label.source) for label in described]
        num_known = len(known) - known.count(None)
        if num_known and addition.on_duplicate == "error":
            example = next(row.source for row in known if row is not None)
            raise DataError(
                f"{self.location} holds {num_known} of these {len(described)} sources already, such as "
                f"{example!r}; nothing was added: choose on_duplicate='replace' or 'skip'"
            )
        new_ids = itertools.count(state.next_id)
        ids = [next(new_ids) if row is None else row.id for row in known]
        fresh = [i for i, row in enumerate(known) if row is None or addition.on_duplicate == "replace"]
        for number, index in enumerate(fresh, state.num_rows):
            row, before = Row.labelled(ids[index], number, described[index]), known[index]
            if before is not None and before.content != row.content:
                self.others.add(row.id)
            self.items[row.id] = row
            self.thumbnails[row.id] = addition.thumbnails[index]
            if row.source is not None:
                self.there[row.source] = row
        self.vectors.append(vectors if len(fresh) == len(vectors) else vectors[fresh])
        self.state = replace(
            state,
            num_rows=state.num_rows + len(fresh),
            num_items=state.num_items + len(known) - num_known,
            next_id=next(new_ids),
            dimension=vectors.shape[1],
        )
        return np.array(ids, np.int64)

    def _with_encoder(self, origin: dict[str, Any] | None) -> State:
        """The state, if embeddings of this origin may be added; the first ones tell whose the gallery is."""
        state = self.state
        if origin is not None and state.encoder is not None:
            recorded = json.loads(state.encoder)
            check_encoder(recorded, origin, num_items=state.num_items, location=self.location)
        elif origin is not None and not state.num_items:
            return replace(state, encoder=json.dumps(origin))
        return state
