"""Images, or a data set's test images, embedded into a file of features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from reidkit.encoders.encoder import Encoder
from reidkit.errors import DataError
from reidkit.evaluation.feature_files import save_embeddings, save_features
from reidkit.evaluation.features import EmbeddedImages, distinct_images
from reidkit.progress import ProgressCallback
from reidkit.types import Dataset


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """How many images a file holds, and why others are not in it."""

    num_images: int
    left_out: tuple[DataError, ...]


def encode_images(
    encoder: Encoder,
    paths: Sequence[Path],
    out: Path,
    *,
    wanted: Collection[Path] = (),
    progress: ProgressCallback | None = None,
) -> EncodedImages:
    """Embed images into a file.

    Args:
        encoder: what embeds.
        paths: images.
        out: file, as :func:`reidkit.evaluation.feature_files.save_embeddings` takes it.
        wanted: images that must be in the file; others that cannot be read are left out.
        progress: called with (done, total) as images are embedded.

    Raises :class:`DataError` where one of those wanted cannot be read, or none at all.
    """
    unread: dict[int, DataError] = {}

    def skip(place: int, error: DataError) -> None:
        if paths[place] in wanted:
            raise error
        unread[place] = error

    embeddings = encoder.encode(paths, progress=progress, skip=skip)
    if not len(embeddings):
        raise DataError(f"none of the {len(paths)} images could be read; the first: {unread[0]}")
    save_embeddings(out, embeddings, paths=[path for n, path in enumerate(paths) if n not in unread])
    return EncodedImages(len(embeddings), tuple(unread.values()))


def encode_data(
    encoder: Encoder, data: Dataset, out: Path, *, progress: ProgressCallback | None = None
) -> None:
    """Embed a data set's query and gallery into a file of features; each image is embedded once.

    Raises :class:`DataError` where the set has no test part.
    """
    from reidkit.evaluation.evaluation import check_test_part, images_to_encode  # images alone need no scipy

    check_test_part(data)
    images = distinct_images(images_to_encode(data))
    source = EmbeddedImages(images, encoder.features(images, progress=progress).embeddings)
    save_features(
        out,
        source.features(data.query),
        source.features(data.gallery) if data.gallery else None,
        query_paths=[sample.path for sample in data.query],
        gallery_paths=[sample.path for sample in data.gallery],
    )
