"""``reid index``: images into a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reidkit.cli.images import image_paths, images_argument, labelled_samples, pattern_option

if TYPE_CHECKING:
    from reidkit.encoder import Encoder
    from reidkit.types import Sample

_AT_A_TIME = 512  # images whose embeddings are stored together; an interrupted run keeps what is stored


@click.command("index")
@click.argument("run", type=click.Path(path_type=Path))
@images_argument
@click.option("--gallery", "location", required=True, help="Gallery to fill; made if it is not there.")
@pattern_option
@click.option("--camera", type=int, help="Camera number of all these images.")
def index_command(
    run: Path, images: tuple[Path, ...], location: str, pattern: str | None, camera: int | None
) -> None:
    """Embed IMAGES with RUN and add them to a gallery.

    IMAGES are files, folders, or a table (.csv, .parquet) with the columns path, identity, camera, time.
    An image that the gallery holds already is replaced, so indexing a folder again does no harm.
    """
    from reidkit.encoder import load_encoder
    from reidkit.types import Sample

    labelled = pattern is not None or any(path.suffix.lower() in (".csv", ".parquet") for path in images)
    if labelled:
        samples = labelled_samples(images, pattern)
    else:
        samples = [Sample(path, 0, None, index) for index, path in enumerate(image_paths(images))]
    fill(location, load_encoder(run), run, samples, labelled=labelled, camera=camera)


def fill(
    location: str | Path,
    encoder: Encoder,
    run: Path,
    samples: Sequence[Sample],
    *,
    labelled: bool = True,
    camera: int | None = None,
) -> None:
    """Embed samples and store them, with their labels where they have any."""
    from reidkit.galleries import open_gallery
    from reidkit.tracking import progress

    description = {"path": str(run.resolve()), **encoder.origin}
    with open_gallery(location, encoder=description) as gallery:
        with progress("images indexed") as shown:
            for start in range(0, len(samples), _AT_A_TIME):
                part = samples[start : start + _AT_A_TIME]
                own_cameras = [sample.camera if labelled else None for sample in part]
                gallery.add(
                    encoder.features(tuple(part)).embeddings,
                    sources=[str(sample.path.resolve()) for sample in part],
                    identities=[_name(sample) if labelled else None for sample in part],
                    cameras=own_cameras if camera is None else [camera] * len(part),
                    times=[sample.time for sample in part],
                )
                shown(start + len(part), len(samples))
        click.echo(f"{location}: {len(gallery)} images")


def _name(sample: Sample) -> str:
    return sample.identity_name or str(sample.identity)
