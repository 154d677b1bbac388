"""From an image file to what a network reads, in training (random, seeded) and in use (fixed).

Images stay uint8 until the batch is on its device: a quarter of the memory to move between processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from reidkit.config import TransformConfig
from reidkit.errors import DataError
from reidkit.images import load_image
from reidkit.samplers import Draw
from reidkit.types import Sample, Split

Batch = tuple[Tensor, Tensor]
"""Images (B, 3, H, W) uint8 and sample indices (B,) int64."""


def to_input(image: Image.Image, *, height: int, width: int) -> Tensor:
    """An RGB image of any size, resized, as uint8 (3, height, width)."""
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return cast(Tensor, TF.pil_to_tensor(image))


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 (B, 3, H, W) -> float32, per channel (value / 255 - mean) / std."""
    scale = 255 * torch.tensor(std, device=images.device).view(3, 1, 1)
    shift = 255 * torch.tensor(mean, device=images.device).view(3, 1, 1)
    return (images.float() - shift) / scale


def augmentation(config: TransformConfig, mean: Sequence[float]) -> v2.Transform:
    """The random part of a training transform: uint8 (3, H, W) -> uint8 (3, H, W)."""
    fill = [round(255 * value) for value in mean]
    steps: list[v2.Transform] = []
    if config.flip:
        steps.append(v2.RandomHorizontalFlip(config.flip))
    if config.autoaugment:
        steps.append(v2.RandomApply([v2.AutoAugment(fill=fill)], config.autoaugment))
    if config.jitter:
        j = config.jitter
        steps.append(v2.ColorJitter(brightness=j, contrast=j, saturation=j))
    if config.grayscale:
        steps.append(v2.RandomGrayscale(config.grayscale))
    if config.blur:
        steps.append(v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.1, 2.0))], config.blur))
    if config.zoom:
        scale = (1 - config.zoom, 1 + config.zoom)
        bilinear = v2.InterpolationMode.BILINEAR
        steps.append(v2.RandomAffine(0, scale=scale, interpolation=bilinear, fill=fill))
    if config.shift:
        # The edge is continued: a border of one colour would tell the network which way it was shifted.
        steps.append(v2.RandomCrop((config.height, config.width), padding=config.shift, padding_mode="edge"))
    if config.erasing:
        steps.append(v2.RandomErasing(config.erasing, scale=(0.02, 0.4), ratio=(0.3, 3.3), value=fill))
    return v2.Compose(steps) if steps else v2.Identity()


class TrainingImages(Dataset[tuple[Tensor, int] | DataError]):
    """Reads the image of a :class:`Draw` and transforms it with the draw's own seed.

    What comes out depends on the draw alone, not on the process that reads it or on their number. An image
    that cannot be read comes out as the error that says so; :func:`batches` raises it.
    """

    def __init__(self, split: Split, config: TransformConfig, *, mean: Sequence[float]) -> None:
        self.split, self.config = split, config
        self.augment = augmentation(config, mean)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int] | DataError:
        try:
            image = read(self.split[draw.sample], height=self.config.height, width=self.config.width)
        except DataError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(draw.seed)
            return self.augment(image), draw.sample

    def __len__(self) -> int:
        return len(self.split)


def collate(items: Sequence[tuple[Tensor, int] | DataError]) -> Batch | DataError:
    """A batch, or the first error in it. Raised in a worker process it would be buried in a traceback."""
    for item in items:
        if isinstance(item, DataError):
            return item
    return cast(Batch, default_collate(list(items)))


def batches(loader: Iterable[Batch | DataError]) -> Iterator[Batch]:
    """The batches of a loader that uses :func:`collate`; raises :class:`DataError` for a bad image."""
    for batch in loader:
        if isinstance(batch, DataError):
            raise batch
        yield batch


def read(sample: Sample, *, height: int, width: int) -> Tensor:
    """The sample's image as uint8 (3, height, width)."""
    return to_input(load_image(sample.path, box=sample.box), height=height, width=width)
