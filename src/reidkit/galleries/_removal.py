"""Taking items out for good: by condition, by person, by age."""

from __future__ import annotations

import time
from collections.abc import Set
from typing import TYPE_CHECKING

from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries._feedback import PROPOSAL
from reidkit.galleries._labels import EARLIEST, age
from reidkit.labels import label_text, near_labels

if TYPE_CHECKING:
    from reidkit.galleries import Gallery
    from reidkit.galleries._where import Where


def erase(gallery: Gallery, where: Where, *, dry_run: bool = False) -> int:
    """Remove the items that ``where`` lets through, and every byte of them; how many that is.

    Raises :class:`ConfigError` without conditions; ``where={}`` is everything.
    """
    if where is None:
        raise ConfigError("erase needs where=; where={} erases everything")
    if dry_run:
        return len(gallery.items(where=where))
    named = {item.identity for item in gallery.items(where=where)} - {None}
    num = gallery.remove(where=where)
    _withdraw_proposals(gallery, named)
    gallery.compact(erase=True)
    return num


def _withdraw_proposals(gallery: Gallery, names: Set[str | None]) -> None:
    """Take names that no item has any more from those that are proposed to have them."""
    left = gallery.items() if names else []
    gone = names - {item.identity for item in left}
    stale = [item.id for item in left if item.labels.get(PROPOSAL) in gone]
    if stale:
        gallery.relabel(stale, labels={PROPOSAL: [None] * len(stale)})


def forget(gallery: Gallery, identity: str, *, dry_run: bool = False) -> int:
    """:func:`erase` all items of a person; :class:`DataError` where there is none of that name."""
    num = erase(gallery, {"identity": identity}, dry_run=True)
    if not num:
        known = {item.identity for item in gallery.items() if item.identity is not None}
        near = near_labels(label_text(identity) or "", known)
        meant = f"; did you mean {shown(near[0])}?" if near else ""
        raise DataError(f"the gallery holds no identity {shown(identity)}{meant}")
    return num if dry_run else erase(gallery, {"identity": identity})


def expire(gallery: Gallery, older_than: str, *, dry_run: bool = False) -> int:
    """:func:`erase` all items older than an age such as "30d"; those without a time stay."""
    return erase(gallery, {"time": {"to": max(EARLIEST, time.time() - age(older_than))}}, dry_run=dry_run)
