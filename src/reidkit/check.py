"""What is wrong with a data set, before a training run finds out: counts, and findings with advice."""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from reidkit.errors import DataError
from reidkit.features import frames_by_tracklet
from reidkit.images import is_image, load_image
from reidkit.types import JUNK, Dataset, Sample, Split

NUM_EXAMPLES = 5
NUM_THREADS = 2
MIN_WIDTH, MIN_HEIGHT = 16, 32  # pixels below which a crop shows hardly a person
ALL_CAMERAS_EQUAL = "camera labels are all equal"

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a data set: what, how often, where for example, what to do."""

    severity: Severity
    title: str
    count: int
    examples: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) else ""
        examples = f" ({'; '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.title}: {self.count:,}{examples}. {self.advice}"


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
    the set's protocol, of ``num_queries``; ``None`` where the set cannot be tested on.
    """

    name: str
    root: Path
    counts: dict[str, SplitCounts]
    num_valid_queries: int | None
    num_queries: int
    findings: tuple[Finding, ...]

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
        return "\n".join([*lines, *map(str, self.findings or ["nothing to complain of"])])


def check_dataset(dataset: Dataset, *, progress: Callable[[int, int], None] | None = None) -> DatasetCheck:
    """Look at every label and open every image of a data set.

    Args:
        dataset: as :func:`reidkit.load_dataset` gives it.
        progress: called with (images done, images in all) after each image.
    """
    queries, gallery = _test_items(dataset)
    unmatched = _unmatched(dataset, queries, gallery, dataset.galleries)
    counts = _counts(dataset)
    findings = [
        *_published_findings(dataset, counts),
        *_file_findings(dataset, progress),
        *_leak_findings(dataset),
        *_match_findings("queries", unmatched, num_queries=len(queries)),
        *_match_findings(
            "validation images", _unmatched(dataset, dataset.val, dataset.val), num_queries=len(dataset.val)
        ),
        *_camera_findings(dataset),
        *_training_findings(dataset),
        *_skipped_findings(dataset),
    ]
    return DatasetCheck(
        name=dataset.name,
        root=dataset.root,
        counts=counts,
        num_valid_queries=len(queries) - sum(map(len, unmatched.values())) if queries and gallery else None,
        num_queries=len(queries),
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
    )


def _counts(dataset: Dataset) -> dict[str, SplitCounts]:
    asked = {sample.identity for sample in dataset.query}
    counts = {}
    for name, split in dataset.splits.items():
        items = _items(dataset, split)
        persons = [sample for sample in items if sample.identity != JUNK]
        shown = [s for s in persons if s.identity in asked] if name == "gallery" and asked else persons
        counts[name] = SplitCounts(
            images=len(split),
            identities=len({sample.identity for sample in shown}),
            cameras=len({sample.camera for sample in split}) if dataset.has_cameras else 0,
            junk=len(items) - len(persons),
            distractors=len(persons) - len(shown),
            tracklets=len(items) if dataset.protocol == "tracklets" else 0,
        )
    return counts


def _items(dataset: Dataset, split: Split) -> Split:
    """What the protocol compares: images, or the first frame of each tracklet."""
    if dataset.protocol != "tracklets":
        return split
    return tuple(frames[0] for frames in frames_by_tracklet(split).values())


def _test_items(dataset: Dataset) -> tuple[Split, Split]:
    """Queries and what they are compared with, the same where there is no gallery."""
    queries = _items(dataset, dataset.query)
    return queries, queries if dataset.protocol == "recall" else _items(dataset, dataset.gallery)


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
    yield from _finding(
        "warning",
        "counts that are not the published ones",
        differences,
        "A part of the set, or another release of it: results are not comparable with published ones.",
    )


@dataclass(frozen=True, slots=True)
class _File:
    """What opening one sample's image showed."""

    problem: str | None = None
    is_empty: bool = False
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)


