"""VIPeR (Gray et al., PETS 2007)."""

from __future__ import annotations

import re
from pathlib import Path

from reidkit.datasets._layouts import (
    check_option,
    check_split,
    draw_identities,
    find_file,
    find_tree,
    fitting_files,
    numbered,
    published_name,
    seeded_name,
)
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.texts.foreign import read_text
from reidkit.types import Dataset, Sample

CAMERAS = {"cam_a": 1, "cam_b": 2}
DIRECTIONS = {"both": ((1, 2), (1, 2)), "a_to_b": ((1,), (2,)), "b_to_a": ((2,), (1,))}
NAME = re.compile(r"(?P<identity>\d+)_(?P<angle>\d+)\.bmp", re.IGNORECASE)
NUM_SPLITS = 10
SPLIT_FILE = "SDALF_VIPeR_sets.txt"


@register("dataset", "viper")
def viper(root: Path, *, split: int = 0, direction: str = "both") -> Dataset:
    """VIPeR: 632 pedestrians, one image from each of two cameras, other view and light.

    Gray, Brennan, Tao, "Evaluating Appearance Models for Recognition, Reacquisition, and Tracking",
    PETS 2007. Each split trains on 316 persons and tests on the other 316. The ten splits of Farenzena et
    al., CVPR 2010, are read from ``SDALF_VIPeR_sets.txt`` where it lies in or beside the set; otherwise
    they are drawn from the number of the split as seed.

    ===== ======= ==========
    part  images  identities
    ===== ======= ==========
    train 632     316
    test  632     316 others
    ===== ======= ==========

    Names are ``cam_a/000_45.bmp``: person, view angle.

    Args:
        root: the folder with cam_a and cam_b, or one that holds it.
        split: 0 to 9; published numbers are means over all ten.
        direction: "a_to_b" asks with camera a and searches in camera b, "b_to_a" the other way; "both"
            does the two at once: every test image asks, and only images of the other camera are searched,
            so that the result is the mean of the two directions.

    Raises:
        DataError: no such folders, no image so named, a split file that is cut short.
        ConfigError: unknown split or direction.
    """
    check_split(split, NUM_SPLITS)
    check_option("direction", direction, tuple(DIRECTIONS))
    tree = find_tree(Path(root), tuple(CAMERAS), known_as="VIPeR")
    samples: list[Sample] = []
    skipped: list[Path] = []
    for folder, camera in CAMERAS.items():
        files, others = fitting_files(tree / folder, NAME, example="000_45.bmp")
        samples += [Sample(path, int(name["identity"]), camera, 0, dataset="viper") for path, name in files]
        skipped += others
    identities = {sample.identity for sample in samples}
    test, split_name = _test_identities(tree, identities, split)
    query_cameras, gallery_cameras = DIRECTIONS[direction]
    return Dataset(
        name="viper",
        root=tree,
        train=numbered(s for s in samples if s.identity not in test),
        query=numbered(s for s in samples if s.identity in test and s.camera in query_cameras),
        gallery=numbered(s for s in samples if s.identity in test and s.camera in gallery_cameras),
        protocol="single_gallery_shot",
        camera_filter="other_cameras",
        num_splits=NUM_SPLITS,
        split_name=split_name,
        skipped=tuple(skipped),
        published={
            "train": {"images": 632, "identities": 316},
            "query": {"images": 316 * len(query_cameras), "identities": 316},
            "gallery": {"images": 316 * len(gallery_cameras), "identities": 316},
        },
    )


def test_identities_by_split(text: str, *, source: str) -> list[set[int]]:
    """Test identities of each experiment in the text of ``SDALF_VIPeR_sets.txt``."""
    splits: list[set[int]] = []
    for line in text.splitlines():
        if line.startswith("%"):
            splits.append(set())
        elif pair := re.search(r"cam_a/(\d+)_", line):
            if not splits:
                raise DataError(f"{source} begins without '% Experiment Number 1'; copy it again")
            splits[-1].add(int(pair[1]))
    sizes = {len(identities) for identities in splits}
    if len(splits) != NUM_SPLITS or len(sizes) != 1 or 0 in sizes:
        raise DataError(
            f"{source} holds {len(splits)} splits of {sorted(sizes)} persons; "
            f"expected {NUM_SPLITS} of one size: copy it again"
        )
    return splits


def _test_identities(tree: Path, identities: set[int], split: int) -> tuple[set[int], str]:
    path = find_file(SPLIT_FILE, (tree, tree.parent))
    if path is None:
        return draw_identities(identities, len(identities) // 2, seed=split), seeded_name(split, NUM_SPLITS)
    test = test_identities_by_split(read_text(path), source=str(path))[split]
    if not test <= identities:
        raise DataError(f"{path}, split {split} names person {min(test - identities):03}, who has no image")
    return test, published_name(split, NUM_SPLITS, SPLIT_FILE)
