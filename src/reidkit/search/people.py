"""Search for people instead of pictures: each scored by its best picture, by all, or by the neighbourhood.

- "best": the score of the nearest picture;
- "mean": the mean score of all pictures of the person that the conditions let through;
- "reciprocal": 1 - the smallest distance of the person's pictures after k-reciprocal re-ranking
  (:mod:`reidkit.reranking`) of the nearest pictures of all; such scores cannot be compared with cosines, nor
  with those of another query.

"best" and "mean" are exact. A mean is never above the best score, so that nobody further down can come before
those that are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reidkit.errors import ConfigError, did_you_mean, shown
from reidkit.galleries import Gallery, GroupBy, Hit, KnownQuery, Where
from reidkit.galleries._given import checked_group, checked_top
from reidkit.galleries._items import Group

Pool = Literal["best", "mean", "reciprocal"]
POOLS: tuple[str, ...] = get_args(Pool)
IsHidden = Callable[[Hit], bool]

_SPARE = 4  # groups asked for beyond the top, some of which may be hidden
_NUM_RERANKED = 200  # pictures, and more where the top takes more


@dataclass(frozen=True, slots=True)
class PeopleSearch:
    """How people are searched for.

    Args:
        group: by "identity", or by "tracklet".
        pool: how pictures make a score; see the module.
        top: people for each query.
        items: pictures told of each.
        where: conditions on pictures, as :class:`reidkit.galleries.Gallery` takes them.

    Raises :class:`ConfigError` for another ``pool`` or ``group``, and for numbers below 1.
    """

    group: GroupBy = "identity"
    pool: Pool = "best"
    top: int = 10
    items: int = 10
    where: Where | None = None

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            close = did_you_mean(shown(self.pool), POOLS)
            raise ConfigError(f"pool is {shown(self.pool)};{close} Allowed: {', '.join(POOLS)}")
        if checked_group(self.group) is None:
            raise ConfigError("group is None; people are searched for by identity or tracklet")
        checked_top(self.top)
        checked_top(self.items, "items")


@dataclass(frozen=True, slots=True)
class FoundPeople:
    """Whom a search found for one picture, best first.

    ``num_own`` of their pictures were left out since they are that very picture, ``num_rejected`` because
    somebody decided that they show somebody else.
    """

    people: tuple[Group, ...]
    num_own: int = 0
    num_rejected: int = 0

    def __bool__(self) -> bool:
        """Whether there was anybody to find, shown or not."""
        return bool(self.people or self.num_own or self.num_rejected)


def search_people(
    gallery: Gallery,
    embeddings: ArrayLike,
    options: PeopleSearch | None = None,
    *,
    hidden: Sequence[IsHidden] | None = None,
    queries: Sequence[KnownQuery] | None = None,
) -> list[list[Group]]:
    """The people who look most like each query, best first.

    Args:
        gallery: what is searched.
        embeddings: (Q, D).
        options: how; see :class:`PeopleSearch`.
        hidden: for each query, which pictures are neither told nor counted.
        queries: what is known of each, for conditions that refer to it.
    """
    options = options or PeopleSearch()
    rows = np.atleast_2d(np.asanyarray(embeddings))  # which may say what encoder made them
    find = _reranked if options.pool == "reciprocal" else _pooled
    first = _first_of_all(gallery, rows, options, queries)
    return [
        find(
            _Asked(
                gallery, row[None], options, None if queries is None else queries[index : index + 1], groups
            ),
            (lambda hit: False) if hidden is None else hidden[index],
        )
        for index, (row, groups) in enumerate(zip(rows, first, strict=True))
    ]


def _first_of_all(
    gallery: Gallery,
    rows: NDArray[np.floating],
    options: PeopleSearch,
    queries: Sequence[KnownQuery] | None,
) -> Sequence[list[Group] | None]:
    """What :func:`_pooled` asks for first, of all queries in one pass; mostly it asks for no more."""
    if options.pool != "best" or len(rows) < 2:
        return [None] * len(rows)
    top, where, group = options.top + _SPARE, options.where, options.group
    return gallery.search(rows, top=top, where=where, queries=queries, group=group, items=options.items)


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """One query (1, D), and whom it is asked of; ``first`` is the first answer, where it is known."""

    gallery: Gallery
    query: NDArray[np.floating]
    options: PeopleSearch
    known: Sequence[KnownQuery] | None
    first: list[Group] | None = None

    def people(self, *, top: int, items: int) -> list[Group]:
        if self.first is not None and (top, items) == (self.options.top + _SPARE, self.options.items):
            return self.first
        where, group = self.options.where, self.options.group
        [found] = self.gallery.search(
            self.query, top=top, where=where, queries=self.known, group=group, items=items
        )
        return found

    def pictures(self, *, top: int) -> list[Hit]:
        [found] = self.gallery.search(self.query, top=top, where=self.options.where, queries=self.known)
        return found


def _pooled(ask: _Asked, is_hidden: IsHidden) -> list[Group]:
    """People by the best or the mean of the pictures that are not hidden."""
    options = ask.options
    asked, items = options.top + _SPARE, options.items
    while True:
        groups = ask.people(top=asked, items=items)
        largest = max((group.num_items for group in groups), default=0)
        whole = options.pool == "mean" or any(is_hidden(hit) for group in groups for hit in group.hits)
        if whole and items < largest:
            items = largest
            continue
        ranked = _ranked([_scored(group, options, is_hidden) for group in groups])
        # Whoever was not asked for scores no higher than the last who was.
        if len(groups) < asked or (
            len(ranked) >= options.top and ranked[options.top - 1].score >= groups[-1].score
        ):
            return ranked[: options.top]
        asked *= 2


def _scored(group: Group, options: PeopleSearch, is_hidden: IsHidden) -> Group | None:
    """A group without its hidden pictures; ``None`` where all are."""
    hits = [hit for hit in group.hits if not is_hidden(hit)]
    if not hits:
        return None
    mean = float(np.mean([hit.score for hit in hits])) if options.pool == "mean" else None
    left = group.num_items - len(group.hits) + len(hits)
    return replace(group, num_items=left, hits=tuple(hits[: options.items]), pooled=mean)


def _reranked(ask: _Asked, is_hidden: IsHidden) -> list[Group]:
    """People by k-reciprocal distances of the nearest pictures."""
    from reidkit.reranking import Reranker  # slow to import, and most searches do without

    options = ask.options
    asked = max(_NUM_RERANKED, 10 * options.top)
    while True:
        near = ask.pictures(top=asked)
        hits = [hit for hit in near if not is_hidden(hit)]
        persons = [_key(hit, options.group) for hit in hits]
        if len(set(persons)) >= options.top or len(near) < asked:
            break
        asked *= 2
    if not hits:
        return []
    embeddings = ask.gallery.embeddings(ids=[hit.id for hit in hits])
    nearness = 1 - Reranker(ask.query, embeddings).rows(slice(0, 1))[0]
    best: dict[str | int, float] = {}
    for person, score in zip(persons, nearness.tolist(), strict=True):
        best[person] = max(score, best.get(person, -np.inf))
    groups = _pooled(replace(ask, options=replace(options, pool="best", top=len(best))), is_hidden)
    scored = [(group, best.get(_key(group.hits[0], options.group))) for group in groups]
    ranked = _ranked([replace(group, pooled=score) for group, score in scored if score is not None])
    return ranked[: options.top]


def _ranked(groups: Sequence[Group | None]) -> list[Group]:
    """Groups by their scores, equal ones as they stand."""
    return sorted((group for group in groups if group is not None), key=lambda group: -group.score)


def _key(hit: Hit, group: GroupBy) -> str | int:
    """Whom a picture belongs to: to nobody but itself where that is not known."""
    label = hit.identity if group == "identity" else hit.tracklet
    return hit.id if label is None else label
