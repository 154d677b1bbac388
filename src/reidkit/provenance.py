"""What a result was made from: versions of the software, fingerprint of the data."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import Any

from reidkit.types import Dataset, Split


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
        "hash": _hash(data.train, data.val),
    }


def _hash(*splits: Split) -> str:
    digest = hashlib.sha256()
    for split in splits:
        for sample in split:
            parts = (sample.path.name, sample.path.stat().st_size, sample.identity, sample.camera, sample.box)
            digest.update(repr(parts).encode())
        digest.update(b"end of split")
    return digest.hexdigest()[:16]
