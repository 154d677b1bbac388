"""A pattern that fits the names of somebody's files, to be proposed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from reidkit.datasets._cameras_in_folders import cameras_in_folders
from reidkit.datasets._name_patterns import NamePattern
from reidkit.datasets._pattern_inference import infer_pattern

ENOUGH = 0.9  # share of the names that a proposal fits
_NUM_LOOKED_AT = 2_000

# What no camera is called: two numbers, of which one belongs to what stands behind; and what goes on with the
# word in front, as the "am1" of "cam1".
_NO_CAMERA = re.compile(r"\d+\D+\d|[\W_]")
_WORD_GOES_ON = re.compile(r"[^\W\d_]{2}")
_UNIX_SECONDS = re.compile(r"1[0-9]{9}")  # of the years 2001 to 2033

# The most telling first. A letter says what a number is; of numbers alone nobody can tell.
_NAMES = (
    "{identity}_c{camera}s{tracklet}_{frame}_*.*",
    "{identity}C{camera}T{tracklet}F{frame}.*",
    "{identity}_c{camera}_f{frame}.*",
    "{identity}_cam{camera}_{frame}.*",
    "{identity}_c{camera}_{frame}.*",
    "{identity}_cam{camera}.*",
    "{identity}_c{camera}.*",
    "c{camera}_{identity}_{frame}.*",
    "cam{camera}_{identity}_{frame}.*",
)
_FOLDERS = (
    "{identity}/cam{camera}/*.*",
    "{identity}/c{camera}/*.*",
    "cam_{camera}/{identity}/*.*",
    "cam{camera}/{identity}/*.*",
    "c{camera}/{identity}/*.*",
    "cam_{camera}/{identity}_*.*",
    "cam{camera}/{identity}_*.*",
    "cam_{camera}/{identity}.*",
    "cam{camera}/{identity}.*",
)
_CANDIDATES = (*_NAMES, *(f"*/{name}" for name in _NAMES), *_FOLDERS)


def guess_pattern(names: Sequence[str]) -> str | None:
    """The first known pattern that fits nearly all names, with several identities and cameras; else one made
    out of the names.

    Args:
        names: paths below the root, or below a part, with forward slashes.
    """
    names = names[:: max(1, len(names) // _NUM_LOOKED_AT)]
    if not names:
        return None
    known = next((text for text in _CANDIDATES if _fits(text, names)), None)
    found = known or infer_pattern(names) or cameras_in_folders(names, enough=ENOUGH)
    return None if found is None else _with_time(found, names)


def _with_time(text: str, names: Sequence[str]) -> str:
    """The pattern, in which a number that counts the seconds since 1970 is the time, and not a frame."""
    frames = [fields.get("frame", "") for name in names if (fields := NamePattern(text).match(name))]
    return text.replace("{frame}", "{time}") if all(map(_UNIX_SECONDS.fullmatch, frames)) else text


def _fits(text: str, names: Sequence[str]) -> bool:
    pattern = NamePattern(text)
    read = [(name, fields) for name in names if (fields := pattern.match(name)) is not None]
    identities = {fields["identity"] for _, fields in read}
    cameras = {fields["camera"] for _, fields in read}
    if len(read) < ENOUGH * len(names) or any(map(_NO_CAMERA.match, cameras)):
        return False
    if text[text.index("{camera}") - 1].isalpha() and any(map(_WORD_GOES_ON.match, cameras)):
        return False
    if len(identities) > ENOUGH * len(read):  # nobody comes back: a time was read with them
        return False
    if text.startswith("*/") and _count_in_folders(read):
        return False
    # One camera, or as many as images, and the number was none of a camera.
    return len(identities) > 1 and 1 < len(cameras) <= len(read) / 2


def _count_in_folders(read: Sequence[tuple[str, Mapping[str, str]]]) -> bool:
    """Whether what was read as identities counts the images of each folder: in none it comes twice, unless
    each folder is a camera."""
    folders = [name.partition("/")[0] for name, _ in read]
    places = {(folder, fields["camera"]) for folder, (_, fields) in zip(folders, read, strict=True)}
    people = {(folder, fields["identity"]) for folder, (_, fields) in zip(folders, read, strict=True)}
    are_cameras = len(set(folders)) == len(places) == len({camera for _, camera in places})
    return len(people) > ENOUGH * len(read) and not are_cameras
