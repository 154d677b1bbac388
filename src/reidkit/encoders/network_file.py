"""Networks made elsewhere and kept as files: ONNX (``.onnx``) and OpenVINO (``.xml`` with its ``.bin``).

Such a file holds the computation, but seldom says how an image must be prepared for it. A guess would give
embeddings that look right and rank wrongly, so the preprocessing is read, from the first of: what the caller
gives, a TOML file of the same name beside the network, the network file's own metadata.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Never, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field, FiniteFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from reidkit.encoders.exported_from import ExportedFrom, read_exported_from
from reidkit.encoders.network import FINGERPRINT_LENGTH, Network
from reidkit.encoders.onnx import OnnxFile
from reidkit.encoders.openvino import OpenVinoFile
from reidkit.encoders.runtimes import EXPORTED_FROM_KEY, MAX_PIXELS, METADATA_KEY, SUFFIXES, NetworkFile, Port
from reidkit.errors import CheckpointError, ConfigError, did_you_mean, short
from reidkit.images.transforms import normalize_array

_TYPES = {"tensor(float)": np.float32, "f32": np.float32, "tensor(float16)": np.float16, "f16": np.float16}
_OUTPUT_TYPES = {*_TYPES, "tensor(double)", "f64"}
_MAX_WIDTH = 2**20  # of embeddings
_LEAST_LENGTH = 1e-12  # that an embedding is divided by
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
}
Divisor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Preprocessing:
    """What a network file expects of its input, key by key as in the TOML file.

    A value v of 0..``scale`` reaches the network as (v - mean) / std. ``mean`` and ``std`` are in the order
    of ``color`` and in units of ``scale``; 0 and 1 where the file normalises by itself. Height and width may
    be left out where the file's input fixes them, names where the file has one input and one output; ``dim``
    is the width that the embedding is promised to have.
    """

    color: Literal["rgb", "bgr"]
    scale: Literal[1, 255]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[Divisor, Divisor, Divisor]
    height: PositiveInt | None = None
    width: PositiveInt | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    input: str | None = None
    output: str | None = None
    dim: PositiveInt | None = None


class ExternalNetwork(Network):
    """A network file, on the CPU. It has one output, its embedding.

    Args:
        path: the file.
        file: the same, opened.
        preprocessing: what the file expects.
        exported_from: the encoder that the file was exported from, as it says; believed while the file is
            the one that was written then.

    Raises:
        CheckpointError: the input is no batch of three-channel images, or not the only one, the output no
            batch of embeddings, or not of the promised width; the names are not the file's.
    """

    def __init__(
        self,
        path: Path,
        file: NetworkFile,
        preprocessing: Preprocessing,
        exported_from: ExportedFrom | None = None,
    ) -> None:
        self.file, self.preprocessing = file, preprocessing
        self.input = _choose(path, "input", preprocessing.input, file.inputs)
        self.output = _choose(path, "output", preprocessing.output, file.outputs)
        port = file.inputs[self.input]
        if len(port.shape) != 4 or port.shape[1] not in (3, None) or port.type not in _TYPES:
            raise CheckpointError(
                f"{path}: input {self.input!r} is {port}; expected images (B, 3, H, W), 16- or 32-bit floats"
            )
        if others := [name for name in file.inputs if name != self.input]:
            raise CheckpointError(
                f"{path} needs {short(', '.join(map(repr, others)))} besides the images; an encoder has "
                "images only"
            )
        _check_output(path, self.output, file.outputs[self.output])
        self.batch, self.dtype = port.shape[0], _TYPES[port.type]
        self.height = _size(path, "height", preprocessing.height, port.shape[2])
        self.width = _size(path, "width", preprocessing.width, port.shape[3])
        if (self.batch or 1) * self.height * self.width > MAX_PIXELS:
            raise CheckpointError(
                f"{path} takes {self.batch or 1:,} images of {self.height:,} x {self.width:,} at a time, "
                f"more than {MAX_PIXELS:,} pixels; export it for fewer or smaller images"
            )
        # The units of reidkit.images.transforms.normalize_array: RGB order, values of 0..1.
        order = 1 if preprocessing.color == "rgb" else -1
        self.mean = tuple(value / preprocessing.scale for value in preprocessing.mean[::order])
        self.std = tuple(value / preprocessing.scale for value in preprocessing.std[::order])
        self.resampling = _RESAMPLING[preprocessing.interpolation]
        self.path = path
        own = self._own_fingerprints(height=self.height, width=self.width)
        unchanged = exported_from is not None and exported_from.file == own[0]
        self.exported_from = exported_from if unchanged else None
        # No declared width can be trusted before an image has gone through.
        self._dim = int(self._infer(np.zeros((1, 3, self.height, self.width), self.dtype)).shape[1])
        promised = preprocessing.dim or _width(file.outputs[self.output])
        if promised not in (None, self._dim):
            raise CheckpointError(
                f"{path}: its output has {self._dim} values an image, but {promised} are promised"
            )

    device = "cpu"
    feature = None

    def __str__(self) -> str:
        return str(self.path)

    @property
    def model(self) -> Self:
        return self

    @property
    def description(self) -> dict[str, Any]:
        return {"name": self.file.runtime, "file": self.path.name}

    @property
    def embedding_dim(self) -> int:
        return self._dim

    @property
    def features(self) -> dict[str, int]:
        return {}

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        inputs = normalize_array(images, self.mean, self.std)
        if self.preprocessing.color == "bgr":
            inputs = inputs[:, ::-1]
        inputs = np.ascontiguousarray(inputs, dtype=self.dtype)
        step = self.batch or max(1, len(inputs))
        parts = [self._infer(inputs[start : start + step]) for start in range(0, len(inputs), step)]
        return _unit(np.concatenate(parts))

    def embed_features(self, images: NDArray[np.uint8]) -> Never:
        raise ConfigError(f"{self} has one output, its embedding")

    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        source = self.exported_from.fingerprints if self.exported_from else ()
        return *source, *self._own_fingerprints(height=height, width=width)

    def _own_fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        """Those of what the file computes, whatever it was exported from."""
        current = hashlib.sha256(json.dumps([[height, width], self.identity()]).encode())
        former = self.former_identity()
        if former is None:
            return (current.hexdigest()[:FINGERPRINT_LENGTH],)
        then = hashlib.sha256(json.dumps([height, width]).encode() + b"_extra_state" + former.encode())
        return current.hexdigest()[:FINGERPRINT_LENGTH], then.hexdigest()[:FINGERPRINT_LENGTH]

    def save(self, path: Path, description: Mapping[str, Any]) -> Never:
        raise CheckpointError(f"an external network cannot be saved; use its own file, {self.path}")

    def identity(self) -> dict[str, Any]:
        """What its embeddings depend on besides the size of images; equal for files that compute the same."""
        normalisation = [f"{value:.9g}" for value in (*self.mean, *self.std)]
        outputs = list(self.file.outputs)
        return {
            "network": self.file.digest,
            "output": outputs.index(self.output) if len(outputs) > 1 else 0,
            "color": self.preprocessing.color,
            "normalisation": normalisation,
            "interpolation": self.preprocessing.interpolation,
        }

    def former_identity(self) -> str | None:
        """What version 0.1.0 told files apart by; None where it did not look at all of a file's weights."""
        digest = self.file.former_digest
        return None if digest is None else f"{digest} {self.preprocessing}"

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(n, 3, H, W), no more than the file takes at a time -> (n, D)."""
        filling = max(0, (self.batch or 0) - len(images))
        filled = np.concatenate([images, np.repeat(images[-1:], filling, axis=0)]) if filling else images
        try:
            output = self.file.run(filled, input=self.input, output=self.output)
        except Exception as error:  # each runtime has errors of its own
            raise CheckpointError(
                f"{self.path} cannot embed {len(filled)} images of {self.height} x {self.width}: "
                f"{short(error, 300)}"
            ) from error
        if output.ndim < 2 or len(output) != len(filled) or any(size != 1 for size in output.shape[2:]):
            raise CheckpointError(
                f"{self.path}: output {self.output!r} is {output.shape} for {len(filled)} images; expected "
                f"embeddings ({len(filled)}, D)"
            )
        return output.reshape(len(output), -1)[: len(images)].astype(np.float32)


def _unit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows (B, D) made of unit length; what is not finite stays so, for the encoder to tell."""
    rows = embeddings.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (rows / np.maximum(lengths, _LEAST_LENGTH)).astype(np.float32)
    return unit


