"""What a folder holds: images, and what is left out, with the reason.

found = survey("photos")
found.images          # paths
found.summary()       # "2 .heic (needs pillow-heif ...), 1 .mov (a video)"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from reidkit.errors import DataError
from reidkit.files import open_regular
from reidkit.images.kinds import LOOK, kind_by_suffix, kind_of
from reidkit.images.reading import is_image, list_files
from reidkit.texts.printable import counted
from reidkit.types import Dataset

NUM_SHOWN = 6

# What file managers leave beside pictures; nobody asks for it.
_QUIET = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not taken as an image.

    Attributes:
        path: the file.
        reason: what it is, or what it needs; empty for files that are no pictures.
        is_picture: whether it is a picture by its content, so that its owner may want it.
    """

    path: Path
    reason: str
    is_picture: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """Files below a folder, without hidden ones, in :func:`reidkit.images.reading.list_files`'s order."""

    images: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]

    def summary(self) -> str:
        """What is left out, counted by suffix and reason; empty where that is nothing."""
        return summarize(self.left_out)


def survey(folder: str | Path) -> Survey:
    """Look through a folder at any depth. Files whose names are no image's are opened, to see what they are.

    A picture whose name does not say so, as a JPEG without a suffix, is left out and named: it may as well be
    a backup copy or somebody's cache. It is read where it is given by itself.

    Raises:
        DataError: the folder, or one below it, cannot be listed.
    """
    files = list_files(folder)
    images = tuple(path for path in files if is_image(path))
    taken = set(images)
    return Survey(images, left_out(path for path in files if path not in taken))


def left_out(paths: Iterable[Path]) -> tuple[LeftOut, ...]:
    """Why these files are not taken as images; hidden ones, and what file managers leave, are passed over."""
    return tuple(
        _reason(path) for path in paths if not path.name.startswith(".") and path.name.lower() not in _QUIET
    )


def summarize(files: Iterable[LeftOut]) -> str:
    """Files left out, counted by suffix and reason, pictures first: ``2 .heic (a reason), 1 .txt``."""
    ordered = sorted(files, key=lambda file: not file.is_picture)
    counts = Counter((_suffix(file.path), file.reason) for file in ordered)
    shown = [
        f"{number} {suffix}{f' ({reason})' if reason else ''}"
        for (suffix, reason), number in list(counts.items())[:NUM_SHOWN]
    ]
    others = sum(list(counts.values())[NUM_SHOWN:])
    return ", ".join([*shown, f"{others} others"] if others else shown)


def images_left_out(dataset: Dataset) -> str:
    """How many images a data set has that are in none of its parts, as a sentence; empty where there is none.

    Their names do not fit, or they are junk among those to train on.
    """
    images = [path for path in dataset.skipped if is_image(path)]
    if not images:
        return ""
    are = "is" if len(images) == 1 else "are"
    number = counted(len(images), "image")
    return f"{number} of {dataset.name} {are} left out, {images[0]} first; `reid check` says why"


def _reason(path: Path) -> LeftOut:
    try:
        with open_regular(path) as file:
            kind = kind_by_suffix(path.suffix) or kind_of(file.read(LOOK))
    except (DataError, OSError):
        return LeftOut(path, "cannot be opened", is_picture=False)
    if kind is None:
        return LeftOut(path, "", is_picture=False)
    if kind.is_read:
        return LeftOut(path, f"{kind.name} by content, not by name: rename it", is_picture=True)
    return LeftOut(path, f"{kind.name}: {kind.hint}", is_picture=True)


def _suffix(path: Path) -> str:
    return path.suffix.lower() or "without a suffix"
