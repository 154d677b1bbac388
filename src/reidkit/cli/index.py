"""``reid index``: images into a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli import completion
from reidkit.cli.options import EncoderPath, backend_option, column_option, named_columns, pattern_option
from reidkit.cli.output import NUM_LISTED, print_left_out, say, say_next, tell
from reidkit.texts.printable import counted

if TYPE_CHECKING:
    from reidkit.galleries._storage import Storage
    from reidkit.search.pictures import Added


@click.command("index")
@click.argument("words", metavar="[RUN] IMAGES...", nargs=-1, required=True, type=EncoderPath())
@click.option(
    "--gallery",
    "location",
    shell_complete=completion.galleries,
    required=True,
    help="Gallery to fill; made if it is not there.",
)
@pattern_option
@column_option
@click.option(
    "--storage",
    type=click.Choice(["float32", "float16", "int8"]),
    help="How a gallery that is made keeps its embeddings: float16 takes half the bytes; of int8, searches "
    "read a quarter.  [default: float32]",
)
@click.option("--camera", help="Camera of all these images: a number or a name.")
@click.option(
    "--thumbnails",
    is_flag=True,
    help="Keep a small picture of each, to be shown when the picture itself is gone; some 4 kB each.",
)
@backend_option
def index_command(
    words: tuple[Path, ...],
    location: str,
    pattern: str | None,
    columns: tuple[str, ...],
    storage: Storage | None,
    camera: str | None,
    thumbnails: bool,
    backend: str,
) -> None:
    """Embed IMAGES with RUN and add them to a gallery.

    RUN is a run folder or a network's file (.safetensors, .onnx, .xml); a gallery that is there already
    knows the one that filled it. IMAGES are files, folders, or a table (.csv, .tsv, .parquet) with the
    columns path, identity, camera, tracklet, time, of which all but path may be absent; --column says what
    they are called where not so. What the gallery holds already is not embedded again, even if it was moved
    or renamed, so that an interrupted run goes on where it stopped. Images that cannot be read are left out
    and listed.
    """
    from reidkit.checks.labels import example_reading
    from reidkit.datasets._given_images import given_images
    from reidkit.encoders.at_hand import encoder_and_pictures
    from reidkit.progress import progress
    from reidkit.search.filling import searcher_to_fill

    run, images = encoder_and_pictures(words)
    given = given_images(images, pattern=pattern, column=named_columns(columns), needs_identity=False)
    print_left_out(given.left_out)
    if given.samples:
        say(f"labels as read, for example {example_reading(given.samples)}")
    with searcher_to_fill(location, images, encoder=run, backend=backend, storage=storage) as searcher:
        print_conversion(searcher.converted, searcher.location)
        with progress("images indexed") as shown:
            added = searcher.add(given.images, camera=camera, thumbnails=thumbnails, progress=shown)
        print_added(added, searcher.location, len(searcher))
    say_next("search", added.first_read(given.paths) or "IMAGE", "--gallery", searcher.location)


def print_added(added: Added, location: str | Path, num_images: int) -> None:
    """What became of the images, and how many there are now."""
    say(added)
    for _, reason in added.unreadable[:NUM_LISTED]:
        say(f"  {reason}")
    if added.unreadable[NUM_LISTED:]:
        say(f"  and {len(added.unreadable) - NUM_LISTED:,} more")
    tell(f"{location}: {counted(num_images, 'image')}")


def print_conversion(converted: bool, location: str | Path) -> None:
    if converted:
        say(
            f"{location} was written by reidkit 0.1 and has been converted, so that reidkit 0.1 cannot read "
            "it any more"
        )
