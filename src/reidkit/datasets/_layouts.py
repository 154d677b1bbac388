"""What data set layouts share: finding a tree, names to samples, splits drawn, labels as integers."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reidkit.datasets._part_names import PARTS
from reidkit.errors import ConfigError, DataError, did_you_mean
from reidkit.images.reading import is_image
from reidkit.labels import read_labels
from reidkit.types import JUNK, Dataset, Sample, Split

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}

# Identity, camera, sequence, frame, box. The suffix repeats: 24 files of the release end in .jpg.jpg.
MARKET_NAME = re.compile(
    r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s\d+_(?P<frame>\d+)_\d+(\.jpe?g|\.png)+", re.IGNORECASE
)

SEARCH_DEPTH = 2
NUM_SHOWN = 5


@dataclass(frozen=True, slots=True)
class TreeNames:
    """How a set names its three folders (train, query, gallery) and its files.

    ``pattern`` has the groups identity, camera and frame, all digits (or -1 for junk); ``example`` is a
    file name that fits it.
    """

    known_as: str
    pattern: re.Pattern[str]
    example: str
    folders: Mapping[str, str]


MARKET = TreeNames("Market-1501", MARKET_NAME, "0002_c1s1_000451_03.jpg", MARKET_FOLDERS)
DUKE = TreeNames(
    "DukeMTMC-reID",
    re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)\.jpg", re.IGNORECASE),
    "0001_c2_f0046182.jpg",
    MARKET_FOLDERS,
)

Fields = Mapping[str, Any]
"""What is known of one image: identity, and perhaps camera, tracklet, frame, time; texts or numbers."""


DUKE_LICENCE = "withdrawn by its authors in 2019: not for new work"


def market_tree(root: Path, *, name: str, names: TreeNames = MARKET) -> Dataset:
    """Read a data set laid out as Market-1501 is: a folder a part, labels in the file names.

    The three folders of ``names`` must exist in ``root`` or in one folder at most two levels below it; a
    folder may hold no images (a set only to evaluate on has an empty training folder), but not all three.
    Identity -1 is junk, 0 the distractors; cameras are kept as written. Files named otherwise are listed
    in ``Dataset.skipped``.

    Args:
        root: folder of the set, or a folder that holds it.
        name: what the data set is called, for ``Dataset.name`` and ``Sample.dataset``.
        names: of folders and files; Market-1501's are ``0002_c1s1_000451_03.jpg``: identity, camera,
            sequence, frame, box.

    Raises:
        DataError: the folders are not there, are there twice, or hold no image so named.
    """
    parts = names.folders
    tree = find_tree(
        root, tuple(parts.values()), known_as=names.known_as, prefer=lambda tree: _has_names(tree, names)
    )
    splits: dict[str, Split] = {}
    skipped: list[Path] = []
    for split, part in parts.items():
        samples, others = _read_folder(tree / part, names, name)
        splits[split] = numbered(samples)
        skipped += others
    if not any(splits.values()):
        raise DataError(f"{tree} holds no images: {', '.join(parts.values())} are all empty")
    return Dataset(
        name=name,
        root=tree,
        train=splits["train"],
        query=splits["query"],
        gallery=splits["gallery"],
        skipped=tuple(skipped),
    )


def find_tree(
    root: Path, parts: Sequence[str], *, known_as: str, prefer: Callable[[Path], bool] | None = None
) -> Path:
    """The folder that holds all ``parts`` (folders or files): ``root``, or one at most two levels below.

    Where several do, those that ``prefer`` likes come first. Raises :class:`DataError`, saying what was
    looked for and found, where none is left or more than one.
    """
    existing_folder(root, expected=f"a folder that holds {', '.join(parts)}")
    level = [root]
    for _ in range(SEARCH_DEPTH + 1):
        trees = [folder for folder in level if all((folder / part).exists() for part in parts)]
        if prefer is not None:
            trees = [tree for tree in trees if prefer(tree)] or trees
        if len(trees) > 1:
            raise DataError(
                f"{root} holds {len(trees)} sets in {known_as}'s folders: {_listed(trees)}; give one as root"
            )
        if trees:
            return trees[0]
        level = [below for folder in level for below in subfolders(folder)]
    raise DataError(_why_no_tree(root, parts, known_as))


def find_file(name: str, folders: Iterable[Path]) -> Path | None:
    """The first of ``folders`` / ``name`` that is a file."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def fitting_files(
    folder: Path, pattern: re.Pattern[str], *, example: str
) -> tuple[list[tuple[Path, re.Match[str]]], list[Path]]:
    """Files of a folder whose names fit a pattern, and what else lies there; both sorted.

    Raises :class:`DataError` where there are images and none of them fits.
    """
    fitting, others = [], []
    for path in sorted(folder.iterdir()):
        fields = pattern.fullmatch(path.name)
        if fields is None:
            others.append(path)
        else:
            fitting.append((path, fields))
    images = [path for path in others if is_image(path)]
    if images and not fitting:
        raise DataError(
            f"none of the {len(images)} images in {folder} is named like {example} (the "
            f"first is {images[0].name}); for names of another kind use the data set 'folder' with a pattern"
        )
    return fitting, others


