"""Networks in 8-bit integers: ranges of all activations are seen on images, and noted in the graph.

The graph is in QDQ form, float operators between pairs of QuantizeLinear and DequantizeLinear, which
onnxruntime and OpenVINO both run in integers. Weights have a scale for each output channel.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import Encoder
from reidkit.encoders.runtimes import import_runtime
from reidkit.errors import DataError
from reidkit.images.reading import ImageSource
from reidkit.types import Sample

MIN_IMAGES = 32
"""Fewer do not show which values to expect."""

_NUM_IMAGES = 256  # that ranges are found on
_WITH_WEIGHTS = ("Conv", "MatMul", "Gemm")
# Those between layers of a convolutional network as well, so that values stay integers from one to the next;
# not the normalisation of images in front and of embeddings behind, which stay as exact as they were.
_BETWEEN = ("Add", "Relu", "MaxPool")


def quantised_programs(
    encoder: Encoder, program: Any, images: Sequence[ImageSource | Sample]
) -> Iterator[Any]:
    """An ``onnx.ModelProto`` quantised; then with its first and last layer left in float.

    Products of values with each other, those of attention, stay in float in both.

    Args:
        encoder: what prepares the images.
        program: the network in float.
        images: crops such as it will see.

    Raises :class:`DataError` where they are too few.
    """
    if len(images) < MIN_IMAGES:
        raise DataError(f"int8 was given {len(images)} images that can be read; give {MIN_IMAGES} or more")
    step = -(-len(images) // _NUM_IMAGES)
    pixels = [encoder.prepare(image) for image in images[::step]]
    with TemporaryDirectory(prefix="reidkit-int8-") as folder:
        prepared = _prepared(program, Path(folder))
        layers, products = _layers_and_products(_load(prepared))
        # Attention multiplies values with each other, whose ranges differ from image to image: in 8 bits a
        # vision transformer loses 0.05 of its cosine by that. Its sums run through all layers, with outliers.
        operators = _WITH_WEIGHTS if products else (*_WITH_WEIGHTS, *_BETWEEN)
        for in_float in (products, [*products, *layers[:1], *layers[-1:]]):
            yield _quantised(prepared, pixels, operators=operators, leaving_out=in_float)


def _layers_and_products(model: Any) -> tuple[list[str], list[str]]:
    """Names of the nodes that multiply with weights, and of those that multiply values with each other."""
    weights = {tensor.name for tensor in model.graph.initializer}
    multiplying = [node for node in model.graph.node if node.op_type in _WITH_WEIGHTS]
    layers = [node.name for node in multiplying if node.input[1] in weights]
    return layers, [node.name for node in multiplying if node.input[1] not in weights]


def _prepared(program: Any, folder: Path) -> Path:
    """The network with batch norms folded into their layers and all shapes known."""
    shape_inference = import_runtime("onnxruntime.quantization.shape_inference", Path("model.onnx"))
    plain, prepared = folder / "plain.onnx", folder / "prepared.onnx"
    plain.write_bytes(program.SerializeToString())
    shape_inference.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    return prepared


def _quantised(
    prepared: Path,
    pixels: Sequence[NDArray[np.uint8]],
    *,
    operators: Sequence[str],
    leaving_out: Sequence[str],
) -> Any:
    quantization = import_runtime("onnxruntime.quantization", Path("model.onnx"))
    target = prepared.with_name("int8.onnx")
    chatter = logging.getLogger()
    level = chatter.level
    chatter.setLevel(logging.ERROR)
    try:
        quantization.quantize_static(
            str(prepared),
            str(target),
            _reader(quantization, pixels),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            # Processors before VNNI add pairs of products in 16 bits, which 8-bit weights overflow.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=list(operators),
            nodes_to_exclude=list(leaving_out),
        )
    finally:
        chatter.setLevel(level)
    return _load(target)


def _reader(quantization: Any, pixels: Sequence[NDArray[np.uint8]]) -> Any:
    images = iter(pixels)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(images, None)
            return None if image is None else {"images": image.transpose(2, 0, 1)[None].astype(np.float32)}

    return Reader()


def _load(path: Path) -> Any:
    return import_runtime("onnx", path).load(path)
