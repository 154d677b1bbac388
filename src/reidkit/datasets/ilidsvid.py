"""iLIDS-VID: image sequences (Wang et al., ECCV 2014)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from reidkit.datasets._layouts import (
    check_split,
    draw_identities,
    find_file,
    find_tree,
    identity_sequences,
    numbered,
    published_name,
    seeded_name,
)
from reidkit.datasets._matlab import load_variable, understood
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.types import Dataset, Split

NUM_SPLITS = 10
SPLIT_FOLDER = "train-test people splits"
SPLIT_FILE = "train_test_splits_ilidsvid.mat"
PUBLISHED = {
    "train": {"identities": 150, "tracklets": 300},
    "query": {"identities": 150, "tracklets": 150},
    "gallery": {"identities": 150, "tracklets": 150},
}


@register("dataset", "ilidsvid")
def ilidsvid(root: Path, *, split: int = 0) -> Dataset:
    """iLIDS-VID: 300 persons in an airport, one image sequence from each of two cameras.

    Wang, Gong, Zhu, Wang, "Person Re-Identification by Video Ranking", ECCV 2014. The ten splits are read
    from ``train_test_splits_ilidsvid.mat``: a row is an order of the persons, the first half tests, the
    second trains. Where the file is not there, they are drawn from the number of the split as seed.

    ======= ========= ==========
    part    tracklets identities
    ======= ========= ==========
    train   300       150
    query   150       150 others, camera 1
    gallery 150       these, camera 2
    ======= ========= ==========

    Images are ``sequences/cam1/person001/cam1_person001_00317.png``.

    Args:
        root: the folder with ``i-LIDS-VID`` and ``train-test people splits``, or one of these above it.
        split: 0 to 9; published numbers are means over all ten.

    Raises:
        DataError: no such folders, no sequences, a split file that does not fit them.
        ConfigError: unknown split.
    """
    check_split(split, NUM_SPLITS)
    tree = find_tree(Path(root), ("sequences/cam1", "sequences/cam2"), known_as="iLIDS-VID")
    first, skipped = identity_sequences(tree / "sequences/cam1", camera=1, name="ilidsvid")
    second, others = identity_sequences(tree / "sequences/cam2", camera=2, name="ilidsvid")
    if first.keys() != second.keys():
        odd = min(first.keys() ^ second.keys())
        raise DataError(f"{tree}/sequences: person{odd:03} is under one camera only; unpack the set again")
    test, split_name = _test_identities(tree, sorted(first), split)
    train: Split = numbered(s for part in (first, second) for p in part.keys() - test for s in part[p])
    return Dataset(
        name="ilidsvid",
        root=tree,
        train=train,
        query=numbered(sample for identity in test for sample in first[identity]),
        gallery=numbered(sample for identity in test for sample in second[identity]),
        protocol="tracklets",
        camera_filter="other_cameras",
        num_splits=NUM_SPLITS,
        split_name=split_name,
        skipped=(*skipped, *others),
        published=PUBLISHED,
    )


def test_identities_by_split(orders: Any, identities: list[int], *, source: str) -> list[set[int]]:
    """Test identities of each row of ``ls_set`` (10, P): 1-based places in the sorted list of identities."""
    orders = np.atleast_2d(orders).astype(np.int64)
    expected = (NUM_SPLITS, len(identities))
    if orders.shape != expected or any(
        set(row) != set(range(1, len(identities) + 1)) for row in orders.tolist()
    ):
        raise DataError(
            f"{source}: ls_set has shape {orders.shape}; expected ten orders {expected} of the "
            f"{len(identities)} persons"
        )
    return [{identities[place - 1] for place in row[: len(identities) // 2]} for row in orders.tolist()]


def _test_identities(tree: Path, identities: list[int], split: int) -> tuple[set[int], str]:
    places = (tree, tree / SPLIT_FOLDER, tree.parent / SPLIT_FOLDER)
    path = find_file(SPLIT_FILE, places)
    if path is None:
        return draw_identities(identities, len(identities) // 2, seed=split), seeded_name(split, NUM_SPLITS)
    orders = load_variable(path, "ls_set")
    with understood(path):
        splits = test_identities_by_split(orders, identities, source=str(path))
    return splits[split], published_name(split, NUM_SPLITS, SPLIT_FILE)
