"""``reid import-weights``: weights of another toolkit, as an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from reidkit import config
from reidkit.cli import completion
from reidkit.cli.output import json_option, print_json, say, tell
from reidkit.errors import ConfigError, shown


@click.command("import-weights")
@click.argument("source", metavar="FILE_OR_URL")
@click.argument("options", nargs=-1, metavar="[model.OPTION=VALUE]...")
@click.option(
    "--model",
    "name",
    required=True,
    shell_complete=completion.models,
    help="Network that the weights are for; `reid list models`.",
)
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
    from reidkit.encoders.foreign_encoder import WantedNetwork, import_encoder

    wanted = WantedNetwork(name, _model_options(options), height=height, width=width, key=key, drop=drop)
    imported = import_encoder(source, wanted, out=out)
    print_json(imported.as_dict()) if as_json else tell(imported.report, lines=True)
    encoder = imported.encoder
    say(f"wrote {imported.file}: {encoder.dim} values an embedding, fingerprint {encoder.fingerprint}")


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
