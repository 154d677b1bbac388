"""From one gallery to another, of any two engines: resumed where it stopped, and compared when it is done.

An item is known by a hash of its labels and its embedding, so that an interrupted copy needs no record of how
far it came. Identities are left out of it: people's decisions change them, and are repeated on the copy one
by one, each from what was before it.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries._given import unit_embeddings
from reidkit.galleries._items import Item

if TYPE_CHECKING:
    from reidkit.galleries import Decision, Gallery
    from reidkit.galleries._export import ExportedGallery
    from reidkit.progress import ProgressCallback

AT_ONCE = 2000  # items whose embeddings are held, and which are added in one change
_ROUNDED = 0.99  # cosine similarity that a rounded embedding keeps at least


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did. ``num_there`` of the ``num_items`` items had been copied before."""

    num_items: int
    num_there: int
    num_decisions: int

    def __str__(self) -> str:
        before = f", {self.num_there:,} of them earlier" if self.num_there else ""
        decisions = f" and {self.num_decisions:,} decisions" if self.num_decisions else ""
        return f"copied {self.num_items:,} items{before}{decisions}; labels and embeddings were compared"


def copy_gallery(
    source: Gallery | ExportedGallery, target: Gallery, *, progress: ProgressCallback | None = None
) -> Copied:
    """Copy all items and decisions; then compare, item by item, what the target holds.

    Items get ids of the target's own. What the target holds besides stays. An interrupted copy goes on
    where it stopped. Where the target rounds what it stores, embeddings are compared as far as that allows.

    Args:
        source: must not change meanwhile; if it does, the comparison says so.
        target: opened with the source's encoder; it may hold part of the copy already, or other items.
        progress: called with a number of items, and that of all: so much of the work is done.

    Raises:
        ConfigError: both are the same gallery.
        DataError: an item of the target has the source of another item, or decisions of its own; or what was
            copied is not what the source holds.
    """
    if os.path.realpath(source.location) == os.path.realpath(target.location):
        raise ConfigError(
            f"{source.location} and {target.location} are the same gallery; name another target"
        )
    copy = _Copy(source, target, progress)
    num_there = len(copy.pairs)
    copy.add_items()
    num_decisions = copy.repeat_decisions()
    copy.settle_identities()
    copy.compare()
    return Copied(len(copy.items), num_there, num_decisions)


