"""What training's worker processes do: images read and augmented as the sampler drew them, then collated.

Images stay uint8 until the batch is on its device: a quarter of the memory to move between processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from reidkit import logs
from reidkit.config import TransformConfig
from reidkit.errors import DataError
from reidkit.images.cache import read
from reidkit.training import distributed
from reidkit.training.augmentation import augmentation
from reidkit.training.samplers import Draw
from reidkit.types import Sample, Split

logger = logs.get_logger(__name__)


class Item(NamedTuple):
    """A training image (3, H, W) uint8, whose it is, and the images that could not be read in its place."""

    image: Tensor
    sample: int
    unreadable: Mapping[int, str]


class Batch(NamedTuple):
    """Images (B, 3, H, W) uint8; sample indices (B,) int64; what was wrong with the images they replace."""

    images: Tensor
    indices: Tensor
    unreadable: Sequence[tuple[int, str]]


class TrainingImages(Dataset[Item | DataError]):
    """Reads the image of a :class:`Draw` and transforms it with the draw's own seed.

    What comes out depends on the draw alone, not on the process that reads it or on their number. In a batch
    each image is decoded once, however often it was drawn.

    An image that cannot be read comes out as the error that says so; :func:`batches` raises it. With
    ``skip_unreadable`` another image of the same identity takes its place, chosen by the draw's seed, or, if
    none can be read, any other of the split; the item's ``sample`` says which it is.

    Args:
        split: the training samples.
        config: size and augmentation.
        mean: RGB in 0..1, to fill with.
        crop: reads a sample's image as uint8 (3, H, W), :func:`reidkit.images.cache.read` where it is not
        given.
    """

    def __init__(
        self,
        split: Split,
        config: TransformConfig,
        *,
        mean: Sequence[float],
        crop: Callable[[Sample], Tensor] | None = None,
        skip_unreadable: bool = False,
    ) -> None:
        self.split = split
        self.augment = augmentation(config, mean)
        self.crop = crop or partial(read, height=config.height, width=config.width)
        self.skip_unreadable = skip_unreadable
        self.images_of: dict[int, list[int]] = {}
        for sample in split:
            self.images_of.setdefault(sample.identity, []).append(sample.index)

    def __getitem__(self, draw: Draw) -> Item | DataError:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Item | DataError]:
        crops: dict[int, Tensor] = {}
        with torch.random.fork_rng(devices=[]):
            return [self._item(draw, crops) for draw in draws]

    def __len__(self) -> int:
        return len(self.split)

    def _item(self, draw: Draw, crops: dict[int, Tensor]) -> Item | DataError:
        unreadable: dict[int, str] = {}
        for index in self._candidates(draw):
            try:
                if index not in crops:
                    crops[index] = self.crop(self.split[index])
            except DataError as error:
                unreadable[index] = str(error)
                continue
            torch.default_generator.manual_seed(draw.seed)
            return Item(self.augment(crops[index]), index, unreadable)
        return DataError(unreadable[draw.sample])

    def _candidates(self, draw: Draw) -> Iterator[int]:
        yield draw.sample
        if self.skip_unreadable:
            rng = np.random.default_rng(draw.seed)
            same = self.images_of[self.split[draw.sample].identity]
            yield from (index for index in rng.permutation(same).tolist() if index != draw.sample)
            others = rng.permutation(len(self.split)).tolist()
            yield from (index for index in others if index not in same)


class UnreadableImages:
    """Counts the images that training replaced since they could not be read, and names each once.

    Args:
        split: the training samples.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.times = torch.zeros(len(split), dtype=torch.int64)  # of this epoch, in this process
        self.named: set[int] = set()
        self.num_replaced = 0

    def add(self, unreadable: Iterable[tuple[int, str]]) -> None:
        """Those of a batch."""
        for index, problem in unreadable:
            self.times[index] += 1
            self._name(index, problem)

    def finish_epoch(self, device: torch.device) -> int:
        """How often one could not be read in this epoch, in all processes; every process must ask."""
        times = distributed.gather_labels(self.times.to(device)).view(-1, len(self.split)).sum(dim=0)
        self.times.zero_()
        for index in times.nonzero().flatten().tolist():
            self._name(index, f"{self.split[index].path} cannot be read by another process of this run")
        self.num_replaced += int(times.sum())
        return int(times.sum())

    def state_dict(self) -> dict[str, Any]:
        """The counts, of this process alone where an epoch is not finished."""
        named = sorted(self.named)
        return {"times": self.times.clone(), "named": named, "num_replaced": self.num_replaced}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """To be called in every process with the state of the main one."""
        if distributed.is_main():
            self.times.copy_(state["times"])
        self.named, self.num_replaced = set(state["named"]), state["num_replaced"]

    def summary(self) -> str:
        """One sentence on all epochs so far."""
        return f"{len(self.named)} images could not be read, and were replaced {self.num_replaced} times"

    def _name(self, index: int, problem: str) -> None:
        if index not in self.named:
            self.named.add(index)
            logger.warning(f"another image is taken instead: {problem}")


def collate(items: Sequence[Item | DataError]) -> Batch | DataError:
    """A batch, or the first error in it. Raised in a worker process it would be buried in a traceback."""
    for item in items:
        if isinstance(item, DataError):
            return item
    whole = cast(Sequence[Item], items)
    return Batch(
        default_collate([item.image for item in whole]),
        torch.tensor([item.sample for item in whole]),
        [problem for item in whole for problem in item.unreadable.items()],
    )


def batches(loader: Iterable[Batch | DataError]) -> Iterator[Batch]:
    """The batches of a loader that uses :func:`collate`; raises :class:`DataError` for a bad image."""
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch
