"""The demo's world: people to draw, what of them goes into the gallery, and whom to search for."""

from __future__ import annotations

from pathlib import Path

from reidkit.types import JUNK, Dataset, Sample

WORLD = {
    "num_train_identities": 300,
    "num_test_identities": 60,
    "images_per_camera": 3,
    "num_workers": 2,
    "seed": 0,
}
"""Enough people to learn from in two minutes, and others to be tested on."""


def people_to_find(data: Dataset) -> list[Sample]:
    """The gallery's images that show somebody."""
    return [sample for sample in data.gallery if sample.identity != JUNK]


def people_to_search_for(data: Dataset, *, num: int = 3) -> tuple[list[Path], list[str]]:
    """A few queries, evenly spaced: their images, and whom these show."""
    chosen = data.query[:: max(1, len(data.query) // num)][:num]
    return [sample.path for sample in chosen], [str(sample.identity) for sample in chosen]
