"""A detector of people in an ONNX file, whose output has been described: none is shipped.

Detectors differ in how they take a picture and in what they return. Both are told by ``NAME.toml`` beside
``NAME.onnx`` (:class:`Description`), or by what Ultralytics writes into the files that it exports.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.encoders.onnx import OnnxFile
from reidkit.errors import CheckpointError, ConfigError, shown
from reidkit.registry import option_problems
from reidkit.texts.files import parse_toml, read_text
from reidkit.video.frames import Picture

_FILL = 114  # the grey that detectors are trained with around letter-boxed pictures
_RESIZES = ("letterbox", "stretch")
_COLORS = ("rgb", "bgr")
_Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Description:
    """How a detector takes pictures, and what it returns; the keys of ``NAME.toml``.

    Attributes:
        output: one of :data:`OUTPUTS`.
        person: the number of the class of people.
        size: height and width of its input; not needed where the file fixes them.
        resize: ``letterbox`` keeps the picture's shape and fills the rest with grey, ``stretch`` does not.
        colors: ``rgb`` or ``bgr``.
        scale: what values from 0 to 255 are divided by.
        mean, std: of each colour, subtracted and divided by after that.
        overlap: of two boxes that overlap by more (intersection over union), the surer one is kept.
    """

    output: str
    person: int = 0
    size: tuple[int, int] | None = None
    resize: str = "letterbox"
    colors: str = "rgb"
    scale: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    overlap: float = 0.7

    def __post_init__(self) -> None:
        problems = [
            f"{name} = {shown(value)}; expected one of {', '.join(allowed)}"
            for name, value, allowed in (
                ("output", self.output, tuple(OUTPUTS)),
                ("resize", self.resize, _RESIZES),
                ("colors", self.colors, _COLORS),
            )
            if value not in allowed
        ]
        if self.person < 0:
            problems.append(f"person = {self.person}; expected the number of a class, from 0")
        if self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            problems.append(f"size = {shown(list(self.size))}; expected height and width, such as [640, 640]")
        if not (self.scale > 0 and len(self.mean) == len(self.std) == 3 and min(self.std) > 0):
            problems.append("scale and std must be positive, and mean and std have three values")
        if not 0 < self.overlap <= 1:
            problems.append(f"overlap = {self.overlap:g}; expected a number from 0 to 1")
        if problems:
            raise ConfigError(problems)


class Found(NamedTuple):
    """People in a picture, the surest first: float64 (N, 4) left, top, right, bottom; float64 (N,)."""

    corners: NDArray[np.float64]
    confidences: NDArray[np.float64]


class Detector:
    """Finds people in pictures.

    Args:
        path: an ONNX file. It is run by onnxruntime; nothing of it is executed as code.
        description: how it is used; read from beside the file, or from the file, if left out.

    Raises:
        CheckpointError: no ONNX file, or outputs that are not those described.
        ConfigError: nothing describes it, or the description is wrong.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, *, description: Description | None = None) -> None:
        self.path = Path(path)
        self._file = OnnxFile(self.path)
        self.description = description or _described(self.path, self._file)
        if len(self._file.inputs) != 1:
            raise CheckpointError(
                f"{self.path} takes {len(self._file.inputs)} inputs; a detector takes pictures"
            )
        [(self._input, port)] = self._file.inputs.items()
        if len(port.shape) != 4 or port.shape[0] not in (1, None) or port.shape[1] not in (3, None):
            raise CheckpointError(
                f"{self.path} takes {port}; expected pictures one by one, (1, 3, height, width)"
            )
        height, width = port.shape[2:]
        if height is None or width is None:
            if self.description.size is None:
                raise ConfigError(f"{self.path} takes pictures of any size; say which: size = [640, 640]")
            height, width = self.description.size
        self.height, self.width = height, width
        self._dtype = np.float16 if port.type == "tensor(float16)" else np.float32

    @property
    def digest(self) -> str:
        """Of the network and how it is used: another digest may find other boxes."""
        return f"{self._file.digest[:16]} {self.description}"

    def find(self, picture: Picture, *, confidence: float = 0.1) -> Found:
        """The people in a picture (H, W, 3), RGB, in its pixels.

        Raises:
            CheckpointError: the output is not what was described, or not finite.
        """
        pixels, ratio, shift = self._prepared(picture)
        names = list(self._file.outputs)
        try:
            arrays = dict(zip(names, self._file.session.run(names, {self._input: pixels}), strict=True))
        except Exception as error:  # onnxruntime has no one error to catch
            raise CheckpointError(
                f"{self.path} cannot be run on a picture: {shown(str(error), 300)}"
            ) from error
        try:
            corners, scores = OUTPUTS[self.description.output](arrays, self)
        except (IndexError, KeyError, ValueError) as error:
            shapes = ", ".join(f"{name} {tuple(np.shape(array))}" for name, array in arrays.items())
            raise CheckpointError(
                f"{self.path} returns {shapes}, which is not output = {self.description.output!r}: {error}"
            ) from error
        if not np.isfinite(scores).all():
            raise CheckpointError(f"{self.path} returns scores that are not finite; it cannot be used")
        kept = scores >= confidence
        of_picture = (corners[kept].astype(np.float64) - np.tile(shift, 2)) / np.tile(ratio, 2)
        height, width = picture.shape[:2]
        within = np.clip(of_picture, 0, np.tile([width, height], 2))
        return _without_overlaps(within, scores[kept].astype(np.float64), self.description.overlap)

    def _prepared(self, picture: Picture) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]:
        """Values (1, 3, H, W); by what x and y were multiplied, and how far they were moved."""
        height, width = picture.shape[:2]
        ratio = np.array([self.width / width, self.height / height])
        if self.description.resize == "letterbox":
            ratio[:] = ratio.min()
        new = np.maximum(np.round(np.array([width, height]) * ratio), 1).astype(int)
        shift = (np.array([self.width, self.height]) - new) // 2
        canvas = np.full((self.height, self.width, 3), _FILL, np.uint8)
        resized = Image.fromarray(picture).resize((int(new[0]), int(new[1])), Image.Resampling.BILINEAR)
        canvas[shift[1] : shift[1] + new[1], shift[0] : shift[0] + new[0]] = np.asarray(resized)
        if self.description.colors == "bgr":
            canvas = canvas[:, :, ::-1]
        values: NDArray[np.float32] = canvas.astype(np.float32) / np.float32(self.description.scale)
        mean, std = (np.array(given, np.float32) for given in (self.description.mean, self.description.std))
        values = np.divide(values - mean, std, dtype=np.float32)
        return values.transpose(2, 0, 1)[None].astype(self._dtype), new / [width, height], shift.astype(float)


