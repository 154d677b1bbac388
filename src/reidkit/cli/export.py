"""``reid export``: an encoder as a file for another runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.options import EncoderPath, pattern_option, refuse
from reidkit.cli.output import print_left_out, say, tell

if TYPE_CHECKING:
    from reidkit.encoders.export import Exported
    from reidkit.types import Sample


@click.command("export")
@click.argument("run", type=EncoderPath())
@click.option(
    "--to",
    type=click.Choice(["onnx", "openvino", "torchscript"]),
    default="onnx",
    show_default=True,
    help="Runtime that the file is for.",
)
@click.option("--int8", is_flag=True, help="In 8-bit integers: smaller and faster, not quite the same.")
@click.option(
    "--images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Crops to compare on, and to find ranges on for --int8: a folder or a table; may be repeated.",
)
@pattern_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="File to write; named after RUN, in this folder, if left out.",
)
def export_command(
    run: Path, to: str, int8: bool, images: tuple[Path, ...], pattern: str | None, out: Path | None
) -> None:
    """Write the encoder of RUN as a file that holds everything from pixels to embeddings.

    \b
    reid export runs/mine
    reid export runs/mine --to openvino --out mine.xml
    reid export runs/mine --int8 --images crops/ --pattern "{identity}_c{camera}_{frame}.jpg"

    The file's embeddings are compared with the network's before it is written. One in 8-bit integers is
    refused where it costs more than half a point of mAP on --images with labels (--pattern, or a table).
    """
    from reidkit.encoders.export import default_path, export_encoder

    if not images:
        refuse({"--pattern": pattern}, "it reads labels of --images; give those, too")
    path = out or default_path(run, to, int8=int8)
    print_exported(export_encoder(run, path, to=to, int8=int8, images=_given(images, pattern)))


def _given(images: Sequence[Path], pattern: str | None) -> Sequence[Path | Sample] | None:
    from reidkit.datasets._given_images import given_images

    if not images:
        return None
    given = given_images(images, pattern=pattern)
    print_left_out(given.left_out)
    return given.images


def print_exported(exported: Exported) -> None:
    for file in exported.files:
        tell(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    say(exported.agreement)
    for note in exported.notes:
        say(f"note: {note}")
