"""Cars196, Stanford Cars (Krause et al., 2013)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reidkit.datasets._layouts import existing_folder, find_file, find_tree, numbered, unlisted_files
from reidkit.datasets._matlab import load_variable, understood
from reidkit.errors import DataError
from reidkit.registry import register
from reidkit.types import Dataset, Sample

NUM_TRAIN_CLASSES = 98
ONE_FILE = "cars_annos.mat"
TWO_FILES = {"cars_train": "cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}
PUBLISHED = {
    "train": {"images": 8_054, "identities": 98},
    "query": {"images": 8_131, "identities": 98},
}


@register("dataset", "cars196")
def cars196(root: Path) -> Dataset:
    """Cars196: 196 models of cars, the first 98 to train on, the others to test.

    Krause, Stark, Deng, Fei-Fei, "3D Object Representations for Fine-Grained Categorization", 2013. Its own
    split shares classes; metric learning takes classes apart instead (Song et al., CVPR 2016).

    ===== ======= =============
    part  images  classes
    ===== ======= =============
    train 8,054   1 to 98
    test  8,131   99 to 196
    ===== ======= =============

    Either ``car_ims`` with ``cars_annos.mat``, or ``cars_train`` and ``cars_test`` with
    ``cars_train_annos.mat`` and ``cars_test_annos_withlabels.mat`` (here or in ``devkit``). Whole images,
    as is usual: boxes are not read. There are no cameras and no gallery: every test image asks for all
    others (protocol "recall").

    Args:
        root: the folder with these, or one that holds it.

    Raises:
        DataError: images or annotations are missing or damaged.
    """
    tree, labels = _read_annotations(existing_folder(Path(root), expected="the folder of Cars196"))
    folders = sorted({name.partition("/")[0] for name in labels})
    skipped: list[Path] = []
    for folder in folders:
        names = [name.partition("/")[2] for name in labels if name.startswith(f"{folder}/")]
        skipped += unlisted_files(tree / folder, names, source="the annotation")
    samples = [Sample(tree / name, label, None, 0, dataset="cars196") for name, label in labels.items()]
    return Dataset(
        name="cars196",
        root=tree,
        train=numbered(sample for sample in samples if sample.identity <= NUM_TRAIN_CLASSES),
        query=numbered(sample for sample in samples if sample.identity > NUM_TRAIN_CLASSES),
        protocol="recall",
        has_cameras=False,
        camera_filter="none",
        skipped=tuple(skipped),
        published=PUBLISHED,
    )


def _read_annotations(root: Path) -> tuple[Path, dict[str, int]]:
    """The tree, and the class of each image by its path below it."""
    try:
        tree = find_tree(root, tuple(TWO_FILES), known_as="Cars196")
    except DataError:
        tree = find_tree(root, (ONE_FILE, "car_ims"), known_as="Cars196")
        return tree, _labels(tree / ONE_FILE, "relative_im_path")
    labels: dict[str, int] = {}
    for folder, name in TWO_FILES.items():
        path = find_file(name, (tree, tree / "devkit", tree.parent / "devkit"))
        if path is None:
            raise DataError(f"{tree} has no {name}, there or in devkit; without it classes are not known")
        labels |= {f"{folder}/{file}": label for file, label in _labels(path, "fname").items()}
    return tree, labels


def _labels(path: Path, name_field: str) -> dict[str, int]:
    annotations = np.atleast_1d(load_variable(path, "annotations"))
    missing = {name_field, "class"} - set(annotations.dtype.names or ())
    if missing:
        raise DataError(f"{path}: annotations have no field {' and '.join(sorted(missing))}")
    with understood(path):
        return {
            str(name): int(label)
            for name, label in zip(annotations[name_field], annotations["class"], strict=True)
        }