def _rows_of(arrays: Mapping[str, NDArray[Any]]) -> _Floats:
    """The one output of most detectors, (1, N, columns) or (1, columns, N): a row for each box."""
    [array] = arrays.values()
    if array.ndim != 3 or array.shape[0] != 1:
        raise ValueError("one output (1, N, columns) is expected")
    rows = np.asarray(array[0], np.float32)
    return rows.T if rows.shape[0] < rows.shape[1] and rows.shape[0] < _MOST_COLUMNS else rows


_MOST_COLUMNS = 1000  # of classes and a box; there are always more boxes than that to choose from


def _corners(centred: _Floats) -> _Floats:
    half = centred[:, 2:4] / 2
    return np.concatenate([centred[:, :2] - half, centred[:, :2] + half], axis=1)


def _yolo(arrays: Mapping[str, NDArray[Any]], detector: Detector) -> tuple[_Floats, _Floats]:
    """Centre, width and height in pixels, and a score for each class (YOLOv8 and later)."""
    rows = _rows_of(arrays)
    return _corners(rows), rows[:, 4 + detector.description.person]


def _yolov5(arrays: Mapping[str, NDArray[Any]], detector: Detector) -> tuple[_Floats, _Floats]:
    """Centre, width and height in pixels, how surely there is something, a score for each class."""
    rows = _rows_of(arrays)
    return _corners(rows), rows[:, 4] * rows[:, 5 + detector.description.person]


def _end_to_end(arrays: Mapping[str, NDArray[Any]], detector: Detector) -> tuple[_Floats, _Floats]:
    """Left, top, right, bottom in pixels, score, class: (1, N, 6), overlaps already removed."""
    [array] = arrays.values()
    rows = np.asarray(array, np.float32)[0]
    if rows.ndim != 2 or rows.shape[1] != 6:
        raise ValueError("one output (1, N, 6) is expected")
    rows = rows[rows[:, 5] == detector.description.person]
    return rows[:, :4], rows[:, 4]


