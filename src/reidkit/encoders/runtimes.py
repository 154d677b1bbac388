"""What network files have in common, whichever runtime opens them, and how large one may be."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from reidkit.errors import CheckpointError, MissingExtra, short
from reidkit.images.speed import num_cores

SUFFIXES = (".onnx", ".xml")
"""Usual endings of network files."""

METADATA_KEY = "reidkit"
"""Entry of a file's metadata (ONNX metadata_props, OpenVINO rt_info) with the preprocessing as JSON."""

EXPORTED_FROM_KEY = "reidkit_encoder"
"""Entry of a file's metadata with the encoder that it was exported from, as JSON."""

MAX_PIXELS = 2**23
"""Of all the images that a network takes at a time: 1,024 of 128 x 64."""

_TELEMETRY = "openvino_telemetry"


PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}
"""What a network of ours needs to be run by each."""


@dataclass(frozen=True)
class Port:
    """An input or output of a network file. ``shape`` has None for sizes that are free."""

    shape: tuple[int | None, ...]
    type: str

    def __str__(self) -> str:
        return f"{self.type} ({', '.join('?' if size is None else str(size) for size in self.shape)})"


class NetworkFile(Protocol):
    """A network file that has been opened by its runtime.

    Attributes:
        digest: of all that it computes with: its graph and its weights, wherever these lie; not of names,
            texts and metadata.
        former_digest: what version 0.1.0 took for that, where it was right.
    """

    runtime: str
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    digest: str
    former_digest: str | None

    def metadata(self, key: str) -> Any:
        """An entry of the file's metadata, read as JSON; None where there is none."""

    def preprocessing(self) -> Any:
        """What the file's metadata says on preprocessing, if anything."""

    def run(self, images: NDArray[Any], *, input: str, output: str) -> NDArray[Any]:
        """One array in, one out."""


def check_inputs(path: Path, shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Raise :class:`CheckpointError` where an input's fixed sizes are more than :data:`MAX_PIXELS`."""
    for shape in shapes:
        if math.prod(size or 1 for size in shape) > 3 * MAX_PIXELS:
            sizes = " x ".join("?" if size is None else f"{size:,}" for size in shape)
            raise CheckpointError(
                f"{path} takes {short(sizes)} values at a time, more than {3 * MAX_PIXELS:,}; export it for "
                "fewer or smaller images"
            )


def num_threads() -> int:
    """Threads that a runtime may take: one a core, or as many as ``OMP_NUM_THREADS`` says, as in PyTorch."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(int(first), 2 * num_cores()) if first.isdecimal() and int(first) else num_cores()


def is_installed(runtime: str) -> bool:
    """Whether networks of ours can be run by it."""
    return not _missing(runtime)


def check_runtime(runtime: str) -> None:
    """Raise :class:`MissingExtra` where networks of ours cannot be run by it."""
    if missing := _missing(runtime):
        raise MissingExtra(missing[0], extra="export", needed_for=f"backend = {runtime!r}")


def _missing(runtime: str) -> list[str]:
    return [package for package in PACKAGES[runtime] if find_spec(package) is None]


def import_runtime(package: str, path: Path) -> Any:
    """A package that is needed to read a file; :class:`MissingExtra` where it is not installed."""
    try:
        with _untold():
            return import_module(package)
    except ImportError as error:
        raise MissingExtra(package, extra="export", needed_for=f"reading {path.name}") from error


@contextmanager
def _untold() -> Iterator[None]:
    """While inside, OpenVINO does not find the package by which it tells its maker, over the network and in a
    file in the home folder, that it was imported. It does without where that is not installed."""
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
