"""From a data set and settings to the sampler and the loader that training draws its batches from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from reidkit.config import SamplerConfig, TrainConfig, TransformConfig
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.features import frames_by_tracklet
from reidkit.images.cache import open_cache
from reidkit.training import distributed
from reidkit.training.gradient_cache import check_pieces
from reidkit.training.loader import Batch, TrainingImages, collate
from reidkit.training.objective import Objective, name_of
from reidkit.training.samplers import BatchSampler, IdentitySampler, RandomSampler, Share, TrackletFrames
from reidkit.types import Dataset, Split


def class_labels(split: Split) -> NDArray[np.int64]:
    """(N,) numbers from 0 of the samples' identities, in the order of these."""
    return np.unique([sample.identity for sample in split], return_inverse=True)[1].astype(np.int64)


def sets_of_classes(data: Dataset, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C,) the number of each class's data set, of a union several; ``labels`` (N,) of the training part."""
    numbers = np.unique([sample.dataset or data.name for sample in data.train], return_inverse=True)[1]
    sets = np.zeros(int(labels.max()) + 1, np.int64)
    sets[labels] = numbers
    return sets


def build_sampler(
    data: Dataset, labels: NDArray[np.int64], config: SamplerConfig, *, seed: int
) -> BatchSampler:
    """The sampler of a data set's ``train`` part, ``labels`` (N,) its classes.

    Raises:
        ConfigError: settings that do not go together, or not with this data.
    """
    share = Share(distributed.rank(), distributed.world_size())
    chosen = _tracklet_frames(data, config)
    if config.kind == "random":
        if config.spread_cameras or config.balance_sets:
            raise ConfigError("spread_cameras and balance_sets go with sampler 'identity', not 'random'")
        batch_size = config.identities_per_batch * config.images_per_identity
        return RandomSampler(len(labels), batch_size=batch_size, frames=chosen, seed=seed, share=share)
    cameras = [-1 if s.camera is None else s.camera for s in data.train] if config.spread_cameras else None
    sets = [sample.dataset or data.name for sample in data.train] if config.balance_sets else None
    return IdentitySampler(
        labels,
        identities_per_batch=config.identities_per_batch,
        images_per_identity=config.images_per_identity,
        cameras=cameras,
        sets=sets,
        frames=chosen,
        seed=seed,
        share=share,
    )


def build_loader(
    data: Dataset,
    sampler: BatchSampler,
    transform: TransformConfig,
    train: TrainConfig,
    *,
    mean: Sequence[float],
    prepare_worker: Callable[[int], None],
    pin_memory: bool,
) -> DataLoader[Batch | DataError]:
    """The loader of the sampler's batches.

    ``prepare_worker`` is called in each process that reads images. With ``pin_memory`` batches lie where a
    GPU can fetch them while the CPU goes on.
    """
    crops = open_cache(
        train.cache,
        data.train,
        height=transform.height,
        width=transform.width,
        gigabytes=train.cache_gb,
        folder=train.cache_folder,
    )
    images: torch.utils.data.Dataset[Any] = TrainingImages(
        data.train,
        transform,
        mean=mean,
        crop=crops.read if crops else None,
        skip_unreadable=train.unreadable == "skip",
    )
    return DataLoader(
        images,
        batch_sampler=sampler,  # yields draws, not bare indices
        num_workers=train.num_workers,
        persistent_workers=train.num_workers > 0,
        worker_init_fn=prepare_worker,
        collate_fn=collate,
        pin_memory=pin_memory,
    )


def check_batches(
    sampler: BatchSampler,
    data: Dataset,
    labels: NDArray[np.int64],
    objectives: Sequence[Objective],
    train: TrainConfig,
) -> list[str]:
    """Whether batches can be learned from.

    Args:
        sampler: of ``data.train``.
        labels: (N,) classes of the training images.
        objectives: what reads the batches.
        train: how they are embedded.

    Returns:
        Sentences on what is unusual about them.

    Raises:
        ConfigError: a batch norm would see a single image, or losses of pairs no pair.
    """
    check_pieces(
        train.accumulate,
        sampler.batch_size // distributed.world_size(),
        smallest=1 if train.batch_norm == "frozen" else 2,
    )
    # Losses from elsewhere do not say whether they compare images.
    of_pairs = [name_of(o) for o in objectives if getattr(o.loss, "reads", None) == "metric"]
    return [*remarks(sampler, len(data.train)), *check_pairs(sampler, data, labels, of_pairs)]