def unlisted_files(folder: Path, listed: Collection[str], *, source: str) -> list[Path]:
    """Files below a folder that its list does not name.

    Args:
        folder: where the files lie.
        listed: their paths below it, with forward slashes.
        source: the list, for the message.

    Raises:
        DataError: a listed file is not there; the first five are told, with the count.
    """
    found: set[str] = set()
    for parent, _, names in os.walk(folder):
        below = Path(parent).relative_to(folder).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found.update(prefix + name for name in names)
    listed = set(listed)
    missing = sorted(listed - found)
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of the {len(listed)} files that {source} lists: "
            f"{first_few(missing)}; unpack the release again"
        )
    return [folder / name for name in sorted(found - listed)]


def identity_sequences(folder: Path, *, camera: int, name: str) -> tuple[dict[int, list[Sample]], list[Path]]:
    """Frames by identity of one camera's folder, ``person_0001/0001.png`` or ``person001/..._00317.png``.

    An identity under a camera is one tracklet, numbered 10 x identity + camera. The second value lists
    files with other names. Raises :class:`DataError` where no folder is named like that.
    """
    sequences: dict[int, list[Sample]] = {}
    others = [path for path in folder.iterdir() if not path.is_dir()]
    for identity_folder in subfolders(folder):
        named = re.fullmatch(r"person_?(\d+)", identity_folder.name)
        if named is None:
            others += identity_folder.iterdir()
            continue
        identity = int(named[1])
        frames, strange = fitting_files(
            identity_folder, re.compile(r"(?:.*_)?(\d+)\.png", re.IGNORECASE), example="0001.png"
        )
        others += strange
        sequences[identity] = [
            Sample(
                path, identity, camera, 0, tracklet=10 * identity + camera, frame=int(frame[1]), dataset=name
            )
            for path, frame in frames
        ]
    if not sequences:
        raise DataError(f"{folder} holds no folder named like person001")
    return sequences, sorted(others)


def check_split(split: int, num_splits: int) -> None:
    """Raise :class:`ConfigError` unless ``split`` is one of ``num_splits``, counted from 0."""
    if not 0 <= split < num_splits:
        raise ConfigError(f"split = {split} is outside 0..{num_splits - 1}; splits are counted from 0")


