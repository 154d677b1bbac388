"""What opening every picture of a data set shows: damage, copies, odd sizes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from reidkit.checks.findings import Finding, finding_if_any, short
from reidkit.errors import DataError
from reidkit.evaluation.same_picture import picture_names
from reidkit.images.reading import load_image
from reidkit.types import JUNK, Dataset, Sample

NUM_THREADS = 2
MIN_WIDTH, MIN_HEIGHT = 16, 32  # pixels below which a crop shows hardly a person


@dataclass(frozen=True, slots=True)
class _File:
    """What opening one sample's image showed."""

    problem: str | None = None
    is_empty: bool = False
    picture: str = ""
    size: tuple[int, int] = (0, 0)


def picture_findings(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[Finding]:
    """Open every image; ``progress`` is called with (images done, images in all) after each."""
    samples = list(itertools.chain.from_iterable(dataset.splits.values()))
    unreadable: list[str] = []
    empty: list[str] = []
    tiny: list[str] = []
    wide: list[str] = []
    # A file may be listed twice with the same labels (a query that is also in the gallery); that is no copy.
    copies: dict[str, dict[tuple[Path, int, int | None], Sample]] = defaultdict(dict)
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for done, (sample, file) in enumerate(zip(samples, pool.map(_open, samples), strict=True), start=1):
            width, height = file.size
            name = short(sample, dataset)
            if file.problem is not None:
                (empty if file.is_empty else unreadable).append(file.problem)
            else:
                copies[file.picture][sample.path, sample.identity, sample.camera] = sample
                if width < MIN_WIDTH or height < MIN_HEIGHT:
                    tiny.append(f"{name} is {width} x {height}")
                elif width > height and dataset.protocol != "recall":  # those sets show birds and cars
                    wide.append(f"{name} is {width} x {height}")
            if progress is not None:
                progress(done, len(samples))
    yield from finding_if_any(
        "error",
        "images that cannot be read",
        unreadable,
        "Copy again what is damaged, convert what is not read.",
    )
    yield from finding_if_any("error", "empty images (0 bytes)", empty, "Copy them again or delete them.")
    yield from _duplicate_findings(dataset, [list(group.values()) for group in copies.values()])
    yield from finding_if_any(
        "warning",
        f"images under {MIN_WIDTH} x {MIN_HEIGHT} pixels",
        tiny,
        "Too small to show a person; leave them out, or crop from larger pictures.",
    )
    yield from finding_if_any(
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
    return _File(picture=picture_names((sample,))[0], size=size)


def _duplicate_findings(dataset: Dataset, groups: Iterable[list[Sample]]) -> Iterator[Finding]:
    """Files with the same bytes; junk does not count, since evaluation leaves it out."""
    different, other_camera, harmless = [], [], []
    for group in groups:
        persons = [sample for sample in group if sample.identity != JUNK]
        if len(persons) < 2:
            continue
        text = " = ".join(short(sample, dataset) for sample in persons[:3])
        if len({sample.identity for sample in persons}) > 1:
            different.append(text)
        elif len({sample.camera for sample in persons}) > 1:
            other_camera.append(text)
        else:
            harmless.append(text)
    yield from finding_if_any(
        "error",
        "same picture under different identities",
        different,
        "One label must be wrong: keep one of the files.",
    )
    yield from finding_if_any(
        "warning",
        "same picture under different cameras",
        other_camera,
        "A copy is found without any skill, and evaluation leaves it out: keep one of the files.",
    )
    yield from finding_if_any(
        "note",
        "same picture twice in one identity and camera",
        harmless,
        "Harmless to the result; delete the copies if they are not meant.",
    )
