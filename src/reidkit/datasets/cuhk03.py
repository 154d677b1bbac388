"""CUHK03 (Li et al., CVPR 2014)."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit import logs
from reidkit.datasets._layouts import (
    check_option,
    check_split,
    find_file,
    find_tree,
    fitting_files,
    numbered,
    published_name,
)
from reidkit.datasets._matlab import Hdf5File, load_variable, open_hdf5, understood
from reidkit.errors import ConfigError, DataError
from reidkit.files import WriteError, from_home
from reidkit.registry import register
from reidkit.types import Dataset, Sample

logger = logs.get_logger(__name__)

RELEASE = "cuhk-03.mat"
CONFIG = "cuhk03_new_protocol_config_{}.mat"
NUM_SPLITS = 20
CELLS_PER_CAMERA = 5
NAME = re.compile(r"(?P<pair>\d)_(?P<number>\d{3,})_(?P<view>[12])_(?P<cell>\d\d)\.png")

CLASSIC = {
    "train": {"identities": 1_367},
    "query": {"identities": 100},
    "gallery": {"identities": 100},
}
NEW = {
    boxes: {
        "train": {"images": num_train, "identities": 767},
        "query": {"images": 1_400, "identities": 700},
        "gallery": {"images": num_gallery, "identities": 700},
    }
    for boxes, num_train, num_gallery in (("labeled", 7_368, 5_328), ("detected", 7_365, 5_332))
}

PairAndNumber = tuple[int, int]
"""Camera pair and number in it, both from 1: how the release names an identity."""


@register("dataset", "cuhk03")
def cuhk03(
    root: Path, *, protocol: str = "new", boxes: str = "labeled", split: int = 0, cache: str | None = None
) -> Dataset:
    """CUHK03: 1,467 persons under five pairs of cameras on a campus, boxes drawn by hand and detected.

    Li, Zhao, Xiao, Wang, "DeepReID: Deep Filter Pairing Neural Network for Person Re-identification",
    CVPR 2014. New protocol: Zhong, Zheng, Cao, Li, "Re-ranking Person Re-identification with k-reciprocal
    Encoding", CVPR 2017.

    ======== ============= ============ ====== ==========================
    protocol train         query        gallery images (labeled/detected)
    ======== ============= ============ ====== ==========================
    new      767           700          7,368/7,365; 1,400; 5,328/5,332
    classic  1,367         100          of 14,096/14,097, twenty splits
    ======== ============= ============ ====== ==========================

    The pixels lie inside ``cuhk-03.mat``. They are unpacked once, as PNG and so without loss, into a folder
    that is told on standard error: ``1_001_1_01.png`` is camera pair, person, view, cell. The camera of a
    sample is the view, 1 or 2, whatever the pair. In the classic protocol every test image asks, and is
    compared with one random image of each test person from the other view.

    Args:
        root: the folder ``cuhk03_release``, or one that holds it.
        protocol: "new" (767/700; needs ``cuhk03_new_protocol_config_labeled.mat`` or ``..._detected.mat``
            in or beside the release), or "classic".
        boxes: "labeled", drawn by hand, or "detected".
        split: 0 to 19, of the classic protocol.
        cache: folder to unpack the images into; by default in the folder of ``cuhk-03.mat``.

    Raises:
        DataError: a file is missing, damaged, or not of this release.
        ConfigError: an option out of range.
        MissingExtra: h5py is not installed.
        WriteError: the images cannot be unpacked.
    """
    check_option("protocol", protocol, ("new", "classic"))
    check_option("boxes", boxes, tuple(NEW))
    check_split(split, NUM_SPLITS)
    if protocol == "new" and split:
        raise ConfigError(f"split = {split}, but the new protocol has one split; ask for protocol='classic'")
    tree = find_tree(Path(root), (RELEASE,), known_as="CUHK03")
    # What may be missing is looked for before the minute of unpacking.
    config = _find_config(tree, Path(root), boxes) if protocol == "new" else None
    images = from_home(cache) / boxes if cache else tree / f"images_{boxes}_png"
    if not images.is_dir():
        _unpack(tree / RELEASE, boxes, images)
    if config is not None:
        return _new_protocol(tree, images, config, boxes)
    with open_hdf5(tree / RELEASE) as release:
        test = classic_test_identities(release, split)
    return _classic_protocol(tree, images, test, split)


def new_protocol_samples(
    folder: Path, names: Iterable[str], labels: NDArray[Any], cameras: NDArray[Any], indices: NDArray[Any]
) -> tuple[Sample, ...]:
    """Samples of one part; ``indices`` are 1-based, into names, labels and cameras (N,)."""
    names = list(names)
    rows = np.atleast_1d(indices).astype(np.int64) - 1
    if len(rows) and not 0 <= rows.min() <= rows.max() < len(names):
        raise DataError(f"the new protocol names image {rows.max() + 1} of {len(names)}; copy its file again")
    return numbered(
        Sample(folder / names[row], int(labels[row]), int(cameras[row]), 0, dataset="cuhk03")
        for row in rows.tolist()
    )


def classic_test_identities(release: Hdf5File, split: int) -> set[PairAndNumber]:
    """Test identities of one split of ``testsets``: cells of (100, 2), camera pair and number, 1-based."""
    testsets = release.variable("testsets").ravel()
    if len(testsets) != NUM_SPLITS:
        raise DataError(f"{RELEASE} holds {len(testsets)} test sets, expected {NUM_SPLITS}; copy it again")
    pairs = release.cell(testsets[split])
    with understood(Path(RELEASE)):
        return {(int(pair), int(number)) for pair, number in pairs}


def _new_protocol(tree: Path, images: Path, config: Path, boxes: str) -> Dataset:
    names, labels, cameras, train, query, gallery = (
        load_variable(config, name)
        for name in ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")
    )
    with understood(config):
        names = list(map(str, np.atleast_1d(names)))
        train, query, gallery = (
            new_protocol_samples(images, names, labels, cameras, rows) for rows in (train, query, gallery)
        )
    unpacked, skipped = fitting_files(images, NAME, example="1_001_1_01.png")
    missing = sorted({*names} - {path.name for path, _ in unpacked})
    if missing:
        raise DataError(
            f"{images} lacks {len(missing)} images that {config.name} lists ({missing[0]} is the first); "
            "delete the folder to have it unpacked again"
        )
    return Dataset(
        name="cuhk03",
        root=tree,
        train=train,
        query=query,
        gallery=gallery,
        split_name=f"new protocol 767/700, {boxes}",
        skipped=tuple(skipped),
        published=NEW[boxes],
    )


def _classic_protocol(tree: Path, images: Path, test: set[PairAndNumber], split: int) -> Dataset:
    files, skipped = fitting_files(images, NAME, example="1_001_1_01.png")
    numbers = {path: (int(name["pair"]), int(name["number"])) for path, name in files}
    # Counted over all pairs, in order: the identities are those of the new protocol.
    identities = {number: identity for identity, number in enumerate(sorted({*numbers.values()}), start=1)}
    unknown = test - identities.keys()
    if unknown:
        raise DataError(f"{RELEASE}, test set {split} names {min(unknown)}, of whom there is no image")
    samples = [
        Sample(path, identities[numbers[path]], int(name["view"]), 0, dataset="cuhk03")
        for path, name in files
    ]
    tested = numbered(sample for sample in samples if numbers[sample.path] in test)
    return Dataset(
        name="cuhk03",
        root=tree,
        train=numbered(sample for sample in samples if numbers[sample.path] not in test),
        query=tested,
        gallery=tested,
        protocol="single_gallery_shot",
        camera_filter="other_cameras",
        num_splits=NUM_SPLITS,
        split_name=published_name(split, NUM_SPLITS, RELEASE),
        skipped=tuple(skipped),
        published=CLASSIC,
    )


def _find_config(tree: Path, root: Path, boxes: str) -> Path:
    name = CONFIG.format(boxes)
    config = find_file(name, (tree, tree.parent, root))
    if config is None:
        raise DataError(
            f"there is no {name} in or beside {tree}; the new protocol needs it: get it from its authors, or "
            "ask for protocol='classic'"
        )
    return config


def _unpack(release: Path, boxes: str, folder: Path) -> None:
    """Write the images of one kind of boxes; the folder appears when it is complete."""
    logger.warning(f"unpacking the {boxes} images of {release} into {folder}, once")
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        images = temporary / "images"  # the folder around it is private, which the result must not be
        images.mkdir()
        with open_hdf5(release) as file:
            for name, pixels in _pictures(file, boxes):
                Image.fromarray(pixels).save(images / name, compress_level=1)
        images.rename(folder)
    except OSError as error:
        # Another process may have unpacked the same images meanwhile; its folder is complete.
        if not folder.is_dir():
            raise WriteError(
                f"cannot unpack images into {folder}: {error.strerror or error}; free some space, or give "
                "another place with cache=FOLDER"
            ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _pictures(release: Hdf5File, boxes: str) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    for pair, cells_of_pair in enumerate(release.variable(boxes).ravel(), start=1):
        for number, cells in enumerate(release.cell(cells_of_pair), start=1):
            for cell_number, cell in enumerate(cells, start=1):
                pixels = release.cell(cell)  # (height, width, 3), or empty
                if pixels.size:
                    view = 1 if cell_number <= CELLS_PER_CAMERA else 2
                    yield f"{pair}_{number:03}_{view}_{cell_number:02}.png", np.ascontiguousarray(pixels)
