"""What people decided of the items of a gallery on Milvus: texts of its book."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace

from reidkit.errors import ReidError
from reidkit.galleries import DamagedGallery
from reidkit.galleries._decisions import Decision, without
from reidkit.galleries._decisions_table import as_row, from_row
from reidkit.galleries._milvus.book import Book, State, Text
from reidkit.galleries._milvus.changes import View

Kept = dict[str, Decision]
"""Decisions by the keys of their texts, in their order."""


class Decisions:
    """Those of one gallery."""

    def __init__(self, book: Book, location: str) -> None:
        self._book, self._location = book, location

    def read(self, view: View, *, strong: bool = False) -> Kept:
        """All decisions; :class:`DamagedGallery` where one is not what was written."""
        kept, damaged = self.sorted_out(view, strong=strong)
        if damaged:
            raise DamagedGallery(
                f"{self._location} is damaged: {len(damaged)} decisions are not what was written; "
                f"`reid gallery repair '{self._location}' --drop` drops them"
            )
        return kept

    def sorted_out(self, view: View, *, strong: bool = False) -> tuple[Kept, list[str]]:
        """Decisions that are what was written, and the keys of those that are not."""
        whole, damaged = Kept(), list[str]()
        for kept in self._book.texts("decision", view.counting, strong=strong):
            if kept.key in view.removed_texts:
                continue
            try:
                whole[kept.key] = from_row(tuple(json.loads(kept.text)))
            except (ReidError, ValueError, TypeError, RecursionError):
                damaged.append(kept.key)
        return dict(sorted(whole.items(), key=lambda pair: pair[1].id or 0)), damaged

    def without(
        self, view: View, removed: Collection[int], forgotten: Collection[str]
    ) -> tuple[list[str], list[Decision]]:
        """Keys of the decisions that name removed items or forgotten people, and what is left of these."""
        kept = self.read(view, strong=True)
        keys = {decision.id: key for key, decision in kept.items()}
        changed = list(without(list(kept.values()), removed, forgotten))
        return [keys[decision.id] for decision, _ in changed], [
            left for _, left in changed if left is not None
        ]


def as_texts(decisions: Sequence[Decision], state: State) -> tuple[list[Text], State]:
    """Decisions as they are written, under keys that are drawn from the state."""
    first = state.next_version
    texts = [
        Text("decision", f"decision {version:019}", json.dumps(as_row(decision)))
        for version, decision in enumerate(decisions, first)
    ]
    return texts, replace(state, next_version=first + len(decisions))
