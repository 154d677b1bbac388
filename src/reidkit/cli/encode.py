"""``reid encode``: images to a file of features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from reidkit import config
from reidkit.cli import completion
from reidkit.cli.options import EncoderPath, backend_option, refuse, views_option
from reidkit.cli.output import print_left_out, say, say_next, tell
from reidkit.errors import ConfigError
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.encoders.encoding import EncodedImages
    from reidkit.reports.chosen_data import Wanted

NUM_SHOWN = 20


@click.command("encode")
@click.argument("run", type=EncoderPath())
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--data",
    shell_complete=completion.layouts,
    help="Embed the query and gallery images of a data set of this layout.",
)
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the data set; may be repeated."
)
@click.option("--feature", help="Embed by this feature of the network: global, local, ... of JLML.")
@views_option
@backend_option
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, .npz or .parquet; or for IMAGES a folder of .npy files.",
)
def encode_command(
    run: Path,
    images: tuple[Path, ...],
    data: str | None,
    root: Path | None,
    options: tuple[str, ...],
    out: Path,
    **loading: Unpack[_Loading],
) -> None:
    """Embed IMAGES (files or folders), or the test images of a data set, with RUN into a file.

    \b
    reid encode runs/mine photos/ --out photos.npz
    reid encode runs/mine photos/ --out features/
    reid encode runs/mine --data market1501 --root data/ --out features.npz
    reid evaluate features.npz

    An image below a folder that cannot be read is left out, and told at the end; one named by itself is an
    error. The same command again goes on where the first was stopped. A folder is for any number of images:
    its rows are read from the disk as they are needed, and more images can be added to it.

    Of IMAGES the file holds `embeddings` (N, D), unit float32, and `paths` (N,). Of a data set it holds
    `query_embeddings`, `query_identities`, `query_cameras`, `query_paths` and the same of the gallery, as
    `reid evaluate` and `reid compare` read them. A .parquet file has columns of these.
    """
    from reidkit.encoders.encoding import check_encoding_target
    from reidkit.evaluation.feature_files import check_target

    if images:
        check_encoding_target(out)
        refuse({"--data": data, "--root": root, "--option": options}, "give either images or a data set")
        _encode_images(run, images, loading, out)
    elif data is None and root is None and not (run / "config.toml").is_file():
        raise ConfigError("nothing to embed; give images, or a data set by --data NAME --root FOLDER")
    else:
        from reidkit.reports.chosen_data import Wanted

        check_target(out)
        _encode_data(
            run,
            Wanted(data, root, config.parse_options(options)),
            loading,
            out,
        )


class _Loading(TypedDict):
    """How the encoder is loaded."""

    feature: str | None
    views: str | None
    backend: str


def _encode_images(run: Path, images: tuple[Path, ...], loading: _Loading, out: Path) -> None:
    from reidkit.datasets._given_images import image_paths
    from reidkit.encoders.encoding import encode_images
    from reidkit.encoders.loading import load_encoder
    from reidkit.progress import progress

    given = image_paths(images)  # first: what is wrong there is said before the network is loaded
    print_left_out(given.left_out)
    encoder = load_encoder(run, **loading)
    with progress("images embedded") as shown:
        encoded = encode_images(encoder, given.paths, out, wanted=set(images), progress=shown)
    tell(f"{out}: {counted(encoded.num_images, 'embedding')} of {encoder.dim} values")
    print_encoded(encoded, len(given.paths))


def print_encoded(encoded: EncodedImages, num_images: int) -> None:
    if encoded.num_before:
        say(f"of these, {encoded.num_before:,} were there before")
    if encoded.num_repeated:
        say(f"named more than once, and embedded once: {counted(encoded.num_repeated, 'image')}")
    errors = encoded.left_out
    if not errors:
        return
    say(f"left out: {len(errors)} of {counted(num_images, 'image')}, which could not be read:")
    for error in errors[:NUM_SHOWN]:
        say(f"  {error}")
    if len(errors) > NUM_SHOWN:
        say("  ...; `reid check folder` names them all")


def _encode_data(run: Path, wanted: Wanted, loading: _Loading, out: Path) -> None:
    from reidkit.encoders.encoding import encode_data
    from reidkit.encoders.loading import load_encoder
    from reidkit.evaluation.evaluation import own_camera_filter
    from reidkit.progress import progress
    from reidkit.reports.chosen_data import choose_data

    chosen = choose_data(run, wanted)
    if chosen.left_out:
        say(chosen.left_out)
    data = chosen.splits[0]
    encoder = load_encoder(run, **loading)
    with progress("images embedded") as shown:
        encode_data(encoder, data, out, progress=shown)
    counts = f"{len(data.query)} query and {len(data.gallery)} gallery embeddings"
    tell(f"{out}: {counts} of {encoder.dim} values")
    if data.galleries is not None:
        say("note: each query of this set has a gallery of its own, which the file does not hold")
    say_next("evaluate", out, "--protocol", data.protocol, "--camera-filter", own_camera_filter(data))
