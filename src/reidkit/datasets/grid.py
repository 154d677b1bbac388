"""QMUL underGround Re-IDentification, GRID (Loy et al., CVPR 2009)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from reidkit.datasets._layouts import (
    check_split,
    draw_identities,
    find_file,
    find_tree,
    fitting_files,
    numbered,
    published_name,
    seeded_name,
)
from reidkit.datasets._matlab import load_variable, understood
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.types import Dataset, Sample

NAME = re.compile(r"(?P<identity>\d{4})_(?P<camera>\d+)_.+\.jpe?g", re.IGNORECASE)
NUM_SPLITS = 10
SPLIT_FILE = "features_and_partitions.mat"
PUBLISHED = {
    "train": {"images": 250, "identities": 125},
    "query": {"images": 125, "identities": 125},
    "gallery": {"images": 900, "identities": 125, "distractors": 775},
}


@register("dataset", "grid")
def grid(root: Path, *, split: int = 0) -> Dataset:
    """GRID: eight cameras of an underground station, 250 persons seen twice and 775 images of others.

    Loy, Xiang, Gong, "Multi-Camera Activity Correlation Analysis", CVPR 2009. The ten splits are read from
    ``features_and_partitions.mat`` where it lies in or beside the set; otherwise they are drawn from the
    number of the split as seed.

    ======= ======= ==============================
    part    images  identities
    ======= ======= ==============================
    train   250     125
    query   125     125 others, from probe
    gallery 900     these 125, and 775 distractors
    ======= ======= ==============================

    Names are ``0001_1_25008_169_19_94_223.jpeg``: person, camera; person 0000 are the distractors. No
    camera is left out: a person has one image in probe and one in gallery.

    Args:
        root: the folder ``underground_reid``, or one that holds it.
        split: 0 to 9; published numbers are means over all ten.

    Raises:
        DataError: no such folders, no image so named, a damaged split file.
        ConfigError: unknown split.
    """
    check_split(split, NUM_SPLITS)
    tree = find_tree(Path(root), ("probe", "gallery"), known_as="GRID")
    images: dict[str, list[Sample]] = {}
    skipped: list[Path] = []
    for folder in ("probe", "gallery"):
        files, others = fitting_files(tree / folder, NAME, example="0001_1_25008_169_19_94_223.jpeg")
        images[folder] = [
            Sample(path, int(name["identity"]), int(name["camera"]), 0, dataset="grid")
            for path, name in files
        ]
        skipped += others
    identities = {sample.identity for sample in images["probe"]}
    train, split_name = _train_identities(tree, identities, split)
    return Dataset(
        name="grid",
        root=tree,
        train=numbered(s for s in images["probe"] + images["gallery"] if s.identity in train),
        query=numbered(s for s in images["probe"] if s.identity not in train),
        gallery=numbered(s for s in images["gallery"] if s.identity not in train),
        camera_filter="none",
        num_splits=NUM_SPLITS,
        split_name=split_name,
        skipped=tuple(skipped),
        published=PUBLISHED,
    )


def train_identities_by_split(partitions: Any, *, source: str) -> list[set[int]]:
    """Training identities of each split of ``trainIdxAll``: ten structs whose third field lists them."""
    splits = []
    for partition in np.atleast_1d(partitions):
        fields = getattr(partition, "dtype", np.dtype(float)).names or ()
        if len(fields) < 3:
            raise DataError(f"{source}: trainIdxAll does not hold structs of three fields; copy it again")
        identities = np.atleast_1d(partition[fields[2]].item())
        splits.append({int(identity) for identity in identities})
    if len(splits) != NUM_SPLITS:
        raise DataError(f"{source} holds {len(splits)} splits; expected {NUM_SPLITS}: copy it again")
    return splits


def _train_identities(tree: Path, identities: set[int], split: int) -> tuple[set[int], str]:
    path = find_file(SPLIT_FILE, (tree, tree.parent))
    if path is None:
        test = draw_identities(identities, len(identities) // 2, seed=split)
        return identities - test, seeded_name(split, NUM_SPLITS)
    partitions = load_variable(path, "trainIdxAll")
    with understood(path):
        train = train_identities_by_split(partitions, source=str(path))[split]
    if not train <= identities:
        raise DataError(
            f"{path}, split {split} names person {min(train - identities):04}, who is not in probe"
        )
    return train, published_name(split, NUM_SPLITS, SPLIT_FILE)
