"""A trained encoder as a file for another runtime, compared with the network before it is written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reidkit.datasets._given_images import image_paths
from reidkit.datasets.synthetic.clothes import random_person
from reidkit.datasets.synthetic.people import draw_pedestrian
from reidkit.datasets.synthetic.scenes import random_camera
from reidkit.encoders.agreement import Agreement, ExportError, compare_embeddings
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.export_files import (
    check_packages,
    onnx_program,
    preprocessing_of,
    write_onnx,
    write_openvino,
)
from reidkit.encoders.exported_from import ExportedFrom
from reidkit.encoders.loading import load_encoder
from reidkit.encoders.network_file import is_network_file, load_network
from reidkit.encoders.quantise import quantised_programs
from reidkit.encoders.runtimes import EXPORTED_FROM_KEY, METADATA_KEY
from reidkit.encoders.torchscript import embed_by_torchscript, write_torchscript
from reidkit.encoders.views import WHOLE
from reidkit.errors import CheckpointError, ConfigError, DataError, UnknownName
from reidkit.files import write_atomically
from reidkit.images.reading import ImageSource
from reidkit.models import Embedder
from reidkit.types import Sample

SUFFIX_OF = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}
"""Endings of the files, by format."""

NUM_DRAWN = 16
NUM_COMPARED = 64  # images that a float file is compared on

Images: TypeAlias = str | Path | Sequence[ImageSource | Sample]


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, and how near its embeddings come to the network's.

    Attributes:
        files: the one to load first; OpenVINO's weights are a second.
        agreement: of the embeddings.
        notes: what else the reader must know.
    """

    files: tuple[Path, ...]
    agreement: Agreement
    notes: tuple[str, ...] = ()


def export(
    encoder: Encoder | str | Path,
    path: str | Path,
    *,
    to: str = "onnx",
    int8: bool = False,
    images: Images | None = None,
) -> Path:
    """Write an encoder as a file for another runtime; see :func:`export_encoder`.

    Returns:
        The path.
    """
    return export_encoder(encoder, path, to=to, int8=int8, images=images).files[0]


