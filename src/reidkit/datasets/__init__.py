"""Data sets by name. Each layout is one file of this folder; :func:`load_dataset` reads any of them."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from reidkit import registry, trust
from reidkit.datasets._layouts import numbered
from reidkit.errors import ConfigError, DataError, shown
from reidkit.files import from_home
from reidkit.types import JUNK, Dataset, Split


def load_dataset(
    name: str,
    root: str | Path,
    *,
    val_identities: int = 0,
    train_identities: int = 0,
    corrupt_labels: float = 0.0,
    seed: int = 0,
    **options: Any,
) -> Dataset:
    """Read the samples of a data set; no image is opened.

    Junk images (identity -1) never stay in ``train``: they are listed in ``Dataset.skipped``.

    Args:
        name: a registered layout (``reid list datasets``), or a dotted path to one of your own.
        root: where the data set lies.
        val_identities: training identities to hold out as ``val``. Whole identities, drawn from those
            that have a match to find: images under two cameras, or two images where camera labels are
            absent.
        train_identities: how many of the other training identities to keep, drawn at random; 0 is all. What
            a smaller number keeps, a larger one keeps too.
        corrupt_labels: share of the images then in ``train`` that get the label of another identity of it,
            drawn at random; what a smaller share spoils, a larger one spoils too. For studies of robustness.
        seed: of these draws; the same seed gives the same identities.
        options: the layout's own options.

    Raises:
        ConfigError: unknown name or option, or more validation or training identities than there can be.
        DataError: ``root`` does not exist or is not laid out as the name says.
    """
    if not isinstance(name, str):
        raise ConfigError(f"the name of a data set is {shown(name)}; `reid list datasets` has them all")
    if not isinstance(root, str | os.PathLike):
        raise ConfigError(f"root is {shown(root)}; give the folder where the data set lies")
    with trust.given(name):
        registry.get("dataset", name)  # a misspelt name is told before a missing folder
    root = from_home(root)
    if not root.exists():
        raise DataError(
            f"{root} does not exist (seen from {Path.cwd()}); "
            "unpack the data set there, or give its folder as root"
        )
    whole = {"val_identities": val_identities, "train_identities": train_identities, "seed": seed}
    problems = [
        f"{option} = {shown(value)} is not a whole number"
        for option, value in whole.items()
        if not registry.fits(value, int)
    ]
    if not registry.fits(corrupt_labels, float):
        problems.append(f"corrupt_labels = {shown(corrupt_labels)} is not a number")
    if problems:
        raise ConfigError(problems)
    with trust.given(name):
        dataset = registry.build("dataset", name, options, root)
    if not isinstance(dataset, Dataset):
        raise ConfigError(
            f"dataset {shown(name)} gives a {type(dataset).__name__}; a layout gives a reidkit.Dataset"
        )
    _check_numbers(dataset)
    dataset = _without_junk_in_train(dataset)
    if val_identities:
        dataset = _with_validation(dataset, val_identities, seed)
    if train_identities:
        dataset = _with_fewer_identities(dataset, train_identities, seed)
    return _with_wrong_labels(dataset, corrupt_labels, seed) if corrupt_labels else dataset


def _check_numbers(dataset: Dataset) -> None:
    """Refuse numbers that no array of 64-bit integers holds; a layout takes any number of digits."""
    for split in (*dataset.splits.values(), dataset.multi_query):
        for name in ("identity", "camera", "tracklet", "frame"):
            for sample in split:
                if (number := getattr(sample, name)) is not None and not -(2**63) <= number < 2**63:
                    raise DataError(
                        f"{sample.path}: {name} {str(number)[:30]}... has {len(str(number))} digits; numbers "
                        "have up to 18 digits here: rename the file, or read the set as 'folder' by a "
                        "pattern, where identities and cameras are text and * leaves out what is not needed"
                    )


def _without_junk_in_train(dataset: Dataset) -> Dataset:
    junk = tuple(sample.path for sample in dataset.train if sample.identity == JUNK)
    if not junk:
        return dataset
    train = numbered(sample for sample in dataset.train if sample.identity != JUNK)
    return replace(dataset, train=train, skipped=dataset.skipped + junk)


def _with_validation(dataset: Dataset, num_identities: int, seed: int) -> Dataset:
    if dataset.val:
        raise ConfigError(
            f"val_identities = {num_identities}, but the data set brings its own validation part of "
            f"{len(dataset.val)} images; leave val_identities at 0"
        )
    candidates = _identities_with_matches(dataset.train, has_cameras=dataset.has_cameras)
    # Training needs two identities to tell apart.
    most = max(min(len(candidates), dataset.num_identities - 2), 0)
    if not 0 < num_identities <= most:
        need = "seen by two or more cameras" if dataset.has_cameras else "with two or more images"
        raise ConfigError(
            f"val_identities = {num_identities} is outside 0..{most}: of {dataset.num_identities} training "
            f"identities {len(candidates)} are {need}, and two must stay to train on"
        )
    held_out = set(random.Random(seed).sample(candidates, num_identities))
    return replace(
        dataset,
        train=numbered(sample for sample in dataset.train if sample.identity not in held_out),
        val=numbered(sample for sample in dataset.train if sample.identity in held_out),
    )


def _with_fewer_identities(dataset: Dataset, num_identities: int, seed: int) -> Dataset:
    identities = sorted({sample.identity for sample in dataset.train})
    if not 2 <= num_identities <= len(identities):
        raise ConfigError(
            f"train_identities = {num_identities} is outside 2..{len(identities)}, the identities of "
            f"{dataset.name!r} that are there to train on; 0 keeps all"
        )
    random.Random(seed).shuffle(identities)
    kept = set(identities[:num_identities])
    return replace(dataset, train=numbered(sample for sample in dataset.train if sample.identity in kept))


def _with_wrong_labels(dataset: Dataset, share: float, seed: int) -> Dataset:
    names = {sample.identity: sample.identity_name for sample in dataset.train}
    if not 0 <= share <= 1 or len(names) < 2:
        raise ConfigError(
            f"corrupt_labels = {share} with {len(names)} training identities; give a share from 0 to 1, and "
            "two identities or more"
        )
    draw = random.Random(seed)
    order = list(range(len(dataset.train)))
    draw.shuffle(order)
    train = list(dataset.train)
    for index in order[: round(share * len(train))]:
        other = draw.choice([identity for identity in names if identity != train[index].identity])
        train[index] = replace(train[index], identity=other, identity_name=names[other])
    return replace(dataset, train=tuple(train))


def _identities_with_matches(train: Split, *, has_cameras: bool) -> list[int]:
    """Sorted identities an image of which has another one to find."""
    views = defaultdict(set)
    for sample in train:
        views[sample.identity].add(sample.camera if has_cameras else sample.index)
    return sorted(identity for identity, seen in views.items() if len(seen) > 1)
