"""ONNX files, opened by onnxruntime after a look at what they claim.

Weights are read from beside the file only, and operators of other libraries are never loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from reidkit.encoders.runtimes import METADATA_KEY, Port, check_inputs, import_runtime, num_threads
from reidkit.errors import CheckpointError, short

_MAX_SIZE = 2**31  # bytes; protobuf holds no more


class OnnxFile:
    """An ONNX file opened by onnxruntime, on the CPU."""

    runtime = "onnx"

    def __init__(self, path: Path) -> None:
        onnxruntime = import_runtime("onnxruntime", path)
        self.digest, self.former_digest = _examine_onnx(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads()
        # Threads that look for more work after a batch would keep others from a core: a service's, readers'.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.log_severity_level = 4  # errors come as exceptions, which say the same
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self.inputs = _onnx_ports(self.session.get_inputs())
            self.outputs = _onnx_ports(self.session.get_outputs())
        except Exception as error:  # onnxruntime has no one error to catch
            raise CheckpointError(f"{path} cannot be run by onnxruntime: {short(error, 300)}") from error

    def metadata(self, key: str) -> Any:
        text = self.session.get_modelmeta().custom_metadata_map.get(key)
        return None if text is None else json.loads(text)

    def preprocessing(self) -> Any:
        return self.metadata(METADATA_KEY)

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        result: NDArray[Any] = self.session.run([output], {input: images})[0]
        return result


def _examine_onnx(path: Path) -> tuple[str, str | None]:
    """Digests of an ONNX file (see :class:`NetworkFile`), after its claims have been checked."""
    onnx = import_runtime("onnx", path)
    if path.stat().st_size > _MAX_SIZE:
        raise CheckpointError(f"{path} is no ONNX file: it is larger than one can be, 2 GB")
    content = path.read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own, a class that moves between its versions
        raise CheckpointError(f"{path} is damaged or no ONNX file: {short(error, 300)}") from error
    if not model.HasField("graph"):
        raise CheckpointError(f"{path} is damaged or no ONNX file: it holds no graph")
    try:
        constants = {tensor.name for tensor in model.graph.initializer}
        shapes = [_onnx_shape(port) for port in model.graph.input if port.name not in constants]
        check_inputs(path, shapes)
        # Looked at first, since what is outside the folder must not be opened, not even for a digest.
        all_within = [_external_data(path, tensor) is None for tensor in _tensors(model)]
        digest = _digest_onnx(path, model)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} has names that are not UTF-8; it cannot be used") from error
    return digest, hashlib.sha256(content).hexdigest() if all(all_within) else None


def _onnx_shape(port: Any) -> tuple[int | None, ...]:
    return tuple(size.dim_value if size.dim_value > 0 else None for size in port.type.tensor_type.shape.dim)


def _onnx_ports(ports: Sequence[Any]) -> dict[str, Port]:
    """onnxruntime names free sizes, or leaves them empty."""
    return {
        port.name: Port(tuple(s if isinstance(s, int) and s > 0 else None for s in port.shape), port.type)
        for port in ports
    }


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all that it holds, depth first."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from messages(part)


def _tensors(message: Any) -> Iterator[Any]:
    return (part for part in messages(message) if part.DESCRIPTOR.name == "TensorProto")


def _external_data(path: Path, tensor: Any) -> tuple[Path, int, int] | None:
    """File, first byte and length of a tensor that is kept in another file; None of one that is not."""
    if not tensor.external_data and tensor.data_location != tensor.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file, folder = path.parent / location, path.parent.resolve()
    is_name = location and "\0" not in location
    inside = is_name and not Path(location).is_absolute() and file.resolve().is_relative_to(folder)
    if not inside or ".." in Path(location.replace("\\", "/")).parts or file.is_symlink():
        raise CheckpointError(
            f"{path} keeps weights in {short(location) if location else ''!r}; they are read from its own "
            "folder only, and not through links: put that file beside it and save it with that name"
        )
    if not file.is_file():
        state = "is no regular file" if file.exists() else "is missing beside it"
        raise CheckpointError(f"{path} keeps weights in {short(location)!r}, which {state}")
    size = file.stat().st_size
    try:
        start = int(entries.get("offset", "0"))
        length = int(entries.get("length", "0")) or size - start  # 0 is what onnxruntime takes for unsaid
    except ValueError:
        start = length = -1
    if min(start, length) < 0 or start + length > size:
        raise CheckpointError(
            f"{path} keeps weights in {short(location)!r}, beyond the end of that file ({size:,} bytes); it "
            "is damaged or belongs to another network"
        )
    return file, start, length


def _digest_onnx(path: Path, model: Any) -> str:
    """Of the graph without names and texts, and of the bytes of all weights. Changes the message."""
    for part in messages(model):
        for field in ("doc_string", "metadata_props"):
            if field in part.DESCRIPTOR.fields_by_name:
                part.ClearField(field)
        if part.DESCRIPTOR.name in ("NodeProto", "GraphProto"):
            part.ClearField("name")
        if part.DESCRIPTOR.name == "TensorProto" and (part.external_data or part.raw_data):
            external = _external_data(path, part)
            held = _bytes_of(*external) if external else part.raw_data
            part.ClearField("external_data")
            part.ClearField("data_location")
            part.raw_data = hashlib.sha256(held).digest()
    for field in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        model.ClearField(field)
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _bytes_of(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(length)
