"""What a person says of a gallery's items: accept, reject, merge, split, and take it back.

Each of these makes the decisions (:mod:`reidkit.galleries._decisions`) that a gallery keeps. Proposals, which
clustering makes, are labels of their own: items without an identity whose label :data:`PROPOSAL` names the
person that they may show.
"""

from __future__ import annotations

import getpass
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit.errors import ConfigError, DataError, shown
from reidkit.galleries._apart import Apart, apart, person_of
from reidkit.galleries._decisions import MOST_ITEMS, Decision, DecisionKind, in_force
from reidkit.galleries._items import Item
from reidkit.labels import is_junk, label_text, near_labels

if TYPE_CHECKING:
    from reidkit.galleries import Gallery

PROPOSAL = "proposal"
"""The label that names whom an item without an identity may show."""


def holds_most(num: int, num_items: int) -> bool:
    """Whether one proposal has more of all items than one person is likely to: over half of ten or more."""
    return num_items >= 10 and 2 * num > num_items


def proposals(gallery: Gallery) -> dict[str, list[Item]]:
    """Items whose identity nobody has told, by the person that they are proposed to show."""
    found: dict[str, list[Item]] = defaultdict(list)
    for item in gallery.items(where={"identity": None}):
        name = item.labels.get(PROPOSAL)
        if name is not None:
            found[str(name)].append(item)
    return dict(found)


def accept(
    gallery: Gallery, items: Iterable[int], identity: str, *, who: str | None = None
) -> list[Decision]:
    """These items show this person.

    Args:
        gallery: where they are.
        items: their ids.
        identity: whom they show, known or new.
        who: says so; left out, whoever is logged in.

    Raises:
        DataError: an item is unknown, or was told apart from that person or from another of the items.
    """
    name = _name(identity)
    return _join(gallery, "accept", gallery.items(ids=list(items)), name, who)


def accept_proposal(
    gallery: Gallery, proposal: str, *, identity: str | None = None, who: str | None = None
) -> list[Decision]:
    """The items that are proposed to show one person do so, under that name or another; as :func:`accept`."""
    open_ones = proposals(gallery)
    if proposal not in open_ones:
        near = near_labels(proposal, open_ones)
        meant = f"; did you mean {shown(near[0])}?" if near else ""
        there = f"there are {len(open_ones):,}" if open_ones else "`reid cluster` makes some"
        raise DataError(f"there is no proposal {shown(proposal)}{meant}; {there}")
    return _join(gallery, "accept", open_ones[proposal], _name(identity or proposal), who)


def accept_all_proposals(gallery: Gallery, *, least: int = 2, who: str | None = None) -> list[str]:
    """All proposals of at least so many items are right; their names.

    All or none of them are accepted. Raises :class:`DataError` as :func:`accept` does.
    """
    chosen = {name: items for name, items in proposals(gallery).items() if len(items) >= least}
    told_apart = apart(gallery)
    for name, items in chosen.items():
        _check_not_apart(told_apart, items, _name(name))
    gallery.decide(
        [
            _decision("accept", part, name, who)
            for name, items in chosen.items()
            for part in _portions(items, MOST_ITEMS)
        ]
    )
    return list(chosen)


def reject(gallery: Gallery, item: int, others: Iterable[int], *, who: str | None = None) -> list[Decision]:
    """An item shows somebody else than each of the others: these are never shown as hits of it again.

    What is told apart are the persons, where their identities are known, with all of their pictures.

    Raises :class:`DataError` where an item is unknown, or two of them have one identity.
    """
    [one], rest = gallery.items(ids=[item]), gallery.items(ids=list(others))
    if one in rest:
        raise DataError(f"item {one.id} cannot show somebody else than itself; name other items")
    same = [other for other in rest if person_of(other) == person_of(one)]
    if same:
        raise DataError(
            f"items {one.id} and {same[0].id} have the same identity, {shown(one.identity)}; where one of "
            f"them shows somebody else, split it off: `reid review split GALLERY {same[0].id}`"
        )
    decisions = [
        _decision("reject", [one, *part], None, who) for part in _portions(rest, MOST_ITEMS - 1)
    ] or [_decision("reject", [one], None, who)]
    return gallery.decide(decisions)


def merge(
    gallery: Gallery, identity: str, others: Sequence[str], *, who: str | None = None
) -> list[Decision]:
    """Those of the other names are the person of the first name, too.

    Raises :class:`DataError` where the gallery has none of a name, or two of them were told apart.
    """
    name, rest = _name(identity), [_name(other) for other in others]
    if not rest or len({name, *rest}) <= len(rest):
        raise ConfigError("merge needs the names of two people or more, each once")
    items = [_items_of(gallery, one) for one in (name, *rest)]
    return _join(gallery, "merge", [item for some in items[1:] for item in some], name, who)


