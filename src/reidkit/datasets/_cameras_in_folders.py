"""A pattern for identity folders whose files are called by their cameras: ``anna/cam2_000123.jpg``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from reidkit.datasets._name_patterns import NamePattern

MOST_CAMERAS = 64
DATE = re.compile(r"(19|20)\d\d([-_.]?\d\d([-_.]?\d\d)?)?|\d\d[-_.]\d\d[-_.](19|20)\d\d")

_CAMERA = re.compile(r"(?<![^\W\d_])((?:camera|cam|kamera|view|c|k)[ _-]?)(\d+)", re.IGNORECASE)
_IDENTITY = re.compile(r"(?<![^\W\d_])(?:p|id|pid|person|people|identity)[ _-]?\d", re.IGNORECASE)
_LETTERS, _DIGITS = re.compile(r"[^\W\d_]+"), re.compile(r"\d+")


def cameras_in_folders(names: Sequence[str], *, enough: float) -> str | None:
    """The pattern of names whose folder is the identity and whose file says the camera; None without one.

    It reads exactly the number behind the word for a camera, and nothing where the file's name may say an
    identity, too, or where two levels of folders may be identities.

    Args:
        names: paths below the root, with forward slashes.
        enough: share of the names that must be of one form.
    """
    found = [
        (name, camera)
        for name in names
        if "/" in name and (camera := _CAMERA.search(_stem(name))) and not _IDENTITY.search(_stem(name))
    ]
    cameras = {camera.group(2) for _, camera in found}
    if len(found) < enough * len(names) or not 1 < len(cameras) <= min(MOST_CAMERAS, len(found) // 2):
        return None
    if _may_be_identities([camera.string[: camera.start()].rstrip(" _-") for _, camera in found]):
        return None
    [(depth, num)] = Counter(name.count("/") for name, _ in found).most_common(1)
    folders = _identity_level([name.split("/")[:-1] for name, _ in found if name.count("/") == depth])
    if folders is None or num < enough * len(names):
        return None
    for any_letters in (False, True):
        forms = Counter(_form(camera, any_letters) for _, camera in found)
        text = f"{folders}/{forms.most_common(1)[0][0]}.*"
        if _reads(text, found, enough * len(names)):
            return text
    return None


def _stem(name: str) -> str:
    file = name.rpartition("/")[2]
    return file.rpartition(".")[0] or file


def _may_be_identities(texts: Sequence[str]) -> bool:
    """Whether what stands before the cameras comes back as identities do, and is no date."""
    distinct = set(texts)
    return 1 < len(distinct) <= len(texts) / 2 and not all(map(DATE.fullmatch, distinct))


def _identity_level(folders: Sequence[Sequence[str]]) -> str | None:
    """The folders of a pattern, where one level alone may be identities."""
    levels = [set(level) for level in zip(*folders, strict=True)]
    likely = [
        len(level) > 1 and not all(DATE.fullmatch(name) or _CAMERA.match(name) for name in level)
        for level in levels
    ]
    return "/".join("{identity}" if one else "*" for one in likely) if sum(likely) == 1 else None


def _form(camera: re.Match[str], any_letters: bool) -> str:
    """A file's name as a pattern: numbers, and letters too if so said, may be any."""
    before, after = camera.string[: camera.start()], camera.string[camera.end() :]
    if any_letters:
        before, after = _LETTERS.sub("*", before), _LETTERS.sub("*", after)
    before, after = _DIGITS.sub("*", before), _DIGITS.sub("*", after)
    if re.search(r"[\W_]\d+$", camera.string[camera.end() :]):
        after = after.removesuffix("*") + "{frame}"
    return re.sub(r"\*+", "*", f"{before}{camera.group(1)}{{camera}}{after}")


def _reads(text: str, found: Sequence[tuple[str, re.Match[str]]], at_least: float) -> bool:
    """Whether so many names fit, and of each that fits the camera is the one it says."""
    if any(
        sign in text.replace("{identity}", "").replace("{camera}", "").replace("{frame}", "") for sign in "{}"
    ):
        return False
    pattern = NamePattern(text)
    read = [
        (fields, camera.group(2)) for name, camera in found if (fields := pattern.match(name)) is not None
    ]
    return len(read) >= at_least and all(fields["camera"] == camera for fields, camera in read)
