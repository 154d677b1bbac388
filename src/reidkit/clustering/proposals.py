"""A gallery's items clustered, and what that proposes: whom items without an identity may show.

Whoever has an identity keeps it: items of one identity are together, of two identities apart. Proposals are
kept as labels (:data:`reidkit.galleries._feedback.PROPOSAL`), so that they can be looked at, searched by and
accepted; a proposal that is found again keeps its name, and items that were not looked at keep theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from reidkit.clustering.cluster import ClusterOptions, Weights, cluster
from reidkit.clustering.known import known_constraints
from reidkit.encoders.own import OWN, is_own
from reidkit.galleries import Gallery, Item, Where
from reidkit.galleries._feedback import PROPOSAL, holds_most
from reidkit.labels import is_junk
from reidkit.search.transitions import transitions
from reidkit.texts.printable import counted

_PREFIX = "new-"


@dataclass(frozen=True, slots=True)
class Person:
    """Items that may show one person, as they were written: those with the identity ``name``, if it is one
    (``is_known``), and those without an identity, which are proposed to have it."""

    name: str
    is_known: bool
    items: tuple[Item, ...]

    @property
    def num_proposed(self) -> int:
        """Items whose identity is not known yet."""
        return sum(item.identity is None for item in self.items)


@dataclass(frozen=True, slots=True)
class Proposals:
    """People, those with most items first; ``num_alone`` items are like no other. ``notes`` are sentences on
    what was left out of account."""

    people: tuple[Person, ...]
    num_items: int
    num_alone: int
    notes: tuple[str, ...]

    @property
    def too_large(self) -> Person | None:
        """A person of more than half of all items, not all of whom are known to be that person."""
        return next(
            (p for p in self.people if p.num_proposed and holds_most(len(p.items), self.num_items)), None
        )


def propose(
    gallery: Gallery,
    options: ClusterOptions | None = None,
    *,
    where: Where | None = None,
    walks: bool = False,
    dry_run: bool = False,
) -> Proposals:
    """Cluster a gallery's items, and keep what that proposes for those without an identity.

    Args:
        gallery: whose items.
        options: see :class:`reidkit.clustering.cluster.ClusterOptions`.
        where: only these items, as :class:`reidkit.galleries.Gallery` takes it.
        walks: let pairs count less that somebody would have had to walk between faster than those do who
            are known (:mod:`reidkit.search.transitions`); without enough of them it makes no difference, and
            among the people of Market-1501 it makes none either.
        dry_run: keep nothing.

    Raises :class:`DataError` as :func:`reidkit.clustering.cluster.cluster` does, or where somebody removed
    an item meanwhile; nothing is changed then.
    """
    items = [
        item for item in gallery.items(where=where) if item.identity is None or not is_junk(item.identity)
    ]
    constraints, notes = known_constraints(gallery, items)
    weights, note = _weights(gallery, items) if walks else (None, "")
    embeddings = gallery.embeddings(ids=[item.id for item in items])
    labels = cluster(embeddings, options, constraints=constraints, weights=weights)
    people = _people(items, labels, _names_in_use(gallery))
    if not dry_run:
        _keep(gallery, items, people)
    num_alone = len(items) - sum(len(person.items) for person in people)
    found = Proposals(tuple(people), len(items), num_alone, (*notes, *([note] if note else [])))
    doubt = _doubt(found, options or ClusterOptions()) or _doubt_of_encoder(found, gallery)
    return replace(found, notes=(*found.notes, doubt)) if doubt else found


def _doubt(found: Proposals, options: ClusterOptions) -> str:
    """A warning of one person who took in most of the others, with what to try."""
    if found.too_large is None:
        return ""
    num = len(found.too_large.items)
    share = f"{100 * num / found.num_items:.0f} %"
    return (
        f"{found.too_large.name} has {num:,} of {found.num_items:,} pictures ({share}), "
        "so it is likely several people: look before accepting it. To tell more people apart, try "
        f"a distance below {options.farthest:g}, neighbours below {options.k1} (about twice as many as "
        "a person has pictures), or fill a gallery with a better encoder (`reid encoders` lists some)"
    )


def _doubt_of_encoder(found: Proposals, gallery: Gallery) -> str:
    """A warning of proposals that rest on an encoder that has seen no real people."""
    if not is_own((gallery.encoder or {}).get("path")) or not any(p.num_proposed for p in found.people):
        return ""
    return (
        f"{OWN}, which filled this gallery, learned from drawn people only: many proposals will show several "
        "people, so look at each before accepting it; `reid encoders` lists better ones, and where people "
        "have few pictures, fewer neighbours help (about twice as many as a person has)"
    )


def _weights(gallery: Gallery, items: Sequence[Item]) -> tuple[Weights | None, str]:
    """How possible walks between items are, and a sentence where that is not known."""
    known = transitions(gallery.items())
    if not known:
        return (
            None,
            "times between cameras do not count: too few people are known to have walked between any two",
        )

    num = sum(transition.is_believed for transition in known.known)
    return known.weights(
        items
    ), f"times between cameras count: {counted(num, 'way')} that people are known to walk"


def _people(items: Sequence[Item], labels: NDArray[np.int64], in_use: set[str]) -> list[Person]:
    """Clusters of more than one item, or of a known person, with their names; the largest first."""
    members: list[list[Item]] = [[] for _ in range(int(labels.max(initial=-1)) + 1)]
    for item, label in zip(items, labels.tolist(), strict=True):
        members[label].append(item)
    found = sorted(
        (some for some in members if len(some) > 1 or some[0].identity is not None),
        key=lambda some: -len(some),
    )
    identities = [next((item.identity for item in some if item.identity is not None), None) for some in found]
    kept = _kept_names(found, identities)
    new_names = _new_names(in_use)
    people = []
    for place, (some, identity) in enumerate(zip(found, identities, strict=True)):
        name = identity or kept.get(place) or next(new_names)
        people.append(Person(name, identity is not None, tuple(some)))
    return people


def _kept_names(found: Sequence[Sequence[Item]], identities: Sequence[str | None]) -> dict[int, str]:
    """Names of former proposals for the clusters that have most items of them; each name once."""
    overlaps = [
        (-num, place, str(name))
        for place, some in enumerate(found)
        if identities[place] is None
        for name, num in Counter(item.labels.get(PROPOSAL) for item in some).items()
        if name is not None
    ]
    taken = {name for name in identities if name is not None}
    kept: dict[int, str] = {}
    for _, place, name in sorted(overlaps):
        if place not in kept and name not in taken and name.startswith(_PREFIX):
            kept[place] = name
            taken.add(name)
    return kept


def _names_in_use(gallery: Gallery) -> set[str]:
    names: set[str] = set()
    for item in gallery.items():
        names |= {str(name) for name in (item.identity, item.labels.get(PROPOSAL)) if name is not None}
    return names


def _new_names(in_use: set[str]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        if f"{_PREFIX}{number}" not in in_use:
            yield f"{_PREFIX}{number}"


def _keep(gallery: Gallery, items: Sequence[Item], people: Sequence[Person]) -> None:
    """Label the items without an identity whose proposal is another now; all of them at once."""
    proposed = {item.id: person.name for person in people for item in person.items if item.identity is None}
    changed = [item for item in items if item.labels.get(PROPOSAL) != proposed.get(item.id)]
    if changed:
        names = [proposed.get(item.id) for item in changed]
        gallery.relabel([item.id for item in changed], labels={PROPOSAL: names})
