"""One's own photos: a folder of images, labelled by folder or file names."""

from __future__ import annotations

import re
from pathlib import Path

from reidkit.errors import ConfigError, DataError, did_you_mean
from reidkit.folder_trees import SPLIT_NAMES, Fields, existing_folder, labelled_dataset, subfolders
from reidkit.images import IMAGE_SUFFIXES, is_image, list_files
from reidkit.registry import register
from reidkit.types import Dataset

# Text fields take as much as they can, so that "john_carter_c1" splits at the last "_c".
FIELDS = {
    "identity": r"[^/]+",
    "camera": r"[^/]+",
    "frame": r"\d+",
    "tracklet": r"\d+",
    "time": r"\d+(?:\.\d+)?",
}

IDENTITY_FOLDERS = re.compile(r"(?P<identity>[^/]+)/.+")


@register("dataset", "folder")
def folder(root: Path, *, pattern: str | None = None) -> Dataset:
    """Your own photos, labelled by the names of folders or files.

    Without a pattern each folder directly below ``root`` is one identity, and camera labels are absent
    (every camera 0, ``has_cameras`` false)::

        photos/anna/1.jpg
        photos/ben/1.jpg

    With a pattern, labels are read from the path below ``root``::

        folder(root, pattern="{identity}_c{camera}_{frame}.jpg")       # anna_c1_000451.jpg
        folder(root, pattern="{identity}/cam{camera}/{frame}_*.*")     # anna/camdoor/451_02.png

    Fields are identity (required), camera, frame, tracklet (digits), time (seconds). ``*`` stands for any
    text inside one folder or file name, ``.*`` at the end for any image suffix; all else is literal.

    Where ``root`` has folders called train, val, query, gallery or test (another word for gallery), those
    are the parts, and labels are read below each. Otherwise every image is in ``train``: cut parts
    from it with ``reid split``, or with ``val_identities`` of :func:`reidkit.load_dataset`.

    Identities that are all numbers keep their values; others count from 1 in sorted order, with the text
    in ``Sample.identity_name``. Cameras likewise. "-1" is junk. What is not an image, or does not fit
    the pattern, is listed in ``Dataset.skipped``.

    Raises:
        ConfigError: the pattern has an unknown field, a stray brace, or no identity.
        DataError: ``root`` is no folder, has both gallery and test, or no image in it has an identity.
    """
    name_pattern = IDENTITY_FOLDERS if pattern is None else _compiled(pattern)
    root = existing_folder(Path(root), expected="a folder of images")
    images: list[tuple[str, Path, Fields]] = []
    skipped: list[Path] = []
    parts = _parts(root)
    for path in list_files(root):
        part = path.relative_to(root).parts[0]
        start, split = (root / part, SPLIT_NAMES[part]) if part in parts else (root, "train")
        fields = name_pattern.fullmatch(path.relative_to(start).as_posix())
        if fields and is_image(path) and (part in parts or not parts):
            images.append((split, path, fields.groupdict()))
        else:
            skipped.append(path)
    if not images:
        raise DataError(_why_nothing_fits(root, pattern, [path for path in skipped if is_image(path)]))
    return labelled_dataset(images, name="folder", root=root, skipped=skipped)


def _parts(root: Path) -> set[str]:
    parts = {path.name for path in subfolders(root)} & SPLIT_NAMES.keys()
    if {"gallery", "test"} <= parts:
        raise DataError(f"{root} has the folders gallery and test, which mean the same; merge or rename one")
    return parts


def _compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression for paths below the root, with one group a field."""
    problems = []
    expression = ""
    any_image = pattern.endswith(".*")
    for piece in re.split(r"(\{[^{}]*\})", pattern.removesuffix(".*")):
        field = piece[1:-1]
        if not piece.startswith("{") or not piece.endswith("}"):
            if "{" in piece or "}" in piece:
                problems.append(f"pattern {pattern!r} has a brace without its other half")
            expression += re.escape(piece).replace(r"\*", "[^/]*")
        elif field not in FIELDS:
            problems.append(
                f"pattern {pattern!r} has an unknown field {piece};{did_you_mean(field, FIELDS)} "
                f"Fields: {', '.join(FIELDS)}"
            )
        elif f"(?P<{field}>" in expression:
            expression += f"(?P={field})"
        else:
            expression += f"(?P<{field}>{FIELDS[field]})"
    if "(?P<identity>" not in expression and not problems:
        problems.append(
            f"pattern {pattern!r} has no {{identity}}; "
            "write for example {identity}_c{camera}_{frame}.jpg"
        )
    if problems:
        raise ConfigError(problems)
    return re.compile(expression + (r"\.[^./]+" if any_image else ""), re.ASCII)


def _why_nothing_fits(root: Path, pattern: str | None, images: list[Path]) -> str:
    if not images:
        return f"{root} holds no images at any depth; image suffixes are {', '.join(sorted(IMAGE_SUFFIXES))}"
    first = images[0].relative_to(root).as_posix()
    if pattern is None:
        return (
            f"{root} has no identity folders with images: its {len(images)} images lie elsewhere (the first "
            f"is {first}); give each identity a folder, or a pattern for the names"
        )
    return (
        f"none of the {len(images)} images in {root} fits the pattern {pattern!r}; the first is {first}, "
        "and the whole path below the root (or below train, query, ...) must fit"
    )