def _file_findings(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[Finding]:
    samples = list(itertools.chain.from_iterable(dataset.splits.values()))
    unreadable: list[str] = []
    empty: list[str] = []
    tiny: list[str] = []
    wide: list[str] = []
    # A file may be listed twice with the same labels (a query that is also in the gallery); that is no copy.
    copies: dict[tuple[bytes, object], dict[tuple[Path, int, int | None], Sample]] = defaultdict(dict)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for done, (sample, file) in enumerate(zip(samples, pool.map(_open, samples), strict=True), start=1):
            width, height = file.size
            name = _short(sample, dataset)
            if file.problem is not None:
                (empty if file.is_empty else unreadable).append(file.problem)
            else:
                copies[file.digest, sample.box][sample.path, sample.identity, sample.camera] = sample
                if width < MIN_WIDTH or height < MIN_HEIGHT:
                    tiny.append(f"{name} is {width} x {height}")
                elif width > height and dataset.protocol != "recall":  # those sets show birds and cars
                    wide.append(f"{name} is {width} x {height}")
            if progress is not None:
                progress(done, len(samples))
    yield from _finding(
        "error",
        "images that cannot be read",
        unreadable,
        "Copy again what is damaged, convert what is not read.",
    )
    yield from _finding("error", "empty images (0 bytes)", empty, "Copy them again or delete them.")
    yield from _duplicate_findings(dataset, [list(group.values()) for group in copies.values()])
    yield from _finding(
        "warning",
        f"images under {MIN_WIDTH} x {MIN_HEIGHT} pixels",
        tiny,
        "Too small to show a person; leave them out, or crop from larger pictures.",
    )
    yield from _finding(
        "note",
        "images wider than tall",
        wide,
        "An upright person is taller than wide; if these are whole scenes, cut the persons out first.",
    )


def _open(sample: Sample) -> _File:
    try:
        size = load_image(sample.path, box=sample.box).size
    except DataError as error:
        is_empty = sample.path.is_file() and sample.path.stat().st_size == 0
        return _File(str(error), is_empty=is_empty)
    return _File(digest=hashlib.blake2b(sample.path.read_bytes(), digest_size=16).digest(), size=size)


def _duplicate_findings(dataset: Dataset, groups: Iterable[list[Sample]]) -> Iterator[Finding]:
    """Files with the same bytes; junk does not count, since evaluation leaves it out."""
    different, other_camera, harmless = [], [], []
    for group in groups:
        persons = [sample for sample in group if sample.identity != JUNK]
        if len(persons) < 2:
            continue
        text = " = ".join(_short(sample, dataset) for sample in persons[:3])
        if len({sample.identity for sample in persons}) > 1:
            different.append(text)
        elif len({sample.camera for sample in persons}) > 1:
            other_camera.append(text)
        else:
            harmless.append(text)
    yield from _finding(
        "error",
        "same picture under different identities",
        different,
        "One label must be wrong: keep one of the files.",
    )
    yield from _finding(
        "warning",
        "same picture under different cameras",
        other_camera,
        "A copy is found without any skill and flatters the result: keep one of the files.",
    )
    yield from _finding(
        "note",
        "same picture twice in one identity and camera",
        harmless,
        "Harmless to the result; delete the copies if they are not meant.",
    )


def _leak_findings(dataset: Dataset) -> Iterator[Finding]:
    """Identities on both sides of a line that should part them."""
    parts = {
        "train": dataset.train,
        "val": dataset.val,
        "query or gallery": dataset.query + dataset.gallery,
    }
    for first, second in itertools.combinations(parts, 2):
        shared = _by_identity(parts[first]).keys() & _by_identity(parts[second]).keys()
        yield from _finding(
            "error",
            f"identities of {first} that are also in {second}",
            _names(parts[first], shared),
            "Results measured on them are too good: keep each identity on one side.",
        )


def _unmatched(
    dataset: Dataset,
    queries: Split,
    gallery: Split,
    galleries: Sequence[Sequence[int]] | None = None,
) -> dict[str, list[str]]:
    """Queries without a match under the set's camera filter, by the reason. Both parts may be the same."""
    if not queries or not gallery:
        return {}
    shown = _by_identity(gallery)
    filters_cameras = dataset.has_cameras and dataset.camera_filter != "none"
    one_camera = filters_cameras and len({sample.camera for sample in queries + gallery}) == 1
    unmatched = defaultdict(list)
    for place, query in enumerate(queries):
        positives = shown.get(query.identity, [])
        if galleries is not None:
            own = set(galleries[place])
            positives = [sample for sample in positives if sample.index in own]
        if not filters_cameras:  # otherwise the query itself goes with the rest of its own camera
            itself = (query.path, query.box)
            positives = [sample for sample in positives if (sample.path, sample.box) != itself]
        if not positives:
            reason = "the identity is absent from the gallery"
        elif one_camera:
            reason = ALL_CAMERAS_EQUAL
        elif filters_cameras and all(sample.camera == query.camera for sample in positives):
            reason = "all matches are under the query's own camera"
        else:
            continue
        unmatched[reason].append(_short(query, dataset))
    return unmatched


def _match_findings(what: str, unmatched: dict[str, list[str]], *, num_queries: int) -> Iterator[Finding]:
    nothing_left = sum(map(len, unmatched.values())) == num_queries
    for reason, queries in unmatched.items():
        yield from _finding(
            "error" if nothing_left else "warning",
            f"{what} without a match, since {reason}",
            queries,
            "Correct the camera labels, or load the set without them."
            if reason == ALL_CAMERAS_EQUAL
            else "They are left out of the mean; gallery images under another camera would make them count.",
        )


def _camera_findings(dataset: Dataset) -> Iterator[Finding]:
    cameras = {sample.camera for split in dataset.splits.values() for sample in split}
    if dataset.protocol == "recall":
        return  # its rules know no cameras
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
            "images that all come from one camera",
            sum(map(len, dataset.splits.values())),
            (f"camera {cameras.pop()}",),
            "Nothing can be learnt or measured across cameras; check how camera labels are read.",
        )
    elif len({sample.camera for sample in dataset.train}) == 1:
        yield Finding(
            "warning",
            "training images that all come from one camera",
            len(dataset.train),
            (f"camera {dataset.train[0].camera}",),
            "Nothing can be learnt across cameras; add training images of others.",
        )


