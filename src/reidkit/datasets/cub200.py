"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reidkit.datasets._layouts import find_tree, numbered, unlisted_files
from reidkit.errors import DataError, shown
from reidkit.registry import register
from reidkit.texts.foreign import read_text
from reidkit.types import Dataset, Sample

NUM_TRAIN_CLASSES = 100
MAX_DIGITS = 18  # of a number
PUBLISHED = {
    "train": {"images": 5_864, "identities": 100},
    "query": {"images": 5_924, "identities": 100},
}


@register("dataset", "cub200")
def cub200(root: Path) -> Dataset:
    """CUB-200-2011: 200 species of birds, the first hundred to train on, the others to test.

    Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011. Its own
    split shares classes; metric learning takes classes apart instead (Song et al., CVPR 2016).

    ===== ======= =============
    part  images  classes
    ===== ======= =============
    train 5,864   1 to 100
    test  5,924   101 to 200
    ===== ======= =============

    Whole images, as is usual: ``bounding_boxes.txt`` is not read. There are no cameras and no gallery:
    every test image asks for all others (protocol "recall").

    Args:
        root: the folder ``CUB_200_2011``, or one that holds it.

    Raises:
        DataError: images or lists are missing, a line cannot be read.
    """
    tree = find_tree(Path(root), ("images", "images.txt", "image_class_labels.txt"), known_as="CUB-200-2011")
    names = _read_table(tree / "images.txt")
    classes = _read_table(tree / "image_class_labels.txt")
    if names.keys() != classes.keys():
        odd = min(names.keys() ^ classes.keys())
        raise DataError(f"{tree}: images.txt and image_class_labels.txt differ, image {odd} is in one only")
    skipped = unlisted_files(tree / "images", names.values(), source="images.txt")
    samples = [_sample(tree / "images" / name, classes[key]) for key, name in names.items()]
    return Dataset(
        name="cub200",
        root=tree,
        train=numbered(sample for sample in samples if sample.identity <= NUM_TRAIN_CLASSES),
        query=numbered(sample for sample in samples if sample.identity > NUM_TRAIN_CLASSES),
        protocol="recall",
        has_cameras=False,
        camera_filter="none",
        skipped=tuple(skipped),
        published=PUBLISHED,
    )


def _sample(path: Path, label: str) -> Sample:
    if not label.isdecimal() or len(label) > MAX_DIGITS:
        raise DataError(
            f"image_class_labels.txt gives {path.name} the class {shown(label)}; expected a number"
        )
    return Sample(path, int(label), None, 0, dataset="cub200", identity_name=path.parent.name)


def _read_table(path: Path) -> Mapping[str, str]:
    """Value by image number, of lines ``1 001.Black_footed_Albatross/....jpg``."""
    table = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        key, value = (*line.split(maxsplit=1), "")[:2]
        if not key.isdecimal() or not value.strip():
            raise DataError(f"{path}, line {number} is {shown(line)}; expected an image number and a value")
        table[key] = value.strip()
    return table
