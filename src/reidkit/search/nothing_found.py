"""Why a search found nothing: which condition removed what, and which labels there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from datetime import datetime
from typing import Any

from reidkit.errors import shortened
from reidkit.galleries import Gallery, Where
from reidkit.galleries._labels import as_listed, utc
from reidkit.galleries._relative import apart_from_query, keys_of_query
from reidkit.labels import near_labels
from reidkit.search.whole_paths import with_whole_paths

_NUM_VALUES = 8  # labels that a message lists
_NUM_NEAR = 3  # of them near to one that was meant


def why_nothing(gallery: Gallery, where: Where | None) -> str:
    """Why a search with these conditions found nothing: what each leaves, and which labels there are."""
    if not len(gallery):
        return f"{gallery.location} holds no items"
    left: list[str] = []
    meant: list[str] = []
    of_query = keys_of_query(where)
    for key, wanted in (apart_from_query(with_whole_paths(where)) or {}).items():
        num = len(gallery.items(where={key: wanted}))
        note = f"the condition on {key} alone leaves {num:,} of {len(gallery):,}"
        if not num:
            labels = {item.label(key) for item in gallery.items()} - {None}
            note += f" ({_listed_labels(key, labels)})"
            meant += [f"{key}={as_listed(near)}" for near in _near(key, wanted, labels)]
        left.append(note)
    if of_query:
        left.append(f"{' and '.join(of_query)} had to fit the query's own")
    hint = f"; did you mean {' or '.join(meant)}?" if meant else ""
    return "no item meets the conditions: " + "; ".join(left) + hint


def _listed_labels(key: str, labels: Set[Any]) -> str:
    """A few of the labels of one kind that there are."""
    if not labels:
        return f"no item has a {key}"
    values = sorted(labels, key=lambda value: (isinstance(value, str), isinstance(value, datetime), value))
    writers: dict[str, Callable[[Any], str]] = {"time": utc, "source": str}
    write = writers.get(key, as_listed)
    listed = ", ".join(shortened(write(value)) for value in values[:_NUM_VALUES])
    more = f", and {len(values) - _NUM_VALUES:,} more" if len(values) > _NUM_VALUES else ""
    return f"there are {listed}{more}"


def _near(key: str, wanted: Any, labels: Set[Any]) -> list[str]:
    """Labels that may be meant by those that a condition asks for and nothing has."""
    if key not in ("identity", "camera") or isinstance(wanted, Mapping):
        return []
    single = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    asked = [str(value) for value in ([wanted] if single else wanted) if value is not None]
    known = [str(label) for label in labels]
    return [near for text in asked for near in near_labels(text, known)][:_NUM_NEAR]
