"""``reid encode``: images to a file of features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit import config
from reidkit.cli.data import choose, load, refuse
from reidkit.cli.images import image_paths
from reidkit.cli.output import say, tell
from reidkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.types import Dataset

NUM_SHOWN = 5


@click.command("encode")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, type=click.Path(path_type=Path))
@click.option("--data", help="Embed the query and gallery images of a data set of this layout.")
@click.option("--root", type=click.Path(path_type=Path), help="Where the data set lies.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Of the data set; may be repeated."
)
@click.option("--feature", help="Embed by this feature of the network: global, local, ... of JLML.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write: .npz or .parquet.",
)
def encode_command(
    run: Path,
    images: tuple[Path, ...],
    data: str | None,
    root: Path | None,
    options: tuple[str, ...],
    feature: str | None,
    out: Path,
) -> None:
    """Embed IMAGES (files or folders), or the test images of a data set, with RUN into a file.

    \b
    reid encode runs/mine photos/ --out photos.npz
    reid encode runs/mine --data market1501 --root data/ --out features.npz
    reid evaluate features.npz

    An image below a folder that cannot be read is left out, and told at the end; one named by itself is an
    error. Of IMAGES the file holds `embeddings` (N, D), unit float32, and `paths` (N,). Of a data set it
    holds `query_embeddings`, `query_identities`, `query_cameras`, `query_paths` and the same of the gallery,
    as `reid evaluate` and `reid compare` read them. A .parquet file has columns of these.
    """
    from reidkit.encoder import load_encoder
    from reidkit.feature_files import check_target

    check_target(out)
    if images:
        refuse({"--data": data, "--root": root, "--option": options}, "give either images or a data set")
        paths = image_paths(images)  # first: what is wrong there is said before the network is loaded
        _encode_images(load_encoder(run, feature=feature), paths, set(images), out)
    elif data is None and root is None and not (run / "config.toml").is_file():
        raise ConfigError("nothing to embed; give images, or a data set by --data NAME --root FOLDER")
    else:
        dataset = load(choose(run, data, root, config.parse_options(options)), None)[0]
        _encode_data(load_encoder(run, feature=feature), dataset, out)


def _encode_images(encoder: Encoder, paths: list[Path], named: set[Path], out: Path) -> None:
    from reidkit.feature_files import save_embeddings
    from reidkit.tracking import progress

    unread: dict[int, DataError] = {}

    def skip(place: int, error: DataError) -> None:
        if paths[place] in named:  # somebody wants this very one
            raise error
        unread[place] = error

    with progress("images embedded") as shown:
        embeddings = encoder.encode(paths, progress=shown, skip=skip)
    if not len(embeddings):
        raise DataError(f"none of the {len(paths)} images could be read; the first: {unread[0]}")
    save_embeddings(out, embeddings, paths=[path for n, path in enumerate(paths) if n not in unread])
    tell(f"{out}: {len(embeddings)} embeddings of {encoder.dim} values")
    if unread:
        say(f"left out: {len(unread)} of {len(paths)} images, which could not be read:")
        for error in list(unread.values())[:NUM_SHOWN]:
            say(f"  {error}")
        if len(unread) > NUM_SHOWN:
            say("  ...; `reid check folder` names them all")


def _encode_data(encoder: Encoder, dataset: Dataset, out: Path) -> None:
    from reidkit.cli.scoring import Scoring, embed
    from reidkit.evaluation import check_test_part, own_camera_filter
    from reidkit.feature_files import save_features

    check_test_part(dataset)
    source = embed(encoder, [dataset], Scoring())
    save_features(
        out,
        source.features(dataset.query),
        source.features(dataset.gallery) if dataset.gallery else None,
        query_paths=[sample.path for sample in dataset.query],
        gallery_paths=[sample.path for sample in dataset.gallery],
    )
    counts = f"{len(dataset.query)} query and {len(dataset.gallery)} gallery embeddings"
    tell(f"{out}: {counts} of {encoder.dim} values")
    if dataset.galleries is not None:
        say("note: each query of this set has a gallery of its own, which the file does not hold")
    rules = f"--protocol {dataset.protocol} --camera-filter {own_camera_filter(dataset)}"
    say(f"next: reid evaluate {out} {rules}")
