"""Networks made elsewhere and kept as files: ONNX (``.onnx``) and OpenVINO (``.xml`` with its ``.bin``).

Such a file holds the computation, but seldom says how an image must be prepared for it. A guess would give
embeddings that look right and rank wrongly, so the preprocessing is read, from the first of: what the caller
gives, a TOML file of the same name beside the network, the network file's own metadata.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field, FiniteFloat, PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from reidkit.errors import CheckpointError, ConfigError, MissingExtra, did_you_mean

SUFFIXES = (".onnx", ".xml")
"""Files that :func:`load_network` reads."""

METADATA_KEY = "reidkit"
"""Entry of a file's metadata (ONNX metadata_props, OpenVINO rt_info) with the preprocessing as JSON."""

_MAX_THREADS = 2
_IMAGENET_MEAN_255 = (123.675, 116.28, 103.53)
_TYPES = {"tensor(float)": np.float32, "f32": np.float32, "tensor(float16)": np.float16, "f16": np.float16}
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


@dataclass(frozen=True)
class Port:
    """An input or output of a network file. ``shape`` has None for sizes that are free."""

    shape: tuple[int | None, ...]
    type: str

    def __str__(self) -> str:
        return f"{self.type} ({', '.join('?' if size is None else str(size) for size in self.shape)})"


class NetworkFile(Protocol):
    """A network file that has been opened by its runtime."""

    runtime: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]

    def preprocessing(self) -> dict[str, Any] | None:
        """What the file's metadata says on preprocessing, if anything."""

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        """One array in, one out."""


