"""OpenVINO files, ``.xml`` with a ``.bin`` beside it, opened by OpenVINO after a look at what they claim."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.openvino_sessions import Sessions
from reidkit.encoders.runtimes import METADATA_KEY, Port, check_inputs, import_runtime
from reidkit.errors import CheckpointError, short

_MAX_SIZE = 2**26  # bytes of the graph
_MAX_LEVELS = 200  # of elements within elements
_IMAGENET_MEAN_255 = (123.675, 116.28, 103.53)


class OpenVinoFile:
    """An OpenVINO file, on the CPU. A batch size that the file fixes is freed where the network allows it."""

    runtime = "openvino"
    former_digest: str | None

    def __init__(self, path: Path) -> None:
        self.openvino = import_runtime("openvino", path)
        weights = path.with_suffix(".BIN" if path.suffix.isupper() else ".bin")
        weights = weights if weights.is_file() else path.with_suffix(".bin")
        if not weights.is_file():
            raise CheckpointError(f"{path} has no {weights.name} beside it; that file holds its weights")
        graph, end = _examine_openvino(path)
        if end > weights.stat().st_size:
            raise CheckpointError(
                f"{path} has weights up to byte {end:,}, but {weights.name} has only "
                f"{weights.stat().st_size:,} bytes; it is damaged or belongs to another network"
            )
        held = weights.read_bytes()
        self.digest = hashlib.sha256(graph + hashlib.sha256(held).digest()).hexdigest()
        self.former_digest = hashlib.sha256(path.read_bytes() + held).hexdigest()
        try:
            self.model = self._read(path, held)
            check_inputs(path, [_free_sizes(port.partial_shape) for port in self.model.inputs])
            one_image = self._one_image()
            freed = self._free_batch(one_image) if one_image else None
            if one_image and freed is None:
                self.model = self._read(path, held)  # as it was
            self.sessions = freed or Sessions(self.openvino, self.model)
        except RuntimeError as error:
            raise CheckpointError(f"{path} cannot be run by OpenVINO: {short(error, 300)}") from error
        self.inputs = _ports(self.sessions.compiled.inputs)
        self.outputs = _ports(self.sessions.compiled.outputs)

    def metadata(self, key: str) -> Any:
        return json.loads(self.model.get_rt_info(key).astype(str)) if self.model.has_rt_info(key) else None

    def preprocessing(self) -> Any:
        found = self.metadata(METADATA_KEY)
        return self._conversion_parameters() if found is None else found

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        # By place: a port need not have a name that the runtime takes.
        places = {"place_in": list(self.inputs).index(input), "place_out": list(self.outputs).index(output)}
        return self.sessions.run(images, **places)

    def _read(self, path: Path, held: bytes) -> Any:
        return self.openvino.Core().read_model(path.read_bytes(), held)

    def _one_image(self) -> list[int]:
        """The size (3, H, W) of the images of a network that takes one at a time; empty for others."""
        if len(self.model.inputs) != 1:
            return []
        batch, *image = _free_sizes(self.model.inputs[0].partial_shape) or (None,)
        fixed = [size for size in image if size is not None]
        return fixed if batch == 1 and len(fixed) == len(image) == 3 else []

    def _free_batch(self, one_image: list[int]) -> Sessions | None:
        """The network compiled for any number of images, if two then come out as each does by itself."""
        images = np.random.default_rng(0).random((2, *one_image), dtype=np.float32)
        try:
            self.model.reshape([-1, *one_image])
            sessions = Sessions(self.openvino, self.model)
            # Copies: what comes next is written over them.
            two, *alone = (
                [np.array(output) for output in sessions.compiled(some).values()]
                for some in (images, images[:1], images[1:])
            )
        except RuntimeError:  # a size of 1 is built into its layers
            return None
        freed = all(
            len(outputs) == 2 and np.allclose(outputs[i], alone[i][port][0], atol=1e-4)
            for port, outputs in enumerate(two)
            for i in range(2)
        )
        return sessions if freed else None

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


def _examine_openvino(path: Path) -> tuple[bytes, int]:
    """Digest of the graph, without names of layers and metadata, and the byte at which its weights end."""
    if path.stat().st_size > _MAX_SIZE:
        raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; no OpenVINO graph is so large")
    reader = _GraphReader(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.refuse_doctype
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise CheckpointError(f"{path} is damaged or no OpenVINO network: {short(error)}") from error
    return reader.hash.digest(), reader.weights_end


class _GraphReader:
    """Follows the elements of an OpenVINO file; nothing is kept but a digest and the end of the weights."""

    def __init__(self, path: Path) -> None:
        self.path, self.hash, self.weights_end = path, hashlib.sha256(), 0
        self.open: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.open and name != "net":
            raise CheckpointError(
                f"{self.path} is XML, but no OpenVINO network: it begins with <{short(name)}>"
            )
        if len(self.open) >= _MAX_LEVELS:
            raise CheckpointError(f"{self.path} is no OpenVINO network: its elements lie {_MAX_LEVELS} deep")
        self.open.append(name)
        if name in ("net", "layer"):
            attributes.pop("name", None)
        if name == "data" and {"offset", "size"} <= attributes.keys():
            try:
                end = int(attributes["offset"]) + int(attributes["size"])
            except ValueError:
                end = 2**63
            self.weights_end = max(self.weights_end, end)
        self._add(name, *(f"{key}={value}" for key, value in sorted(attributes.items())))

    def end(self, name: str) -> None:
        self._add(f"/{name}")
        self.open.pop()

    def text(self, text: str) -> None:
        if text.strip():
            self._add(text.strip())

    def refuse_doctype(self, *_: object) -> None:
        raise CheckpointError(f"{self.path} is no OpenVINO network: it has a DOCTYPE, which such files lack")

    def _add(self, *parts: str) -> None:
        if not {"rt_info", "meta_data"} & set(self.open):
            self.hash.update(json.dumps(parts).encode())


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
