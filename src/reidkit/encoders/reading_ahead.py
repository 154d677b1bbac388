"""Images made ready in batches: while the network embeds one, threads read the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

_NUM_READERS = 2


def prepared_batches(
    items: Sequence[Item], prepare: Callable[[Item], Prepared], batch_size: int
) -> Iterator[list[Prepared]]:
    """What ``prepare`` makes of items, in their order, a batch at a time.

    No more than one batch is read ahead. Arrays are prepared by who asks for them: there is nothing to read,
    and to hand over work that is so short takes longer than to do it.
    """
    with ThreadPoolExecutor(_NUM_READERS) as readers:
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