class ExternalNetwork(nn.Module):
    """A network file with the face of :class:`reidkit.models.Embedder` that encoders use.

    Args:
        path: the file; its bytes are part of the state that tells networks apart.
        file: the same, opened.
        preprocessing: what the file expects.

    Raises:
        CheckpointError: the input is no batch of three-channel images, the output no batch of embeddings, or
            not of the promised width; the names are not the file's.
    """

    def __init__(self, path: Path, file: NetworkFile, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.file, self.preprocessing = file, preprocessing
        self.input = _choose(path, "input", preprocessing.input, file.inputs)
        self.output = _choose(path, "output", preprocessing.output, file.outputs)
        port = file.inputs[self.input]
        if len(port.shape) != 4 or port.shape[1] not in (3, None) or port.type not in _TYPES:
            raise CheckpointError(
                f"{path}: input {self.input!r} is {port}; expected images (B, 3, H, W), 16- or 32-bit floats"
            )
        self.batch, self.dtype = port.shape[0], _TYPES[port.type]
        self.height = _size(path, "height", preprocessing.height, port.shape[2])
        self.width = _size(path, "width", preprocessing.width, port.shape[3])
        # The units of reidkit.transforms.normalize: RGB order, values of 0..1.
        order = 1 if preprocessing.color == "rgb" else -1
        self.mean = tuple(value / preprocessing.scale for value in preprocessing.mean[::order])
        self.std = tuple(value / preprocessing.scale for value in preprocessing.std[::order])
        self.resampling = _RESAMPLING[preprocessing.interpolation]
        self.description = {"name": file.runtime, "file": path.name}
        self.path, self.digest = path, _digest(path)
        # No declared width can be trusted before an image has gone through.
        self.embedding_dim = self._infer(np.zeros((1, 3, self.height, self.width), self.dtype)).shape[1]
        promised = preprocessing.dim or _width(file.outputs[self.output])
        if promised not in (None, self.embedding_dim):
            raise CheckpointError(
                f"{path}: its output has {self.embedding_dim} values an image, but {promised} are promised"
            )

    def embed(self, images: Tensor) -> Tensor:
        """Normalised RGB images (B, 3, H, W) -> unit embeddings (B, D), float32."""
        channels = images if self.preprocessing.color == "rgb" else images.flip(1)
        inputs = np.ascontiguousarray(channels.numpy(), dtype=self.dtype)
        step = self.batch or max(1, len(inputs))
        parts = [self._infer(inputs[start : start + step]) for start in range(0, len(inputs), step)]
        return F.normalize(torch.from_numpy(np.concatenate(parts)), dim=1)

    def get_extra_state(self) -> Tensor:
        """Bytes that are equal for equal files and preprocessing; ``state_dict`` has them."""
        return torch.frombuffer(bytearray(f"{self.digest} {self.preprocessing}".encode()), dtype=torch.uint8)

    def _infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """(n, 3, H, W), no more than the file takes at a time -> (n, D)."""
        filling = max(0, (self.batch or 0) - len(images))
        filled = np.concatenate([images, np.repeat(images[-1:], filling, axis=0)]) if filling else images
        try:
            output = self.file.run(filled, input=self.input, output=self.output)
        except Exception as error:  # each runtime has errors of its own
            raise CheckpointError(
                f"{self.path} cannot embed {len(filled)} images of {self.height} x {self.width}: "
                f"{_line(error)}"
            ) from error
        if output.ndim < 2 or len(output) != len(filled) or any(size != 1 for size in output.shape[2:]):
            raise CheckpointError(
                f"{self.path}: output {self.output!r} is {output.shape} for {len(filled)} images; expected "
                f"embeddings ({len(filled)}, D)"
            )
        return output.reshape(len(output), -1)[: len(images)].astype(np.float32)


def load_network(
    path: str | Path, *, preprocessing: str | Path | Mapping[str, Any] | None = None
) -> ExternalNetwork:
    """Open a network file.

    Args:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        preprocessing: a TOML file, or its keys and values; left out, see the module's text.

    Raises:
        CheckpointError: missing or damaged, or nothing says how images must be prepared.
        ConfigError: preprocessing with an unknown key or an impossible value.
        MissingExtra: the runtime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    file: NetworkFile = OnnxFile(path) if path.suffix == ".onnx" else OpenVinoFile(path)
    if isinstance(preprocessing, Mapping):
        table, origin = dict(preprocessing), "the preprocessing given"
    else:
        table, origin = _find_preprocessing(path, file, preprocessing)
    return ExternalNetwork(path, file, _check(table, origin))


class OnnxFile:
    """An ONNX file opened by onnxruntime, on the CPU."""

    runtime = "onnx"

    def __init__(self, path: Path) -> None:
        onnxruntime = _import("onnxruntime", path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = _num_threads()
        options.log_severity_level = 3  # errors only: they come as exceptions, which say the same
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no one error to catch
            raise CheckpointError(f"{path} is damaged or no ONNX file: {_line(error)}") from error
        self.inputs = {port.name: Port(_free(port.shape), port.type) for port in self.session.get_inputs()}
        self.outputs = {port.name: Port(_free(port.shape), port.type) for port in self.session.get_outputs()}

    def preprocessing(self) -> dict[str, Any] | None:
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return None if text is None else json.loads(text)

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        result: NDArray[Any] = self.session.run([output], {input: images})[0]
        return result


class OpenVinoFile:
    """An OpenVINO file, on the CPU. A batch size that the file fixes is freed where the network allows it."""

    runtime = "openvino"

    def __init__(self, path: Path) -> None:
        self.openvino = _import("openvino", path)
        if not path.with_suffix(".bin").is_file():
            raise CheckpointError(
                f"{path} has no {path.with_suffix('.bin').name} beside it; that file holds its weights"
            )
        try:
            self.model = self.openvino.Core().read_model(path)
            self.compiled = self._compile()
        except RuntimeError as error:
            raise CheckpointError(f"{path} is damaged or no OpenVINO network: {_line(error)}") from error
        self._free_batch()
        self.inputs = _ports(self.compiled.inputs)
        self.outputs = _ports(self.compiled.outputs)

    def preprocessing(self) -> dict[str, Any] | None:
        if self.model.has_rt_info(METADATA_KEY):
            table: dict[str, Any] = json.loads(self.model.get_rt_info(METADATA_KEY).astype(str))
            return table
        return self._conversion_parameters()

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        # By place: a port need not have a name that the runtime takes.
        place_in, place_out = list(self.inputs).index(input), list(self.outputs).index(output)
        result: NDArray[Any] = self.compiled({place_in: images})[place_out]
        return result

    def _compile(self) -> Any:
        # Left alone, OpenVINO computes in bfloat16 where the processor can, and figures differ by machine.
        settings = {"INFERENCE_NUM_THREADS": _num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        return self.openvino.compile_model(self.model, "CPU", settings)

    def _free_batch(self) -> None:
        """Let one-image networks take any number, if two images then come out as each does by itself."""
        shape = _free_sizes(self.model.inputs[0].partial_shape)
        if len(self.model.inputs) != 1 or len(shape) != 4 or shape[0] != 1 or None in shape:
            return
        one_image = [size or 0 for size in shape[1:]]
        images = np.random.default_rng(0).random((2, *one_image), dtype=np.float32)
        alone = self.compiled
        try:
            self.model.reshape([-1, *one_image])
            together = self._compile()
            two = [together(images)[i] for i in range(len(together.outputs))]
            freed = all(
                len(output) == 2 and np.allclose(output[i], alone(images[i : i + 1])[port][0], atol=1e-4)
                for port, output in enumerate(two)
                for i in range(2)
            )
        except RuntimeError:  # a size of 1 is built into its layers
            freed = False
        if freed:
            self.compiled = together

    def _conversion_parameters(self) -> dict[str, Any] | None:
        """Preprocessing that OpenVINO's model optimizer built into the network and noted down.

        Read in the one case that leaves no doubt: ImageNet's mean in RGB order, in front of which channels
        are reversed. Such a network takes BGR values of 0..255.
        """
        known = {}
        for name in ("mean_values", "scale_values", "reverse_input_channels"):
            place = ["conversion_parameters", name]
            known[name] = self.model.get_rt_info(place).astype(str) if self.model.has_rt_info(place) else ""
        mean = known["mean_values"].partition("[")[2].rstrip("]").split(",")
        is_rgb = mean == [str(value) for value in _IMAGENET_MEAN_255]
        if not (is_rgb and known["scale_values"] and known["reverse_input_channels"] == "True"):
            return None
        return {"color": "bgr", "scale": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}


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
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{toml} is not TOML: {error}") from None
    try:
        table = file.preprocessing()
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: its metadata {METADATA_KEY!r} is not JSON: {error}") from error
    if table is None:
        raise CheckpointError(
            f"{path} does not say how images must be prepared for it, and there is no {beside.name} beside "
            'it; write one, with color = "rgb" or "bgr", scale = 255 or 1, mean = [...] and std = [...] '
            "(docs/weights.md has every key)"
        )
    return table, f"the metadata of {path}"


def _check(table: Mapping[str, Any], origin: str) -> Preprocessing:
    try:
        return TypeAdapter(Preprocessing).validate_python(table)
    except ValidationError as error:
        raise ConfigError([f"{origin}: {_explain(fault)}" for fault in error.errors()]) from None


def _explain(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        known = Preprocessing.__annotations__
        return f"unknown key {key!r};{did_you_mean(key, known)} Known: {', '.join(known)}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, not {fault['input']!r}"


def _choose(path: Path, kind: str, wanted: str | None, ports: Mapping[str, Port]) -> str:
    listed = ", ".join(f"{name!r} {port}" for name, port in ports.items())
    if wanted is None and len(ports) == 1:
        return next(iter(ports))
    if wanted is None:
        raise CheckpointError(f'{path} has {len(ports)} {kind}s; choose one with {kind} = "NAME": {listed}')
    if wanted not in ports:
        hint = did_you_mean(wanted, ports)
        raise CheckpointError(f"{path} has no {kind} {wanted!r};{hint} it has {listed}")
    return wanted


def _size(path: Path, name: str, wanted: int | None, fixed: int | None) -> int:
    if wanted is None and fixed is None:
        raise CheckpointError(f"{path} takes images of any {name}; give {name} = PIXELS in its TOML file")
    if None not in (wanted, fixed) and wanted != fixed:
        raise CheckpointError(f"{path} takes images of {name} {fixed}, not {wanted}; leave {name} out")
    return int(wanted or fixed or 0)


def _width(port: Port) -> int | None:
    return port.shape[1] if len(port.shape) > 1 else None


def _free(shape: list[Any]) -> tuple[int | None, ...]:
    """ONNX names free sizes, or leaves them empty."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _free_sizes(shape: Any) -> tuple[int | None, ...]:
    if shape.rank.is_dynamic:
        return ()
    return tuple(None if size.is_dynamic else size.get_length() for size in shape)


def _ports(ports: Any) -> dict[str, Port]:
    """OpenVINO's ports by their first name, in their order."""
    return {
        min(port.names, default=port.node.friendly_name): Port(
            _free_sizes(port.partial_shape), port.element_type.get_type_name()
        )
        for port in ports
    }


def _digest(path: Path) -> str:
    """Of the bytes of the file, and of the one with its weights."""
    digest = hashlib.sha256(path.read_bytes())
    if path.suffix == ".xml":
        digest.update(path.with_suffix(".bin").read_bytes())
    return digest.hexdigest()


def _num_threads() -> int:
    return min(_MAX_THREADS, torch.get_num_threads())


def _import(package: str, path: Path) -> Any:
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(package, extra="export", needed_for=f"reading {path.name}") from error


def _line(error: Exception) -> str:
    """The first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
