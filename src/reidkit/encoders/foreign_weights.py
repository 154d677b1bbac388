"""Weights from elsewhere: files of other toolkits, fitted to our networks by name.

:mod:`reidkit.encoders.foreign_files` reads them, :mod:`reidkit.encoders.foreign_names` has the names. What
matched, what did not and why stands in the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reidkit.encoders.download import locate
from reidkit.encoders.foreign_files import WeightsFile, read_weights, read_weights_file
from reidkit.encoders.foreign_names import FASTREID, REIDKIT, Toolkit, toolkit_of
from reidkit.errors import CheckpointError, did_you_mean, short
from reidkit.models import Embedder
from reidkit.models.timm import TimmBackbone

__all__ = ["WeightsReport", "import_weights", "locate", "read_weights"]

Shape = tuple[int, ...]

# Counters of batch norms, which older files lack, and tables of places in a Swin's windows: no result depends
# on the first, and the others follow from the architecture.
_NOT_LEARNED = ("num_batches_tracked", "relative_position_index", "attn_mask")
_PIXEL_MEAN, _PIXEL_STD = "pixel_mean", "pixel_std"  # FastReID, some versions; in units of 0..255
_POSITIONS = "backbone.network.pos_embed"
# What layers that a network lacks tell of the one that the file was made by.
_HINTS = (
    ("NL_2.", ". The file has non-local blocks: give model.non_local=true"),
    (".bn1.IN.", ". The file has instance normalisation: resnet50_ibn_a has it"),
    (".se.", ". The file has squeeze-and-excitation blocks, which no ResNet here has"),
    ("visual.", ". The file is of a vision-language model such as CLIP, which is not supported"),
)


@dataclass(frozen=True)
class WeightsReport:
    """What became of every weight of the network and of the file.

    Names map to shapes, ``wrong_shape`` to (shape in the network, shape in the file). Names in ``matched``,
    ``missing`` and ``wrong_shape`` are ours, those in ``left_over``, ``dropped`` (classifiers) and
    ``left_out`` (parts that no network here has, and what the caller drops) the file's. Batch norms' counters
    of batches, and what follows from the architecture alone, are in none of them. ``key`` says which of the
    file's sets of weights was taken, ``notes`` what else to know.
    """

    toolkit: str
    matched: Mapping[str, Shape]
    missing: Mapping[str, Shape]
    wrong_shape: Mapping[str, tuple[Shape, Shape]]
    left_over: Mapping[str, Shape]
    dropped: Mapping[str, Shape]
    left_out: Mapping[str, Shape]
    key: str
    notes: tuple[str, ...] = ()

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
            _listed("left out", self.left_out),
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(line for line in lines if line)


def import_weights(
    model: Embedder,
    source: str | Path,
    *,
    key: str | None = None,
    drop: Sequence[str] = (),
    min_share: float = 0.9,
) -> WeightsReport:
    """Fill a network with the weights of a file, where names and shapes agree.

    Position embeddings of another image size are resampled; weights of other floating-point types are
    converted. The report's notes say so.

    Args:
        model: changed only if all goes well.
        source: a path, or an ``https`` address.
        key: which of the file's sets of weights, such as "state_dict_ema"; left out, the one under the usual
            names.
        drop: weights of the file, by the beginning or end of their names, to do without: "sie_embed" of
            TransReID, which an encoder cannot know.
        min_share: the least share of the backbone's weight tensors that must be found in the file, and of the
            file's that must have a place in the network. Tensors are counted, not their values: a network
            with other normalisation layers agrees in nearly all values and is another network all the same.

    Raises:
        CheckpointError: the file cannot be read (see
            :func:`reidkit.encoders.foreign_files.read_weights_file`), holds whole numbers where the network
            has floats, does not fit the network, or embeds by another token or by more than the image.
        DataError: the address cannot be read.
    """
    path = locate(source)
    file = read_weights_file(path, key=key)
    toolkit = toolkit_of(file.tensors)
    dropped = _dropped(path, file.tensors, drop)
    tensors = {name: tensor for name, tensor in file.tensors.items() if name not in dropped}
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(_NOT_LEARNED)}
    named = _our_names(path, tensors, toolkit, own)
    notes = [*_notes_on_sets(file), *_notes_on_types(own, tensors, named), *_notes_on_network(model, toolkit)]
    notes += _fit_position_embedding(model, tensors, named)
    if dropped:
        notes.append(
            f"{', '.join(dropped)} dropped, as asked: embeddings are not those that the network was trained "
            "to give"
        )
    if any(map(toolkit.is_left_out, tensors)):
        notes.append(f"left out are {toolkit.left_out_reason}")
    left_out = [*dropped, *filter(toolkit.is_left_out, tensors)]
    report = _compare(
        own,
        tensors,
        named,
        toolkit,
        left_out={name: _shape(file.tensors[name]) for name in left_out},
        key=file.key,
        notes=tuple(notes),
    )
    _refuse_other_network(path, model, report, min_share)
    _refuse_other_normalisation(path, model, tensors)
    _refuse_other_embedding(path, model, tensors, toolkit)
    model.load_state_dict(_fitting(path, own, tensors, named, report), strict=False)
    return report


def _dropped(path: Path, tensors: Mapping[str, Tensor], drop: Sequence[str]) -> list[str]:
    """The file's names that the caller wants to do without."""
    dropped = []
    for part in drop:
        fitting = [
            name for name in tensors if f".{name}.".startswith(f".{part}.") or name.endswith(f".{part}")
        ]
        if not fitting:
            raise CheckpointError(
                f"{path} has no weight {short(part)!r} to drop;{did_you_mean(part, tensors)} names are "
                "dropped by their beginning or their end"
            )
        dropped += fitting
    return dropped


