"""How somebody's photos may be read, proposed before anything is read by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidkit import registry
from reidkit.checks.labels import sample_readings
from reidkit.datasets import load_dataset
from reidkit.datasets._layouts import existing_folder
from reidkit.datasets._part_names import part_of
from reidkit.datasets._pattern_guess import guess_pattern
from reidkit.datasets._table_files import TABLE_SUFFIXES
from reidkit.images.reading import is_image, list_files


@dataclass(frozen=True, slots=True)
class Proposal:
    """A layout and its options for a folder or a table, and five samples as they are read so."""

    layout: str
    root: Path
    options: dict[str, str]
    samples: tuple[dict[str, str], ...]

    @property
    def reading(self) -> str:
        """What is taken for what, in words."""
        if "pattern" in self.options:
            return f"labels by the pattern {self.options['pattern']}"
        if self.layout == "table":
            return "a table, labels by its columns"
        return "each folder is one identity; no cameras"

    @property
    def words(self) -> list[str]:
        """The words of the `reid check` command that reads so."""
        return [self.layout, str(self.root), *(f"{key}={value}" for key, value in self.options.items())]


def propose(root: str | Path) -> Proposal:
    """The likeliest reading of a folder of photos, by their names, or of a table.

    Raises :class:`DataError` where nothing fits, or where what fits cannot be told from the names.
    """
    root = Path(root)
    options: dict[str, Any] = {}
    layout = layout_of(root)
    if layout == "folder":
        root = existing_folder(root, expected="a folder of images")
        guess = guess_pattern(_names(root))
        options = {} if guess is None else {"pattern": guess}
    return Proposal(layout, root, options, tuple(sample_readings(load_dataset(layout, root, **options))))


def layout_of(root: str | Path) -> str:
    """The layout of a place of one's own, by its name."""
    return "table" if Path(root).suffix.lower() in TABLE_SUFFIXES else "folder"


def names_a_place(words: Sequence[str]) -> bool:
    """Whether the first of some words is where images are, and not the name of a layout with its root."""
    first, *others = words
    alone = not others or ("=" in others[0] and not Path(others[0]).exists())
    return Path(first).exists() and (alone or first not in registry.names("dataset"))


def _names(root: Path) -> list[str]:
    """Paths of the images below the root, or below the folder of their part."""
    paths = [path.relative_to(root) for path in list_files(root) if is_image(path)]
    in_parts = {path.parts[0] for path in paths if len(path.parts) > 1 and part_of(path.parts[0]) is not None}
    return [
        path.relative_to(path.parts[0]).as_posix() if path.parts[0] in in_parts else path.as_posix()
        for path in paths
    ]
