"""An encoder's file (``best.safetensors``): weights, and in its header how to build their network.

The file may come from anywhere, so nothing of it is believed before it has been looked at: the description is
validated as a whole, names reach registered components only (:mod:`reidkit.trust`), and a network is built
only if it has the weights that the file holds.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from reidkit import registry, trust
from reidkit.config import explain
from reidkit.errors import CheckpointError, ReidError, UnknownName, shortened, shown
from reidkit.files import write_atomically
from reidkit.models import Embedder, build_model
from reidkit.texts.files import is_too_deep, parse_json

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
    the network's own choice, and ``views`` what of an image is embedded. ``card`` says what the network was
    made from; of it only ``data`` and ``calibration`` are read by reidkit, tables where they are there.
    """

    model: dict[str, Any]
    transform: Transform
    card: dict[str, Any] = Field(default_factory=dict)
    feature: str | None = None
    views: Literal["whole", "flip", "crops"] = "whole"

    @property
    def options(self) -> dict[str, Any]:
        """Those that the network is built with: the file has all weights, so none are to be fetched."""
        options = {name: value for name, value in self.model.items() if name != "name"}
        return {**options, **({"pretrained": False} if "pretrained" in options else {})}


def load_encoder_file(file: Path) -> tuple[Embedder, Description]:
    """The network with its weights, in evaluation mode, and the description of a file of
    :meth:`reidkit.Encoder.save`.

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
    return model.to(memory_format=torch.channels_last).eval(), description


def save_weights(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON description of them as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # One entry only: their order in the file is not fixed, and equal networks should give equal files.
    metadata = {"reidkit": json.dumps(description)}
    write_atomically(path, safetensors.torch.save(plain, metadata))


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of :func:`save_weights`: tensors by name, and the description.

    Raises:
        CheckpointError: missing, truncated, without a JSON object as description, or holding values that are
            not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is no regular file" if path.exists() else f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        what = shortened(str(error), 200)
        raise CheckpointError(f"{path} is damaged or no safetensors file: {what}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    except (RuntimeError, ValueError, AttributeError, TypeError) as error:  # a type that torch does not have
        raise CheckpointError(
            f"{path} holds a weight that cannot be read: {shortened(str(error), 200)}"
        ) from error
    if "reidkit" not in metadata:
        raise CheckpointError(
            f"{path} was not saved by reidkit: its header does not say how to build the network"
        )
    for name, tensor in tensors.items():
        if not _is_finite(tensor):
            raise CheckpointError(f"{path}: weight {shown(name)} is not finite everywhere; it cannot be used")
    header: dict[str, Any] = parse_json(metadata["reidkit"], f"{path}: its header", error=CheckpointError)
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header holds {shown(header)}; expected a JSON object")
    return tensors, header


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    if tensor.dtype.itemsize < 2:  # torch computes nothing with these
        tensor = tensor.float()
    return bool(torch.isfinite(tensor).all())


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
    """The network, its weights not yet those of the file.

    It is first built without memory for its weights, as numbers in a header can ask for any size, and held
    against the file; but for code of one's own, which need not be written for that.
    """
    registry.names("model")  # imports them, which on the meta device may fail
    if registry.is_code("model", description.model["name"]):
        model = _build_small(description, tensors, file)
    else:
        with _Undrawn():
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


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn at random while a network is built: the file has them, and drawing takes longer
    than reading them. On the meta device it would import half of PyTorch's compiler, too."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWING or getattr(func, "__module__", None) == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


_DRAWING = {Tensor.normal_, Tensor.uniform_, Tensor.bernoulli_, Tensor.random_}


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
