"""How fast the images of a data set can be read and decoded, which training must not wait for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from reidkit.errors import DataError
from reidkit.images.reading import load_image
from reidkit.types import Dataset, Sample

MAX_IMAGES = 1_000
CROP = (256, 128)
"""Height and width, in pixels, of the crops in the cache: those of most recipes."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast images are read in one way.

    Attributes:
        name: of the figure, for programs.
        what: is done with an image, in words.
        images_per_second: by number of workers.
        problem: why that could not be measured.
    """

    name: str
    what: str
    images_per_second: dict[int, float]
    problem: str = ""


def reading_speeds(dataset: Dataset) -> list[Speed]:
    """How fast one worker reads, and one for each core: full images, and crops from a RAM cache.

    Raises :class:`DataError` where the set has no image.
    """
    height, width = CROP
    ways = [
        ("images_per_second", "reading and decoding", None),
        ("images_per_second_cached", f"from a cache at {height} x {width}", CROP),
    ]
    speeds = []
    for name, what, size in ways:
        try:
            rates = {n: reading_speed(dataset, num_workers=n, cache_size=size) for n in (1, num_cores())}
            speeds.append(Speed(name, what, rates))
        except OSError as error:
            speeds.append(Speed(name, what, {}, f"{what} cannot be measured: {error}"))
    return speeds


def reading_speed(dataset: Dataset, *, num_workers: int, cache_size: tuple[int, int] | None = None) -> float:
    """Images a second that ``num_workers`` processes read and decode at their full size.

    At most 1,000 images are read, evenly spaced over the set, each twice: what counts is the second time,
    when the system holds the files in memory.

    Args:
        dataset: the set.
        num_workers: processes.
        cache_size: (height, width) of crops in a RAM cache, to measure how fast they come from there.

    Raises:
        DataError: the set has no image.
        OSError: there is no room for the cache.
    """
    samples = [sample for split in dataset.splits.values() for sample in split]
    if not samples:
        raise DataError(f"data set {dataset.name!r} in {dataset.place} has no images to read")
    chosen = samples[:: -(-len(samples) // MAX_IMAGES)]
    reader: Callable[[Sample], object] = _decode
    if cache_size is not None:
        from reidkit.images.cache import CropCache  # needs torch, which a check without it does not

        chosen = [replace(sample, index=index) for index, sample in enumerate(chosen)]
        height, width = cache_size
        reader = CropCache(tuple(chosen), height=height, width=width, gigabytes=4.0).read
    with ProcessPoolExecutor(num_workers, initializer=_readers.append, initargs=(reader,)) as pool:
        chunk = max(1, len(chosen) // (4 * num_workers))
        list(pool.map(_read, chosen, chunksize=chunk))  # starts the processes, too
        started = time.perf_counter()
        list(pool.map(_read, chosen, chunksize=chunk))
        return len(chosen) / (time.perf_counter() - started)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_readers: list[Callable[[Sample], object]] = []
"""In each process of the pool, what it reads with: handed over when it starts, not with every image."""


def _read(sample: Sample) -> None:
    with suppress(DataError):  # the check names it; here it costs the time that it costs
        _readers[-1](sample)


def _decode(sample: Sample) -> object:
    return load_image(sample.path, box=sample.box)
