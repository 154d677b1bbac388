"""What people call the parts of a data set: "train", but also "Training", "test_set", "probe"."""

from __future__ import annotations

import re

_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "query": ("query", "queries", "probe", "probes"),
    "gallery": ("gallery", "galleries", "test", "testing"),
}
_PART = {name: part for part, names in _NAMES.items() for name in names}

# As in bounding_box_train, image_query, train_set, TestImages.
_DRESSED = re.compile(
    r"(?:(?:bounding[ _-]?box|images?|imgs?|data|set)[ _-]*)?"
    rf"({'|'.join(sorted(_PART, key=len, reverse=True))})"
    r"(?:[ _-]*(?:set|data|dataset|split|part|images?|imgs?|folder))?",
)

# What is too short, or means too many other things, to be taken for a part at once.
_HINTS = {
    **dict.fromkeys(("tr", "trn", "fit"), "train"),
    **dict.fromkeys(("dev", "development", "holdout"), "val"),
    **dict.fromkeys(("te", "tst", "eval", "evaluation", "reference", "references"), "gallery"),
}

PARTS = tuple(_NAMES)
"""The parts, and how they are called here."""


def part_of(name: str) -> str | None:
    """The part that a folder, or a cell in a column ``split``, speaks of; ``None`` for any other name.

    >>> [part_of(name) for name in ("Train", "test_set", "probe", "anna")]
    ['train', 'gallery', 'query', None]
    """
    found = _DRESSED.fullmatch(name.strip().casefold())
    return None if found is None else _PART[found[1]]


def hinted_part(name: str) -> str | None:
    """The part that a longer name speaks of as one word among others, as in ``market_train`` or ``02-Test``.

    Nobody can tell whether such a folder is a part: a person may be called so.

    >>> [hinted_part(name) for name in ("photos_train", "2024 eval", "testimony", "anna")]
    ['train', 'gallery', None, None]
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold())
    found = {part for word in words if (part := _HINTS.get(word) or part_of(word)) is not None}
    return found.pop() if len(found) == 1 else None
