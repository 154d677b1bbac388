"""How fast the images of a data set can be read and decoded, which training must not wait for."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress

from reidkit.errors import DataError
from reidkit.images import load_image
from reidkit.types import Dataset, Sample

MAX_IMAGES = 1_000


def reading_speed(dataset: Dataset, *, num_workers: int) -> float:
    """Images a second that ``num_workers`` processes read and decode at their full size.

    At most 1,000 images are read, evenly spaced over the set, each twice: what counts is the second time,
    when the system holds the files in memory.

    Raises:
        DataError: the set has no image.
    """
    samples = [sample for split in dataset.splits.values() for sample in split]
    if not samples:
        raise DataError(f"data set {dataset.name!r} in {dataset.root} has no images to read")
    chosen = samples[:: -(-len(samples) // MAX_IMAGES)]
    with ProcessPoolExecutor(num_workers) as pool:
        chunk = max(1, len(chosen) // (4 * num_workers))
        list(pool.map(_read, chosen, chunksize=chunk))  # starts the processes, too
        started = time.perf_counter()
        list(pool.map(_read, chosen, chunksize=chunk))
        return len(chosen) / (time.perf_counter() - started)


def num_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(sample: Sample) -> None:
    with suppress(DataError):  # the check names it; here it costs the time that it costs
        load_image(sample.path, box=sample.box)
