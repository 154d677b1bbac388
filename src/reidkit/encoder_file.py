"""What an encoder's file says of itself: how to build its network, and what it was made from.

The file may come from anywhere, so nothing of it is believed before it has been looked at: the description is
validated as a whole, names reach registered components only (:mod:`reidkit.trust`), and a network is built
only if it has the weights that the file holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from reidkit import registry, trust
from reidkit.checkpoint import load_weights
from reidkit.config import explain
from reidkit.errors import CheckpointError, ReidError, UnknownName, shortened, shown
from reidkit.models import Embedder, build_model
from reidkit.text_files import is_too_deep

MOST_PIXELS = 2**22
"""Of the images that a network sees; the largest in use have a tenth of that."""

Pixels = Annotated[int, Field(strict=True, ge=1, le=4096)]
_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CLOSED)
class Transform:
    """Pixels that images are resized to."""

    height: Pixels
    width: Pixels


@dataclass(frozen=True, config=_CLOSED)
class Description:
    """The header of an encoder's file.

    ``model`` holds the network's name and its options; ``feature`` the one to embed by, where that is not
    the network's own choice. ``card`` says what the network was made from; of it only ``data`` and
    ``calibration`` are read by reidkit, tables where they are there.
    """

    model: dict[str, Any]
    transform: Transform
    card: dict[str, Any] = Field(default_factory=dict)
    feature: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those that the network is built with: the file has all weights, so none are to be fetched."""
        options = {name: value for name, value in self.model.items() if name != "name"}
        return {**options, **({"pretrained": False} if "pretrained" in options else {})}


def load_encoder_file(file: Path) -> tuple[Embedder, Description]:
    """The network with its weights, and the description, of a file of :meth:`reidkit.Encoder.save`.

    Raises:
        CheckpointError: missing or damaged; a description that is not one; a network that there is not, that
            cannot be built, or has other weights than the file.
        CodeRefused: a network of one's own that nobody allowed.
    """
    tensors, header = load_weights(file)
    description = parse_description(header, file)
    model = _build(description, tensors, file)
    model.description = dict(description.model)
    model.load_state_dict(tensors)
    if description.feature is not None and description.feature not in model.features:
        raise CheckpointError(
            f"{file}: {UnknownName('feature of its network', description.feature, model.features)}"
        )
    return model, description


def parse_description(header: object, file: Path) -> Description:
    """The header of an encoder's file, validated.

    Raises :class:`CheckpointError` that names each key at fault.
    """
    problems = ["nested too deeply"] if is_too_deep(header) else []
    if not problems:
        try:
            description = TypeAdapter(Description).validate_python(header)
        except ValidationError as error:
            problems = [explain(fault, _known_keys) for fault in error.errors(include_url=False)]
        else:
            problems = list(_further_problems(description))
    if problems:
        raise CheckpointError(f"{file} does not describe an encoder: {'; '.join(problems[:5])}")
    return description


def _further_problems(description: Description) -> Iterator[str]:
    name = description.model.get("name")
    if not isinstance(name, str):
        yield "model.name is missing" if name is None else f"model.name: {shown(name)} is no text"
    height, width = description.transform.height, description.transform.width
    if height * width > MOST_PIXELS:
        yield f"transform: {height} x {width} are more than {MOST_PIXELS:,} pixels"
    for key in ("data", "calibration"):
        if not isinstance(value := description.card.get(key) or {}, dict):
            yield f"card.{key}: {shown(value)} is no table"


def _known_keys(path: Any) -> list[str]:
    table: Any = {(): Description, ("transform",): Transform}.get(tuple(path))
    return list(table.__dataclass_fields__) if table else []


def _build(description: Description, tensors: Mapping[str, Tensor], file: Path) -> Embedder:
    """The network, its weights still drawn at random.

    It is first built without memory for its weights, as numbers in a header can ask for any size, and held
    against the file; but for code of one's own, which need not be written for that.
    """
    if not registry.is_code("model", description.model["name"]):
        with torch.device("meta"):
            _check_weights(_build_small(description, tensors, file), description, tensors, file)
    model = _build_small(description, tensors, file)
    _check_weights(model, description, tensors, file)
    return model


def _build_small(description: Description, tensors: Mapping[str, Tensor], file: Path) -> Embedder:
    name = description.model["name"]
    try:
        with trust.from_file(), _no_larger_than(tensors):
            return build_model(name, **description.options)
    except trust.CodeRefused as error:
        raise trust.CodeRefused(f"{file} names its network so: {error}") from error
    except _TooLarge:
        raise CheckpointError(
            f"{file} names a network far larger than its weights, {_model_text(description)}"
        ) from None
    except ReidError as error:
        raise CheckpointError(f"{file} names a network that cannot be built: {error}") from error
    except Exception as error:  # its options are anybody's
        what = f"{type(error).__name__}: {shortened(str(error).partition(chr(10))[0], 200)}"
        raise CheckpointError(
            f"{file} names a network that cannot be built, {_model_text(description)}: {what}"
        ) from error


class _TooLarge(Exception):
    """More weights have been made than the file has."""


@contextmanager
def _no_larger_than(tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Stop the building of a network that gets far more weights than these."""
    # Twice as many, and some more: a part may be made and left out again.
    number_left = 2 * len(tensors) + 1000
    elements_left = 2 * sum(tensor.numel() for tensor in tensors.values()) + 10_000_000
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal number_left, elements_left
        if parameter is None or threading.get_ident() != thread:
            return
        number_left -= 1
        elements_left -= parameter.numel()
        if number_left < 0 or elements_left < 0:
            raise _TooLarge

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _check_weights(
    model: Embedder, description: Description, tensors: Mapping[str, Tensor], file: Path
) -> None:
    """Raise :class:`CheckpointError` where the network's weights and the file's are not the same by name,
    shape and kind of number."""
    expected = model.state_dict()
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "left over": sorted(tensors.keys() - expected.keys()),
        "of another shape": _differing(expected, tensors, lambda tensor: tensor.shape),
        "of another type": _differing(expected, tensors, _kind),
    }
    told = [
        f"{what} ({len(names):,}, such as {shown(names[0])})" for what, names in problems.items() if names
    ]
    if told:
        raise CheckpointError(
            f"{file} does not fit the network it names, {_model_text(description)}: weights are "
            f"{', '.join(told)}"
        )


def _differing(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], of: Any) -> list[str]:
    both = sorted(expected.keys() & tensors.keys())
    return [name for name in both if of(expected[name]) != of(tensors[name])]


def _kind(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "float" if tensor.dtype.itemsize >= 2 else str(tensor.dtype)
    return "complex" if tensor.is_complex() else "integer"


def _model_text(description: Description) -> str:
    return shown(description.model, 200)
