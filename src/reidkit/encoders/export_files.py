"""Files of other runtimes: a network with its normalisation in front, as ONNX and OpenVINO keep it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reidkit.encoders.agreement import ExportError
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.onnx import messages
from reidkit.encoders.runtimes import PACKAGES, import_runtime
from reidkit.errors import MissingExtra, short
from reidkit.models import Embedder

_MAX_SIZE = 2**31 - 2**20  # bytes; protobuf holds no more than 2 GiB


def check_packages(to: str) -> None:
    """Raise :class:`MissingExtra` where a package that a format needs is not installed."""
    for package in PACKAGES.get(to, ()):
        _import(package)


class FromPixels(nn.Module):
    """A model with its normalisation in front. RGB images (B, 3, H, W), 0..255 -> unit embeddings."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model = deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", 255 * torch.tensor(model.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(model.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.embed((images - self.mean) / self.std)


def example_images(encoder: Encoder, num: int = 3) -> Tensor:
    """Noise (num, 3, height, width) to trace a network with."""
    shape = (num, 3, encoder.height, encoder.width)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).float()


def preprocessing_of(encoder: Encoder) -> str:
    """How images are prepared, as JSON; keys of :class:`reidkit.encoders.network_file.Preprocessing`."""
    return json.dumps(
        {
            "color": "rgb",
            "scale": 255,
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "height": encoder.height,
            "width": encoder.width,
            "dim": encoder.dim,
        }
    )


def onnx_program(encoder: Encoder) -> Any:
    """An encoder's network as an ``onnx.ModelProto``.

    Raises :class:`ExportError` where PyTorch cannot express it, or it is larger than ONNX allows.
    """
    network = FromPixels(encoder.model).eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size > _MAX_SIZE:
        raise ExportError(f"the network has {size / 2**30:.1f} GiB of weights; one ONNX file holds 2 GiB")
    try:
        program = torch.onnx.export(
            network,
            (example_images(encoder),),
            input_names=["images"],
            output_names=["embeddings"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        # PyTorch's own text tells in colours how to report it to PyTorch; the cause is one step below.
        cause = short(error.__cause__ or error, 300)
        versions = f"PyTorch {torch.__version__} with onnxscript {version('onnxscript')}"
        raise ExportError(
            f"{versions} cannot export this network: {cause}. Where one of the two is far older than the "
            "other, that may be why"
        ) from error
    assert program is not None
    model = program.model_proto
    for part in messages(model):  # the exporter notes down lines of source, with the paths of this machine
        for field in ("doc_string", "metadata_props"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
    return model


def write_onnx(program: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write an ``onnx.ModelProto`` with entries of metadata."""
    _import("onnx").helper.set_model_props(program, dict(metadata))
    path.write_bytes(program.SerializeToString())


def write_openvino(program: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write what OpenVINO makes of an ``onnx.ModelProto``: ``path``, the weights beside it in ``.bin``."""
    openvino = import_runtime("openvino", path)
    try:
        model = openvino.Core().read_model(program.SerializeToString(), b"")
    except RuntimeError as error:
        raise ExportError(f"OpenVINO cannot read this network: {short(error, 300)}") from error
    for key, text in metadata.items():
        model.set_rt_info(text, key)
    openvino.save_model(model, path, compress_to_fp16=False)


def _import(package: str) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(package, extra="export", needed_for="exporting") from error
