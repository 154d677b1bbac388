"""Images as a person names them: files, folders, tables, file-name patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit.datasets._table_files import TABLE_SUFFIXES
from reidkit.datasets.folder import UnclearParts, read_folder
from reidkit.datasets.table import UNREAD, read_images
from reidkit.errors import ConfigError, DataError
from reidkit.files import require_regular
from reidkit.images.reading import is_image
from reidkit.images.survey import LeftOut, left_out, summarize, survey
from reidkit.types import Dataset, Sample


@dataclass(frozen=True, slots=True)
class GivenImages:
    """Images that were found, with their labels where these were read. ``left_out`` are sentences on what was
    not taken."""

    paths: list[Path]
    samples: list[Sample] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def images(self) -> list[Path] | list[Sample]:
        """Samples, or paths where nothing is known of the labels."""
        return self.paths if self.samples is None else self.samples


def given_images(
    paths: Sequence[Path],
    *,
    pattern: str | None = None,
    column: Mapping[str, str] | None = None,
    needs_identity: bool = True,
) -> GivenImages:
    """Images named one by one or by their folders; with labels, where a table or a pattern gives them.

    Args:
        paths: images, folders, tables.
        pattern: of file names, as :func:`reidkit.datasets.folder.folder` takes it.
        column: what tables call their columns, as :func:`reidkit.datasets.table.table` takes it.
        needs_identity: refuse labels without an identity; otherwise it may be unknown.

    Raises:
        ConfigError: ``column`` without a table.
        DataError: a folder holds no images, or what is named itself is no regular file; as the two layouts
            do.
    """
    tables = [path for path in paths if is_table(path)]
    if column and not tables:
        raise ConfigError("column: there is no table whose columns it could name; leave it out")
    if pattern is not None or tables:
        return _labelled(paths, pattern, column, needs_identity)
    return image_paths(paths)


def image_paths(paths: Sequence[Path]) -> GivenImages:
    """Images named one by one, and all those below folders, of which some may turn out not to be readable.

    Raises :class:`DataError` where a folder holds none, or what is named itself is no regular file.
    """
    found: list[Path] = []
    others: list[LeftOut] = []
    for path in paths:
        if not _is_folder(path):
            require_regular(path)  # now, and not after hours of work
            found.append(path)
            continue
        inside = survey(path)
        if not inside.images:
            rest = inside.summary()
            raise DataError(f"{path} holds no images that are read" + (f"; it holds {rest}" if rest else ""))
        found += inside.images
        others += inside.left_out
    return GivenImages(found, left_out=(summarize(others),) if others else ())


def is_table(path: Path) -> bool:
    """Whether a file is a table of labels, by its name."""
    return path.suffix.lower() in TABLE_SUFFIXES


def _labelled(
    paths: Sequence[Path], pattern: str | None, column: Mapping[str, str] | None, needs_identity: bool
) -> GivenImages:
    """Samples of tables, or of folders whose file names follow a pattern."""
    found: list[Sample] = []
    unfit: list[Path] = []
    sentences: list[str] = []
    for path in paths:
        data = (
            read_images(path, column=column, needs_identity=needs_identity)
            if is_table(path)
            else _of_folder(path, pattern, needs_identity)
        )
        found += [sample for split in data.splits.values() for sample in split]
        unfit += data.skipped
        sentences += [f"{path}: {sentence}" for sentence in data.reading if sentence.startswith(UNREAD)]
    images = [path for path in unfit if is_image(path)]
    if images:
        names = "image whose name does" if len(images) == 1 else "images whose names do"
        sentences.append(f"{len(images):,} {names} not fit the pattern, {images[0]} first")
    if others := left_out(path for path in unfit if not is_image(path)):
        sentences.append(summarize(others))
    return GivenImages([sample.path for sample in found], found, tuple(sentences))


def _of_folder(path: Path, pattern: str | None, needs_identity: bool) -> Dataset:
    try:
        return read_folder(path, pattern=pattern, needs_identity=needs_identity)
    except UnclearParts:  # to a gallery it is all the same which part an image is of
        return read_folder(path, pattern=pattern, parts="none", needs_identity=needs_identity)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder; false for what cannot be looked at, which reading it then says."""
    try:
        return path.is_dir()
    except OSError:
        return False
