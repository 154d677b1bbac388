"""One's own photos: a folder of images, labelled by folder or file names."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from reidkit.datasets._layouts import (
    Fields,
    check_option,
    existing_folder,
    first_few,
    labelled_dataset,
    subfolders,
)
from reidkit.datasets._name_patterns import NamePattern, Reader, identity_folder
from reidkit.datasets._part_names import PARTS, hinted_part, part_of
from reidkit.datasets._pattern_guess import guess_pattern
from reidkit.errors import DataError
from reidkit.images.reading import IMAGE_SUFFIXES, is_image, list_files
from reidkit.labels import label_text
from reidkit.registry import register
from reidkit.types import Dataset


class UnclearParts(DataError):
    """Whether folders are parts of a data set, or something else, cannot be told from their names."""


class NoIdentities(DataError):
    """Images lie in no folders of identities, and no pattern was given for their names."""


@register("dataset", "folder")
def folder(root: Path, *, pattern: str | None = None, parts: str = "auto") -> Dataset:
    """Your own photos, labelled by the names of folders or files.

    Without a pattern each folder directly below ``root`` is one identity, and camera labels are absent
    (``has_cameras`` false)::

        photos/anna/1.jpg
        photos/ben/1.jpg

    With a pattern, labels are read from the path below ``root``::

        folder(root, pattern="{identity}_c{camera}_{frame}.jpg")       # anna_c1_000451.jpg
        folder(root, pattern="{identity}/cam{camera}/{frame}_*.*")     # anna/camdoor/451_02.png

    Fields are identity (required), camera, frame, tracklet (digits), time (seconds). ``*`` stands for any
    text inside one folder or file name, ``.*`` at the end for any image suffix; all else is literal. Two
    fields need a text between them, or nobody could tell where one ends.

    Where the folders in ``root`` are called as parts are, they are the parts, and labels are read below
    each: train (or training, train_set, ... in any case), val (valid, validation), query (queries, probe),
    gallery (test). Otherwise every image is in ``train``: cut parts from it with ``reid split``, or with
    ``val_identities`` of :func:`reidkit.load_dataset`.

    Labels are read as :mod:`reidkit.labels` says; ``Dataset.reading`` tells how. "-1" is junk. What is not an
    image, or does not fit the pattern, is listed in ``Dataset.skipped``.

    Args:
        root: the folder.
        pattern: for the paths of images below ``root``, or below a part.
        parts: "auto" takes folders called as parts for parts, and asks where others with images lie
            beside them, or where folders are called much like parts (``my_train``, ``my_test``); "named"
            then leaves the others out; "none" takes every folder for what it is without a name of its own,
            an identity or what the pattern says.

    Raises:
        ConfigError: what is not a pattern, another ``parts``.
        DataError: ``root`` is no folder, has two folders for one part, has parts beside other folders, or
            no image in it has an identity.
    """
    check_option("parts", parts, ("auto", "named", "none"))
    return read_folder(root, pattern=pattern, parts=parts)


def read_folder(
    root: Path, *, pattern: str | None, parts: str = "auto", needs_identity: bool = True
) -> Dataset:
    """As :func:`folder`, also for a pattern without an identity where none is needed."""
    fields_of: Reader = identity_folder
    if pattern is not None:
        fields_of = NamePattern(pattern, needs_identity=needs_identity).match
    root = existing_folder(Path(root), expected="a folder of images")
    files = list_files(root)
    part_folders: Mapping[str, str] = {}
    if parts != "none":
        others = {path.relative_to(root).parts[0] for path in files if is_image(path)}
        if pattern is None:  # an image in no folder has no identity in either case
            others -= {path.name for path in files if path.parent == root}
        part_folders = _part_folders(root, others, may_leave_out=parts == "named")
    images: list[tuple[str, Path, Fields]] = []
    skipped: list[Path] = []
    for path in files:
        below = path.relative_to(root).as_posix()
        first, _, rest = below.partition("/")
        part, name = (part_folders.get(first), rest) if part_folders else ("train", below)
        fields = fields_of(name) if part is not None and is_image(path) else None
        unnamed = fields is not None and label_text(fields.get("identity")) is None
        if part is None or fields is None or (unnamed and needs_identity):
            skipped.append(path)
        else:
            images.append((part, path, fields))
    if not images:
        unfit = [path for path in skipped if is_image(path)]
        kind = NoIdentities if unfit and pattern is None else DataError
        raise kind(_why_nothing_fits(root, pattern, unfit, part_folders))
    told = ", ".join(f"folder {name} is {part}" for name, part in part_folders.items())
    reading = f"parts: {told}" if told else "parts: none, all images are train"
    try:
        return labelled_dataset(
            images,
            name="folder",
            root=root,
            skipped=skipped,
            reading=[reading],
            needs_identity=needs_identity,
        )
    except DataError as error:
        raise DataError(f"{root}: {error}") from None


def _part_folders(root: Path, with_images: set[str], *, may_leave_out: bool) -> Mapping[str, str]:
    """The part that each folder of ``root`` holds, where folders are called as parts are.

    ``with_images`` are the images in ``root`` and the folders that hold some.
    """
    folders = [path.name for path in subfolders(root)]
    found = {name: part for name in folders if (part := part_of(name)) is not None}
    by_part: dict[str, list[str]] = defaultdict(list)
    for name, part in found.items():
        by_part[part].append(name)
    for part, names in by_part.items():
        if len(names) > 1:
            raise DataError(
                f"{root} has the folders {' and '.join(names)}, which mean the same, {part}; merge or rename "
                'one, or give parts="none" if they are identities'
            )
    others = sorted(with_images - found.keys())
    hinted = {name: part for name in folders if name in others and (part := hinted_part(name)) is not None}
    if not found and len(set(hinted.values())) > 1:
        raise UnclearParts(
            f"{root} has {first_few(sorted(hinted))}, called much as parts of a data set are; rename them as "
            'parts (train, val, query, gallery), or give parts="none" if they are identities'
        )
    if found and others and not may_leave_out:
        raise UnclearParts(
            f"{root} has {first_few(sorted(found))}, called as parts of a data set are, beside "
            f'{first_few(others)}; give parts="none" if all of these are identities, or parts="named" to '
            "read the parts alone and leave the others out"
        )
    return {name: part for part in PARTS for name in by_part[part]}


def _why_nothing_fits(
    root: Path, pattern: str | None, images: list[Path], part_folders: Mapping[str, str]
) -> str:
    if not images:
        return f"{root} holds no images at any depth; image suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}"
    first = images[0].relative_to(root).as_posix()
    if pattern is None:
        guess = guess_pattern([path.relative_to(root).as_posix() for path in images])
        return (
            f"{root} has no identity folders with images: its {len(images)} images lie elsewhere (the first "
            f"is {first}); give each identity a folder, or a pattern for the names"
            + (f", such as pattern={guess!r}, which fits" if guess else "")
            + (
                f'; or give parts="none" if {first_few(list(part_folders))} are identities, and no parts'
                if part_folders
                else ""
            )
            + "; to search them, nobody needs a name: "
            f"reid index {shlex.quote(str(root))} --gallery people.gallery"
        )
    return (
        f"none of the {len(images)} images in {root} fits the pattern {pattern!r}; the first is {first}, "
        "and the whole path below the root (or below train, query, ...) must fit"
    )
