"""``reid import-weights``: weights of another toolkit, as an encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

from reidkit import config
from reidkit.cli.output import json_option, print_json, say
from reidkit.errors import CheckpointError, ConfigError


@click.command("import-weights")
@click.argument("source", metavar="FILE_OR_URL")
@click.argument("options", nargs=-1, metavar="[model.OPTION=VALUE]...")
@click.option("--model", "name", required=True, help="Network that the weights are for; `reid list models`.")
@click.option("--height", type=click.IntRange(min=1), default=256, show_default=True, help="Pixels.")
@click.option("--width", type=click.IntRange(min=1), default=128, show_default=True, help="Pixels.")
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
    out: Path | None,
    as_json: bool,
) -> None:
    """Make an encoder of the weights in FILE_OR_URL, and say what matched.

    Read are .pth, .pt, .pth.tar and .safetensors files of Torchreid, FastReID, reid-strong-baseline,
    torchvision and timm, by path or https address. Nothing in them is executed.
    """
    from reidkit.encoder import Encoder, check_encoder
    from reidkit.models import build_model
    from reidkit.provenance import versions
    from reidkit.weights import import_weights, locate

    model = build_model(name, **_model_options(options))
    path = locate(source, say=say)
    out = out or Path(f"{path.name.partition('.')[0]}.safetensors")
    if out.exists() and out.samefile(path):
        raise ConfigError(f"{out} is the file to read; give --out another name")
    report = import_weights(model, path)
    if report.untrained:
        raise CheckpointError(
            f"{path} lacks {len(report.untrained)} weights of {name} (first: {report.untrained[0]}), which "
            "would embed by chance; choose the network that the file is for, and a neck that it has "
            "(model.neck=plain is none)"
        )
    card = {"weights": {"source": source, "toolkit": report.toolkit}, "versions": versions()}
    encoder = Encoder(model, height=height, width=width, card=card)
    check_encoder(encoder)
    encoder.save(out)
    if as_json:
        print_json(
            {**dataclasses.asdict(report), "backbone": report.backbone, "used": report.used, "out": out}
        )
    else:
        click.echo(str(report))
    say(f"wrote {out}: {encoder.dim} values an embedding, fingerprint {encoder.fingerprint}")


def _model_options(overrides: tuple[str, ...]) -> dict[str, Any]:
    tree = config.parse_options(overrides)
    if others := tree.keys() - {"model"}:
        raise ConfigError(
            f"{', '.join(sorted(others))}: only options of the model can be set, model.OPTION=VALUE"
        )
    options: dict[str, Any] = tree.get("model", {})
    return options