def is_network_file(path: Path) -> bool:
    """Whether a path names a network file, by its ending or by its content."""
    return path.suffix.lower() in SUFFIXES or (path.is_file() and (_is_xml(path) or _is_onnx(path)))


def load_network(
    path: str | Path, *, preprocessing: str | Path | Mapping[str, Any] | None = None
) -> ExternalNetwork:
    """Open a network file.

    Args:
        path: ONNX (``.onnx``), or OpenVINO (``.xml``) with its ``.bin`` beside it; told by its content.
        preprocessing: a TOML file, or its keys and values; left out, see the module's text.

    Raises:
        CheckpointError: missing or damaged, or nothing says how images must be prepared.
        ConfigError: preprocessing with an unknown key or an impossible value.
        MissingExtra: the runtime is not installed.
    """
    path = Path(path)
    file = _open(path)
    if isinstance(preprocessing, Mapping):
        table, origin = dict(preprocessing), "the preprocessing given"
    else:
        table, origin = _find_preprocessing(path, file, preprocessing)
    exported_from = read_exported_from(
        _metadata(path, EXPORTED_FROM_KEY, lambda: file.metadata(EXPORTED_FROM_KEY)), path
    )
    return ExternalNetwork(path, file, _check(table, origin), exported_from)


def _open(path: Path) -> NetworkFile:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        return OpenVinoFile(path) if _is_xml(path) else OnnxFile(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or short(error)}") from error


