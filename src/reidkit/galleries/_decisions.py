"""What people decided of a gallery's items: whom they show, and that two show different people.

A decision is kept with the identities that its items had before and have since, so that an engine needs to
know nothing of what its kind means: it compares, relabels and keeps the record, in one transaction
(:func:`carried_out`). What is removed is removed from decisions too (:func:`without`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from reidkit.errors import ConfigError, DataError, did_you_mean, shown
from reidkit.galleries._labels import LABELS, seconds_of
from reidkit.labels import label_text, moment
from reidkit.texts.printable import counted

DecisionKind = Literal["accept", "reject", "merge", "split", "undo"]
KINDS: tuple[str, ...] = get_args(DecisionKind)
MOST_ITEMS = 10_000
_LONGEST_NAME = 200  # characters of who decided


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided of some items. ``before`` and ``after`` are their identities, ``None`` unknown.

    - "accept": they show the person named in ``after``;
    - "reject": the first shows somebody else than each of the others; no identity changes;
    - "merge": those who were two people are one;
    - "split": they are taken out of the person they were;
    - "undo": the decision with the id ``undoes`` is taken back.

    ``who`` is a name; ``time`` is in Unix seconds, ``None`` for now. ``id`` is given by the gallery.
    """

    kind: DecisionKind
    items: tuple[int, ...]
    before: tuple[str | None, ...]
    after: tuple[str | None, ...]
    who: str
    time: float | None = None
    undoes: int | None = field(default=None, kw_only=True)
    id: int | None = field(default=None, kw_only=True)

    @property
    def moment(self) -> str:
        """The time, for people; empty before it is known."""
        return "" if self.time is None else moment(self.time)


def carried_out(
    decisions: Sequence[Decision], identities: Mapping[int, str | None], *, next_id: int
) -> tuple[list[Decision], dict[int, str | None]]:
    """Decisions as they are to be kept, and the identities of items that they change.

    Args:
        decisions: checked, in their order.
        identities: of all items that they name, as far as the gallery has them.
        next_id: of the first.

    Raises:
        DataError: an item is unknown, or its identity is not what the decision says it was.
    """
    now = dict(identities)
    kept = []
    for number, decision in enumerate(decisions, next_id):
        unknown = [id for id in decision.items if id not in now]
        if unknown:
            raise DataError(f"the gallery has no item {unknown[0]} ({len(unknown)} such in a decision)")
        for id, before, after in zip(decision.items, decision.before, decision.after, strict=True):
            if now[id] != before:
                raise DataError(
                    f"item {id} has the identity {shown(now[id])}, and not {shown(before)} any more; it was "
                    "changed meanwhile, and nothing was decided: look again"
                )
            now[id] = after
        kept.append(replace(decision, id=number, time=decision.time or time.time()))
    return kept, {id: after for id, after in now.items() if after != identities[id]}


def checked_decisions(decisions: Iterable[Decision]) -> list[Decision]:
    """Decisions whose values have their types; :class:`ConfigError` where one makes no sense."""
    if isinstance(decisions, Decision) or not isinstance(decisions, Iterable):
        raise ConfigError(f"decisions are of type {type(decisions).__name__}; expected a list of Decision")
    return [checked(decision) for decision in decisions]


