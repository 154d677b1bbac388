"""Hits that nobody needs to see again: they were told apart from who is searched for."""

from __future__ import annotations

from collections.abc import Callable

from reidkit.galleries import Gallery, Hit
from reidkit.galleries._apart import apart, person_of
from reidkit.search.own_picture import Query


class Rejected:
    """What people decided about a gallery, as it is now, for searches with what it holds."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._apart = apart(gallery)

    def by(self, query: Query) -> Callable[[Hit], bool]:
        """Whether a hit shows somebody who the person in a query is not, as somebody decided."""
        persons = set(map(person_of, query.items))
        for file in query.files if self._apart else ():
            for key, value in zip(("source", "content"), file, strict=True):
                if value is not None:
                    persons |= {person_of(item) for item in self._gallery.items(where={key: value})}
        others = {other for person in persons for other in self._apart.of(person)} - persons
        return lambda hit: bool(others) and person_of(hit) in others


class LeftOut:
    """Says which hits are left out, and remembers for which of the two reasons."""

    def __init__(self, is_own: Callable[[Hit], bool], is_rejected: Callable[[Hit], bool]) -> None:
        self._is_own, self._is_rejected = is_own, is_rejected
        self.own: set[int] = set()
        self.rejected: set[int] = set()

    def __call__(self, hit: Hit) -> bool:
        if self._is_own(hit):
            self.own.add(hit.id)
        elif self._is_rejected(hit):
            self.rejected.add(hit.id)
        else:
            return False
        return True
