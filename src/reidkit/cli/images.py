"""Which images a command line means: files, folders, tables, file-name patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reidkit.cli.output import say
from reidkit.errors import DataError
from reidkit.files import require_regular
from reidkit.types import Dataset, Sample

if TYPE_CHECKING:
    from reidkit.survey import LeftOut

F = TypeVar("F", bound=Callable[..., Any])

images_argument: Callable[[F], F] = click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path)
)
pattern_option: Callable[[F], F] = click.option(
    "--pattern", help='Read labels from file names, for example "{identity}_c{camera}_{frame}.jpg".'
)


def labelled_samples(paths: Sequence[Path], pattern: str | None) -> list[Sample]:
    """Samples of tables, or of folders whose file names follow a pattern; what is left out there is said."""
    from reidkit.datasets.table import table
    from reidkit.images import is_image
    from reidkit.survey import left_out, summarize

    found: list[Sample] = []
    unfit: list[Path] = []
    for path in paths:
        data = table(path) if is_table(path) else _folder(path, pattern)
        found += [sample for split in data.splits.values() for sample in split]
        unfit += data.skipped
    images = [path for path in unfit if is_image(path)]
    if images:
        say(f"left out: {len(images):,} images whose names do not fit the pattern, {images[0]} first")
    others = left_out(path for path in unfit if not is_image(path))
    if others:
        say(f"left out: {summarize(others)}")
    return found


def _folder(path: Path, pattern: str | None) -> Dataset:
    from reidkit.datasets.folder import UnclearParts, folder

    try:
        return folder(path, pattern=pattern)
    except UnclearParts:  # to a gallery it is all the same which part an image is of
        return folder(path, pattern=pattern, parts="none")


def is_table(path: Path) -> bool:
    """Whether a file is a table of labels, by its name."""
    from reidkit.table_files import TABLE_SUFFIXES

    return path.suffix.lower() in TABLE_SUFFIXES


def image_paths(paths: Sequence[Path]) -> list[Path]:
    """Images named one by one, and all those below folders; what is left out there is said.

    Raises:
        DataError: a folder holds no images, or something that is to be read is no regular file.
    """
    from reidkit.survey import summarize, survey

    found: list[Path] = []
    others: list[LeftOut] = []
    for path in paths:
        if not is_folder(path):
            found.append(path)
            continue
        inside = survey(path)
        if not inside.images:
            rest = inside.summary()
            raise DataError(f"{path} holds no images that are read" + (f"; it holds {rest}" if rest else ""))
        found += inside.images
        others += inside.left_out
    for path in found:
        require_regular(path)  # now, and not after hours of work
    if others:
        say(f"left out: {summarize(others)}")
    return found


def is_folder(path: Path) -> bool:
    """Whether it is a folder; false for what cannot be looked at, which reading it then says."""
    try:
        return path.is_dir()
    except OSError:
        return False