def checked(decision: Decision) -> Decision:
    """A decision whose values have their types; :class:`ConfigError` where it makes no sense."""
    if not isinstance(decision, Decision):
        raise ConfigError(f"a decision is of type {type(decision).__name__}; expected a Decision")
    if decision.kind not in KINDS:
        close = did_you_mean(shown(decision.kind), KINDS)
        raise ConfigError(
            f"the kind of a decision is {shown(decision.kind)};{close} Allowed: {', '.join(KINDS)}"
        )
    items = tuple(_whole_number(id) for id in decision.items)
    least = 2 if decision.kind == "reject" else 1
    if not least <= len(items) <= MOST_ITEMS or len(set(items)) < len(items):
        twice = ", one of them twice" if len(set(items)) < len(items) else ""
        raise ConfigError(
            f"a decision of the kind {decision.kind} names {counted(len(items), 'item')}{twice}; "
            f"give {least} to {MOST_ITEMS:,}, each once"
        )
    names = [tuple(map(_identity, side)) for side in (decision.before, decision.after)]
    if len({len(items), *map(len, names)}) > 1:
        raise ConfigError(
            "a decision needs one identity before and one after, or None, for each of its items"
        )
    before, after = names
    if decision.kind == "reject" and before != after:
        raise ConfigError(
            "a decision of the kind reject changes no identities; give the same before and after"
        )
    if decision.kind in ("accept", "merge", "split") and len(set(after)) > 1:
        raise ConfigError(f"a decision of the kind {decision.kind} gives all of its items one identity")
    if decision.kind in ("accept", "merge") and after[0] is None:
        raise ConfigError(f"a decision of the kind {decision.kind} needs the name of a person")
    if (decision.undoes is None) is (decision.kind == "undo"):
        raise ConfigError("a decision of the kind undo says which one it undoes, and no other does")
    return replace(
        decision,
        items=items,
        before=before,
        after=after,
        who=_who(decision.who),
        time=_time(decision.time),
        undoes=None if decision.undoes is None else _whole_number(decision.undoes),
    )


def in_force(decisions: Iterable[Decision]) -> list[Decision]:
    """Those that nobody took back, in their order; an undo that is itself undone takes nothing back."""
    taken_back: set[int | None] = set()
    kept = []
    for decision in reversed(list(decisions)):
        if decision.id in taken_back:
            continue
        if decision.kind == "undo":
            taken_back.add(decision.undoes)
        else:
            kept.append(decision)
    return kept[::-1]


def decided_items(decisions: Iterable[Decision]) -> set[int]:
    """Items whose identity somebody told, and nobody took back."""
    return {id for decision in in_force(decisions) if decision.kind != "reject" for id in decision.items}


def without(
    decisions: Iterable[Decision], removed: Collection[int], forgotten: Collection[str]
) -> Iterator[tuple[Decision, Decision | None]]:
    """Those of the decisions that name removed items or forgotten people, and what is left of each, if any.

    ``forgotten`` are identities that no item has any more.
    """
    for decision in decisions:
        left = [
            (id, *(None if name in forgotten else name for name in names))
            for id, *names in zip(decision.items, decision.before, decision.after, strict=True)
            if id not in removed
        ]
        ids, before, after = (tuple(column) for column in zip(*left, strict=True)) if left else ((), (), ())
        if (ids, before, after) == (decision.items, decision.before, decision.after):
            continue
        # The first item of a rejection was told apart from the others, which were not from each other.
        is_void = not ids or (decision.kind == "reject" and (len(ids) < 2 or decision.items[0] in removed))
        is_void |= decision.kind in ("accept", "merge") and not any(after)
        yield decision, None if is_void else replace(decision, items=ids, before=before, after=after)


def _identity(value: Any) -> str | None:
    try:
        name: str | None = None if value is None else LABELS["identity"](value)
    except ValueError as error:
        raise ConfigError(f"an identity of a decision: {error}") from None
    return name


def _whole_number(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or abs(int(value)) >= 2**63:
        raise ConfigError(f"{shown(value)} in a decision is no id; ids are whole numbers")
    return int(value)


def _who(value: Any) -> str:
    name = label_text(value) if isinstance(value, str) else None
    if name is None or len(name) > _LONGEST_NAME:
        raise ConfigError(f"who decided is {shown(value)}; give a name of 1 to {_LONGEST_NAME} characters")
    return name


def _time(value: Any) -> float | None:
    try:
        return None if value is None else seconds_of(value)
    except ValueError as error:
        raise ConfigError(f"the time of a decision: {error}") from None
