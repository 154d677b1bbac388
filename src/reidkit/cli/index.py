"""``reid index``: images into a gallery."""

from __future__ import annotations

from pathlib import Path

import click

from reidkit.cli.images import image_paths, images_argument, labelled_samples, pattern_option

_AT_A_TIME = 512


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
    from reidkit.galleries import open_gallery
    from reidkit.tracking import progress
    from reidkit.types import Sample

    if pattern is not None or any(path.suffix.lower() in (".csv", ".parquet") for path in images):
        samples = labelled_samples(images, pattern)
        identities = [sample.identity_name or str(sample.identity) for sample in samples]
        cameras = [sample.camera if camera is None else camera for sample in samples]
        times = [sample.time for sample in samples]
    else:
        samples = [Sample(path, 0, 0, i) for i, path in enumerate(image_paths(images))]
        identities, cameras, times = [None] * len(samples), [camera] * len(samples), [None] * len(samples)

    encoder = load_encoder(run)
    description = {"path": str(run.resolve()), "fingerprint": encoder.fingerprint}
    with open_gallery(location, encoder=description) as gallery, progress("images indexed") as shown:
        for start in range(0, len(samples), _AT_A_TIME):
            part = slice(start, start + _AT_A_TIME)
            gallery.add(
                encoder.features(tuple(samples[part])).embeddings,
                sources=[str(sample.path.resolve()) for sample in samples[part]],
                identities=identities[part],
                cameras=cameras[part],
                times=times[part],
            )
            shown(min(start + _AT_A_TIME, len(samples)), len(samples))
        click.echo(f"{location}: {len(gallery)} images")
