"""What data set layouts share: Market-1501's tree, samples in order, labels as integers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from reidkit.errors import DataError
from reidkit.images import is_image
from reidkit.types import JUNK, Dataset, Sample, Split

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

# Identity, camera, sequence, frame, box. The suffix repeats: 24 files of the release end in .jpg.jpg.
MARKET_NAME = re.compile(
    r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s\d+_(?P<frame>\d+)_\d+(\.jpe?g|\.png)+", re.IGNORECASE
)

SEARCH_DEPTH = 2

SPLIT_NAMES = {"train": "train", "val": "val", "query": "query", "gallery": "gallery", "test": "gallery"}
"""What people call the parts of a data set, and what they are called here."""

Fields = dict[str, str]
"""What is known of one image, as written: identity, and perhaps camera, tracklet, frame, time."""


def market_tree(root: Path, *, name: str) -> Dataset:
    """Read a data set in Market-1501's folders and file names.

    ``bounding_box_train``, ``query`` and ``bounding_box_test`` must exist in ``root`` or in one folder at
    most two levels below it; a folder may hold no images (a set only to evaluate on has an empty
    training folder), but not all three. File names are ``0002_c1s1_000451_03.jpg``: identity, camera
    (kept as written), sequence, frame, box. Identity -1 is junk, 0 the distractors. Files named
    otherwise are listed in ``Dataset.skipped``.

    Args:
        root: folder of the set, or a folder that holds it.
        name: what the data set is called, for ``Dataset.name`` and ``Sample.dataset``.

    Raises:
        DataError: the folders are not there, are there twice, or hold no image so named.
    """
    root = Path(root)
    tree = _find_market_tree(root)
    splits: dict[str, Split] = {}
    skipped: list[Path] = []
    for split, part in MARKET_FOLDERS.items():
        samples, others = _read_market_folder(tree / part, name=name)
        splits[split] = numbered(samples)
        skipped += others
    if not any(splits.values()):
        raise DataError(f"{tree} holds no images: {', '.join(MARKET_FOLDERS.values())} are all empty")
    return Dataset(
        name=name,
        root=tree,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        skipped=tuple(skipped),
    )


def numbered(samples: Iterable[Sample]) -> Split:
    """A split: samples in plain string order of their paths, each with its place as ``index``."""
    ordered = sorted(samples, key=lambda sample: sample.path.as_posix())
    return tuple(replace(sample, index=index) for index, sample in enumerate(ordered))


def labelled_dataset(
    images: Sequence[tuple[str, Path, Fields]], *, name: str, root: Path, skipped: Iterable[Path] = ()
) -> Dataset:
    """A data set from (split, path, fields) of each image, with labels made integers over all splits.

    Without a camera in any fields every camera is 0 and ``has_cameras`` false.
    """
    identities = label_numbers((fields["identity"] for _, _, fields in images), junk=True)
    cameras = label_numbers(fields["camera"] for _, _, fields in images if "camera" in fields)
    samples: dict[str, list[Sample]] = {split: [] for split in SPLIT_NAMES.values()}
    for split, path, fields in images:
        identity = identities[fields["identity"]]
        samples[split].append(
            Sample(
                path,
                identity,
                cameras[fields["camera"]] if cameras else 0,
                0,
                tracklet=int(fields["tracklet"]) if "tracklet" in fields else None,
                frame=int(fields["frame"]) if "frame" in fields else None,
                time=float(fields["time"]) if "time" in fields else None,
                dataset=name,
                identity_name=_name_of(fields["identity"], identity),
            )
        )
    return Dataset(
        name=name,
        root=root,
        train=numbered(samples["train"]),
        val=numbered(samples["val"]),
        query=numbered(samples["query"]),
        gallery=numbered(samples["gallery"]),
        has_cameras=bool(cameras),
        skipped=tuple(skipped),
    )


def label_numbers(labels: Iterable[str], *, junk: bool = False) -> dict[str, int]:
    """Integers for labels as they are written.

    Where all are integers, each keeps its own value ("0002" is 2). Otherwise they count from 1 in sorted
    order. With ``junk``, "-1" is :data:`reidkit.types.JUNK` in either case.

    >>> label_numbers(["ben", "anna"])
    {'anna': 1, 'ben': 2}
    """
    texts = sorted(set(labels))
    special = {"-1": JUNK} if junk and "-1" in texts else {}
    texts = [text for text in texts if text not in special]
    if all(is_integer(text) for text in texts):
        return {text: int(text) for text in texts} | special
    return {text: number for number, text in enumerate(texts, start=1)} | special


def is_integer(text: str) -> bool:
    """Whether the label is a plain number from 0 on."""
    return text.isascii() and text.isdigit()


def existing_folder(root: Path, *, expected: str) -> Path:
    """``root`` itself, or :class:`DataError` saying what was expected there."""
    if not root.is_dir():
        state = "is a file, not a folder" if root.is_file() else "does not exist"
        raise DataError(f"{root} {state}; expected {expected}")
    return root


def subfolders(folder: Path) -> list[Path]:
    """Folders directly below, sorted; none where one may not look (``lost+found``), and no hidden ones."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except PermissionError:
        return []


