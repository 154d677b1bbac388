"""What a reviewer decides, carried out: on people, and on those whom clustering proposes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from reidkit.errors import ConfigError, DataError, shown
from reidkit.files import write_atomically
from reidkit.galleries import (
    Decision,
    Gallery,
    Item,
    accept,
    accept_proposal,
    merge,
    proposals,
    reject,
    split,
    undo,
)
from reidkit.galleries._feedback import PROPOSAL
from reidkit.web.wanted import DecisionRequest

_NEEDED = {
    "accept": "items and an identity, or a proposal",
    "reject": "two items or more, or a proposal",
    "merge": "an identity and others",
    "split": "items",
    "undo": "the number of a decision in undoes, or the proposal that was rejected last",
}


class _Rejected(BaseModel):
    """A proposal that was rejected, and the items that were proposed so."""

    proposal: str
    items: list[int]


class Deciding:
    """Carries out what users decide.

    A user can take back the rejection of a proposal while it is the last thing that they decided. The gallery
    keeps no record of it, as it does of other decisions: it is in a file for each user of each gallery, which
    every process of the service reads.

    Args:
        folder: of these files, which is made where it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rejected(self, name: str, who: str) -> str | None:
        """The proposal that somebody rejected last in the gallery of this name, if nothing came since."""
        found = self._last_rejected(name, who)
        return None if found is None else found.proposal

    def decide(self, name: str, gallery: Gallery, wanted: DecisionRequest, *, who: str) -> list[Decision]:
        """Carry a decision out in the gallery of this name, as :func:`decide` does."""
        if wanted.kind == "undo" and wanted.undoes is None and wanted.proposal:
            self._put_back(name, gallery, wanted.proposal, who)
            return []
        rejects = wanted.kind == "reject" and wanted.proposal and len(wanted.items) < 2
        ids = [item.id for item in _proposed(gallery, str(wanted.proposal))] if rejects else []
        made = decide(gallery, wanted, who=who)
        if wanted.proposal and ids:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            text = _Rejected(proposal=wanted.proposal, items=ids).model_dump_json()
            write_atomically(self._file(name, who), text, private=True)
        else:
            self._forget(name, who)
        return made

    def _file(self, name: str, who: str) -> Path:
        return self._folder / f"{hashlib.sha256(json.dumps([name, who]).encode()).hexdigest()[:32]}.json"

    def _last_rejected(self, name: str, who: str) -> _Rejected | None:
        try:
            return _Rejected.model_validate_json(self._file(name, who).read_bytes())
        except (OSError, ValueError):
            return None

    def _forget(self, name: str, who: str) -> None:
        self._file(name, who).unlink(missing_ok=True)

    def _put_back(self, name: str, gallery: Gallery, proposal: str, who: str) -> None:
        """Propose items again that were proposed so, as far as nothing is known of them yet."""
        last = self._last_rejected(name, who)
        if last is None or last.proposal != proposal:
            raise DataError(
                f"the last that {who} decided here is not to reject {shown(proposal)}; look again"
            )
        if proposal in proposals(gallery):
            raise DataError(f"others are proposed as {shown(proposal)} since; nothing was put back")
        wanted = set(last.items)
        free = [item.id for item in gallery.items(where={"identity": None}) if item.id in wanted]
        free = [item.id for item in gallery.items(ids=free) if item.labels.get(PROPOSAL) is None]
        if not free:
            raise DataError(f"all that was proposed as {shown(proposal)} is decided or gone; look again")
        _rename(gallery, free, proposal)
        self._forget(name, who)


def decide(gallery: Gallery, wanted: DecisionRequest, *, who: str) -> list[Decision]:
    """Carry a decision out; the records of it, none where only proposals changed.

    Raises :class:`ConfigError` for what makes no sense, and :class:`DataError` for what does not fit the
    gallery as it is now.
    """
    items, identity = list(wanted.items), wanted.identity
    if wanted.kind == "accept" and items and identity:
        return accept(gallery, items, identity, who=who)
    if wanted.kind == "accept" and wanted.proposal:
        return accept_proposal(gallery, wanted.proposal, identity=identity, who=who)
    if wanted.kind == "reject" and len(items) > 1:
        return reject(gallery, items[0], items[1:], who=who)
    if wanted.kind == "reject" and wanted.proposal:
        return _withdraw(gallery, wanted.proposal)
    if wanted.kind == "merge" and identity and wanted.others:
        return _merge(gallery, identity, list(wanted.others), who)
    if wanted.kind == "split" and items:
        return _split(gallery, items, identity, who)
    if wanted.kind == "undo" and wanted.undoes is not None:
        return undo(gallery, wanted.undoes, who=who)
    raise ConfigError(f"a decision of the kind {wanted.kind} needs {_NEEDED[wanted.kind]}")


def _withdraw(gallery: Gallery, proposal: str) -> list[Decision]:
    """Nobody is proposed as that any more."""
    _rename(gallery, [item.id for item in _proposed(gallery, proposal)], None)
    return []


def _merge(gallery: Gallery, identity: str, others: list[str], who: str) -> list[Decision]:
    """People into one; of proposals, those join the person, or, where all are proposals, become one."""
    open_ones = proposals(gallery)
    is_known = bool(gallery.items(where={"identity": identity}))
    proposed = [name for name in others if name in open_ones and not gallery.items(where={"identity": name})]
    if not is_known and len(proposed) == len(others) and identity in open_ones:
        _rename(gallery, [item.id for name in proposed for item in open_ones[name]], identity)
        return []
    known = [name for name in others if name not in proposed]
    made = merge(gallery, identity, known, who=who) if known else []
    for name in proposed:
        made += accept_proposal(gallery, name, identity=identity, who=who)
    return made


def _split(gallery: Gallery, ids: list[int], identity: str | None, who: str) -> list[Decision]:
    """Items out of the person that they are, or of a proposal, and told apart from its rest."""
    items = gallery.items(ids=ids)
    if all(item.identity is not None for item in items):
        return split(gallery, ids, identity=identity, who=who)
    names = {item.labels.get(PROPOSAL) for item in items}
    if any(item.identity is not None for item in items) or len(names) > 1 or None in names:
        raise ConfigError("split takes items of one proposal, or items that have identities; not both")
    [name] = names
    rest = [item.id for item in _proposed(gallery, str(name)) if item.id not in set(ids)]
    if not rest:
        raise DataError(f"these are all items of {shown(name)}; reject the proposal instead")
    made = [decision for number in ids for decision in reject(gallery, number, rest, who=who)]
    _rename(gallery, ids, None)
    if identity is not None:
        made += accept(gallery, ids, identity, who=who)
    return made


def _proposed(gallery: Gallery, name: str) -> list[Item]:
    open_ones = proposals(gallery)
    if name not in open_ones:
        raise DataError(f"there is no proposal {shown(name)} any more; look again")
    return open_ones[name]


def _rename(gallery: Gallery, ids: Sequence[int], name: str | None) -> None:
    gallery.relabel(ids, labels={PROPOSAL: [name] * len(ids)})