def _detr(arrays: Mapping[str, NDArray[Any]], detector: Detector) -> tuple[_Floats, _Floats]:
    """Boxes (1, N, 4), centre and size as shares of the picture, and logits (1, N, classes), by sigmoid."""
    boxes, logits = sorted((np.asarray(array, np.float32)[0] for array in arrays.values()), key=_is_not_boxes)
    if len(boxes) != len(logits):
        raise ValueError("as many boxes as rows of logits are expected")
    scores = 1 / (1 + np.exp(-np.clip(logits[:, detector.description.person], -60, 60)))
    return _corners(boxes) * np.array([detector.width, detector.height] * 2, np.float32), scores


def _is_not_boxes(array: _Floats) -> bool:
    return bool(array.shape[1] != 4)


def _torchvision(arrays: Mapping[str, NDArray[Any]], detector: Detector) -> tuple[_Floats, _Floats]:
    """Boxes (N, 4) in pixels of the input, labels (N,) and scores (N,): torchvision's detectors."""
    boxes = next(array for array in arrays.values() if array.ndim == 2)
    labels = next(array for array in arrays.values() if array.ndim == 1 and array.dtype.kind == "i")
    scores = next(array for array in arrays.values() if array.ndim == 1 and array.dtype.kind == "f")
    is_person = labels == detector.description.person
    return np.asarray(boxes, np.float32)[is_person], np.asarray(scores, np.float32)[is_person]


_Reader: TypeAlias = Callable[[Mapping[str, NDArray[Any]], Detector], tuple[_Floats, _Floats]]
OUTPUTS: Mapping[str, _Reader] = {
    "yolo": _yolo,
    "yolov5": _yolov5,
    "end-to-end": _end_to_end,
    "detr": _detr,
    "torchvision": _torchvision,
}
"""What detectors return: each function's first line says what it reads."""


def _without_overlaps(corners: NDArray[np.float64], scores: NDArray[np.float64], overlap: float) -> Found:
    """Greedy non-maximum suppression (torchvision's)."""
    import torch
    from torchvision.ops import nms

    sound = np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1)
    corners, scores = corners[sound], scores[sound]
    rows = nms(torch.from_numpy(corners), torch.from_numpy(scores), overlap).numpy()
    return Found(corners[rows], scores[rows])


def _described(path: Path, file: OnnxFile) -> Description:
    beside = path.with_suffix(".toml")
    if beside.is_file():
        table = parse_toml(read_text(beside), beside)
        problems = option_problems(Description, table, where=str(beside))
        if problems:
            raise ConfigError(problems)
        return Description(**{key: _plain(value) for key, value in table.items()})
    exported = _by_ultralytics(path, file)
    if exported is None:
        keys = ", ".join(field.name for field in fields(Description))
        raise ConfigError(
            f"nothing tells how {path} is used; write {beside.name} beside it, with a line "
            f'output = "yolo" (or {", ".join(list(OUTPUTS)[1:])}); keys are {keys}'
        )
    return exported


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _by_ultralytics(path: Path, file: OnnxFile) -> Description | None:
    """What the metadata of a file say that Ultralytics exported; ``None`` where there are none."""
    held = cast(Mapping[str, str], file.session.get_modelmeta().custom_metadata_map)
    if "names" not in held or "stride" not in held:
        return None
    if held.get("task", "detect") not in ("detect", "pose"):
        raise ConfigError(f"{path} was exported for {shown(held['task'])}; a detector is needed")
    try:
        names = ast.literal_eval(held["names"])
        person = next(int(number) for number, name in dict(names).items() if name == "person")
        size = ast.literal_eval(held["imgsz"]) if "imgsz" in held else None
    except (ValueError, SyntaxError, TypeError, StopIteration):
        raise ConfigError(
            f"the classes of {path} have none called person: {shown(held['names'])}; write {path.stem}.toml "
            "beside it that says which number it has"
        ) from None
    columns = next(iter(file.outputs.values())).shape[-1]
    return Description("end-to-end" if columns == 6 else "yolo", person, size and tuple(size))
