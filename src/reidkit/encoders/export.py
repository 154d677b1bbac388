"""A trained encoder as an ONNX file, for use without PyTorch."""

from __future__ import annotations

import json
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidkit.encoders.encoder import Encoder, load_encoder
from reidkit.errors import MissingExtra, ReidError, UnknownName
from reidkit.files import write_atomically
from reidkit.models import Embedder

FORMATS = ("onnx",)

MIN_COSINE = 0.9999
"""Least similarity between the network's embedding and that of its exported file."""


class ExportError(ReidError):
    """A network that cannot be exported; nothing has been written."""


def export(encoder: Encoder | str | Path, path: str | Path, *, to: str = "onnx") -> Path:
    """Write an encoder as a file for another runtime.

    Args:
        encoder: an encoder, or the run folder or file to load it from.
        path: where to.
        to: the format; "onnx" (:func:`to_onnx`).

    Returns:
        The path.

    Raises:
        UnknownName: no such format.
        ExportError, MissingExtra: as :func:`to_onnx` does.
    """
    if to not in FORMATS:
        raise UnknownName("format", to, FORMATS)
    return to_onnx(encoder if isinstance(encoder, Encoder) else load_encoder(encoder), path)


def to_onnx(encoder: Encoder, path: str | Path) -> Path:
    """Write an encoder as an ONNX file that holds everything from pixels to unit embeddings.

    Input ``images``: float32 (B, 3, height, width), RGB, 0..255, B free. Output ``embeddings``: float32
    (B, D), of unit length. The same is said in the file's metadata, entry ``reidkit``, as JSON, so that
    :func:`reidkit.load_encoder` needs nothing else. Before it is written, the file is run by onnxruntime and
    its embeddings are compared with the network's.

    Returns:
        The path.

    Raises:
        ExportError: embeddings that are not finite, or differ between the network and the file; an encoder
            that was itself read from a network file.
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _import(package)
    if not isinstance(encoder.model, Embedder):
        raise ExportError("this encoder was read from a network file itself; use that file")
    network = _FromPixels(encoder.model).eval()
    shape = (3, encoder.height, encoder.width)
    images = torch.randint(0, 256, (3, *shape), generator=torch.Generator().manual_seed(0)).float()
    with torch.no_grad():
        expected = network(images)
    if not torch.isfinite(expected).all():
        raise ExportError("the network gives embeddings that are not finite; its weights are unusable")
    program = torch.onnx.export(
        network,
        (images,),
        input_names=["images"],
        output_names=["embeddings"],
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _import("onnx").helper.set_model_props(model, {"reidkit": json.dumps(_preprocessing(encoder))})
    file = model.SerializeToString()
    _compare(file, images[:2], expected[:2])
    return write_atomically(path, file)


class _FromPixels(nn.Module):
    """The model with its normalisation in front. RGB images (B, 3, H, W), 0..255 -> unit embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", 255 * torch.tensor(model.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(model.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed((images - self.mean) / self.std)


def _preprocessing(encoder: Encoder) -> dict[str, Any]:
    """How images are prepared, by the keys of :class:`reidkit.encoders.network_file.Preprocessing`."""
    return {
        "color": "rgb",
        "scale": 255,
        "mean": [0, 0, 0],
        "std": [1, 1, 1],
        "height": encoder.height,
        "width": encoder.width,
        "dim": encoder.dim,
    }


def _compare(file: bytes, images: Tensor, expected: Tensor) -> None:
    """Run the file on fewer images than it was traced with, and hold its embeddings against the expected."""
    session = _import("onnxruntime").InferenceSession(file, providers=["CPUExecutionProvider"])
    embeddings = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    cosine = float((embeddings * expected).sum(dim=1).min())
    if not cosine > MIN_COSINE:  # NaN, too, is not
        raise ExportError(
            f"the exported file does not compute what the network does: the cosine of their embeddings is "
            f"{cosine:.5f}, less than {MIN_COSINE}"
        )


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(package, extra="export", needed_for="exporting to ONNX") from error