def remarks(sampler: BatchSampler, num_images: int) -> list[str]:
    """Sentences on what is unusual about a sampler's batches of so many images."""
    sentences = []
    if sampler.batch_size > num_images:
        sentences.append(
            f"a batch of {sampler.batch_size} is larger than the {num_images} training images, so some are "
            "in it more than once"
        )
    if sampler.num_left_out:
        sentences.append(f"{sampler.num_left_out} images do not fill a batch and are left out of each epoch")
    return sentences


_OFTEN = 0.1  # share of the batches
_LOOKED_AT = 50  # batches


def check_pairs(
    sampler: BatchSampler, data: Dataset, labels: NDArray[np.int64], losses: Sequence[str]
) -> list[str]:
    """Whether batches hold the pairs that losses of distances compare.

    Args:
        sampler: of ``data.train``.
        labels: (N,) classes of the training images.
        losses: names of the losses that read pairs; without one, any batch will do.

    Returns:
        Sentences where many batches lack such pairs.

    Raises:
        ConfigError: no batch can have one, so that the losses would be 0 or teach nothing in every step.
    """
    if not losses:
        return []
    needing = f"loss {losses[0]!r} compares two images of one identity with one of another"
    remedy = "or leave such losses out"
    images_of = np.bincount(labels)
    if len(images_of) == 1:
        raise ConfigError(
            f"all training images of {data.name!r} are of one identity, but {needing}; {remedy}"
        )
    if images_of.max() == 1:
        raise ConfigError(
            f"no identity of {data.name!r} has two training images, but {needing}; add images, {remedy}"
        )
    if isinstance(sampler, IdentitySampler):
        sizes = {
            "sampler.images_per_identity": sampler.images_per_identity,
            "sampler.identities_per_batch": sampler.identities_per_batch,
        }
        for name, size in sizes.items():
            if size == 1:
                raise ConfigError(f"{name} = 1, but {needing}; take 2 or more, {remedy}")
    return _lacking(sampler, labels, losses[0])


def _lacking(sampler: BatchSampler, labels: NDArray[np.int64], loss: str) -> list[str]:
    """What the first batches of a run lack."""
    batches = sampler.global_batches(np.random.default_rng([sampler.seed, 0]))[:_LOOKED_AT]
    identities = [labels[np.unique(batch)] for batch in batches]
    lack = {
        "two images of one identity": [len(np.unique(found)) == len(found) for found in identities],
        "two identities": [len(np.unique(found)) == 1 for found in identities],
    }
    return [
        f"{sum(lacking)} of the first {len(batches)} batches do not hold {what}: there {loss!r} teaches "
        "nothing. Take more images a batch, or sampler.kind = 'identity' with 2 or more images an identity"
        for what, lacking in lack.items()
        if sum(lacking) > _OFTEN * len(batches)
    ]


def _tracklet_frames(data: Dataset, config: SamplerConfig) -> TrackletFrames | None:
    """What an epoch takes of each tracklet; an image that belongs to none stands for itself."""
    if config.frames == "all":
        return None
    in_tracklets = tuple(sample for sample in data.train if sample.tracklet is not None)
    if not in_tracklets:
        raise ConfigError(
            f"frames = {config.frames!r}, but no training image of {data.name!r} belongs to a tracklet; "
            "use frames = 'all'"
        )
    tracklets = [[sample.index for sample in f] for f in frames_by_tracklet(in_tracklets).values()]
    tracklets += [[sample.index] for sample in data.train if sample.tracklet is None]
    per_tracklet, evenly = config.frames_per_tracklet, config.frames == "evenly"
    return TrackletFrames(tracklets, per_tracklet=per_tracklet, evenly=evenly)
