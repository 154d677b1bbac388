"""Who shows somebody else than whom, by what people decided.

A person is an identity, or the id of an item that has none. A rejection of two items tells their persons
apart, whichever pictures are added to these later; a split tells an item apart from the person it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from reidkit.galleries._decisions import Decision, in_force
from reidkit.galleries._items import Item
from reidkit.labels import is_junk

if TYPE_CHECKING:
    from reidkit.galleries import Gallery

Person = str | int


class Apart:
    """Persons that were told apart; :meth:`of` gives those that a person is not.

    Args:
        decisions: in force, in their order.
        identities: of all items that they name.
    """

    def __init__(self, decisions: Iterable[Decision], identities: Mapping[int, str | None]) -> None:
        self._others: dict[Person, dict[Person, Decision]] = {}
        now_called: dict[str, str] = {}  # those who were merged into others since
        for decision in reversed(list(decisions)):
            persons = [_person(id, identities[id]) for id in decision.items]
            if decision.kind == "reject":
                for other in persons[1:]:
                    self._tell_apart(persons[0], other, decision)
            for person, before, after in zip(persons, decision.before, decision.after, strict=True):
                if before is None or before == after:
                    continue
                if decision.kind == "split":
                    self._tell_apart(person, now_called.get(before, before), decision)
                elif decision.kind == "merge" and after is not None:
                    now_called[before] = now_called.get(after, after)

    def __bool__(self) -> bool:
        return bool(self._others)

    def of(self, person: Person) -> Mapping[Person, Decision]:
        """Whom a person is not, with a decision that says so."""
        return self._others.get(person, {})

    def pairs(self) -> list[tuple[Person, Person]]:
        """All that were told apart, each pair once."""
        return [
            (one, other)
            for one, others in self._others.items()
            for other in others
            if repr(one) < repr(other)
        ]

    def _tell_apart(self, one: Person, other: Person, decision: Decision) -> None:
        # Whoever was given the same name since by other means is one person all the same.
        if one != other:
            self._others.setdefault(one, {}).setdefault(other, decision)
            self._others.setdefault(other, {}).setdefault(one, decision)


def apart(gallery: Gallery) -> Apart:
    """Who was told apart in a gallery."""
    decisions = in_force(gallery.decisions())
    named = sorted({id for decision in decisions for id in decision.items})
    return Apart(decisions, {item.id: item.identity for item in gallery.items(ids=named)})


def person_of(item: Item) -> Person:
    """Whom an item shows: the identity, or the item itself where none is known."""
    return _person(item.id, item.identity)


def _person(id: int, identity: str | None) -> Person:
    return id if identity is None or is_junk(identity) else identity
