"""What is wrong with a data set, before a training run finds out: counts, and findings with advice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reidkit.checks.findings import (
    SEVERITIES,
    Finding,
    below,
    by_identity,
    camera_name,
    finding_if_any,
    identity_names,
    short,
)
from reidkit.checks.labels import label_findings, sample_readings
from reidkit.checks.matches import find_matches, items, match_findings, shared_frames
from reidkit.checks.pictures import picture_findings
from reidkit.datasets._splits import why_not_split
from reidkit.images.reading import is_image
from reidkit.images.survey import LeftOut, left_out, summarize
from reidkit.types import JUNK, Dataset, Sample


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """Sizes of one split.

    ``distractors`` are gallery images of identities that no query shows; like ``junk`` they are among
    ``images``, and not among ``identities``. In a set measured by tracklets both count tracklets.
    """

    images: int
    identities: int
    cameras: int
    junk: int
    distractors: int
    tracklets: int = 0


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """The result of :func:`check_dataset`; ``findings`` come worst first.

    ``num_valid_queries`` are the queries (tracklets, where the set is measured by them) with a match under
    the set's protocol, of ``num_queries``; ``None`` where the set cannot be tested on. ``reading`` says how
    labels were read, and ``samples`` shows it of five images: path, part, and the labels they have.
    ``why_not_split`` says why it cannot be cut into parts to train and to test on; empty where it can.
    """

    name: str
    root: Path
    counts: dict[str, SplitCounts]
    num_valid_queries: int | None
    num_queries: int
    findings: tuple[Finding, ...]
    reading: tuple[str, ...] = ()
    samples: tuple[dict[str, str], ...] = ()
    why_not_split: str = ""

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)

    def rows(self) -> list[tuple[str, ...]]:
        """The table of counts as text, a row a split, the header first."""
        columns = list(asdict(SplitCounts(0, 0, 0, 0, 0)))
        if not any(counts.tracklets for counts in self.counts.values()):
            columns.remove("tracklets")
        return [("split", *columns)] + [
            (name, *(f"{asdict(counts)[column]:,}" for column in columns))
            for name, counts in self.counts.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "root": str(self.root),
            "counts": {name: asdict(counts) for name, counts in self.counts.items()},
            "num_valid_queries": self.num_valid_queries,
            "num_queries": self.num_queries,
            "reading": list(self.reading),
            "samples": list(self.samples),
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        rows = self.rows()
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [f"{self.name} in {self.root}"]
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))]
            lines.append("  ".join(cells))
        if self.num_valid_queries is not None:
            lines.append(
                f"{self.num_valid_queries:,} of {self.num_queries:,} queries have a match in the gallery"
            )
        lines += [f"read {sentence}" for sentence in self.reading]
        for sample in self.samples:
            lines.append(", ".join(f"{name} {value}" for name, value in sample.items()))
        return "\n".join([*lines, *map(str, self.findings or ["nothing to complain of"])])


def check_dataset(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> DatasetCheck:
    """Look at every label and open every image of a data set.

    Args:
        dataset: as :func:`reidkit.load_dataset` gives it.
        progress: called with (images done, images in all) after each image.
    """
    gallery = None if dataset.protocol == "recall" else dataset.gallery
    matches = find_matches(dataset, dataset.query, gallery, dataset.galleries)
    can_be_tested = bool(dataset.query) and gallery != ()
    counts = _counts(dataset)
    findings = [
        *_published_findings(dataset, counts),
        *picture_findings(dataset, progress),
        *_leak_findings(dataset),
        *match_findings("queries", matches),
        *shared_frames(dataset),
        *_part_findings(dataset),
        *match_findings("validation images", find_matches(dataset, dataset.val, None)),
        *label_findings(dataset),
        *_camera_findings(dataset),
        *_training_findings(dataset),
        *_skipped_findings(dataset),
    ]
    return DatasetCheck(
        name=dataset.name,
        root=dataset.place,
        counts=counts,
        num_valid_queries=matches.num_valid if can_be_tested else None,
        num_queries=matches.num_queries,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        reading=(*dataset.reading, *_measuring(dataset, can_be_tested)),
        samples=tuple(sample_readings(dataset)),
        why_not_split=why_not_split(dataset),
    )


def _measuring(dataset: Dataset, can_be_tested: bool) -> Iterator[str]:
    """Which split this is, and by which rules queries are counted as having a match."""
    if dataset.split_name:
        yield dataset.split_name
    if can_be_tested:
        camera_filter = dataset.camera_filter if dataset.has_cameras else "none"
        yield f"measured by: protocol {dataset.protocol}, camera filter {camera_filter}"


def _counts(dataset: Dataset) -> dict[str, SplitCounts]:
    asked = {sample.identity for sample in dataset.query}
    counts = {}
    for name, split in dataset.splits.items():
        compared = items(dataset, split)
        persons = [sample for sample in compared if sample.identity != JUNK]
        shown = [s for s in persons if s.identity in asked] if name == "gallery" and asked else persons
        counts[name] = SplitCounts(
            images=len(split),
            identities=len({sample.identity for sample in shown}),
            cameras=len(_cameras(split)) if dataset.has_cameras else 0,
            junk=len(compared) - len(persons),
            distractors=len(persons) - len(shown),
            tracklets=len(compared) if dataset.protocol == "tracklets" else 0,
        )
    return counts


def _published_findings(dataset: Dataset, counts: dict[str, SplitCounts]) -> Iterator[Finding]:
    """Counts that are not those of the full release."""
    differences = []
    for part, published in dataset.published.items():
        found = asdict(counts[part]) if part in counts else {}
        differences += [
            f"{part}: {found.get(name, 0):,} {name}, published are {number:,}"
            for name, number in published.items()
            if found.get(name, 0) != number
        ]
    yield from finding_if_any(
        "warning",
        "counts that are not the published ones",
        differences,
        "A part of the set, or another release of it: results are not comparable with published ones.",
    )


def _leak_findings(dataset: Dataset) -> Iterator[Finding]:
    """Identities on both sides of a line that should part them."""
    parts = {
        "train": dataset.train,
        "val": dataset.val,
        "query or gallery": dataset.query + dataset.gallery,
    }
    for first, second in itertools.combinations(parts, 2):
        shared = by_identity(parts[first]).keys() & by_identity(parts[second]).keys()
        yield from finding_if_any(
            "error",
            f"identities of {first} that are also in {second}",
            identity_names(parts[first], shared),
            "Results measured on them are too good: keep each identity on one side.",
        )


def _part_findings(dataset: Dataset) -> Iterator[Finding]:
    """Parts without which nothing can be measured."""
    if dataset.protocol == "recall" or bool(dataset.query) == bool(dataset.gallery):
        return
    part, missing = ("gallery", "query") if dataset.gallery else ("query", "gallery")
    yield Finding(
        "warning",
        f"{part} images, but no {missing} part",
        len(dataset.gallery or dataset.query),
        (),
        "Nothing can be measured so; name the other part, or cut the parts anew with `reid split`.",
    )


def _camera_findings(dataset: Dataset) -> Iterator[Finding]:
    samples = [sample for split in dataset.splits.values() for sample in split]
    cameras = _cameras(samples)
    if dataset.protocol == "recall":
        return  # its rules know no cameras
    if dataset.has_cameras:
        yield from finding_if_any(
            "note",
            "images whose camera is not known, among others whose camera is",
            [short(sample, dataset) for sample in samples if sample.camera is None],
            "They count as under another camera than every other image.",
        )
    if not dataset.has_cameras:
        yield Finding(
            "note",
            "images without camera labels",
            sum(map(len, dataset.splits.values())),
            (),
            "Matches under the query's own camera cannot be left out, and flatter the result; "
            "give cameras by a file name pattern or a table column if you know them.",
        )
    elif len(cameras) == 1:
        yield Finding(
            "warning",
            f"images that all come from one camera, {cameras.pop()}",
            sum(map(len, dataset.splits.values())),
            (),
            "Nothing can be learnt or measured across cameras; check how camera labels are read.",
        )
    elif len(_cameras(dataset.train)) == 1:
        yield Finding(
            "warning",
            f"training images that all come from one camera, {_cameras(dataset.train).pop()}",
            len(dataset.train),
            (),
            "Nothing can be learnt across cameras; add training images of others.",
        )


def _cameras(samples: Iterable[Sample]) -> set[str]:
    """The cameras that are known, by name."""
    return {camera for sample in samples if (camera := camera_name(sample)) is not None}


def _training_findings(dataset: Dataset) -> Iterator[Finding]:
    groups = by_identity(dataset.train)
    single = {identity for identity, group in groups.items() if len(group) == 1}
    yield from finding_if_any(
        "warning",
        "training identities with a single image",
        identity_names(dataset.train, single),
        "There is no pair to learn from; add images or leave them out.",
    )
    if dataset.has_cameras and len(_cameras(dataset.train)) > 1:
        one_camera = {
            identity for identity, group in groups.items() if len({sample.camera for sample in group}) == 1
        }
        yield from finding_if_any(
            "note",
            "training identities seen by one camera only",
            identity_names(dataset.train, one_camera - single),
            "They teach nothing across cameras; harmless if they are few.",
        )


def _skipped_findings(dataset: Dataset) -> Iterator[Finding]:
    images = [path for path in dataset.skipped if is_image(path)]
    folders = [path for path in dataset.skipped if path.is_dir()]
    known = {*images, *folders}
    others = [path for path in dataset.skipped if path not in known]
    odd = [file for file in left_out(others) if file.reason]
    odd_paths = {file.path for file in odd}
    harmless = [path for path in others if path not in odd_paths]
    yield from finding_if_any(
        "warning",
        "images left out",
        [below(path, dataset.root) for path in images],
        "Their names do not fit the layout, or they are junk in the training part; rename those you want.",
    )
    yield from _odd_files("pictures left out", [file for file in odd if file.is_picture], dataset)
    yield from _odd_files("files left out", [file for file in odd if not file.is_picture], dataset)
    yield from finding_if_any(
        "note",
        "folders left out",
        [below(path, dataset.root) for path in folders],
        "The layout does not name them, and what they hold was not looked at.",
    )
    yield from finding_if_any(
        "note",
        "other files left out",
        [below(path, dataset.root) for path in harmless],
        "By their content they are no images, and nothing needs to be done.",
    )


def _odd_files(title: str, files: list[LeftOut], dataset: Dataset) -> Iterator[Finding]:
    yield from finding_if_any(
        "warning",
        f"{title}: {summarize(files)}",
        [f"{below(file.path, dataset.root)}: {file.reason}" for file in files],
        "See what each of them is, and convert, rename or delete it.",
    )
