"""How labels were read, and what about them looks as if another thing had been read for a label."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

from reidkit.checks.findings import Finding, below, camera_name, finding_if_any, identity_name, short
from reidkit.datasets._part_names import hinted_part, part_of
from reidkit.datasets._pattern_guess import guess_pattern
from reidkit.images.reading import IMAGE_SUFFIXES
from reidkit.labels import empty_cells, label_text, lookalikes, moment
from reidkit.types import JUNK, Dataset, Sample

NUM_READINGS = 5

_DATE = re.compile(r"(?:19|20)\d\d-?[01]\d-?[0-3]\d(?:[T_ -]?[0-2]\d[-:]?[0-5]\d.*)?")
_CAMERA = re.compile(r"(?:c|cam|camera|kamera)[ _-]?\d+", re.IGNORECASE)
_COUNTER_FROM = 9  # numbered cameras; sets with one image of each identity and camera have up to 8
_MANY_FROM = 10  # images below which as many cameras as images may be meant


def sample_readings(dataset: Dataset) -> list[dict[str, str]]:
    """About five samples, from start to end of each part, as they were read: path, part and labels."""
    num_each = max(1, round(NUM_READINGS / max(1, len(dataset.splits))))
    readings = []
    for part, split in dataset.splits.items():
        places = {place * (len(split) - 1) // max(1, num_each - 1) for place in range(num_each)}
        readings += [_reading(part, split[place], dataset) for place in sorted(places)]
    return readings


def example_reading(samples: Sequence[Sample]) -> str:
    """How the first image was read, in a line; empty without one."""
    if not samples:
        return ""
    labels = ", ".join(f"{name} {value}" for name, value in _labels(samples[0]).items())
    return f"{samples[0].path}: {labels or 'no labels'}"


def label_findings(dataset: Dataset) -> Iterator[Finding]:
    """Labels that look like something else: a slip of the pen, an ending, a date, a counter."""
    samples = [sample for split in dataset.splits.values() for sample in split]
    identities = {identity_name(sample) for sample in samples if sample.identity != JUNK}
    cameras = {camera for sample in samples if (camera := camera_name(sample)) is not None}
    for what, names in (("identities", identities), ("cameras", cameras)):
        yield from finding_if_any(
            "warning",
            f"{what} whose names differ only by zeros, capitals or look-alike characters",
            [" and ".join(group) for group in lookalikes(names)],
            "They are kept apart; write them in one way if they are meant as one.",
        )
        yield from finding_if_any(
            "warning",
            f"{what} called as programs write an empty cell",
            empty_cells(names),
            "Write -1 where none is known, and another name if it is one.",
        )
        yield from _odd_names(what, names)
    if len(samples) >= _MANY_FROM and 2 * len(cameras) > len(samples) and dataset.protocol != "tracklets":
        yield Finding(
            "warning",
            f"cameras, nearly as many as images ({len(samples):,})",
            len(cameras),
            tuple(sorted(cameras)[:NUM_READINGS]),
            "A counter or a time was probably read as the camera; read it as {frame} or {time}, or as *.",
        )
    if dataset.protocol != "tracklets":
        yield from _counters(samples)
    if dataset.name == "folder":
        yield from _folder_findings(dataset, samples)


def _counters(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Many numbered cameras, each showing each identity at most once: images were numbered so."""
    seen = [(sample.identity, camera) for sample in samples if (camera := camera_name(sample)) is not None]
    cameras = {camera for _, camera in seen}
    identities = {identity for identity, _ in seen}
    alone = len(set(seen)) == len(seen) > 2 * len(identities)
    if alone and len(cameras) >= _COUNTER_FROM and all(name.isdecimal() for name in cameras):
        yield Finding(
            "warning",
            "cameras that look like a counter: no identity has two images under one of them",
            len(cameras),
            tuple(sorted(cameras)[:NUM_READINGS]),
            "Read it as {frame}, or let * stand for it in the pattern.",
        )


def _odd_names(what: str, names: Collection[str]) -> Iterator[Finding]:
    endings = sorted(name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES)
    yield from finding_if_any(
        "warning",
        f"{what} that look like file endings",
        endings,
        "The ending was read as a part of the label; end the pattern with .* to leave it out.",
    )
    dates = sorted(name for name in names if _DATE.fullmatch(name))
    if len(dates) > len(names) / 2:
        yield from finding_if_any(
            "warning",
            f"{what} that look like dates",
            dates,
            "A date was probably read as the label; let * stand for it in the pattern.",
        )


