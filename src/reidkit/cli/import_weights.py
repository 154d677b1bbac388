"""``reid import-weights``: weights of another toolkit, as an encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit import config
from reidkit.cli.output import json_option, print_json, say, tell
from reidkit.errors import CheckpointError, ConfigError, shown

if TYPE_CHECKING:
    from reidkit.weights import WeightsReport


@click.command("import-weights")
@click.argument("source", metavar="FILE_OR_URL")
@click.argument("options", nargs=-1, metavar="[model.OPTION=VALUE]...")
@click.option("--model", "name", required=True, help="Network that the weights are for; `reid list models`.")
@click.option("--height", type=click.IntRange(min=1), default=256, show_default=True, help="Pixels.")
@click.option("--width", type=click.IntRange(min=1), default=128, show_default=True, help="Pixels.")
@click.option(
    "--weights",
    "key",
    metavar="KEY",
    help="Which set of weights, where FILE holds several: state_dict_ema, teacher, ...",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="NAME",
    help="Do without weights of that name, such as sie_embed of TransReID; repeatable.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Encoder to write, .safetensors; named after the file, in this folder, if left out.",
)
@json_option
def import_weights_command(
    source: str,
    options: tuple[str, ...],
    name: str,
    height: int,
    width: int,
    key: str | None,
    drop: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Make an encoder of the weights in FILE_OR_URL, and say what matched.

    Read are PyTorch and safetensors files of Torchreid, FastReID, reid-strong-baseline, TransReID,
    torchvision and timm, by path or https address. Nothing in them is executed.
    """
    from reidkit.encoder import Encoder, check_encoder
    from reidkit.models import build_model
    from reidkit.provenance import versions
    from reidkit.weights import import_weights, locate

    model = build_model(name, **_model_options(options))
    path = locate(source)
    out = out or Path(f"{path.name.partition('.')[0]}.safetensors")
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError(f"{out} is the file to read; give --out another name")
    report = import_weights(model, path, key=key, drop=drop)
    if report.untrained:
        raise CheckpointError(_explain_untrained(path, name, report))
    weights = {"source": source, "toolkit": report.toolkit, "key": report.key, "notes": list(report.notes)}
    card = {"weights": weights, "versions": versions()}
    encoder = Encoder(model, height=height, width=width, card=card)
    check_encoder(encoder)
    encoder.save(out)
    if as_json:
        print_json(
            {**dataclasses.asdict(report), "backbone": report.backbone, "used": report.used, "out": out}
        )
    else:
        tell(str(report))
    say(f"wrote {out}: {encoder.dim} values an embedding, fingerprint {encoder.fingerprint}")


def _explain_untrained(path: Path, model: str, report: WeightsReport) -> str:
    first, count = report.untrained[0], len(report.untrained)
    if first in report.wrong_shape:
        ours, theirs = report.wrong_shape[first]
        cause = f"{first} is {theirs} in the file and {ours} in {model}"
        if first.endswith("pos_embed"):
            return (
                f"{path}: {cause}: position embeddings of another image size, which cannot be resampled "
                "since their patches are no square; give the image size that they were trained for, "
                "model.image_size, --height and --width, and model.patch_stride where patches overlap"
            )
    else:
        cause = f"the file has no {first}"
    return (
        f"{path} does not give {count} of the weights of {model}, which would embed by chance: {cause}; "
        "choose the network that the file is for, and a neck that it has (model.neck=plain is none)"
    )


def _model_options(overrides: tuple[str, ...]) -> dict[str, Any]:
    tree = config.parse_options(overrides)
    if others := tree.keys() - {"model"}:
        raise ConfigError(
            f"{', '.join(sorted(others))}: only options of the model can be set, model.OPTION=VALUE"
        )
    options = tree.get("model", {})
    if not isinstance(options, dict):
        raise ConfigError(f"model = {shown(options)}: give options of the model, model.OPTION=VALUE")
    if "name" in options:
        raise ConfigError("model.name: the network is named by --model")
    return options
