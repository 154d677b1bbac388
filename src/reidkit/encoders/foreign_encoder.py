"""Weights of another toolkit made an encoder of one's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reidkit.encoders.check_encoder import check_encoder
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.foreign_weights import WeightsReport, import_weights, locate
from reidkit.errors import CheckpointError, ConfigError
from reidkit.models import build_model
from reidkit.provenance import versions


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """What is wanted of a file of weights.

    Attributes:
        model: network that they are for, with its ``options``.
        height, width: pixels of its images.
        key: which set of weights, where the file holds several.
        drop: names of weights to do without.
    """

    model: str
    options: Mapping[str, Any]
    height: int = 256
    width: int = 128
    key: str | None = None
    drop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ImportedEncoder:
    """An encoder, where it was written, and what became of each weight."""

    encoder: Encoder
    file: Path
    report: WeightsReport

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = dataclasses.asdict(self.report)
        return {**values, "backbone": self.report.backbone, "used": self.report.used, "out": str(self.file)}


def import_encoder(source: str, wanted: WantedNetwork, *, out: Path | None = None) -> ImportedEncoder:
    """Build a network, give it weights from a file or address, try it, and write it as an encoder.

    Args:
        source: a path, or an https address.
        wanted: the network, and which weights.
        out: file to write, .safetensors; named after the source, in the current folder, where left out.

    Raises:
        ConfigError: unknown network or option; ``out`` is the file to read.
        CheckpointError: the file cannot be read, is not for this network, or would leave weights untrained.
    """
    model = build_model(wanted.model, **wanted.options)
    path = locate(source)
    out = out or Path(f"{path.name.partition('.')[0]}.safetensors")
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError(f"{out} is the file to read; give out another name")
    report = import_weights(model, path, key=wanted.key, drop=tuple(wanted.drop))
    if report.untrained:
        raise CheckpointError(_explain_untrained(path, wanted.model, report))
    weights = {"source": source, "toolkit": report.toolkit, "key": report.key, "notes": list(report.notes)}
    card = {"weights": weights, "versions": versions()}
    encoder = Encoder(model, height=wanted.height, width=wanted.width, card=card)
    check_encoder(encoder)
    return ImportedEncoder(encoder, encoder.save(out), report)


def _explain_untrained(path: Path, model: str, report: WeightsReport) -> str:
    first, count = report.untrained[0], len(report.untrained)
    if first in report.wrong_shape:
        ours, theirs = report.wrong_shape[first]
        cause = f"{first} is {theirs} in the file and {ours} in {model}"
        if first.endswith("pos_embed"):
            return (
                f"{path}: {cause}: position embeddings of another image size, which cannot be resampled "
                "since their patches are no square; give the image size that they were trained for, "
                "model.image_size, height and width, and model.patch_stride where patches overlap"
            )
    else:
        cause = f"the file has no {first}"
    return (
        f"{path} does not give {count} of the weights of {model}, which would embed by chance: {cause}; "
        "choose the network that the file is for, and a neck that it has (model.neck=plain is none)"
    )
