"""PRID2011 (Hirzer et al., SCIA 2011)."""

from __future__ import annotations

import re
from pathlib import Path

from reidkit.datasets._layouts import (
    check_option,
    check_split,
    draw_identities,
    find_tree,
    fitting_files,
    identity_sequences,
    numbered,
    seeded_name,
)
from reidkit.registry import register
from reidkit.types import Dataset, Sample

Sequences = dict[int, list[Sample]]

NAME = re.compile(r"person_(?P<identity>\d+)\.png", re.IGNORECASE)
NUM_SHARED = 200
MIN_FRAMES = 28
NUM_SPLITS = 10
PUBLISHED = {
    "single": {
        "train": {"images": 200, "identities": 100},
        "query": {"images": 100, "identities": 100},
        "gallery": {"images": 649, "identities": 100, "distractors": 549},
    },
    "multi": {
        "train": {"identities": 89, "tracklets": 178},
        "query": {"identities": 89, "tracklets": 89},
        "gallery": {"identities": 89, "tracklets": 89},
    },
}


@register("dataset", "prid2011")
def prid2011(root: Path, *, split: int = 0, shots: str = "multi") -> Dataset:
    """PRID2011: two street cameras, 385 and 749 persons, the first 200 of each the same.

    Hirzer, Beleznai, Roth, Bischof, "Person Re-Identification by Descriptive and Discriminative
    Classification", SCIA 2011. The release has no splits: the ten here are drawn from the number of the
    split as seed, half of the persons to train on.

    ======= ======= ========================================================
    shots   part    images or tracklets
    ======= ======= ========================================================
    single  train   200 images of 100 persons
    single  query   100 images of 100 others, camera a
    single  gallery 649 images, camera b: these, and 549 nobody asks for
    multi   train   178 tracklets of 89 persons
    multi   query    89 tracklets of 89 others, camera a
    multi   gallery  89 tracklets of these, camera b
    ======= ======= ========================================================

    Images are ``single_shot/cam_a/person_0001.png``, ``multi_shot/cam_a/person_0001/0001.png``. Person 201
    of camera a is not person 201 of camera b: of camera a the first 200 alone are used. The video protocol
    ("multi", Wang et al., ECCV 2014) keeps the 178 persons of whom both cameras have more than 27 frames.

    Args:
        root: the folder ``prid_2011``, or one that holds it.
        split: 0 to 9.
        shots: "single" or "multi".

    Raises:
        DataError: no such folders, no image so named.
        ConfigError: an option out of range.
    """
    check_split(split, NUM_SPLITS)
    check_option("shots", shots, tuple(PUBLISHED))
    parts = [f"{shots}_shot/cam_a", f"{shots}_shot/cam_b"]
    tree = find_tree(Path(root), parts, known_as="PRID2011")
    read = identity_sequences if shots == "multi" else _single_images
    first, skipped = read(tree / parts[0], camera=1, name="prid2011")
    second, others = read(tree / parts[1], camera=2, name="prid2011")
    shared = {identity for identity in first.keys() & second.keys() if identity <= NUM_SHARED}
    if shots == "multi":
        shared = {p for p in shared if min(len(first[p]), len(second[p])) >= MIN_FRAMES}
    test = draw_identities(shared, len(shared) // 2, seed=split)
    train = shared - test
    searched = test if shots == "multi" else second.keys() - train
    return Dataset(
        name="prid2011",
        root=tree,
        train=numbered(sample for identity in train for sample in first[identity] + second[identity]),
        query=numbered(sample for identity in test for sample in first[identity]),
        gallery=numbered(sample for identity in searched for sample in second[identity]),
        protocol="tracklets" if shots == "multi" else "single_gallery_shot",
        camera_filter="other_cameras",
        num_splits=NUM_SPLITS,
        split_name=seeded_name(split, NUM_SPLITS),
        skipped=(*skipped, *others),
        published=PUBLISHED[shots],
    )


def _single_images(folder: Path, *, camera: int, name: str) -> tuple[Sequences, list[Path]]:
    files, others = fitting_files(folder, NAME, example="person_0001.png")
    return {
        int(fields["identity"]): [Sample(path, int(fields["identity"]), camera, 0, dataset=name)]
        for path, fields in files
    }, others