class _Copy:
    """A copy on its way; ``pairs`` are ids of the source's items and their copies."""

    def __init__(
        self, source: Gallery | ExportedGallery, target: Gallery, progress: ProgressCallback | None
    ) -> None:
        self.source, self.target, self._progress = source, target, progress
        self.items = source.items()
        self.rounds = target.info().get("storage", "float32") != "float32"
        there = target.items()
        self._done, self._total = 0, 2 * len(self.items) + len(there)
        self._keys: dict[int, bytes] = {}  # of the source's items
        self.pairs: dict[int, int] = {}
        self._pair(there)

    def _pair(self, there: Sequence[Item]) -> None:
        """Find what was copied before: items that are the same, in their order."""
        copies: dict[bytes, list[int]] = defaultdict(list)
        for some, embeddings in self._read(self.target, there):
            for item, embedding in zip(some, embeddings, strict=True):
                copies[self._key(item, embedding)].append(item.id)
        for found in copies.values():
            found.reverse()
        if not there:
            return
        for some, embeddings in self._read(self.source, self.items, tell=False):
            for item, embedding in zip(some, embeddings, strict=True):
                if same := copies.get(self._key(item, embedding)):
                    self.pairs[item.id] = same.pop()

    def add_items(self) -> None:
        """Add what is missing, with the identities that the first decisions on it were made on."""
        first = dict[int, str | None]()
        for decision in self.source.decisions():
            first = dict(zip(decision.items, decision.before, strict=True)) | first
        missing = [item for item in self.items if item.id not in self.pairs]
        self._step(len(self.items) - len(missing))
        for some, embeddings in self._read(self.source, missing):
            named = [replace(item, identity=first.get(item.id, item.identity)) for item in some]
            self._check_sources(named)
            small = self.source.thumbnails(ids=[item.id for item in some])
            thumbnails = [small.get(item.id) for item in some] if small else None
            labels = _labels(named)
            ids = self.target.add(embeddings, **labels, thumbnails=thumbnails, on_duplicate="error")
            self.pairs |= zip((item.id for item in some), ids.tolist(), strict=True)

    def _check_sources(self, items: Sequence[Item]) -> None:
        names = [item.source for item in items if item.source is not None]
        taken = self.target.items(where={"source": names}) if names else []
        if taken:
            raise DataError(
                f"{self.target.location} holds {len(taken)} of the sources of {self.source.location} with "
                f"other labels or another embedding, such as {shown(taken[0].source)}; copy into a gallery "
                "of its own, or remove these items there"
            )

    def repeat_decisions(self) -> int:
        """Repeat what people decided; how many decisions there are."""
        decisions, there = self.source.decisions(), self.target.decisions()
        if not decisions:
            return 0
        ids: dict[int | None, int | None] = {None: None}
        for index, decision in enumerate(decisions):
            items = tuple(self.pairs[id] for id in decision.items)
            wanted = replace(decision, items=items, undoes=ids.get(decision.undoes), id=None)
            if index < len(there):
                kept = there[index]
                if replace(kept, id=None) != wanted:
                    raise DataError(
                        f"{self.target.location} holds decisions of its own, to which those of "
                        f"{self.source.location} cannot be added; copy into a gallery of its own"
                    )
            else:
                kept = self._decide(wanted)
            ids[decision.id] = kept.id
        return len(decisions)

    def _decide(self, decision: Decision) -> Decision:
        self._name(dict(zip(decision.items, decision.before, strict=True)))
        [kept] = self.target.decide([decision])
        return kept

    def settle_identities(self) -> None:
        """Give the copies the identities that the items have now."""
        self._name({self.pairs[item.id]: item.identity for item in self.items})

    def _name(self, identities: Mapping[int, str | None]) -> None:
        now = {item.id: item.identity for item in self.target.items(ids=list(identities))}
        others = {id: identity for id, identity in identities.items() if now[id] != identity}
        if others:
            self.target.relabel(list(others), identities=list(others.values()))

    def compare(self) -> None:
        """Raise :class:`DataError` where a copy is not what its item is."""
        wrong, changed = 0, self.source.items() != self.items
        for some, embeddings in self._read(self.source, self.items, tell=False):
            ids = [self.pairs[item.id] for item in some]
            copies, rows = self.target.items(ids=ids), self.target.embeddings(ids=ids)
            originals = self.source.thumbnails(ids=[item.id for item in some])
            small = self.target.thumbnails(ids=ids)
            self._step(len(some))
            same = np.einsum("nd,nd->n", embeddings, rows) >= _ROUNDED
            if not self.rounds:
                same = (embeddings == rows).all(axis=1)
            for item, copied, is_same in zip(some, copies, same.tolist(), strict=True):
                is_same &= small.get(copied.id) == originals.get(item.id)
                wrong += not is_same or replace(copied, id=item.id) != item
        if wrong or changed:
            raise DataError(
                f"{wrong:,} of {len(self.items):,} copies in {self.target.location} are not what "
                f"{self.source.location} holds; one of the two was changed meanwhile: copy again"
            )

    def _read(
        self, gallery: Gallery | ExportedGallery, items: Sequence[Item], *, tell: bool = True
    ) -> Iterator[tuple[Sequence[Item], NDArray[np.float32]]]:
        """Items with their embeddings (N, D), as a gallery stores what it is given, some at a time."""
        for start in range(0, len(items), AT_ONCE):
            some = items[start : start + AT_ONCE]
            rows = gallery.embeddings(ids=[item.id for item in some])
            yield some, unit_embeddings(rows, location=gallery.location)
            if tell:
                self._step(len(some))

    def _step(self, num: int) -> None:
        self._done += num
        if self._progress is not None:
            num = len(self.items)
            self._progress(num * self._done // max(1, self._total), num)

    def _key(self, item: Item, embedding: NDArray[np.float32]) -> bytes:
        """By which a copy is known: a rounded embedding is no part of it."""
        digest = hashlib.blake2b(ascii(replace(item, id=0, identity=None)).encode(), digest_size=16)
        if not self.rounds:
            digest.update(embedding.tobytes())
        return digest.digest()


def _labels(items: Sequence[Item]) -> dict[str, Any]:
    """Arguments of :meth:`Gallery.add` for items with these labels."""
    names = {name for item in items for name in item.labels}
    return {
        "sources": [item.source for item in items],
        "identities": [item.identity for item in items],
        "cameras": [item.camera for item in items],
        "times": [item.time for item in items],
        "contents": [item.content for item in items],
        "tracklets": [item.tracklet for item in items],
        "frames": [item.frame for item in items],
        "boxes": [item.box for item in items],
        "labels": {name: [item.labels.get(name) for item in items] for name in sorted(names)},
    }
