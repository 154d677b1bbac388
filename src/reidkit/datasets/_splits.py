"""Cutting one's own images into train, val, query and gallery, and writing the parts as a table."""

from __future__ import annotations

import csv
import io
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reidkit.datasets import load_dataset
from reidkit.datasets._layouts import numbered
from reidkit.errors import ConfigError, DataError, shown
from reidkit.files import write_atomically
from reidkit.texts.printable import counted
from reidkit.types import JUNK, Dataset, Sample

UNKNOWN = -1  # a camera, in a table whose other rows have one
_LEAST = 3  # identities: one to test on, and two to tell apart in training
COLUMNS = ("path", "identity", "camera", "split", "tracklet", "frame", "time")


@dataclass(frozen=True, slots=True)
class SplitTable:
    """A table of parts that was written, and what went into it.

    Attributes:
        path: the table.
        data: its parts.
        parts_before: those that the images had, put together and cut anew; one where they had none.
        left_out: files that are in no part.
    """

    path: Path
    data: Dataset
    parts_before: tuple[str, ...]
    left_out: tuple[Path, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of images and identities by part."""
        return {
            name: {"images": len(samples), "identities": len({sample.identity for sample in samples})}
            for name, samples in self.data.splits.items()
        }


def split_images(
    source: Path,
    out: Path,
    *,
    layout: str | None = None,
    options: Mapping[str, Any] | None = None,
    test_identities: float = 0.5,
    val_identities: int = 0,
    seed: int = 0,
) -> SplitTable:
    """Read a folder of images, or a table, cut it into parts, and write these as a table.

    Args:
        source: the folder or table.
        out: the table to write, .csv.
        layout: "folder" or "table"; as ``source`` looks, where left out.
        options: of the layout; a pattern and parts belong to a folder, names of columns to a table.
        test_identities, val_identities, seed: as :func:`make_splits` takes them.

    Raises as :func:`reidkit.load_dataset`, :func:`make_splits` and :func:`write_table` do.
    """
    check_table_path(out)
    layout = layout or ("table" if source.is_file() else "folder")
    given = dict(options or {})
    if layout == "table" and given.keys() & {"pattern", "parts"}:
        raise ConfigError("pattern and parts read folders; a table has labels and parts in columns")
    if layout == "folder" and "column" in given:
        raise ConfigError(
            "column names columns of a table; a folder has labels in its names, which pattern reads"
        )
    data = load_dataset(layout, source, **given)
    cut = make_splits(data, test_identities=test_identities, val_identities=val_identities, seed=seed)
    return SplitTable(write_table(cut, out), cut, tuple(data.splits), data.skipped)


def make_splits(
    data: Dataset, *, test_identities: float = 0.5, val_identities: int = 0, seed: int = 0
) -> Dataset:
    """Cut all images of a data set anew; each identity is in one of train, val and test.

    Test and val identities are drawn from those that have something to find: images under two cameras, or
    two images where camera labels are absent. All others are trained on. Of each test identity the first
    image (in path order) under each camera queries and the rest are the gallery; an image stays in the
    gallery where a query would have nothing left to find under another camera. Where camera labels are
    absent, one image of each, drawn at random, queries. Images with identity -1 go to the gallery.

    Args:
        data: the parts it has are put together first.
        test_identities: the share of the identities that have something to find, if below 1; their number
            otherwise.
        val_identities: number to hold out of training to choose the best epoch by.
        seed: of all draws.

    Raises:
        ConfigError: numbers that leave no two identities to train on, or none to test on.
        DataError: no identity has something to find, or there are fewer than three.
    """
    samples = _distinct(sample for split in data.splits.values() for sample in split)
    by_identity = _by_identity(sample for sample in samples if sample.identity != JUNK)
    findable = _findable(by_identity, data)
    most = _most_held_out(len(findable), len(by_identity), data)
    num_test = _num_test(test_identities, len(findable), most=most - val_identities)
    if num_test < 1 or val_identities < 0 or num_test + val_identities > most:
        raise ConfigError(
            f"{num_test} test and {val_identities} val identities: of {len(by_identity)} identities "
            f"{len(findable)} have something to find, and two must stay to train on; give from 1 to {most} "
            "in all, of them at least 1 to test on"
        )
    generator = random.Random(seed)
    generator.shuffle(findable)
    test, val = set(findable[:num_test]), set(findable[num_test : num_test + val_identities])
    query = {
        sample for identity in sorted(test) for sample in _queries(by_identity[identity], data, generator)
    }
    return replace(
        data,
        train=numbered(s for s in samples if s.identity not in test | val | {JUNK}),
        val=numbered(s for s in samples if s.identity in val),
        query=numbered(query),
        gallery=numbered(s for s in samples if s.identity in test | {JUNK} and s not in query),
        split_name=f"drawn from seed {seed}",
        galleries=None,
        published={},
    )


def write_table(data: Dataset, path: str | Path) -> Path:
    """Write the samples of all parts as a CSV file that ``load_dataset("table", path)`` reads.

    Paths are relative to the table's folder, so that both can be moved together.

    Raises:
        ConfigError: the file exists, or is not called .csv.
        DataError: a sample is a box of a scene, for which the table has no column; or a name begins or ends
            with a space, which a table does not keep, or is not UTF-8.
        WriteError: the file cannot be written.
    """
    path = Path(path)
    check_table_path(path)
    rows = [
        _row(sample, split, path.parent, data) for split, samples in data.splits.items() for sample in samples
    ]
    filled = [column for column in COLUMNS if any(row[column] for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, filled, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_atomically(path, text.getvalue())


def check_table_path(path: Path) -> None:
    """Raise :class:`ConfigError` where :func:`write_table` would not write."""
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"{path}: the table must end in .csv")
    if path.exists():
        raise ConfigError(f"{path} exists already; delete it or choose another name")


def _view(sample: Sample, data: Dataset) -> object:
    """What must differ between a query and its match."""
    return sample.camera if data.has_cameras else sample.path


def why_not_split(data: Dataset) -> str:
    """Why :func:`make_splits` cannot cut this data set, whatever it is asked for; empty where it can."""
    by_identity = _by_identity(s for split in data.splits.values() for s in split if s.identity != JUNK)
    try:
        _most_held_out(len(_findable(by_identity, data)), len(by_identity), data)
    except DataError as error:
        return str(error)
    return ""


def _findable(by_identity: Mapping[int, list[Sample]], data: Dataset) -> list[int]:
    """Identities that have something to find."""
    return sorted(
        identity for identity, images in by_identity.items() if len({_view(s, data) for s in images}) > 1
    )


def _most_held_out(num_findable: int, num_identities: int, data: Dataset) -> int:
    """How many identities can be taken out of training: two must stay there, to be told apart."""
    if not num_findable:
        need = "under two cameras" if data.has_cameras else "twice"
        raise DataError(
            f"no identity of {data.place} is shown {need}, so that there is nothing to find; add images, or "
            "correct the labels"
        )
    if num_identities < _LEAST:
        raise DataError(
            f"{data.place} shows {counted(num_identities, 'identity')}, and {_LEAST} are the least to cut: "
            "one to test on, and two to train on; add images of others, or correct the labels"
        )
    return min(num_findable, num_identities - _LEAST + 1)


def _num_test(test_identities: float, num_findable: int, *, most: int) -> int:
    if test_identities < 1:
        share = test_identities * num_findable
        return round(share) if round(share) <= most else int(share)
    if test_identities != int(test_identities):
        raise ConfigError(f"test_identities = {test_identities}; give a share below 1 or a whole number")
    return int(test_identities)


def _queries(images: Sequence[Sample], data: Dataset, generator: random.Random) -> list[Sample]:
    """Images of one identity that ask; the others are what can be found."""
    images = sorted(images, key=lambda sample: sample.path.as_posix())
    if not data.has_cameras:
        return [generator.choice(images)]
    first = {_camera_order(sample): sample for sample in reversed(images)}
    num_left = Counter(_camera_order(sample) for sample in images)
    asking: list[tuple[bool, int]] = []
    for camera in generator.sample(sorted(first), len(first)):
        num_left[camera] -= 1
        if all(any(num_left[other] for other in num_left if other != own) for own in (*asking, camera)):
            asking.append(camera)
        else:
            num_left[camera] += 1
    return [first[camera] for camera in asking]


def _camera_order(sample: Sample) -> tuple[bool, int]:
    """The camera as something to sort by; images of unknown ones go together."""
    return (True, 0) if sample.camera is None else (False, sample.camera)


def _distinct(samples: Iterable[Sample]) -> list[Sample]:
    """Without the second of two entries for one image and person, such as a query that is also searched."""
    return list({(sample.path, sample.box, sample.identity): sample for sample in samples}.values())


def _by_identity(samples: Iterable[Sample]) -> dict[int, list[Sample]]:
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.identity].append(sample)
    return groups


def _row(sample: Sample, split: str, folder: Path, data: Dataset) -> dict[str, str]:
    if sample.box is not None:
        raise DataError(f"{sample.path}: box {sample.box} cannot be written; a table has no column for boxes")
    values = {
        "path": _relative(sample.path, folder),
        "identity": sample.identity_name or sample.identity,
        "camera": _camera_text(sample) if data.has_cameras else None,
        "split": split,
        "tracklet": sample.tracklet,
        "frame": sample.frame,
        "time": sample.time,
    }
    texts = {name: "" if value is None else str(value) for name, value in values.items()}
    for name in ("path", "identity", "camera"):
        if texts[name] != texts[name].strip():
            raise DataError(f"the {name} {shown(texts[name])} begins or ends with a space; rename it")
    if not _is_unicode(texts["path"]):
        raise DataError(f"the name {shown(texts['path'])} is not UTF-8, as a table is; rename the file")
    return texts


def _is_unicode(text: str) -> bool:
    """Whether a name is valid text: Python reads bytes of a file name that are none as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _camera_text(sample: Sample) -> str:
    return sample.camera_name or str(UNKNOWN if sample.camera is None else sample.camera)


def _relative(path: Path, folder: Path) -> str:
    # A linked image keeps its own name; the folders are resolved, or ".." would lead elsewhere.
    return Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()