def _folder_findings(dataset: Dataset, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Of identity folders: cameras taken for people, and names that say more than was read."""
    paths = [_below_part(sample, dataset) for sample in samples]
    by_folder = all(
        len(path.parts) > 1 and label_text(path.parts[0]) == identity_name(sample)
        for path, sample in zip(paths, samples, strict=True)
    )
    if by_folder:  # and not by a pattern
        guess = guess_pattern([path.as_posix() for path in paths])
        yield from _odd_folders(paths)
        yield from _repeated_folders([path for path in paths if len(path.parts) > 2], guess)
        yield from _proposed_pattern(guess, paths)


def _odd_folders(paths: Sequence[PurePosixPath]) -> Iterator[Finding]:
    """Folders that are called as if they held something else than the images of one person."""
    names = sorted({path.parts[0] for path in paths})
    yield from finding_if_any(
        "warning",
        "identities that are called much as parts of a data set are",
        [name for name in names if hinted_part(name) is not None],
        "If they are parts, rename them train, val, query and gallery.",
    )
    cameras = [name for name in names if _CAMERA.fullmatch(name)]
    yield from finding_if_any(
        "warning",
        "identities that are called as cameras are",
        cameras if 2 * len(cameras) > len(names) else [],
        'If they are cameras, give a pattern, such as pattern="{camera}/{identity}/*".',
    )
    if len(names) == 1 and any(len(path.parts) > 2 for path in paths):
        yield Finding(
            "warning",
            f"one identity in all, {names[0]}, with folders inside it",
            1,
            (),
            f"If these are the identities, or the parts, give the folder {names[0]} as root.",
        )


def _repeated_folders(paths: Sequence[PurePosixPath], guess: str | None) -> Iterator[Finding]:
    """Folders that most identities have: one of the two levels is not what it was taken for.

    ``guess`` is a pattern that fits, where one is known.
    """
    holders: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        holders[path.parts[1]].add(path.parts[0])
    shared = sorted(name for name, outer in holders.items() if len(outer) > 1)
    if 2 * len(shared) <= len(holders):
        return
    num_outer = len({path.parts[0] for path in paths})
    order = "{camera}/{identity}" if len(holders) > num_outer else "{identity}/{camera}"
    pattern = guess or order + "/*" * (min(len(path.parts) for path in paths) - 2)
    advice = f'Either the outer or the inner ones are cameras; then give pattern="{pattern}".'
    if any(part_of(name) for name in shared):
        advice = "They are parts: put them above the identities."
    elif guess is None and all(map(_DATE.fullmatch, shared)):
        advice = (
            "They are called as dates are. If the outer ones are cameras, the files' names have to say who: "
            'give a pattern, such as pattern="{camera}/*/{identity}_*.*".'
        )
    yield Finding(
        "warning",
        "folders of the same names in several identities",
        len(shared),
        tuple(f"{name} in {', '.join(sorted(holders[name])[:3])}" for name in shared[:NUM_READINGS]),
        advice,
    )


def _proposed_pattern(guess: str | None, paths: Sequence[PurePosixPath]) -> Iterator[Finding]:
    if guess is not None:
        yield Finding(
            "note",
            "a pattern that would read cameras, too",
            1,
            (f'pattern="{guess}" for names like {paths[0]}',),
            "If it is right, give it: results without cameras are too good.",
        )


def _below_part(sample: Sample, dataset: Dataset) -> PurePosixPath:
    """The path below the root, or below the folder of its part."""
    path = PurePosixPath(below(sample.path, dataset.root))
    first = path.parts[0]
    in_part = len(path.parts) > 1 and part_of(first) is not None and first != identity_name(sample)
    return PurePosixPath(*path.parts[1:]) if in_part else path


def _reading(part: str, sample: Sample, dataset: Dataset) -> dict[str, str]:
    return {"image": short(sample, dataset), "part": part} | _labels(sample)


def _labels(sample: Sample) -> dict[str, str]:
    unknown = sample.identity_name == ""
    identity = "junk" if sample.identity == JUNK else identity_name(sample)
    labels = {
        "identity": None if unknown else identity,
        "camera": camera_name(sample),
        "tracklet": sample.tracklet,
        "frame": sample.frame,
        "time": None if sample.time is None else moment(sample.time),
        "box": sample.box,
    }
    return {name: str(value) for name, value in labels.items() if value is not None}
