"""Images made ready in batches: while the network embeds one, threads read the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from reidkit.images.speed import num_cores

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def num_readers(device: str) -> int:
    """Threads that read for a network on a device.

    Two beside one that takes the cores itself; up to eight for one on a GPU, which embeds some ten times as
    many crops a second as a core reads.
    """
    return 2 if device.partition(":")[0] == "cpu" else min(8, num_cores())


def prepared_batches(
    items: Sequence[Item], prepare: Callable[[Item], Prepared], batch_size: int, *, num_readers: int = 2
) -> Iterator[list[Prepared]]:
    """What ``prepare`` makes of items, in their order, a batch at a time, in so many threads.

    No more than one batch is read ahead. Arrays are prepared by who asks for them: there is nothing to read,
    and to hand over work that is so short takes longer than to do it.
    """
    with ThreadPoolExecutor(num_readers) as readers:
        begun: deque[Iterable[Prepared]] = deque()
        for batch in _batches(items, batch_size):
            arrays = all(isinstance(item, np.ndarray) for item in batch)
            begun.append(map(prepare, batch) if arrays else readers.map(prepare, batch))
            if len(begun) > 1:
                yield list(begun.popleft())
        yield from map(list, begun)


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
