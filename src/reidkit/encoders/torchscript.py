"""TorchScript archives: written for programs of PyTorch's C++ and mobile runtimes, and never read by reidkit.

Such an archive is a program, not data: opening it hands PyTorch code to run. What is opened here is only what
was made here a moment before.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.encoders.export_files import FromPixels, example_images

_jit: Any = torch.jit  # without types

PREPROCESSING_FILE = "reidkit.json"
"""Entry of the archive with how images are prepared."""


def write_torchscript(encoder: Encoder, path: Path, preprocessing: str) -> None:
    """Write an encoder's network, traced, with how images are prepared for it."""
    network = FromPixels(encoder.model).eval()
    with torch.no_grad():
        traced = _jit.trace(network, example_images(encoder), check_trace=False)
    _jit.save(traced, str(path), _extra_files={PREPROCESSING_FILE: preprocessing})


def is_torchscript(path: Path) -> bool:
    """Whether a file is such an archive; it is not opened as one."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())


def embed_by_torchscript(path: Path, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed RGB images (N, H, W, 3) by an archive that was just written, the first by itself."""
    network = _jit.load(str(path))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        parts = [network(part) for part in (pixels[:1], pixels[1:]) if len(part)]
    embeddings: NDArray[np.float32] = torch.cat(parts).numpy()
    return embeddings
