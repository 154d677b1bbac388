"""Who is in the picture now: identities of tracks while they go on, without flicker, and new people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries import Gallery, unit_embeddings

_MEMORY = 0.8  # of a track's embeddings, from one update to the next
_TAKE_OVER = 0.02  # by so much another person must look more alike, to take a track over


@dataclass(slots=True)
class _Following:
    """A track: the sum of its last embeddings, whom it shows, and who has looked more alike, how often."""

    total: NDArray[np.float64]
    identity: str = ""
    rival: str = ""
    times: int = 0


@dataclass(slots=True, eq=False)
class LiveIndex:
    """Gives each track the identity of the gallery that it looks like, or a new one.

    A track keeps its identity until another one scores higher in several updates one after the other, so that
    labels do not flicker. Two tracks that are in sight at the same time are two people. Who scores less than
    ``lowest`` with everybody is new, and is known from then on.

    Args:
        lowest: the score from which on two embeddings are of one person;
            ``encoder.calibration.threshold_at(RATE)`` gives one for a rate of false matches.
        gallery: whose identities are known from the start; those without one are nobody.
        patience: updates after which a track goes over to another identity.
        prefix: of the names of new people, ``new-1``, ``new-2``, ...

    Example:
        >>> index = LiveIndex(lowest=0.6)
        >>> index.update([7], [[1.0, 0.0]]), index.update([8], [[0.0, 1.0]]), index.update([9], [[1.0, 0.1]])
        (['new-1'], ['new-2'], ['new-1'])
    """

    lowest: float
    gallery: Gallery | None = None
    patience: int = 3
    prefix: str = "new-"
    _tracks: dict[Hashable, _Following] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _means: NDArray[np.float64] | None = None
    _num_new: int = 0

    def __post_init__(self) -> None:
        if not -1 <= self.lowest <= 1 or self.patience < 1:
            raise ConfigError(
                f"lowest = {shown(self.lowest)}, patience = {shown(self.patience)}; give a score from -1 to "
                "1, and a number of updates from 1 on"
            )
        if self.gallery is not None and len(self.gallery):
            known = [item for item in self.gallery.items() if item.identity is not None]
            embeddings = self.gallery.embeddings(ids=[item.id for item in known]) if known else ()
            sums: dict[str, Any] = {}
            for item, embedding in zip(known, embeddings, strict=True):
                sums[str(item.identity)] = sums.get(str(item.identity), 0.0) + embedding.astype(np.float64)
            for identity, total in sums.items():
                self._know(identity, total)

    def update(self, tracks: Sequence[Hashable], embeddings: ArrayLike) -> list[str]:
        """Whom the tracks show that are in sight now.

        Args:
            tracks: one name or number each, every one once.
            embeddings: of them, (N, D), any length but 0.

        Returns:
            Their identities, in the same order; no two are the same.
        """
        if len(set(tracks)) != len(tracks):
            raise DataError("a track is given twice in one update; give each once")
        if not len(tracks):
            return []
        rows = unit_embeddings(embeddings, location="the live index")
        if len(rows) != len(tracks):
            raise DataError(f"{len(rows)} embeddings for {len(tracks)} tracks; give one for each")
        followed = [self._followed(track, row) for track, row in zip(tracks, rows, strict=True)]
        scores = self._scores(followed)
        taken: set[str] = set()
        # Who is known for longest to be somebody chooses first, then who looks most like somebody.
        order = sorted(range(len(rows)), key=lambda i: (not followed[i].identity, -scores[i].max(initial=-1)))
        for place in order:
            one = followed[place]
            best, score = self._best(scores[place], taken)
            self._decide(one, best, score, taken, own=self._own_score(one, scores[place]))
            taken.add(one.identity)
        for one, row in zip(followed, rows, strict=True):
            self._learn(one.identity, row)
        return [one.identity for one in followed]

    def forget(self, track: Hashable) -> None:
        """A track has ended; its person stays known."""
        self._tracks.pop(track, None)

    def _followed(self, track: Hashable, row: NDArray[np.float32]) -> _Following:
        one = self._tracks.setdefault(track, _Following(np.zeros(row.shape, np.float64)))
        one.total = _MEMORY * one.total + row
        return one

    def _scores(self, followed: Sequence[_Following]) -> NDArray[np.float64]:
        """Of each track with everybody who is known, (N, P)."""
        if self._means is None:
            return np.empty((len(followed), 0))
        totals = np.stack([one.total / np.linalg.norm(one.total) for one in followed])
        people = self._means / np.linalg.norm(self._means, axis=1, keepdims=True)
        scores: NDArray[np.float64] = totals @ people.T
        return scores

    def _best(self, scores: NDArray[np.float64], taken: set[str]) -> tuple[str, float]:
        free = [place for place, name in enumerate(self._names[: len(scores)]) if name not in taken]
        if not free:
            return "", -1.0
        place = max(free, key=lambda place: scores[place])
        return self._names[place], float(scores[place])

    def _own_score(self, one: _Following, scores: NDArray[np.float64]) -> float:
        return float(scores[self._names.index(one.identity)]) if one.identity else -1.0

    def _decide(self, one: _Following, best: str, score: float, taken: set[str], *, own: float) -> None:
        """Let a track keep its identity, or give it another."""
        if not one.identity or one.identity in taken:
            one.identity = best if score >= self.lowest else self._new(one.total)
            one.rival, one.times = "", 0
            return
        if best == one.identity or score < max(self.lowest, own + _TAKE_OVER):
            one.rival, one.times = "", 0
            return
        one.times = one.times + 1 if best == one.rival else 1
        one.rival = best
        if one.times >= self.patience:
            one.identity, one.rival, one.times = best, "", 0

    def _new(self, embedding: NDArray[np.float64]) -> str:
        known = set(self._names)
        while True:
            self._num_new += 1
            name = f"{self.prefix}{self._num_new}"
            if name not in known:
                break
        self._know(name, 1e-9 * embedding)  # a direction; what it is made of follows in _learn
        return name

    def _know(self, name: str, total: NDArray[np.float64]) -> None:
        self._names.append(name)
        rows = [] if self._means is None else [self._means]
        self._means = np.concatenate([*rows, total[None]])

    def _learn(self, identity: str, row: NDArray[np.float32]) -> None:
        """Add an embedding to a person's, if it looks like that person: a track may have gone astray."""
        assert self._means is not None
        known = self._means[self._names.index(identity)]
        if known @ row >= self.lowest * np.linalg.norm(known):
            known += row