def _is_xml(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(64)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def _is_onnx(path: Path) -> bool:
    """Whether a file begins as ModelProto does: its version, a small number, then another of its fields."""
    with path.open("rb") as file:
        head = file.read(3)
    return len(head) == 3 and head[0] == 0x08 and head[1] < 32 and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"


def _find_preprocessing(
    path: Path, file: NetworkFile, given: str | Path | None
) -> tuple[dict[str, Any], str]:
    """The table, and where it is from."""
    beside = path.with_suffix(".toml")
    if given is not None or beside.is_file():
        toml = Path(given or beside)
        try:
            return tomllib.loads(toml.read_text("utf-8")), str(toml)
        except OSError as error:
            raise ConfigError(f"{toml} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError) as error:  # of TOML, of UTF-8, of numbers without end
            raise ConfigError(f"{toml} is not TOML: {short(error, 200)}") from None
    table = _metadata(path, METADATA_KEY, file.preprocessing)
    if table is not None and not isinstance(table, dict):
        raise CheckpointError(
            f"{path}: its metadata {METADATA_KEY!r} is {short(table)}, not keys with values"
        )
    if table is None:
        raise CheckpointError(
            f"{path} does not say how images must be prepared for it, and there is no {beside.name} beside "
            'it; write one, with color = "rgb" or "bgr", scale = 255 or 1, mean = [...] and std = [...] '
            "(docs/weights.md has every key)"
        )
    return table, f"the metadata of {path}"


def _metadata(path: Path, key: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata {key!r} is not JSON: {short(error, 200)}") from error


def _check(table: Mapping[str, Any], origin: str) -> Preprocessing:
    try:
        return TypeAdapter(Preprocessing).validate_python(table)
    except ValidationError as error:
        raise ConfigError([f"{origin}: {_explain(fault)}" for fault in error.errors()]) from None


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        known = Preprocessing.__annotations__
        return f"unknown key {short(key)!r};{did_you_mean(key, known)} Known: {', '.join(known)}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {short(repr(fault['input']))}"


def _choose(path: Path, kind: str, wanted: str | None, ports: Mapping[str, Port]) -> str:
    listed = short(", ".join(f"{name!r} {port}" for name, port in ports.items()), 300)
    if not ports:
        raise CheckpointError(f"{path} has no {kind}; it cannot be used as an encoder")
    if wanted is None and len(ports) == 1:
        return next(iter(ports))
    if wanted is None:
        raise CheckpointError(f'{path} has {len(ports)} {kind}s; choose one with {kind} = "NAME": {listed}')
    if wanted not in ports:
        hint = did_you_mean(wanted, ports)
        raise CheckpointError(f"{path} has no {kind} {short(wanted)!r};{hint} it has {listed}")
    return wanted


def _check_output(path: Path, name: str, port: Port) -> None:
    if port.type not in _OUTPUT_TYPES or any((size or 1) > _MAX_WIDTH for size in port.shape):
        raise CheckpointError(
            f"{path}: output {short(name)!r} is {port}; expected embeddings (B, D) of floats, D up to "
            f"{_MAX_WIDTH:,}"
        )


def _size(path: Path, name: str, wanted: int | None, fixed: int | None) -> int:
    if wanted is None and fixed is None:
        raise CheckpointError(f"{path} takes images of any {name}; give {name} = PIXELS in its TOML file")
    if None not in (wanted, fixed) and wanted != fixed:
        raise CheckpointError(f"{path} takes images of {name} {fixed}, not {wanted}; leave {name} out")
    return int(wanted or fixed or 0)


def _width(port: Port) -> int | None:
    return port.shape[1] if len(port.shape) > 1 else None
