"""``reid encode``: images to a file of features."""

from __future__ import annotations

import io
from pathlib import Path

import click

from reidkit.cli.images import image_paths, images_argument
from reidkit.errors import ConfigError


@click.command("encode")
@click.argument("run", type=click.Path(path_type=Path))
@images_argument
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File to write, .npz."
)
def encode_command(run: Path, images: tuple[Path, ...], out: Path) -> None:
    """Embed IMAGES (files or folders) with RUN into a NumPy file.

    The file holds `embeddings` (N, D), unit float32, and `paths` (N,).
    """
    import numpy as np

    from reidkit.encoder import load_encoder
    from reidkit.files import write_atomically
    from reidkit.tracking import progress

    if out.suffix != ".npz":
        raise ConfigError(f"--out {out}: the file must end in .npz")
    paths = image_paths(images)
    encoder = load_encoder(run)
    with progress("images embedded") as shown:
        embeddings = encoder.encode(paths, progress=shown)
    buffer = io.BytesIO()
    np.savez(buffer, embeddings=embeddings, paths=np.array([str(path) for path in paths]))
    write_atomically(out, buffer.getbuffer())
    click.echo(f"{out}: {len(paths)} embeddings of {encoder.dim} values")
