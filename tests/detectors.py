"""A detector for tests, an ONNX file: it finds bright cells, and gives them as any known kind of output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

SIDE, CELL = 64, 16
"""There are 4 x 4 cells, each of 16 x 16 pixels."""
FIRST_CELLS = np.array([(x, y) for y in range(0, SIDE, CELL) for x in range(0, SIDE, CELL)], np.float32)
NUM = len(FIRST_CELLS)


def constant(name: str, values: Any, dtype: Any = np.float32) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(values, dtype), name)


def brightness_nodes() -> tuple[list[Any], list[Any]]:
    """``score`` (1, 16, 1), how bright each cell is, from 0 to 1."""
    node = onnx.helper.make_node
    nodes = [
        node("ReduceMean", ["images", "colours"], ["grey"], keepdims=1),
        node("AveragePool", ["grey"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        node("Reshape", ["cells", "rows"], ["score"]),
    ]
    return nodes, [constant("colours", [1], np.int64), constant("rows", [1, NUM, 1], np.int64)]


def detector_file(
    path: Path, output: str, *, size: Any = SIDE, metadata: dict[str, str] | None = None
) -> Path:
    """A network with one of the known outputs, whose scores are the brightness of what it sees."""
    node = onnx.helper.make_node
    nodes, held = brightness_nodes()
    low, high = FIRST_CELLS, FIRST_CELLS + CELL
    centred = np.concatenate([(low + high) / 2, high - low], axis=1)
    held += [constant("zero", np.zeros((1, NUM, 1))), constant("one", np.ones((1, NUM, 1)))]
    outputs: list[tuple[str, int]] = [("found", onnx.TensorProto.FLOAT)]
    if output == "yolo":
        held.append(constant("boxes", centred[None]))
        nodes += [
            node("Concat", ["boxes", "score", "zero"], ["table"], axis=2),
            node("Transpose", ["table"], ["found"], perm=[0, 2, 1]),
        ]
    elif output == "yolov5":
        held.append(constant("boxes", centred[None]))
        nodes.append(node("Concat", ["boxes", "one", "score", "zero"], ["found"], axis=2))
    elif output == "end-to-end":
        held.append(constant("boxes", np.concatenate([low, high], axis=1)[None]))
        nodes.append(node("Concat", ["boxes", "score", "zero"], ["found"], axis=2))
    elif output == "detr":
        held += [constant("dets", centred[None] / SIDE), constant("tiny", 1e-9)]
        nodes += [
            node("Sub", ["one", "score"], ["rest"]),
            node("Add", ["score", "tiny"], ["more"]),
            node("Add", ["rest", "tiny"], ["less"]),
            node("Div", ["more", "less"], ["odds"]),
            node("Log", ["odds"], ["logit"]),
            node("Concat", ["logit", "zero"], ["labels"], axis=2),
            node("Identity", ["dets"], ["found"]),
        ]
        outputs = [("labels", onnx.TensorProto.FLOAT), ("found", onnx.TensorProto.FLOAT)]
    else:
        held += [constant("boxes", np.concatenate([low, high], axis=1)), constant("flat", [NUM], np.int64)]
        held.append(constant("classes", np.zeros(NUM), np.int64))
        nodes += [
            node("Identity", ["boxes"], ["found"]),
            node("Identity", ["classes"], ["labels"]),
            node("Reshape", ["score", "flat"], ["scores"]),
        ]
        outputs = [("found", onnx.TensorProto.FLOAT), ("labels", onnx.TensorProto.INT64)]
        outputs.append(("scores", onnx.TensorProto.FLOAT))
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "detector",
        [value("images", onnx.TensorProto.FLOAT, [1, 3, size, size])],
        [value(name, kind, None) for name, kind in outputs],
        initializer=held,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    if metadata:
        onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def picture(*cells: tuple[int, int], width: int = SIDE, height: int = SIDE) -> NDArray[np.uint8]:
    """Black, with white cells (column, row) of a quarter of the picture's width and height."""
    image = np.zeros((height, width, 3), np.uint8)
    for column, row in cells:
        image[
            row * height // 4 : (row + 1) * height // 4, column * width // 4 : (column + 1) * width // 4
        ] = 255
    return image