def _training_findings(dataset: Dataset) -> Iterator[Finding]:
    groups = _by_identity(dataset.train)
    single = {identity for identity, group in groups.items() if len(group) == 1}
    yield from _finding(
        "warning",
        "training identities with a single image",
        _names(dataset.train, single),
        "There is no pair to learn from; add images or leave them out.",
    )
    cameras = {sample.camera for sample in dataset.train}
    if dataset.has_cameras and len(cameras) > 1:
        one_camera = {
            identity for identity, group in groups.items() if len({sample.camera for sample in group}) == 1
        }
        yield from _finding(
            "note",
            "training identities seen by one camera only",
            _names(dataset.train, one_camera - single),
            "They teach nothing across cameras; harmless if they are few.",
        )


def _skipped_findings(dataset: Dataset) -> Iterator[Finding]:
    images = [path for path in dataset.skipped if is_image(path)]
    others = [path for path in dataset.skipped if not is_image(path)]
    yield from _finding(
        "warning",
        "images left out",
        [_below(path, dataset.root) for path in images],
        "Their names do not fit the layout, or they are junk in the training part; rename those you want.",
    )
    yield from _finding(
        "note",
        "other files left out",
        [_below(path, dataset.root) for path in others],
        "They are no images, and nothing needs to be done.",
    )


def _finding(severity: Severity, title: str, cases: Sequence[str], advice: str) -> Iterator[Finding]:
    """One finding if there is any case, else none."""
    if cases:
        yield Finding(severity, title, len(cases), tuple(cases[:NUM_EXAMPLES]), advice)


def _by_identity(split: Split) -> dict[int, list[Sample]]:
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in split:
        if sample.identity != JUNK:
            groups[sample.identity].append(sample)
    return groups


def _names(split: Split, identities: Iterable[int]) -> list[str]:
    """Identities as their owner wrote them, sorted."""
    written = {sample.identity: sample.identity_name for sample in split}
    return [written[identity] or str(identity) for identity in sorted(identities)]


def _short(sample: Sample, dataset: Dataset) -> str:
    return _below(sample.path, dataset.root)


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
