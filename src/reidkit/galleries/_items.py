"""What a gallery tells: items, hits of a search, groups of them, and what a check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from reidkit.galleries._labels import LABELS, utc
from reidkit.galleries._places import PLACES, Box, box_text


@dataclass(frozen=True, slots=True)
class Item:
    """One embedding's labels; ``None`` means unknown.

    ``identity`` is a text, as it was written; ``camera`` a number or a name; ``time`` in Unix seconds;
    ``content`` the hash of the picture that was embedded; ``tracklet`` the track that it is of; ``frame``
    the number of the picture in its video or sequence; ``box`` where in it the item is: left, top, right and
    bottom in pixels; ``labels`` those of one's own that are known: texts, numbers, truth values, UTC times.
    """

    id: int
    source: str | None
    identity: str | None
    camera: int | str | None
    time: float | None
    content: str | None = field(default=None, kw_only=True)
    tracklet: str | None = field(default=None, kw_only=True)
    frame: int | None = field(default=None, kw_only=True)
    box: Box | None = field(default=None, kw_only=True)
    labels: dict[str, str | int | float | bool | datetime] = field(
        default_factory=dict, kw_only=True, hash=False
    )

    def label(self, name: str) -> Any:
        """The label of that name, one of one's own too; ``None`` where it is not known."""
        return getattr(self, name) if name in LABELS or name in PLACES else self.labels.get(name)

    def __str__(self) -> str:
        parts = [f"#{self.id}"]
        if self.source is not None:
            parts.append(self.source)
        if self.identity is not None:
            parts.append(f"identity {self.identity}")
        if self.camera is not None:
            parts.append(f"camera {self.camera}")
        if self.time is not None:
            parts.append(utc(self.time))
        if self.tracklet is not None:
            parts.append(f"tracklet {self.tracklet}")
        if self.frame is not None:
            parts.append(f"frame {self.frame}")
        if self.box is not None:
            parts.append(f"box {box_text(self.box)}")
        parts += [f"{name} {value}" for name, value in self.labels.items()]
        return "  ".join(parts)


@dataclass(frozen=True, slots=True)
class Hit(Item):
    """An item that a search found. ``score`` is the cosine similarity: higher is nearer.

    >>> print(Hit(17, "photos/a.jpg", identity="12", camera=3, time=1714557600.0, score=0.8731))
     0.873  #17  photos/a.jpg  identity 12  camera 3  2024-05-01 10:00:00 UTC
    """

    score: float

    @classmethod
    def of(cls, item: Item, score: float) -> Hit:
        """An item with its score, of which rounding may have made a little more than 1."""
        return cls(
            item.id,
            item.source,
            item.identity,
            item.camera,
            item.time,
            max(-1.0, min(1.0, score)),
            content=item.content,
            tracklet=item.tracklet,
            frame=item.frame,
            box=item.box,
            labels=item.labels,
        )

    def __str__(self) -> str:
        return f"{self.score:6.3f}  {Item.__str__(self)}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of a whole gallery found: ids of items whose labels, vectors or thumbnails are damaged."""

    num_items: int
    labels: tuple[int, ...] = ()
    vectors: tuple[int, ...] = ()
    thumbnails: tuple[int, ...] = ()

    @property
    def damaged(self) -> tuple[int, ...]:
        """All damaged items."""
        return tuple(sorted({*self.labels, *self.vectors, *self.thumbnails}))


@dataclass(frozen=True, slots=True)
class Group:
    """What a search for groups found: one person or tracklet, or one item of which that is not known.

    ``kind`` is "identity" or "tracklet", ``label`` its name, ``None`` where it is unknown. ``hits`` are its
    nearest items, nearest first, of ``num_items`` that the search's conditions let through. ``pooled`` is the
    group's score where that is made of several items.
    """

    kind: str
    label: str | None
    num_items: int
    hits: tuple[Hit, ...]
    pooled: float | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, kind: str, num_items: int, hits: tuple[Hit, ...]) -> Group:
        """A group with the label that its hits, at least one, have in common."""
        label = hits[0].identity if kind == "identity" else hits[0].tracklet
        return cls(kind, label, num_items, hits)

    @property
    def score(self) -> float:
        """That of its nearest item, unless it is pooled."""
        return self.hits[0].score if self.pooled is None else self.pooled

    @property
    def cameras(self) -> list[int | str]:
        """Those of the items told, numbers first."""
        known = {hit.camera for hit in self.hits if hit.camera is not None}
        return sorted(known, key=lambda camera: (isinstance(camera, str), camera))

    def __str__(self) -> str:
        name = f"unknown {self.kind}" if self.label is None else f"{self.kind} {self.label}"
        return f"{self.score:6.3f}  {name}, {self.num_items} items, nearest {Item.__str__(self.hits[0])}"