def _notes_on_sets(file: WeightsFile) -> list[str]:
    if not file.others:
        return []
    others = short(", ".join(map(repr, file.others)), 200)
    return [
        f"weights under {file.key!r} taken; the file has others under {others} (to take them, name their key)"
    ]


def _notes_on_types(
    own: Mapping[str, Tensor], tensors: Mapping[str, Tensor], named: Mapping[str, str]
) -> list[str]:
    kinds = Counter(
        (_kind(tensors[theirs]), _kind(own[ours]))
        for ours, theirs in named.items()
        if ours in own and tensors[theirs].dtype != own[ours].dtype
    )
    return [f"{count} weights converted from {there} to {here}" for (there, here), count in kinds.items()]


def _notes_on_network(model: Embedder, toolkit: Toolkit) -> list[str]:
    """What weights do not say, where the network is built otherwise than is usual with them."""
    notes, backbone = [], getattr(model, "backbone", None)
    pool = getattr(backbone, "maxpool", None)
    if toolkit is FASTREID and getattr(pool, "padding", 0) not in (0, (0, 0)):
        notes.append(
            "FastReID's networks pool without padding after their first convolution (since version 1.0); "
            "model.ceil_pool=true does so here"
        )
    tokens = getattr(backbone, "has_class_token", False) and getattr(backbone, "gives_map", False)
    if tokens and toolkit is not REIDKIT and not toolkit.by_token:
        notes.append(
            "the network has a class token, which most such weights were trained by, and embeds by its "
            "patches; model.pooling=token takes the class token"
        )
    return notes


def _fit_position_embedding(
    model: Embedder, tensors: dict[str, Tensor], named: Mapping[str, str]
) -> list[str]:
    """Put a resampled position embedding in place of the file's, where that is of another image size."""
    theirs = named.get(_POSITIONS)
    backbone = getattr(model, "backbone", None)
    if theirs is None or not isinstance(backbone, TimmBackbone):
        return []
    given, wanted = tensors[theirs], model.state_dict().get(_POSITIONS)
    if wanted is None or given.shape == wanted.shape:
        return []
    fitted = backbone.fit_position_embedding(given)
    if fitted is None:
        return []
    tensors[theirs] = fitted
    return [f"position embedding resampled from {_shape(given)} to {_shape(wanted)}, for another image size"]


def _our_names(
    path: Path, tensors: Mapping[str, Tensor], toolkit: Toolkit, own: Mapping[str, Tensor]
) -> dict[str, str]:
    """Our name -> the file's, for all of the file's weights that have to find a place."""
    named: dict[str, str] = {}
    for name in tensors:
        if name.endswith((*_NOT_LEARNED, *toolkit.side_information)) or name in (_PIXEL_MEAN, _PIXEL_STD):
            continue
        if toolkit.is_classifier(name) or toolkit.is_left_out(name):
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
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    named: Mapping[str, str],
    toolkit: Toolkit,
    **further: Any,
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
        **further,
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
    hint = next((hint for part, hint in _HINTS if any(part in name for name in report.left_over)), "")
    raise CheckpointError(
        f"{path} does not fit {dict(model.description)}: it has {found} of {wanted} weights of the backbone, "
        f"and {used} of its own {given} have a place there; both must be {min_share:.0%} or more "
        f"({', '.join(problems)}){hint}"
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


def _refuse_other_embedding(
    path: Path, model: Embedder, tensors: Mapping[str, Tensor], toolkit: Toolkit
) -> None:
    """Refuse weights that were trained to embed by another token, or by more than the image."""
    problems = []
    if toolkit.by_token and getattr(getattr(model, "backbone", None), "gives_map", True):
        problems.append(
            f"{toolkit.name} embeds by the class token, this network by its patches: give model.pooling=token"
        )
    if toolkit.side_information and (
        known := [name for name in tensors if name.endswith(toolkit.side_information)]
    ):
        problems.append(
            f"{known[0]} is added to every token, by the camera or view of an image, which an encoder is not "
            "told: give --drop sie_embed (drop= in Python) to do without; embeddings are then not the "
            "authors'"
        )
    if problems:
        raise CheckpointError(f"{path} cannot be used as it is: {'; '.join(problems)}")


def _fitting(
    path: Path,
    own: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    named: Mapping[str, str],
    report: WeightsReport,
) -> dict[str, Tensor]:
    """The weights that match, in the network's shapes and types.

    Raises :class:`CheckpointError` where whole numbers would have to be taken for floats, or where a value is
    too large for the network's type.
    """
    fitting = {}
    for name in report.matched:
        ours, theirs = own[name], tensors[named[name]]
        if ours.is_floating_point() != theirs.is_floating_point():
            raise CheckpointError(
                f"{path}: weight {named[name]!r} is of {_kind(theirs)}, where the network has {_kind(ours)}; "
                "whole numbers are weights that were quantised, and mean nothing without their scales: use "
                "the file from before that"
            )
        fitting[name] = theirs.to(ours.dtype).reshape(ours.shape)
        if ours.is_floating_point() and not torch.isfinite(fitting[name]).all():
            raise CheckpointError(f"{path}: weight {named[name]!r} is too large for {_kind(ours)}")
    return fitting


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _in_backbone(name: str) -> bool:
    return not name.startswith(("neck.", "pooling."))


def _shape(tensor: Tensor) -> Shape:
    return tuple(tensor.shape)


def _listed(title: str, named: Mapping[str, object], *, most: int = 6) -> str:
    """One line on a group of weights; an empty text where the group is empty."""
    shown = [f"{name} {text}" for name, text in list(named.items())[:most]]
    more = [f"and {len(named) - most} more"] if len(named) > most else []
    return f"{title} ({len(named)}): {', '.join([*shown, *more])}" if named else ""
