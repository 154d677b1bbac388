"""``reid index``: images into a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.images import image_paths, images_argument, is_table, labelled_samples, pattern_option
from reidkit.cli.output import say, tell

if TYPE_CHECKING:
    from reidkit.search import Searcher
    from reidkit.types import Sample

_NUM_LISTED = 20  # images that could not be read


@click.command("index")
@click.argument("run", type=click.Path(path_type=Path))
@images_argument
@click.option("--gallery", "location", required=True, help="Gallery to fill; made if it is not there.")
@pattern_option
@click.option("--camera", help="Camera of all these images: a number or a name.")
def index_command(
    run: Path, images: tuple[Path, ...], location: str, pattern: str | None, camera: str | None
) -> None:
    """Embed IMAGES with RUN and add them to a gallery.

    IMAGES are files, folders, or a table (.csv, .tsv, .parquet) with the columns path, identity, camera,
    time. What the gallery holds already is not embedded again, even if it was moved or renamed, so that an
    interrupted run goes on where it stopped. Images that cannot be read are left out and listed.
    """
    labelled = pattern is not None or any(map(is_table, images))
    fill(location, run, labelled_samples(images, pattern) if labelled else image_paths(images), camera=camera)


def fill(
    location: str | Path, run: Path, images: list[Sample] | list[Path], *, camera: str | None = None
) -> None:
    """Embed images and store them, with their labels where they are samples; say what became of them."""
    from reidkit.search import Searcher
    from reidkit.tracking import progress

    with Searcher(location, encoder=run) as searcher:
        say_if_converted(searcher)
        with progress("images indexed") as shown:
            added = searcher.add(images, camera=camera, progress=shown)
        say(str(added))
        for _, reason in added.unreadable[:_NUM_LISTED]:
            say(f"  {reason}")
        if added.unreadable[_NUM_LISTED:]:
            say(f"  and {len(added.unreadable) - _NUM_LISTED:,} more")
        tell(f"{location}: {len(searcher)} images")


def say_if_converted(searcher: Searcher) -> None:
    if searcher.converted:
        say(
            f"{searcher.location} was written by reidkit 0.1 and has been converted, so that reidkit 0.1 "
            "cannot read it any more"
        )