def split(
    gallery: Gallery, items: Iterable[int], *, identity: str | None = None, who: str | None = None
) -> list[Decision]:
    """These items do not show who they are said to show, but somebody new, or nobody knows whom.

    They are told apart from that person from then on. Raises :class:`DataError` where an item is unknown or
    has no identity, and where they are all that the person has.
    """
    chosen = gallery.items(ids=list(items))
    if not chosen:
        raise ConfigError("there are no items to split off; name some")
    ids = {item.id for item in chosen}
    for name in dict.fromkeys(item.identity for item in chosen):
        if name is None:
            one = next(item for item in chosen if item.identity is None)
            raise DataError(f"item {one.id} has no identity that it could be split from")
        if all(item.id in ids for item in _items_of(gallery, name)):
            raise DataError(
                f"these are all items of {shown(name)}, so that nobody is left to tell them apart from; "
                "leave some out"
            )
    new = None if identity is None else _name(identity)
    if new is not None and any(item.identity == new for item in chosen):
        raise ConfigError(f"items that are split from {shown(new)} cannot get that name again")
    return gallery.decide([_decision("split", part, new, who) for part in _portions(chosen, MOST_ITEMS)])


def undo(gallery: Gallery, decision: int, *, who: str | None = None) -> list[Decision]:
    """Take a decision back: its items are called again what they were before.

    Raises :class:`DataError` where there is none of that number, or its items were renamed since.
    """
    decisions = gallery.decisions()
    found = [one for one in decisions if one.id == decision]
    if not found:
        raise DataError(f"there is no decision {shown(decision)}; `reid review log` lists them")
    [taken_back] = found
    if taken_back.kind != "undo" and taken_back not in in_force(decisions):
        raise DataError(f"decision {decision} was taken back already")
    before, after = taken_back.after, taken_back.before
    if before == after:  # it changed no identities, and whatever did so since stays
        before = after = tuple(item.identity for item in gallery.items(ids=taken_back.items))
    undone = Decision("undo", taken_back.items, before, after, _who(who), undoes=taken_back.id)
    try:
        return gallery.decide([undone])
    except DataError as error:
        raise DataError(f"decision {decision} cannot be undone: {error}") from None


def item_ids(gallery: Gallery, items: Sequence[str]) -> list[int]:
    """Ids of items that a person names: by number, with or without a # before it, or by the picture's path.

    Raises :class:`DataError` for what is neither.
    """
    return [_item_id(gallery, text) for text in items]


def _item_id(gallery: Gallery, text: str) -> int:
    number = text.removeprefix("#")
    if number.isascii() and number.isdecimal() and len(number) < 19:
        return int(number)
    places = [text, str(Path(text).resolve())]
    found = gallery.items(where={"source": places})
    if not found:
        raise DataError(
            f"{shown(text)} is neither the number of an item nor the path of its picture; `reid gallery "
            "list` shows both"
        )
    return found[0].id


def _join(
    gallery: Gallery, kind: DecisionKind, items: Sequence[Item], identity: str, who: str | None
) -> list[Decision]:
    """Items under one name, unless somebody told them apart."""
    if not items:
        raise ConfigError(f"there are no items to {kind}; name some")
    _check_not_apart(apart(gallery), items, identity)
    return gallery.decide([_decision(kind, part, identity, who) for part in _portions(items, MOST_ITEMS)])


def _check_not_apart(told_apart: Apart, items: Sequence[Item], identity: str) -> None:
    persons = {identity, *map(person_of, items)}
    for one in persons:
        for other, decision in told_apart.of(one).items():
            if other in persons:
                raise DataError(
                    f"{_called(one)} and {_called(other)} were told apart by {decision.who} (decision "
                    f"{decision.id}); leave one of them out, or take that back: `reid review undo GALLERY "
                    f"{decision.id}`"
                )


def _called(person: str | int) -> str:
    return f"item {person}" if isinstance(person, int) else shown(person)


def _decision(kind: DecisionKind, items: Sequence[Item], after: str | None, who: str | None) -> Decision:
    before = tuple(item.identity for item in items)
    names = before if kind == "reject" else (after,) * len(items)
    return Decision(kind, tuple(item.id for item in items), before, names, _who(who))


def _portions(items: Sequence[Item], length: int) -> list[Sequence[Item]]:
    return [items[start : start + length] for start in range(0, len(items), length)]


def _items_of(gallery: Gallery, identity: str) -> list[Item]:
    items = gallery.items(where={"identity": identity})
    if not items:
        known: Mapping[str, None] = dict.fromkeys(
            item.identity for item in gallery.items() if item.identity is not None
        )
        near = near_labels(identity, known)
        meant = f"; did you mean {shown(near[0])}?" if near else ""
        raise DataError(f"the gallery holds no identity {shown(identity)}{meant}")
    return items


def _name(identity: str) -> str:
    name = label_text(identity)
    if name is None:
        raise ConfigError(f"{shown(identity)} is no name of a person")
    if is_junk(name):  # of such items nobody would hear again
        raise ConfigError(
            f"{shown(identity)} marks pictures that show nobody, and is no name of a person; give a name, or "
            "take the items out: `reid gallery remove GALLERY --where source=...`"
        )
    return name


def _who(who: str | None) -> str:
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        raise ConfigError("nobody is logged in under a name; say who decides (who)") from None