def check_option(name: str, value: object, allowed: Sequence[object]) -> None:
    """Raise :class:`ConfigError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        hint = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
        raise ConfigError(f"{name} = {value!r} is unknown;{hint} allowed are {', '.join(map(repr, allowed))}")


def draw_identities(identities: Iterable[int], num_drawn: int, *, seed: int) -> set[int]:
    """Test identities of a split nobody published: the same for the same seed, on any machine.

    Raises :class:`DataError` where there are too few.
    """
    candidates = sorted(set(identities))
    if len(candidates) < num_drawn:
        raise DataError(f"{num_drawn} test identities are to be drawn from only {len(candidates)}")
    return set(random.Random(seed).sample(candidates, num_drawn))


def seeded_name(split: int, num_splits: int) -> str:
    """What to call a split that :func:`draw_identities` made."""
    return f"split {split} of 0..{num_splits - 1}, drawn from seed {split}"


def published_name(split: int, num_splits: int, source: str) -> str:
    """What to call a split that was read from a file of the release."""
    return f"split {split} of 0..{num_splits - 1} of {source}"


def numbered(samples: Iterable[Sample]) -> Split:
    """A split: samples in plain string order of their paths, each with its place as ``index``."""
    ordered = sorted(samples, key=lambda sample: sample.path.as_posix())
    return tuple(replace(sample, index=index) for index, sample in enumerate(ordered))


def labelled_dataset(
    images: Sequence[tuple[str, Path, Fields]],
    *,
    name: str,
    root: Path,
    skipped: Iterable[Path] = (),
    reading: Iterable[str] = (),
    needs_identity: bool = True,
) -> Dataset:
    """A data set from (split, path, fields) of each image, with labels made integers over all splits.

    Labels are read as :mod:`reidkit.labels` says, those of all splits together. Camera -1 is one that is
    not known. Without a known camera ``has_cameras`` is false and the camera filter "none".

    Raises :class:`DataError` for an image without an identity, unless ``needs_identity`` is false: then it
    is junk, of the name "".
    """
    identities = read_labels(
        (fields.get("identity") for _, _, fields in images), what="identities", junk=True
    )
    cameras = read_labels((fields.get("camera") for _, _, fields in images), what="cameras", junk=True)
    has_cameras = any(code not in (None, JUNK) for code in cameras.codes)
    samples: dict[str, list[Sample]] = {split: [] for split in PARTS}
    for row, (split, path, fields) in enumerate(images):
        identity = identities.codes[row]
        if identity is None and needs_identity:
            raise DataError(f"{path} has no identity; name one, or leave the image out")
        samples[split].append(
            Sample(
                path,
                JUNK if identity is None else identity,
                None if cameras.codes[row] == JUNK else cameras.codes[row],
                0,
                tracklet=int(fields["tracklet"]) if "tracklet" in fields else None,
                frame=int(fields["frame"]) if "frame" in fields else None,
                time=float(fields["time"]) if "time" in fields else None,
                dataset=name,
                identity_name="" if identity is None else identities.written(row),
                camera_name=cameras.written(row),
            )
        )
    return Dataset(
        name=name,
        root=root,
        train=numbered(samples["train"]),
        val=numbered(samples["val"]),
        query=numbered(samples["query"]),
        gallery=numbered(samples["gallery"]),
        has_cameras=has_cameras,
        camera_filter="same_identity" if has_cameras else "none",
        skipped=tuple(skipped),
        reading=(*reading, identities.reading, *([cameras.reading] if has_cameras else [])),
    )


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


def _read_folder(folder: Path, names: TreeNames, name: str) -> tuple[list[Sample], list[Path]]:
    """Samples, and what else lies in the folder."""
    files, others = fitting_files(folder, names.pattern, example=names.example)
    samples = []
    for path, fields in files:
        identity, camera, frame = (int(fields[key]) for key in ("identity", "camera", "frame"))
        samples.append(Sample(path, identity, camera, 0, frame=frame, dataset=name))
    return samples, others


def _has_names(tree: Path, names: TreeNames) -> bool:
    return any(
        names.pattern.fullmatch(path.name)
        for part in names.folders.values()
        for path in (tree / part).iterdir()
    )


def _why_no_tree(root: Path, wanted: Sequence[str], known_as: str) -> str:
    kind = "files" if any(Path(part).suffix for part in wanted) else "folders"
    message = (
        f"no {known_as} tree in {root}: looked for the {kind} {', '.join(wanted)} there and in the "
        f"folders up to {SEARCH_DEPTH} levels below"
    )
    if root.name in wanted:
        return f"{message}; {root.name} is one of them: give the folder above it as root"
    for folder in _down_to(root, SEARCH_DEPTH):
        missing = [part for part in wanted if not (folder / part).exists()]
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


def _listed(paths: list[Path]) -> str:
    return first_few([path.name for path in paths])


def first_few(names: Sequence[str]) -> str:
    """Names for a message: the first five, and how many more there are."""
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more
