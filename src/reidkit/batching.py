"""From a data set and settings to the sampler and the loader that training draws its batches from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from reidkit import distributed
from reidkit.config import TransformConfig
from reidkit.crops import open_cache
from reidkit.errors import ConfigError, DataError, UnknownName
from reidkit.features import frames_by_tracklet
from reidkit.loader import Batch, TrainingImages, collate
from reidkit.samplers import BatchSampler, IdentitySampler, RandomSampler, TrackletFrames
from reidkit.types import Dataset


def build_sampler(
    data: Dataset,
    labels: NDArray[np.int64],
    *,
    seed: int,
    kind: str,
    identities_per_batch: int,
    images_per_identity: int,
    spread_cameras: bool,
    balance_sets: bool,
    frames: str,
    frames_per_tracklet: int,
) -> BatchSampler:
    """The sampler of a data set's ``train`` part, ``labels`` (N,) its classes; arguments as in ``[sampler]``.

    Raises:
        ConfigError: settings that do not go together, or not with this data.
    """
    place = {"seed": seed, "rank": distributed.rank(), "world_size": distributed.world_size()}
    chosen = _tracklet_frames(data, frames, frames_per_tracklet)
    if kind not in ("identity", "random"):
        raise UnknownName("sampler", kind, ("identity", "random"))
    if kind == "random":
        if spread_cameras or balance_sets:
            raise ConfigError("spread_cameras and balance_sets go with sampler 'identity', not 'random'")
        batch_size = identities_per_batch * images_per_identity
        return RandomSampler(len(labels), batch_size=batch_size, frames=chosen, **place)
    return IdentitySampler(
        labels,
        identities_per_batch=identities_per_batch,
        images_per_identity=images_per_identity,
        cameras=[-1 if s.camera is None else s.camera for s in data.train] if spread_cameras else None,
        sets=[sample.dataset or data.name for sample in data.train] if balance_sets else None,
        frames=chosen,
        **place,
    )


def build_loader(
    data: Dataset,
    sampler: BatchSampler,
    transform: TransformConfig,
    *,
    mean: Sequence[float],
    num_workers: int,
    unreadable: str,
    cache: str,
    cache_gb: float,
    cache_folder: str | Path | None,
    prepare_worker: Callable[[int], None],
    pin_memory: bool,
    say: Callable[[str], None],
) -> DataLoader[Batch | DataError]:
    """The loader of the sampler's batches; arguments as in ``[train]``.

    ``prepare_worker`` is called in each process that reads images. With ``pin_memory`` batches lie where a
    GPU can fetch them while the CPU goes on.

    Raises:
        ConfigError: a cache or a treatment of unreadable images that does not exist.
    """
    if unreadable not in ("stop", "skip"):
        raise UnknownName("unreadable", unreadable, ("stop", "skip"))
    crops = open_cache(
        cache,
        data.train,
        height=transform.height,
        width=transform.width,
        gigabytes=cache_gb,
        folder=cache_folder,
        say=say,
    )
    images: torch.utils.data.Dataset[Any] = TrainingImages(
        data.train,
        transform,
        mean=mean,
        crop=crops.read if crops else None,
        skip_unreadable=unreadable == "skip",
    )
    return DataLoader(
        images,
        batch_sampler=sampler,  # yields draws, not bare indices
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=prepare_worker,
        collate_fn=collate,
        pin_memory=pin_memory,
    )


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
        losses: names of the losses that read pairs; nothing is asked of batches without one.

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


def _tracklet_frames(data: Dataset, kind: str, per_tracklet: int) -> TrackletFrames | None:
    """What an epoch takes of each tracklet; an image that belongs to none stands for itself."""
    if kind not in ("all", "random", "evenly"):
        raise UnknownName("choice of frames", kind, ("all", "random", "evenly"))
    if kind == "all":
        return None
    in_tracklets = tuple(sample for sample in data.train if sample.tracklet is not None)
    if not in_tracklets:
        raise ConfigError(
            f"frames = {kind!r}, but no training image of {data.name!r} belongs to a tracklet; "
            "use frames = 'all'"
        )
    tracklets = [[sample.index for sample in f] for f in frames_by_tracklet(in_tracklets).values()]
    tracklets += [[sample.index] for sample in data.train if sample.tracklet is None]
    return TrackletFrames(tracklets, per_tracklet=per_tracklet, evenly=kind == "evenly")
