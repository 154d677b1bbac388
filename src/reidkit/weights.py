"""Weights from elsewhere: files of other toolkits, read without running code, fitted to our networks by name.

Read are PyTorch files (``.pth``, ``.pt``, ``.pth.tar``), with ``weights_only=True``, and ``.safetensors``.
:mod:`reidkit.weights_names` has the names. What matched, what did not and why stands in the report.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import re
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from reidkit.errors import CheckpointError, DataError
from reidkit.files import write_atomically
from reidkit.models import Embedder
from reidkit.weights_names import Toolkit, toolkit_of

Shape = tuple[int, ...]

_NESTS = ("state_dict", "model", "net")
_COUNTERS = "num_batches_tracked"  # of a batch norm; older files lack it, and no result depends on it
_PIXEL_MEAN, _PIXEL_STD = "pixel_mean", "pixel_std"  # FastReID, some versions; in units of 0..255
_TIMEOUT = 60  # seconds without an answer
_CONVERT = (
    "python -c \"import sys, torch; c = torch.load(sys.argv[1], 'cpu', weights_only=False); "
    "c = c if isinstance(c, dict) else c.state_dict(); torch.save(c.get('state_dict', c.get('model', c)), "
    "'weights.pth')\""
)


@dataclass(frozen=True)
class WeightsReport:
    """What became of every weight of the network and of the file.

    Names map to shapes, ``wrong_shape`` to (shape in the network, shape in the file). Names in ``matched``,
    ``missing`` and ``wrong_shape`` are ours, those in ``left_over`` and ``dropped`` (classifiers) the file's.
    Batch norms' counters of batches are in none of them.
    """

    toolkit: str
    matched: Mapping[str, Shape]
    missing: Mapping[str, Shape]
    wrong_shape: Mapping[str, tuple[Shape, Shape]]
    left_over: Mapping[str, Shape]
    dropped: Mapping[str, Shape]

    @property
    def backbone(self) -> tuple[int, int]:
        """Weight tensors of the network's backbone: how many matched, of how many."""
        matched = sum(map(_in_backbone, self.matched))
        return matched, matched + sum(map(_in_backbone, [*self.missing, *self.wrong_shape]))

    @property
    def used(self) -> tuple[int, int]:
        """Weight tensors of the file without its classifiers: how many matched, of how many."""
        matched = len(self.matched)
        return matched, matched + len(self.left_over) + len(self.wrong_shape)

    @property
    def untrained(self) -> tuple[str, ...]:
        """Weights that the file does not give, and without which the network embeds by chance.

        A batch norm as neck is not among them: as it starts, it changes no ranking.
        """
        shapes = {**self.missing, **{name: ours for name, (ours, _) in self.wrong_shape.items()}}
        return tuple(name for name, shape in shapes.items() if _in_backbone(name) or len(shape) > 1)

    def __str__(self) -> str:
        wrong = {name: f"{ours} here, {theirs} there" for name, (ours, theirs) in self.wrong_shape.items()}
        lines = [
            f"names of {self.toolkit}",
            "{} of {} backbone weights matched".format(*self.backbone),
            "{} of {} weights of the file used".format(*self.used),
            _listed("missing in the file", self.missing),
            _listed("of another shape", wrong),
            _listed("left over", self.left_over),
            _listed("classifier, left out", self.dropped),
        ]
        return "\n".join(line for line in lines if line)


def import_weights(
    model: Embedder, source: str | Path, *, min_share: float = 0.9, say: Callable[[str], None] | None = None
) -> WeightsReport:
    """Fill a network with the weights of a file, where names and shapes agree.

    Args:
        model: changed only if all goes well.
        source: a path, or an ``https`` address.
        min_share: the least share of the backbone's weight tensors that must be found in the file, and of the
            file's that must have a place in the network. Tensors are counted, not their values: a network
            with other normalisation layers agrees in nearly all values and is another network all the same.
        say: told what is downloaded, and to where.

    Raises:
        CheckpointError: the file is missing, truncated, would have to be unpickled, holds values that are not
            finite, or is for another network.
        DataError: the address cannot be read.
    """
    path = locate(source, say=say)
    tensors = read_weights(path)
    toolkit = toolkit_of(tensors)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(_COUNTERS)}
    named = _our_names(path, tensors, toolkit, own)
    report = _compare(own, tensors, named, toolkit)
    _refuse_other_network(path, model, report, min_share)
    _refuse_other_normalisation(path, model, tensors)
    fitting = {name: tensors[named[name]].reshape(own[name].shape) for name in report.matched}
    model.load_state_dict(fitting, strict=False)
    return report


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, out of whatever nest and behind whatever ``module.`` they were saved.

    Raises:
        CheckpointError: missing, truncated, holding more than tensors, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    while isinstance(content, Mapping) and (
        nests := [n for n in _NESTS if isinstance(content.get(n), Mapping)]
    ):
        content = content[nests[0]]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        held = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(
            f"{path} holds no named weights but {held or 'nothing'}; expected tensors by name, or a dict "
            f"with them under {' or '.join(map(repr, _NESTS))}"
        )
    tensors = {_without_module(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"{path}: weight {name!r} is not finite everywhere; the file cannot be used"
            )
    return tensors


def locate(source: str | Path, *, say: Callable[[str], None] | None = None) -> Path:
    """The file at a path or, downloaded once and kept, at an ``https`` address.

    Downloads go to ``reidkit/weights`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Raises:
        DataError: an address that cannot be read, or is not ``https`` (``http`` is read from this machine).
    """
    if "://" not in str(source):
        return Path(source)
    url = str(source)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reidkit" / "weights"
    path = (
        cache
        / hashlib.sha256(url.encode()).hexdigest()[:12]
        / (PurePosixPath(urlsplit(url).path).name or "file")
    )
    tell = say or (lambda text: None)
    if path.is_file():
        tell(f"{url}: already at {path}")
        return path
    content = _download(url)
    write_atomically(path, content)
    tell(f"{url}: {len(content) / 1e6:.1f} MB, kept at {path}")
    return path


def _download(url: str) -> bytes:
    _check_address(url)
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:
            _check_address(answer.url)  # it may have been sent on to another one
            content: bytes = answer.read()
    except http.client.IncompleteRead as error:
        whole = len(error.partial) + (error.expected or 0)
        raise DataError(
            f"{url} broke off after {len(error.partial):,} bytes of {whole:,}; try again"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be read: {getattr(error, 'reason', error)}") from error
    if content.lstrip()[:1] == b"<":
        raise DataError(
            f"{url} is a web page, not a file of weights; open it in a browser, download the file, and give "
            "its path"
        )
    return content


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise DataError(
            f"{url}: only https addresses are read, so that nobody can change the file on its way; download "
            "it yourself and give its path"
        )


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error


class _Ignored:
    """Takes the place of NumPy numbers, which training checkpoints keep scores in and nobody needs here."""

    def __init__(self, *parts: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_IGNORED = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Ignored, n) for n in _IGNORED]):
            warnings.simplefilter("ignore")  # on pickle protocols and archive types; what matters is raised
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        unsafe = re.search(r"(?:GLOBAL|unsupported class|unrecognized function) ([\w.]+)", str(error))
        if unsafe is None:
            raise CheckpointError(f"{path} is damaged or no PyTorch file") from error
        raise CheckpointError(
            f"{path} was not read: besides tensors it holds {unsafe[1]!r}, and loading that can run any "
            f"code. If you trust where it comes from, convert it there: {_CONVERT} {path}"
        ) from error
    except Exception as error:  # damaged bytes surface as almost any error
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no PyTorch file ({what})") from error


