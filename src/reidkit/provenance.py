"""What a result was made from: versions of the software, fingerprint of the data, settings of the run."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reidkit.errors import ConfigError
from reidkit.files import is_unfinished
from reidkit.types import Dataset, Split

LOCK_FILE = ".lock"  # in a run folder, held by the process that trains there


def versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    packages = ("reidkit", "torch", "torchvision", "timm", "numpy", "pillow")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


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
        there = json.loads(run_file.read_text("utf-8"))["settings"]
        if differences := _differences(there, settings):
            other = f"{folder} holds a run with other settings; choose another folder with --out"
            raise ConfigError([other, *differences])
    elif folder.exists() and (not folder.is_dir() or any(map(_is_foreign, folder.iterdir()))):
        raise ConfigError(f"{folder} exists and is not a run folder; choose an empty or a new one")


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
    return [] if there == here else [f"{path}: {there!r} there, {here!r} now"]


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
