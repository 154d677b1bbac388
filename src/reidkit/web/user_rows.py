"""Users as a table shows them, and what is odd about a role that is given."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from reidkit.errors import did_you_mean
from reidkit.labels import moment
from reidkit.web.roles import ALL
from reidkit.web.users import User

COLUMNS = ("user", "roles", "password", "token", "label", "good until")


def user_rows(users: Iterable[User]) -> list[tuple[str, ...]]:
    """A row for each token, and for who has none; the user stands in the first."""
    return [row for user in users for row in _rows(user)]


def remarks(users: Iterable[User], name: str, galleries: Sequence[str], served: Iterable[str]) -> list[str]:
    """On roles of a user in galleries that are not served, and that no other user has a role in."""
    others = {gallery for user in users if user.name != name for gallery in user.roles}
    known = sorted((others | set(served)) - {ALL})
    return [
        f"no gallery {gallery} is known here;{did_you_mean(gallery, known)} so far: {', '.join(known)}"
        for gallery in galleries
        if known and gallery not in known
    ]


def _rows(user: User) -> list[tuple[str, ...]]:
    places = {ALL: "all galleries"}
    roles = ", ".join(f"{role.name} in {places.get(name, name)}" for name, role in user.roles.items())
    own = (user.name, roles, "yes" if user.has_password else "no")
    tokens = [(str(one.id), one.label, _until(one.expires)) for one in user.tokens] or [("", "", "")]
    return [(*(own if place == 0 else ("", "", "")), *token) for place, token in enumerate(tokens)]


def _until(expires: float) -> str:
    return moment(expires) if expires > time.time() else "expired"
