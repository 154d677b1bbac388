"""Which images a command line means: files, folders, tables, file-name patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from reidkit.errors import DataError
from reidkit.types import Sample

F = TypeVar("F", bound=Callable[..., Any])

images_argument: Callable[[F], F] = click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path)
)
pattern_option: Callable[[F], F] = click.option(
    "--pattern", help='Read labels from file names, for example "{identity}_c{camera}_{frame}.jpg".'
)


def labelled_samples(paths: Sequence[Path], pattern: str | None) -> list[Sample]:
    """Samples of a table (.csv, .parquet), or of folders whose file names follow a pattern."""
    from reidkit.datasets import load_dataset

    found: list[Sample] = []
    for path in paths:
        if path.suffix.lower() in (".csv", ".parquet"):
            data = load_dataset("table", path)
        else:
            data = load_dataset("folder", path, pattern=pattern)
        found += [sample for split in data.splits.values() for sample in split]
    return found


def image_paths(paths: Sequence[Path]) -> list[Path]:
    """Images named one by one, and all those below folders."""
    from reidkit.images import list_images

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                raise DataError(f"{path} holds no images")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    return found
