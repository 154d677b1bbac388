"""CUHK01 (Li et al., ACCV 2012)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from reidkit.datasets._layouts import (
    check_option,
    check_split,
    draw_identities,
    find_tree,
    fitting_files,
    numbered,
    seeded_name,
)
from reidkit.registry import register
from reidkit.types import Dataset, Sample, Split

NAME = re.compile(r"(?P<identity>\d{4})(?P<image>00[1-4])\.png", re.IGNORECASE)
NUM_IDENTITIES = 971
NUM_SPLITS = 10


@register("dataset", "cuhk01")
def cuhk01(root: Path, *, split: int = 0, num_test: int = 100, shots: str = "single") -> Dataset:
    """CUHK01: 971 persons, two images from each of two cameras on a campus.

    Li, Zhao, Wang, "Human Reidentification with Transferred Metric Learning", ACCV 2012. No splits were
    published: the ten here are drawn from the number of the split as seed.

    ======== ==================== ============================================
    num_test train                test
    ======== ==================== ============================================
    100      3,484 images of 871  200 queries and 200 gallery images of 100
    486      1,940 images of 485  972 queries and 972 gallery images of 486
    ======== ==================== ============================================

    Names are ``campus/0001001.png``: person, image; images 001 and 002 are camera one's, 003 and 004
    camera two's. Thirteen pairs of files hold the same bytes, each inside one person and camera. Both
    camera-one images of a test person ask; camera two is searched.

    Args:
        root: the folder ``campus``'s parent, or one that holds it.
        split: 0 to 9.
        num_test: 100 or 486 test identities.
        shots: "single", one random gallery image an identity; "multi", the two gallery images averaged
            (a tracklet each), while each query image asks for itself.

    Raises:
        DataError: no such folder, no image so named, fewer identities than num_test.
        ConfigError: an option out of range.
    """
    check_split(split, NUM_SPLITS)
    check_option("num_test", num_test, (100, 486))
    check_option("shots", shots, ("single", "multi"))
    tree = find_tree(Path(root), ("campus",), known_as="CUHK01")
    files, skipped = fitting_files(tree / "campus", NAME, example="0001001.png")
    samples = [_sample(path, int(name["identity"]), int(name["image"])) for path, name in files]
    test = draw_identities((sample.identity for sample in samples), num_test, seed=split)
    query = numbered(s for s in samples if s.identity in test and s.camera == 1)
    gallery = numbered(s for s in samples if s.identity in test and s.camera == 2)
    num_train = NUM_IDENTITIES - num_test
    return Dataset(
        name="cuhk01",
        root=tree,
        train=numbered(s for s in samples if s.identity not in test),
        query=_with_tracklets(query) if shots == "multi" else query,
        gallery=_with_tracklets(gallery) if shots == "multi" else gallery,
        protocol="tracklets" if shots == "multi" else "single_gallery_shot",
        camera_filter="other_cameras",
        num_splits=NUM_SPLITS,
        split_name=seeded_name(split, NUM_SPLITS),
        skipped=tuple(skipped),
        published={
            "train": {"images": 4 * num_train, "identities": num_train},
            "query": {"images": 2 * num_test, "identities": num_test},
            "gallery": {"images": 2 * num_test, "identities": num_test},
        },
    )


def _sample(path: Path, identity: int, image: int) -> Sample:
    return Sample(path, identity, 1 if image <= 2 else 2, 0, frame=image, dataset="cuhk01")


def _with_tracklets(split: Split) -> Split:
    """Images of camera one stand alone; the two of camera two make one tracklet."""
    return tuple(replace(s, tracklet=10 * s.identity + min(s.frame or 0, 3)) for s in split)
