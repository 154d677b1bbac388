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

PARTS = tuple(_NAMES)
"""The parts, and how they are called here."""


def part_of(name: str) -> str | None:
    """The part that a folder, or a cell in a column ``split``, speaks of; ``None`` for any other name.

    >>> [part_of(name) for name in ("Train", "test_set", "probe", "anna")]
    ['train', 'gallery', 'query', None]
    """
    found = _DRESSED.fullmatch(name.strip().casefold())
    return None if found is None else _PART[found[1]]
