"""What a result was made from: versions of the software, fingerprint of the data, settings of the run."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from reidkit import __version__
from reidkit.errors import CheckpointError, ConfigError, shown
from reidkit.files import is_unfinished
from reidkit.texts.files import read_json
from reidkit.types import Dataset, Split

LOCK_FILE = ".lock"  # in a run folder, held by the process that trains there


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    packages = ("torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        "reidkit": __version__,
        **{package: _version_of(package) for package in packages},
    }


def _version_of(package: str) -> str:
    """A package may have come by another way, or as a fork of another name; nobody's training ends for it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not known"


def data_fingerprint(data: Dataset) -> dict[str, Any]:
    """Name, counts and a hash over the training and validation samples: file names, sizes and labels.

    Where the data lies does not matter; what it is called below its root does.
    """
    return {
        "name": data.name,
        "train_images": len(data.train),
        "train_identities": data.num_identities,
        "val_images": len(data.val),
        "hash": images_hash(data.train, data.val),
    }


def check_run_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Raise :class:`ConfigError` where a folder holds something else than a run with these settings."""
    run_file = folder / "run.json"
    if run_file.is_file():
        there = read_run_file(run_file)["settings"]
        if differences := _differences(there, settings):
            other = f"{folder} holds a run with other settings; choose another folder"
            raise ConfigError([other, *differences])
    elif folder.exists() and (not folder.is_dir() or any(map(_is_foreign, folder.iterdir()))):
        raise ConfigError(f"{folder} exists and is not a run folder; choose an empty or a new one")


def read_run_file(path: Path) -> dict[str, Any]:
    """What ``run.json`` says: a table with ``settings``, and whatever else a training notes there.

    Raises:
        CheckpointError: it is something else.
    """
    run = read_json(path, error=CheckpointError)
    resumed = run.get("resumed_with", []) if isinstance(run, dict) else None
    if (
        not isinstance(run, dict)
        or not isinstance(run.get("settings"), dict)
        or not isinstance(resumed, list)
        or not all(isinstance(entry, dict) for entry in resumed)
    ):
        raise CheckpointError(
            f"{path} is not what a training writes, but {shown(run)}; choose another folder, or delete it"
        )
    return run


def _is_foreign(path: Path) -> bool:
    """Not what a training leaves that was killed before it had written anything."""
    return path.name != LOCK_FILE and not is_unfinished(path)


def _differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Sentences that name each differing setting."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = sorted({*there, *here})
        return [d for k in keys for d in _differences(there.get(k), here.get(k), f"{path}.{k}".lstrip("."))]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = zip(there, here, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in _differences(a, b, f"{path}[{i}]")]
    return [] if there == here else [f"{path}: {shown(there)} there, {shown(here)} now"]


def images_hash(*splits: Split) -> str:
    """Stands for the samples of splits: file names, sizes and labels, in their order."""
    digest = hashlib.sha256()
    for split in splits:
        for sample in split:
            # No camera was written 0 once, and runs of that time go on.
            camera = sample.camera or 0
            parts = (sample.path.name, sample.path.stat().st_size, sample.identity, camera, sample.box)
            digest.update(repr(parts).encode())
        digest.update(b"end of split")
    return digest.hexdigest()[:16]
