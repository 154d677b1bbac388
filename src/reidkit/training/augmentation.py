"""The random part of training's transforms: flips, shifts, erasing and the like."""

from __future__ import annotations

from collections.abc import Sequence

from torchvision.transforms import v2

from reidkit.config import TransformConfig


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