def _our_names(
    path: Path, tensors: Mapping[str, Tensor], toolkit: Toolkit, own: Mapping[str, Tensor]
) -> dict[str, str]:
    """Our name -> the file's, for all of the file's weights that have to find a place."""
    named: dict[str, str] = {}
    for name in tensors:
        if name.endswith(_COUNTERS) or name in (_PIXEL_MEAN, _PIXEL_STD) or toolkit.is_classifier(name):
            continue
        ours = toolkit.our_name(name)
        # timm's networks stand one level deeper, in the module that knows the layout of their output.
        deeper = ours.replace("backbone.", "backbone.network.", 1)
        ours = deeper if deeper in own else ours
        if ours in named:
            raise CheckpointError(f"{path} has two weights for {ours!r}: {named[ours]!r} and {name!r}")
        named[ours] = name
    return named


def _compare(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], named: Mapping[str, str], toolkit: Toolkit
) -> WeightsReport:
    matched, wrong_shape = {}, {}
    for name, ours in own.items():
        if name not in named:
            continue
        theirs = tensors[named[name]]
        # A single number (the power of generalised-mean pooling) is kept as (), (1,) or (1, 1).
        if ours.shape == theirs.shape or ours.numel() == theirs.numel() == 1:
            matched[name] = _shape(ours)
        else:
            wrong_shape[name] = (_shape(ours), _shape(theirs))
    return WeightsReport(
        toolkit.name,
        matched=matched,
        missing={name: _shape(tensor) for name, tensor in own.items() if name not in named},
        wrong_shape=wrong_shape,
        left_over={theirs: _shape(tensors[theirs]) for ours, theirs in named.items() if ours not in own},
        dropped={name: _shape(tensor) for name, tensor in tensors.items() if toolkit.is_classifier(name)},
    )


def _refuse_other_network(path: Path, model: Embedder, report: WeightsReport, min_share: float) -> None:
    (found, wanted), (used, given) = report.backbone, report.used
    if found >= min_share * wanted and used >= min_share * given:
        return
    problems = [
        f"{text} {next(iter(names))!r}"
        for text, names in [
            ("missing, for example,", report.missing),
            ("of another shape", report.wrong_shape),
            ("left over", report.left_over),
        ]
        if names
    ]
    raise CheckpointError(
        f"{path} is for another network than {dict(model.description)}: it has {found} of {wanted} weights "
        f"of the backbone, and {used} of its own {given} have a place there; both must be {min_share:.0%} or "
        f"more ({', '.join(problems)})"
    )


def _refuse_other_normalisation(path: Path, model: Embedder, tensors: Mapping[str, Tensor]) -> None:
    for name, own in ((_PIXEL_MEAN, model.mean), (_PIXEL_STD, model.std)):
        if name not in tensors:
            continue
        theirs, ours = tensors[name].flatten().tolist(), [255 * value for value in own]
        if len(theirs) != len(ours) or any(abs(a - b) > 0.5 for a, b in zip(theirs, ours, strict=True)):
            raise CheckpointError(
                f"{path} was trained with {name} = {theirs}, but this network normalises images with {ours}; "
                "its weights would see other values than they learned from"
            )


def _in_backbone(name: str) -> bool:
    return not name.startswith(("neck.", "pooling."))


def _without_module(name: str) -> str:
    """Without what torch's data-parallel wrappers put in front."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def _shape(tensor: Tensor) -> Shape:
    return tuple(tensor.shape)


def _listed(title: str, named: Mapping[str, object], *, most: int = 6) -> str:
    """One line on a group of weights; an empty text where the group is empty."""
    shown = [f"{name} {text}" for name, text in list(named.items())[:most]]
    more = [f"and {len(named) - most} more"] if len(named) > most else []
    return f"{title} ({len(named)}): {', '.join([*shown, *more])}" if named else ""
