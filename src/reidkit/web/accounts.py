"""Users as administrators of all galleries see and change them, each change in the audit log."""

from __future__ import annotations

from reidkit.errors import ConfigError
from reidkit.web.audit import AuditLog
from reidkit.web.roles import ALL, Actor, Role
from reidkit.web.users import User, Users


class Accounts:
    """What may be done with users. All of it needs the role of an administrator in all galleries.

    Raises :class:`ConfigError` where the service has no users, and :class:`NotAllowed`.
    """

    def __init__(self, users: Users | None, audit: AuditLog) -> None:
        self._users, self._audit = users, audit

    def all(self, actor: Actor) -> list[User]:
        """All users by name."""
        return self._of(actor).all()

    def add(self, actor: Actor, name: str, *, password: str | None, role: Role, gallery: str = ALL) -> None:
        """Add a user, or give one another role in a gallery or another password."""
        users = self._of(actor)
        self._audit.write(actor.name, "add user", gallery=gallery, durable=True, user=name, role=role.name)
        users.add(name, password=password, role=role, galleries=(gallery,))

    def remove(self, actor: Actor, name: str) -> None:
        """Remove a user; nobody removes themselves, so that an administrator is left."""
        users = self._of(actor)
        if name == actor.name:
            raise ConfigError("nobody removes themselves; let another administrator do it")
        self._audit.write(actor.name, "remove user", durable=True, user=name)
        users.remove(name)

    def make_token(self, actor: Actor, name: str, *, label: str, days: float) -> str:
        """A new token of a user; it cannot be read again."""
        users = self._of(actor)
        self._audit.write(actor.name, "make token", durable=True, user=name)
        return users.make_token(name, label=label, days=days)

    def revoke_token(self, actor: Actor, name: str, token: int) -> None:
        """Let a token be good for nothing."""
        users = self._of(actor)
        self._audit.write(actor.name, "revoke token", durable=True, user=name, token=token)
        users.revoke_token(name, token)

    def _of(self, actor: Actor) -> Users:
        actor.check_everywhere(Role.administrator)
        if self._users is None:
            raise ConfigError(
                "this service has no users: whoever uses this machine may do all; `reid serve users add NAME "
                "--role administrator` adds the first, and from then on everybody logs in"
            )
        return self._users
