"""Images, or a data set's test images, embedded into a file or folder of features."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidkit import logs
from reidkit.encoders.encoded_folder import (
    EncodedFolder,
    EncodedImage,
    OtherContent,
    check_encoded_folder,
    holds_nothing,
    open_encoded_folder,
)
from reidkit.encoders.encoder import Encoder
from reidkit.errors import DataError
from reidkit.evaluation.feature_files import SUFFIXES, check_target, save_embeddings, save_features
from reidkit.evaluation.features import EmbeddedImages, distinct_images
from reidkit.progress import ProgressCallback
from reidkit.types import JUNK, Dataset

logger = logs.get_logger(__name__)

_BLOCK = 256  # images between two moments at which what was done is on the disk


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """How many images a file or folder holds, and why others are not in it.

    Attributes:
        num_images: that have a row.
        num_before: of these, how many had it before: a run that was interrupted had come so far.
        num_repeated: images that were named again, and have one row all the same.
        left_out: why images cannot be read.
    """

    num_images: int
    num_before: int
    num_repeated: int
    left_out: tuple[DataError, ...]


def check_encoding_target(out: Path) -> None:
    """Refuse, before the work, a place that embeddings of images could not be written to.

    A name without an ending is a folder. Raises as :func:`reidkit.evaluation.feature_files.check_target` and
    :func:`reidkit.encoders.encoded_folder.check_encoded_folder` do.
    """
    if _is_folder(out):
        check_encoded_folder(out)
    else:
        check_target(out)


def encode_images(
    encoder: Encoder,
    paths: Sequence[Path],
    out: Path,
    *,
    wanted: Collection[Path] = (),
    progress: ProgressCallback | None = None,
) -> EncodedImages:
    """Embed images into a file or a folder; run again after a stop, it goes on where it was.

    Memory does not grow with the number of images, but for their paths (and for Parquet, whose writer wants
    all at once). Until a file is whole, what was done lies in a hidden folder beside it.

    Args:
        encoder: what embeds.
        paths: images.
        out: file, as :func:`reidkit.evaluation.feature_files.save_embeddings` takes it; or a folder of
            ``embeddings.npy``, ``paths.npy`` and ``identities.npy`` (-1, since nothing is known of them),
            which :func:`reidkit.load_features` maps into memory. More images can be added to a folder.
        wanted: images that must be in the file; others that cannot be read are left out.
        progress: called with (done, total) as images are embedded.

    Raises:
        DataError: one of those wanted cannot be read, or none at all.
        ConfigError: the folder holds embeddings of another encoder, of images that are not among those given,
            or that were changed since; or another process fills it.
    """
    check_encoding_target(out)
    if _is_folder(out):
        return _fill(encoder, paths, out, wanted=wanted, progress=progress)
    folder = out.with_name(f".{out.name}.unfinished")
    try:
        encoded = _fill(encoder, paths, folder, wanted=wanted, progress=progress)
    except OtherContent as error:
        logger.info(f"begun anew: {error}")
        shutil.rmtree(folder)
        encoded = _fill(encoder, paths, folder, wanted=wanted, progress=progress)
    _write_file(folder, out)
    shutil.rmtree(folder)
    return encoded


def _fill(
    encoder: Encoder,
    paths: Sequence[Path],
    out: Path,
    *,
    wanted: Collection[Path],
    progress: ProgressCallback | None,
) -> EncodedImages:
    was_there = out.exists()
    try:
        return _filled(encoder, paths, out, wanted=wanted, progress=progress)
    except DataError:
        if not was_there and holds_nothing(out):
            shutil.rmtree(out)
        raise


def _filled(
    encoder: Encoder,
    paths: Sequence[Path],
    out: Path,
    *,
    wanted: Collection[Path],
    progress: ProgressCallback | None,
) -> EncodedImages:
    distinct = list(dict.fromkeys(paths))
    unread: list[DataError] = []
    with open_encoded_folder(out, encoder) as folder:
        num_before = len(folder.images)
        left = _left_to_embed(folder, distinct)
        encoder.expect(len(left))
        for start in range(0, len(left), _BLOCK):
            block = left[start : start + _BLOCK]
            unread += _append_block(encoder, folder, block, wanted)
            if progress is not None:
                progress(num_before + start + len(block), len(distinct))
        if progress is not None and not left:
            progress(len(distinct), len(distinct))
        if not folder.images:
            raise DataError(f"none of the {len(paths)} images could be read; the first: {unread[0]}")
        num_rows = len(folder.images)
        names = np.array([image.path for image in folder.images], dtype=np.str_)
        folder.finish({"paths": names, "identities": np.full(num_rows, JUNK, dtype=np.int64)})
    return EncodedImages(num_rows, num_before, len(paths) - len(distinct), tuple(unread))


def _append_block(
    encoder: Encoder, folder: EncodedFolder, block: Sequence[Path], wanted: Collection[Path]
) -> list[DataError]:
    """Embed some images; returns why others cannot be."""
    unread: dict[int, DataError] = {}

    def skip(place: int, error: DataError) -> None:
        if block[place] in wanted:
            raise error
        unread[place] = error

    images = [EncodedImage.of(path) for path in block]  # before they are read
    embeddings = encoder.encode(block, skip=skip)
    folder.append(embeddings, [image for place, image in enumerate(images) if place not in unread])
    return list(unread.values())


def _left_to_embed(folder: EncodedFolder, paths: Sequence[Path]) -> list[Path]:
    """Images without a row.

    Raises :class:`OtherContent` where a row is of an image that is not given, or not as it was.
    """
    given = {str(path) for path in paths}
    for image in folder.images:
        if image.path not in given:
            raise OtherContent(
                f"{folder.folder} holds {image.path}, which is not among the images given; give that, too, "
                "or choose another folder"
            )
        if image != EncodedImage.of(Path(image.path)):
            raise OtherContent(
                f"{folder.folder} holds {image.path} as it was before it was changed; choose another folder, "
                "or delete this one"
            )
    there = {image.path for image in folder.images}
    return [path for path in paths if str(path) not in there]


def _write_file(folder: Path, out: Path) -> None:
    embeddings, paths = (
        np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("embeddings", "paths")
    )
    if out.suffix.lower() != ".npz":
        save_embeddings(out, embeddings, paths=paths.tolist())
        return
    unfinished = folder / "features.npz"
    with unfinished.open("wb") as file:  # written piece by piece, out of the mapped rows
        np.savez(file, embeddings=embeddings, paths=paths)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(out)


def _is_folder(out: Path) -> bool:
    return out.suffix.lower() not in SUFFIXES and (not out.suffix or out.is_dir())


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
