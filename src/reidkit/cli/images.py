"""Which images a command line means: files, folders, tables, file-name patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from reidkit.cli.output import say
from reidkit.errors import DataError
from reidkit.files import require_regular
from reidkit.types import Sample

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
    """Samples of tables, or of folders whose file names follow a pattern."""
    from reidkit.datasets import load_dataset

    found: list[Sample] = []
    for path in paths:
        if is_table(path):
            data = load_dataset("table", path)
        else:
            data = load_dataset("folder", path, pattern=pattern)
        found += [sample for split in data.splits.values() for sample in split]
    return found


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