def export_encoder(
    encoder: Encoder | str | Path,
    path: str | Path,
    *,
    to: str = "onnx",
    int8: bool = False,
    images: Images | None = None,
) -> Exported:
    """Write an encoder as a file that holds everything from pixels to unit embeddings.

    Input ``images``: float32 (B, 3, height, width), RGB, 0..255, B free. Output ``embeddings``: float32
    (B, D), of unit length. The file's metadata say the same, and hold the encoder's card with its
    calibration: :func:`reidkit.load_encoder` needs nothing else, and gives an encoder that galleries take for
    the one that was exported. The file is loaded and compared with the network before it is written.

    With ``int8`` weights and activations are 8-bit numbers, on ranges seen on ``images``. Its embeddings are
    near the network's but not equal: it has a fingerprint of its own, and no calibration. It is refused where
    it costs more than :data:`reidkit.encoders.agreement.MAX_LOSS` of mAP, or without labels where embeddings
    turn further than :data:`reidkit.encoders.agreement.MIN_INT8_COSINE`.

    Args:
        encoder: an encoder, or the run folder or file to load it from.
        path: where to; it ends in .onnx, .xml (OpenVINO, with its weights beside it in .bin) or .pt.
        to: "onnx", "openvino" or "torchscript". A TorchScript archive is a program, which
            :func:`reidkit.load_encoder` does not read.
        int8: quantise; ONNX and OpenVINO.
        images: crops to compare on, and to find ranges on: a folder, or images as
            :meth:`reidkit.Encoder.encode` takes them; samples have labels. Drawn people where left out.

    Raises:
        UnknownName: no such format.
        ConfigError: another ending; int8 without images, or for TorchScript.
        DataError: no image can be read.
        ExportError: embeddings that are not finite, or differ between the network and the file; an encoder
            that was itself read from a network file, or embeds several views. Nothing has been written.
        MissingExtra: a package that the format needs is not installed.
    """
    path = Path(path)
    _check_request(path, to, int8=int8, images=images)
    check_packages(to)
    if not isinstance(encoder, Encoder):
        if is_network_file(Path(encoder)):
            raise ExportError(
                f"{encoder} is a network file itself; use it as it is, or export the run or the weights that "
                "it was made from"
            )
        encoder = load_encoder(encoder, backend="torch")
    if encoder.views != WHOLE:
        raise ExportError(
            f"this encoder embeds several views of an image ({encoder.views}), and a file embeds one: export "
            "it with_views('whole'), and give views when the file is loaded"
        )
    if not isinstance(encoder.model, Embedder):
        raise ExportError("this encoder was read from a network file itself; use that file")
    given = _given(images)
    with TemporaryDirectory(prefix="reidkit-export-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, on what they do inside
        draft = (Path(folder) / path.name).with_suffix(SUFFIX_OF[to])
        if to == "torchscript":
            return _export_torchscript(encoder, draft, path, given)
        return _export_program(encoder, draft, path, given, to=to, int8=int8)


def default_path(run: Path, to: str, *, int8: bool = False) -> Path:
    """A file in the current folder, named after a run folder or an encoder's file."""
    name = run.resolve().name.removesuffix(".safetensors")
    return Path(f"{name}{'-int8' if int8 else ''}{SUFFIX_OF[to]}")


def _check_request(path: Path, to: str, *, int8: bool, images: Images | None) -> None:
    if to not in SUFFIX_OF:
        raise UnknownName("format", to, SUFFIX_OF)
    if path.suffix.lower() != SUFFIX_OF[to]:
        raise ConfigError(f"{path}: a file for {to} ends in {SUFFIX_OF[to]}; give it such a name")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file")
    if int8 and to == "torchscript":
        raise ConfigError("int8: torchscript files are not quantised; export to onnx or openvino")
    if int8 and images is None:
        raise ConfigError(
            "int8 needs images, since it is found on them which values to expect; give a hundred or more "
            "crops of your cameras, best with labels, as images"
        )


def _given(images: Images | None) -> list[ImageSource | Sample]:
    if images is None:
        return []
    if isinstance(images, str | Path):
        return list(image_paths([Path(images)]).paths)
    if not len(images):
        raise DataError("no images were given to compare on; give some, or none at all for drawn ones")
    return list(images)


def _export_program(
    encoder: Encoder, draft: Path, path: Path, given: list[ImageSource | Sample], *, to: str, int8: bool
) -> Exported:
    """An ONNX file, or what OpenVINO makes of one."""
    compared = given if int8 else spaced(given, NUM_COMPARED)
    expected = _Expected(encoder, compared)
    program = onnx_program(encoder)
    if not int8:
        written = write_encoder(encoder, program, draft, to=to)
        agreement = expected.compared_with(written, int8=False)
        agreement.check()
        return Exported(publish(draft, path), agreement, expected.notes)
    for attempt in quantised_programs(encoder, program, expected.images):
        written = write_encoder(encoder, attempt, draft, to=to, int8=True)
        agreement = expected.compared_with(written, int8=True)
        if agreement.is_enough:
            break
    agreement.check()
    notes = (
        *expected.notes,
        "its embeddings are its own: fill a new gallery with it",
        *(["the calibration is left out, since it is of other scores"] if encoder.calibration else []),
    )
    return Exported(publish(draft, path), agreement, notes)


class _Expected:
    """Images that can be read, and the network's embeddings of them."""

    def __init__(self, encoder: Encoder, images: list[ImageSource | Sample]) -> None:
        self.drawn = not images
        images = images or [*drawn_people(encoder.height, encoder.width)]
        unread: dict[int, DataError] = {}
        try:
            self.embeddings = encoder.encode(images, skip=unread.__setitem__)
        except DataError as error:
            raise ExportError(str(error)) from error
        self.images = [image for place, image in enumerate(images) if place not in unread]
        if not self.images:
            raise DataError(f"none of the {len(images)} images can be read; the first: {unread[0]}")

        num = len(unread)
        self.notes = (f"images that cannot be read: {num}; the first: {unread[min(unread)]}",) if num else ()

    def compared_with(self, written: Encoder, *, int8: bool) -> Agreement:
        """Raises :class:`ExportError` where the written encoder's embeddings are not finite."""
        try:
            return self.compared_to(written.encode(self.images), int8=int8)
        except DataError as error:
            raise ExportError(f"the exported file cannot be used: {error}") from error

    def compared_to(self, embeddings: NDArray[np.float32], *, int8: bool) -> Agreement:
        return compare_embeddings(
            self.embeddings, embeddings, images=self.images, drawn=self.drawn, int8=int8
        )


def write_encoder(encoder: Encoder, program: Any, path: Path, *, to: str, int8: bool = False) -> Encoder:
    """Write an encoder's network, an ``onnx.ModelProto``, as the file of an encoder, and load that.

    Args:
        encoder: whose fingerprint, card and calibration the file keeps, unless it is of int8.
        program: the network.
        path: where to; it ends as files of the runtime do.
        to: "onnx" or "openvino".
        int8: whether the network is quantised.

    Raises :class:`ExportError` where the file cannot be written or used.
    """
    write = {"onnx": write_onnx, "openvino": write_openvino}[to]
    metadata = {METADATA_KEY: preprocessing_of(encoder)}
    write(program, path, metadata)
    try:
        own = load_network(path).fingerprints(height=encoder.height, width=encoder.width)[0]
        card = {key: value for key, value in encoder.card.items() if not (int8 and key == "calibration")}
        source = ExportedFrom(file=own, fingerprints=[] if int8 else list(encoder.fingerprints), card=card)
        write(program, path, {**metadata, EXPORTED_FROM_KEY: source.as_json()})
        return load_encoder(path)
    except CheckpointError as error:
        raise ExportError(f"the exported file cannot be used: {error}") from error


def _export_torchscript(
    encoder: Encoder, draft: Path, path: Path, given: list[ImageSource | Sample]
) -> Exported:
    expected = _Expected(encoder, spaced(given, NUM_COMPARED))
    write_torchscript(encoder, draft, preprocessing_of(encoder))
    pixels = np.stack([encoder.prepare(image) for image in expected.images])
    agreement = expected.compared_to(embed_by_torchscript(draft, pixels), int8=False)
    agreement.check()
    note = "a TorchScript archive is a program: torch.jit.load opens it, reidkit does not"
    return Exported(publish(draft, path), agreement, (*expected.notes, note))


def publish(draft: Path, path: Path) -> tuple[Path, ...]:
    """Put the files in their place. OpenVINO's graph comes last, since without it its weights are nothing."""
    weights = draft.with_suffix(".bin")
    if not weights.is_file():
        return (write_atomically(path, draft.read_bytes()),)
    path.unlink(missing_ok=True)  # one of other weights must not be left beside these
    beside = write_atomically(path.with_suffix(".bin"), weights.read_bytes())
    return write_atomically(path, draft.read_bytes()), beside


@lru_cache(maxsize=4)
def drawn_people(height: int, width: int) -> tuple[NDArray[np.uint8], ...]:
    """Made-up crops of people, the same each time, and a black and a white image."""
    rng = np.random.default_rng(0)
    people = [
        np.asarray(draw_pedestrian(random_person(rng), random_camera(rng), rng=rng).convert("RGB"))
        for _ in range(NUM_DRAWN)
    ]
    plain = [np.full((height, width, 3), value, dtype=np.uint8) for value in (0, 255)]
    return *people, *plain


def spaced(images: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the images, evenly spaced."""
    step = max(1, -(-len(images) // most))
    return list(images[::step])
