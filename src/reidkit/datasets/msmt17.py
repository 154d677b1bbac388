"""MSMT17 (Wei et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from reidkit.datasets._layouts import find_tree, numbered, unlisted_files
from reidkit.errors import DataError, shown
from reidkit.registry import register
from reidkit.texts.foreign import read_text
from reidkit.types import Dataset, Sample

VERSIONS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}
LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
NUM_TRAIN_IDENTITIES = 1_041
MAX_DIGITS = 18  # of a number
PUBLISHED = {
    "train": {"images": 32_621, "identities": 1_041},
    "query": {"images": 11_659, "identities": 3_060},
    "gallery": {"images": 82_161, "identities": 3_060},
}


@register("dataset", "msmt17")
def msmt17(root: Path) -> Dataset:
    """MSMT17: fifteen cameras on a campus, twelve outdoors and three indoors, four days.

    Wei, Zhang, Gao, Tian, "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification",
    CVPR 2018. V1 has the folders train and test, V2 (faces blurred) mask_train_v2 and mask_test_v2; the
    four list files are the same.

    ============================ ======= ==========
    lists                        images  identities
    ============================ ======= ==========
    list_train, list_val         32,621  1,041
    list_query                   11,659  3,060 others
    list_gallery                 82,161  these 3,060
    ============================ ======= ==========

    Training is on both list_train and list_val, as published numbers are; they share identities. Lines
    are ``0000/0000_000_01_0303morning_0015_0.jpg 0``: path, identity; the camera is the third field of the
    name. Training and test identities are both counted from 0 there: here training identities are 1 to
    1,041 and test identities follow, with "train 0" or "test 0" as ``Sample.identity_name``.

    Args:
        root: the folder with the lists (``MSMT17_V1``, ``MSMT17_V2``), or one that holds it.

    Raises:
        DataError: lists or folders are missing, a line cannot be read, a listed image is not there.
    """
    tree = find_tree(Path(root), LISTS, known_as="MSMT17")
    train_folder, test_folder = _image_folders(tree)
    lines = {name: read_list(read_text(tree / name), source=tree / name) for name in LISTS}
    train = lines["list_train.txt"] + lines["list_val.txt"]
    query, gallery = lines["list_query.txt"], lines["list_gallery.txt"]
    skipped = [
        *unlisted_files(train_folder, [path for path, _, _ in train], source="list_train.txt, list_val.txt"),
        *unlisted_files(
            test_folder, [path for path, _, _ in query + gallery], source="list_query.txt, list_gallery.txt"
        ),
    ]
    return Dataset(
        name="msmt17",
        root=tree,
        train=numbered(_sample(train_folder / path, label, camera, "train") for path, label, camera in train),
        query=numbered(_sample(test_folder / path, label, camera, "test") for path, label, camera in query),
        gallery=numbered(
            _sample(test_folder / path, label, camera, "test") for path, label, camera in gallery
        ),
        skipped=tuple(skipped),
        published=PUBLISHED,
    )


def read_list(text: str, *, source: Path) -> list[tuple[str, int, int]]:
    """Path, identity and camera of each line of a list file."""
    images = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path, label = ("", *line.strip().rsplit(maxsplit=1))[-2:]
        fields = PurePosixPath(path).name.split("_")
        if len(fields) < 4 or not all(
            text.isdecimal() and len(text) <= MAX_DIGITS for text in (label, fields[2])
        ):
            raise DataError(
                f"{source}, line {number} is {shown(line)}; expected "
                "'0000/0000_000_01_0303morning_0015_0.jpg 0': copy the list again"
            )
        images.append((path, int(label), int(fields[2])))
    return images


def _image_folders(tree: Path) -> tuple[Path, Path]:
    found = [parts for parts in VERSIONS.values() if all((tree / part).is_dir() for part in parts)]
    if len(found) != 1:
        wanted: Sequence[str] = [" and ".join(parts) for parts in VERSIONS.values()]
        raise DataError(
            f"{tree} holds {'both' if found else 'neither'} {' / '.join(wanted)}; expected the folders of "
            "one version beside its lists"
        )
    train, test = found[0]
    return tree / train, tree / test


def _sample(path: Path, label: int, camera: int, part: str) -> Sample:
    first = 1 if part == "train" else 1 + NUM_TRAIN_IDENTITIES
    return Sample(path, first + label, camera, 0, dataset="msmt17", identity_name=f"{part} {label}")
