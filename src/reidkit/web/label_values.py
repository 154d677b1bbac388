"""Which labels the items of a gallery have, so that conditions can be chosen instead of typed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from reidkit.galleries import Item
from reidkit.galleries._feedback import PROPOSAL
from reidkit.labels import is_date
from reidkit.web.answers import Label

MOST_VALUES = 60
"""Values of a label that can be chosen from; where there are more, limits of numbers or a text are typed."""


class LabelAnswer(BaseModel):
    """A label that items have: its ``values``; of more than a few, only from where to where numbers are."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(examples=["camera"])
    values: list[Label] = []
    low: float | None = None
    high: float | None = None


class LabelsAnswer(BaseModel):
    """The labels of a gallery; times in Unix seconds, of the calendar where ``is_date``."""

    model_config = ConfigDict(frozen=True)

    labels: list[LabelAnswer]
    num_people: int = 0
    first: float | None = None
    last: float | None = None
    is_date: bool = False


def labels_answer(items: Iterable[Item]) -> LabelsAnswer:
    """What can be chosen in conditions on these items."""
    seen: dict[str, set[Label]] = defaultdict(set)
    people: set[str] = set()
    times: list[float] = []
    for item in items:
        if item.camera is not None:
            seen["camera"].add(item.camera)
        if item.identity is not None:
            people.add(item.identity)
        if item.time is not None:
            times.append(item.time)
        for name, value in item.labels.items():
            if name != PROPOSAL and isinstance(value, str | int | float | bool):
                seen[name].add(value)
    first, last = (min(times), max(times)) if times else (None, None)
    return LabelsAnswer(
        labels=[_label(name, seen[name]) for name in sorted(seen, key=lambda name: (name != "camera", name))],
        num_people=len(people),
        first=first,
        last=last,
        is_date=first is not None and last is not None and is_date(first) and is_date(last),
    )


def _label(name: str, values: set[Label]) -> LabelAnswer:
    if len(values) <= MOST_VALUES:
        return LabelAnswer(name=name, values=sorted(values, key=_place))
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) < len(values):
        return LabelAnswer(name=name)
    return LabelAnswer(name=name, low=min(numbers), high=max(numbers))


def _place(value: Label) -> tuple[bool, float, str]:
    is_text = isinstance(value, str)
    return is_text, 0.0 if is_text else float(value), str(value)
