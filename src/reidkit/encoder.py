"""An encoder: weights, transform and normalisation together, turning images into unit embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reidkit import trust
from reidkit.checkpoint import save_weights
from reidkit.devices import default_device
from reidkit.encoder_file import load_encoder_file
from reidkit.errors import CheckpointError, ConfigError, DataError, UnknownName, working_on
from reidkit.external import ExternalNetwork, is_network_file, load_network
from reidkit.features import label_features
from reidkit.fingerprint import fingerprints
from reidkit.images import ImageSource, load_image
from reidkit.models import Embedder
from reidkit.network_files import SUFFIXES
from reidkit.precision import autocast
from reidkit.same_person import Calibration
from reidkit.tracking import ProgressCallback
from reidkit.transforms import normalize, to_input
from reidkit.types import Features, Sample, Split

BATCH_SIZE = 64

SkipCallback: TypeAlias = Callable[[int, DataError], None]


class Encoder:
    """Embeds images of people.

    Args:
        model: the network, reidkit's own or an external one; it is put into evaluation mode.
        height, width: pixels that images are resized to.
        card: what the network was made from (data, recipe, scores, versions); kept with the weights.
        device: where it runs; a GPU where there is one.
        bfloat16: multiply in bfloat16: faster on hardware that has it, embeddings differ in the third digit.
        feature: which of the model's features to embed by, in place of its own embedding.

    Raises:
        UnknownName: the model has no such feature.
        ConfigError: a feature of an external network, which has only one.

    Example:
        >>> encoder = load_encoder("runs/demo")                       # doctest: +SKIP
        >>> encoder.encode(["a.jpg", "b.jpg"]).shape                  # doctest: +SKIP
        (2, 512)
    """

    def __init__(
        self,
        model: Embedder | ExternalNetwork,
        *,
        height: int,
        width: int,
        card: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        bfloat16: bool = False,
        feature: str | None = None,
    ) -> None:
        self.device = torch.device(device or default_device())
        self.model = model.to(self.device)
        self.height, self.width = height, width
        self.card = dict(card or {})
        self.bfloat16 = bfloat16
        self._fingerprints: tuple[Any, tuple[str, ...]] | None = None
        self.feature = feature  # None is the model's own choice
        if feature is not None:
            if isinstance(self.model, ExternalNetwork):
                raise ConfigError(f"feature = {feature!r}: {self.model.path} has one output, its embedding")
            if feature not in self.model.features:
                raise UnknownName("feature of this model", feature, self.model.features)
            self.model = copy(self.model)  # shares all weights; the one that was given embeds as before
            self.model.embedding_feature = feature

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.model.embedding_dim

    @property
    def fingerprint(self) -> str:
        """Names the embedding space: equal for equal weights, transform and feature, different otherwise."""
        return self.fingerprints[0]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """:attr:`fingerprint`, and what earlier versions called the same encoder; galleries hold either.

        Computed again where weights were changed, but not where that was done through ``tensor.data``.
        """
        state = list(self.model.state_dict().values())
        counted = not any(tensor.is_inference() for tensor in state)  # those do not count their changes
        changes = [(tensor.data_ptr(), tensor._version) for tensor in state] if counted else []
        made_of = (self.height, self.width, self.feature, *changes)
        if self._fingerprints is None or not counted or self._fingerprints[0] != made_of:
            found = fingerprints(self.model, height=self.height, width=self.width, feature=self.feature)
            self._fingerprints = made_of, found
        return self._fingerprints[1]

    @property
    def origin(self) -> dict[str, Any]:
        """What a gallery records of the encoder that fills it, besides its path."""
        fingerprint, *former = self.fingerprints
        return {"fingerprint": fingerprint, "former_fingerprints": former}

    @property
    def calibration(self) -> Calibration | None:
        """What scores of these embeddings mean; ``None`` where that was not found out.

        Raises :class:`DataError` where the card holds something else in its place.
        """
        stored = self.card.get("calibration")
        # Scores of other weights, or of another feature, mean something else.
        if stored is None or stored.get("fingerprint") not in self.fingerprints:
            return None
        try:
            return Calibration.from_dict(stored)
        except DataError as error:
            raise DataError(f"the calibration kept with this encoder cannot be used: {error}") from error

    def calibrate(self, calibration: Calibration) -> None:
        """Keep a calibration of this encoder's scores in its card, so that :meth:`save` writes it."""
        self.card["calibration"] = {**calibration.as_dict(), "fingerprint": self.fingerprint}

    def encode(
        self,
        images: ImageSource | Sample | Iterable[ImageSource | Sample],
        *,
        batch_size: int = BATCH_SIZE,
        progress: ProgressCallback | None = None,
        skip: SkipCallback | None = None,
    ) -> NDArray[np.float32]:
        """Embed images.

        Args:
            images: one or many of: path, bytes of a file, open file, PIL image, array (H, W, 3) uint8 in RGB
                order, sample of a data set (the box of its file); see :func:`reidkit.images.load_image` for
                other arrays, and how each is read.
            batch_size: images at a time.
            progress: called with (done, total) after each batch.
            skip: called with (place, error) of each image that cannot be read, or has no pixel in its box; it
                then has no row. Without it the first such error is raised.

        Returns:
            Unit embeddings (N, D); N is 1 for a single image.

        Raises:
            DataError: an image cannot be read, an array is of another shape or type.
        """
        many = [images] if _is_one(images) else list(cast(Iterable[ImageSource | Sample], images))
        return self._embed_all(cast(list[ImageSource | Sample], many), batch_size, progress, skip=skip)

    def features(
        self, split: Split, *, batch_size: int = BATCH_SIZE, progress: ProgressCallback | None = None
    ) -> Features:
        """Embed the samples of a split, with their labels beside them; one row a sample, frames included."""
        return label_features(self.encode(split, batch_size=batch_size, progress=progress), split)

    def features_by_name(
        self, split: Split, *, batch_size: int = BATCH_SIZE, progress: ProgressCallback | None = None
    ) -> dict[str, Features]:
        """Every feature of the model, as embeddings of unit length with labels; each image is read once.

        Raises:
            ConfigError: an external network, which has no features by name.
        """
        if isinstance(self.model, ExternalNetwork):
            raise ConfigError(f"{self.model.path} has one output, its embedding; there is nothing to compare")
        model = self.model

        def embed(inputs: Tensor) -> Tensor:
            features = model(inputs)
            return torch.cat([F.normalize(features[name].float(), dim=1) for name in model.features], dim=1)

        widths = list(model.features.values())
        joined = self._embed_all(split, batch_size, progress, embed=embed, dim=sum(widths))
        parts = np.split(joined, np.cumsum(widths)[:-1], axis=1)
        return {
            name: label_features(np.ascontiguousarray(part), split)
            for name, part in zip(model.features, parts, strict=True)
        }

    def save(self, path: str | Path) -> Path:
        """Write one ``.safetensors`` file that :func:`load_encoder` reads; no identity is in it.

        Raises:
            CheckpointError: the network is an external one.
        """
        path = Path(path)
        if isinstance(self.model, ExternalNetwork):
            raise CheckpointError(f"an external network cannot be saved; use its own file, {self.model.path}")
        description = {
            "model": dict(self.model.description),
            "transform": {"height": self.height, "width": self.width},
            "card": self.card,
            **({} if self.feature is None else {"feature": self.feature}),
        }
        save_weights(path, self.model.state_dict(), description)
        return path

    def _prepare(self, image: ImageSource | Sample) -> Tensor:
        """uint8 (3, height, width)."""
        if isinstance(image, Sample):
            rgb = load_image(image.path, box=image.box)
        else:
            rgb = load_image(image)
        if isinstance(self.model, ExternalNetwork):
            rgb = rgb.resize((self.width, self.height), self.model.resampling)
        return to_input(rgb, height=self.height, width=self.width)

    def _embed_all(
        self,
        items: Sequence[ImageSource | Sample],
        batch_size: int,
        progress: ProgressCallback | None,
        *,
        embed: Callable[[Tensor], Tensor] | None = None,
        dim: int | None = None,
        skip: SkipCallback | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings (N, dim) of items; by the model's own embedding where no other is given."""

        def prepared(item: ImageSource | Sample) -> Tensor | DataError:
            try:
                return self._prepare(item)
            except DataError as error:
                return error

        embed = embed or self.model.embed
        embeddings = np.empty((len(items), dim or self.dim), dtype=np.float32)
        self.model.eval()
        done = num_rows = 0
        with ThreadPoolExecutor(2) as pool:
            for batch in _batches(items, batch_size):
                images = []
                for place, image in enumerate(pool.map(prepared, batch), start=done):
                    if isinstance(image, Tensor):
                        images.append(image)
                    elif skip is None:
                        raise image
                    else:
                        skip(place, image)
                if images:
                    embeddings[num_rows : num_rows + len(images)] = self._embed(torch.stack(images), embed)
                num_rows += len(images)
                done += len(batch)
                if progress is not None:
                    progress(done, len(items))
        embeddings = embeddings[:num_rows]
        if not np.isfinite(embeddings).all():
            rows = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
            raise DataError(
                f"the encoder gave embeddings that are not finite for {len(rows)} of {len(items)} images "
                f"(first: {rows[0]}); its weights are unusable"
            )
        return embeddings

    @torch.inference_mode()
    def _embed(self, images: Tensor, embed: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        inputs = normalize(images.to(self.device), self.model.mean, self.model.std)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with autocast(self.device, torch.bfloat16 if self.bfloat16 else torch.float32):
            embeddings = embed(inputs)
        return embeddings.float().cpu().numpy()


def load_encoder(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    preprocessing: str | Path | Mapping[str, Any] | None = None,
    feature: str | None = None,
    allow_code: Sequence[str] = (),
) -> Encoder:
    """Load an encoder.

    Args:
        path: a run folder (its best weights, else its last), a ``.safetensors`` file, or a network made
            elsewhere: ``.onnx``, or OpenVINO's ``.xml``.
        device: where it runs; a GPU where there is one. Networks made elsewhere run on the CPU.
        preprocessing: for a network made elsewhere, the TOML file that says how images are prepared for it,
            or its keys and values; left out, the ``.toml`` beside it, else its metadata.
        feature: which of the network's features to embed by, such as "global" or "local" of JLML; its
            embedding where left out.
        allow_code: modules of your own from which the file may take its network, ``["my_package.models"]``;
            they are imported, which runs them. See :mod:`reidkit.trust`.

    Raises:
        CheckpointError: nothing there, or the file is damaged, or was made for another network; or a network
            made elsewhere gives embeddings that are not finite, always the same or of another width.
        CodeRefused: the file names a network of your own that is not allowed.
        ConfigError: a device, preprocessing or feature that the network does not go with.
        UnknownName: the network has no such feature.
        MissingExtra: the runtime of a network made elsewhere is not installed.
    """
    path = Path(path)
    if is_network_file(path):
        return _load_external(path, device, preprocessing, feature)
    if preprocessing is not None:
        raise ConfigError(f"preprocessing goes with {' and '.join(SUFFIXES)} files; {path} has its own")
    file = weights_file(path)
    with working_on(file), trust.allow_code(*allow_code):
        model, description = load_encoder_file(file)
    feature = feature or description.feature
    return Encoder(
        model.to(memory_format=torch.channels_last),
        height=description.transform.height,
        width=description.transform.width,
        card=description.card,
        device=device,
        feature=None if feature == model.embedding_feature else feature,
    )


def check_encoder(encoder: Encoder) -> None:
    """Embed two made-up images, a dark and a bright one, alone and together.

    Raises:
        CheckpointError: what comes out is not finite, or the same for both, or depends on the other image.
    """
    noise = np.random.default_rng(0).integers(0, 100, (2, encoder.height, encoder.width, 3), dtype=np.uint8)
    images = [noise[0], 255 - noise[1]]
    try:
        together = encoder.encode(images)
        alone = np.concatenate([encoder.encode(image) for image in images])
    except DataError as error:
        raise CheckpointError(f"{error} (tried with two made-up images)") from error
    if np.allclose(alone[0], alone[1], atol=1e-6):
        raise CheckpointError(
            "the network gives the same embedding for two made-up images that have nothing in common; its "
            "weights or its preprocessing are unusable"
        )
    if not np.allclose(together, alone, atol=1e-3):
        raise CheckpointError(
            "the network embeds an image differently when another is beside it; was it exported in training "
            "mode?"
        )


def _load_external(
    path: Path,
    device: str | torch.device | None,
    preprocessing: str | Path | Mapping[str, Any] | None,
    feature: str | None,
) -> Encoder:
    if torch.device(device or "cpu").type != "cpu":
        raise ConfigError(f"device = {device}: {path} was made elsewhere, and such networks run on the CPU")
    network = load_network(path, preprocessing=preprocessing)
    card = {"external": {**network.description, "preprocessing": dataclasses.asdict(network.preprocessing)}}
    encoder = Encoder(
        network, height=network.height, width=network.width, card=card, device="cpu", feature=feature
    )
    try:
        check_encoder(encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    return encoder


def _is_one(images: ImageSource | Sample | Iterable[ImageSource | Sample]) -> bool:
    kinds = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Sample)
    return isinstance(images, kinds) or hasattr(images, "read") or not hasattr(images, "__iter__")


def weights_file(path: Path) -> Path:
    """The file that :func:`load_encoder` reads: of a run folder the best weights, else the last."""
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        kinds = (*SUFFIXES, ".safetensors")
        others = sorted(inside for inside in path.iterdir() if inside.suffix.lower() in kinds)
        raise CheckpointError(
            f"{path} holds no encoder (best.safetensors or last.safetensors); "
            + (f"give the network's file itself: {others[0]}" if others else "has it trained for an epoch?")
        )
    if not path.exists():
        raise CheckpointError(f"{path}: no such run folder or weights file")
    if path.suffix.lower() in (".pth", ".pt", ".tar", ".pkl"):
        raise CheckpointError(
            f"{path} does not say which network its weights are for; make an encoder of it with "
            f"`reid import-weights {path} --model NAME`"
        )
    return path


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
