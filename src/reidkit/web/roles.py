"""Who may do what: roles, each of which may do all that the ones before it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from reidkit.errors import ConfigError, ReidError, did_you_mean, shown

ALL = "*"
"""In place of a gallery's name: all of them."""


class Role(IntEnum):
    """What somebody may do in a gallery.

    A viewer searches and looks; a reviewer says who is who as well; an operator adds and removes; an
    administrator also erases by age, exports, and reads the audit log.
    """

    viewer = 1
    reviewer = 2
    operator = 3
    administrator = 4

    @classmethod
    def named(cls, name: str) -> Role:
        """The role of that name. Raises :class:`ConfigError` where there is none."""
        if name not in cls.__members__:
            known = list(cls.__members__)
            raise ConfigError(f"no role {shown(name)};{did_you_mean(name, known)} Roles: {', '.join(known)}")
        return cls[name]


class NoSuchGallery(ReidError):
    """There is no gallery of that name, as far as who asks may know."""


class NotAllowed(ReidError):
    """Whoever asks is known, and may not do this."""


class NotLoggedIn(ReidError):
    """Nobody knows who asks."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    ``roles`` are by gallery, :data:`ALL` for all; ``via`` says how they are known: "local" for the one user
    of a service that needs no login, "session" of a browser, or "token" of a program. ``csrf`` is what a
    browser's forms have to send along; ``address`` is where the request came from.
    """

    name: str
    roles: Mapping[str, Role] = field(hash=False)
    via: Literal["local", "session", "token"] = "local"
    csrf: str = ""
    address: str = ""

    def role(self, gallery: str) -> Role | None:
        """The higher of the role in this gallery and that in all of them."""
        roles = [self.roles[name] for name in (gallery, ALL) if name in self.roles]
        return max(roles, default=None)

    def may(self, gallery: str, role: Role) -> bool:
        """Whether this role's rights are among those in a gallery."""
        own = self.role(gallery)
        return own is not None and own >= role

    def check(self, gallery: str, role: Role) -> None:
        """Raise where :meth:`may` does not hold: :class:`NoSuchGallery` for who may not even look."""
        own = self.role(gallery)
        if own is None:
            raise NoSuchGallery(f"there is no gallery {shown(gallery)}; /v1/galleries lists those there are")
        if own < role:
            raise NotAllowed(
                f"this needs the role {role.name} in the gallery {gallery}, and yours is {own.name}; an "
                "administrator can give you another: `reid serve users add NAME --role ...`"
            )

    def check_everywhere(self, role: Role) -> None:
        """Raise :class:`NotAllowed` where the role is not held in all galleries."""
        if self.roles.get(ALL, 0) < role:
            raise NotAllowed(f"this needs the role {role.name} in all galleries")