def _name_of(text: str, number: int) -> str | None:
    """The label as written, unless ``number`` is its own value."""
    return None if number == JUNK or (is_integer(text) and int(text) == number) else text


def _read_market_folder(folder: Path, *, name: str) -> tuple[list[Sample], list[Path]]:
    """Samples, and what else lies in the folder."""
    samples, others = [], []
    for path in sorted(folder.iterdir()):
        fields = MARKET_NAME.fullmatch(path.name)
        if fields is None:
            others.append(path)
            continue
        identity, camera, frame = (int(fields[key]) for key in ("identity", "camera", "frame"))
        samples.append(Sample(path, identity, camera, 0, frame=frame, dataset=name))
    images = [path for path in others if is_image(path)]
    if images and not samples:
        raise DataError(
            f"none of the {len(images)} images in {folder} is named like 0002_c1s1_000451_03.jpg (the "
            f"first is {images[0].name}); for names of another kind use the data set 'folder' with a pattern"
        )
    return samples, others


def _find_market_tree(root: Path) -> Path:
    wanted = tuple(MARKET_FOLDERS.values())
    existing_folder(root, expected=f"a folder that holds {', '.join(wanted)}")
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        trees = [folder for folder in level if all((folder / part).is_dir() for part in wanted)]
        # Beside Market-1501 there may be other sets in the same folders: names tell which is meant.
        trees = [tree for tree in trees if _has_market_names(tree)] or trees
        if len(trees) > 1:
            raise DataError(
                f"{root} holds {len(trees)} sets in Market-1501's folders: {_listed(trees)}; give one as root"
            )
        if trees:
            return trees[0]
        level = [below for folder in level for below in subfolders(folder)]
    raise DataError(_why_no_tree(root))


def _has_market_names(tree: Path) -> bool:
    return any(
        MARKET_NAME.fullmatch(path.name)
        for part in MARKET_FOLDERS.values()
        for path in (tree / part).iterdir()
    )


def _why_no_tree(root: Path) -> str:
    wanted = tuple(MARKET_FOLDERS.values())
    message = (
        f"no Market-1501 tree in {root}: looked for the folders {', '.join(wanted)} there and in the "
        f"folders up to {SEARCH_DEPTH} levels below"
    )
    if root.name in wanted:
        return f"{message}; {root.name} is one of them: give the folder above it as root"
    for folder in _down_to(root, SEARCH_DEPTH):
        missing = [part for part in wanted if not (folder / part).is_dir()]
        if len(missing) < len(wanted):
            return f"{message}; {folder} lacks {', '.join(missing)}"
    found = subfolders(root)
    num_files = sum(path.is_file() for path in root.iterdir())
    return f"{message}; found {_listed(found) if found else 'no folders'} and {num_files} files there"


def _down_to(folder: Path, depth: int) -> Iterator[Path]:
    yield folder
    if depth:
        for below in subfolders(folder):
            yield from _down_to(below, depth - 1)


def _listed(paths: list[Path], *, most: int = 5) -> str:
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(path.name for path in paths[:most]) + more
