"""An encoder: weights, transform and normalisation together, turning images into unit embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit.analysis.calibration import Calibration
from reidkit.arrays import Embeddings
from reidkit.encoders.network import Network
from reidkit.encoders.reading_ahead import num_readers, prepared_batches
from reidkit.encoders.views import WHOLE, ViewsNetwork, check_views
from reidkit.errors import ConfigError, DataError
from reidkit.evaluation.features import label_features
from reidkit.images.reading import ImageSource, load_image
from reidkit.images.transforms import resized
from reidkit.types import Features, Sample, Split

if TYPE_CHECKING:
    import torch

    from reidkit.models import Embedder
    from reidkit.progress import ProgressCallback

BATCH_SIZE = 64


SkipCallback: TypeAlias = Callable[[int, DataError], None]


class Encoder:
    """Embeds images of people.

    Args:
        model: the network, one of reidkit's own or that of a network's file. It stays as it is: while it
            embeds it is in evaluation mode, and on another device it is a copy that embeds.
        height, width: pixels that images are resized to.
        card: what the network was made from (data, recipe, scores, versions); kept with the weights.
        device: where it runs; a GPU where there is one. Network files run on the CPU.
        bfloat16: multiply in bfloat16: faster on hardware that has it, embeddings differ in the third digit.
        feature: which of the model's features to embed by, in place of its own embedding.

    Raises:
        UnknownName: the model has no such feature.
        ConfigError: a device, bfloat16 or a feature for a network's file.

    Example:
        >>> encoder = load_encoder("runs/demo")                       # doctest: +SKIP
        >>> encoder.encode(["a.jpg", "b.jpg"]).shape                  # doctest: +SKIP
        (2, 512)
    """

    def __init__(
        self,
        model: Embedder | Network,
        *,
        height: int,
        width: int,
        card: Mapping[str, Any] | None = None,
        device: str | torch.device | None = None,
        bfloat16: bool = False,
        feature: str | None = None,
    ) -> None:
        self.network = _network(model, device=device, bfloat16=bfloat16, feature=feature)
        self.height, self.width = height, width
        self.card = dict(card or {})

    @property
    def model(self) -> Any:
        """The network itself: a :class:`reidkit.models.Embedder`, or the opened network's file."""
        return self.network.model

    @property
    def device(self) -> torch.device | str:
        """Where it runs."""
        return self.network.device

    @property
    def feature(self) -> str | None:
        """Which of the network's features it embeds by; ``None`` is the network's own choice."""
        return self.network.feature

    @property
    def views(self) -> str:
        """Of each image that it embeds: "whole", "flip" or "crops" (:mod:`reidkit.encoders.views`)."""
        return self.network.views

    def with_views(self, views: str) -> Encoder:
        """The same encoder, with embeddings of several views of each image: another space than its own.

        Raises :class:`UnknownName` where there are no such views.
        """
        own = self.network.own if isinstance(self.network, ViewsNetwork) else self.network
        check_views(views)
        network = own if views == WHOLE else ViewsNetwork(own, views)
        return Encoder(network, height=self.height, width=self.width, card=self.card)

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.network.embedding_dim

    @property
    def fingerprint(self) -> str:
        """Names the embedding space: equal for equal weights, transform and feature, different otherwise."""
        return self.fingerprints[0]

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """:attr:`fingerprint`, and what earlier versions called the same encoder; galleries hold either."""
        return self.network.fingerprints(height=self.height, width=self.width)

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
                order, sample of a data set (the box of its file); see
                :func:`reidkit.images.reading.load_image` for other arrays, and how each is read.
            batch_size: images at a time.
            progress: called with (done, total) after each batch.
            skip: called with (place, error) of each image that cannot be read, or has no pixel in its box; it
                then has no row. Without it the first such error is raised.

        Returns:
            Unit embeddings (N, D); N is 1 for a single image. They carry the encoder's fingerprint, by which
            galleries and comparisons refuse those of another.

        Raises:
            DataError: an image cannot be read, an array is of another shape or type.
        """
        many = [images] if _is_one(images) else list(cast(Iterable[ImageSource | Sample], images))
        found = self._embed_all(cast(list[ImageSource | Sample], many), batch_size, progress, skip=skip)
        return Embeddings(found, self.fingerprints)

    def expect(self, num_images: int) -> None:
        """Say how many images are to come, in several calls: a faster library may be worth its start."""
        self.network.expect(num_images)

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
        widths = self.network.features
        if not widths:
            raise ConfigError(f"{self.network} has one output, its embedding; there is nothing to compare")
        joined = self._embed_all(split, batch_size, progress, by_name=True)
        parts = np.split(joined, np.cumsum(list(widths.values()))[:-1], axis=1)
        return {
            name: label_features(np.ascontiguousarray(part), split)
            for name, part in zip(widths, parts, strict=True)
        }

    def save(self, path: str | Path) -> Path:
        """Write one ``.safetensors`` file that :func:`load_encoder` reads; no identity is in it.

        Raises:
            CheckpointError: the network is an external one.
        """
        path = Path(path)
        description = {
            "model": dict(self.network.description),
            "transform": {"height": self.height, "width": self.width},
            "card": self.card,
            **({} if self.feature is None else {"feature": self.feature}),
            **({} if self.views == WHOLE else {"views": self.views}),
        }
        self.network.save(path, description)
        return path

    def prepare(self, image: ImageSource | Sample) -> NDArray[np.uint8]:
        """An image as the network gets it, (height, width, 3) in RGB order.

        Raises :class:`DataError` where it cannot be read.
        """
        if _has_pixels_of(image, self.height, self.width):
            return np.array(image)
        if isinstance(image, Sample):
            rgb = load_image(image.path, box=image.box)
        else:
            rgb = load_image(image)
        return resized(rgb, height=self.height, width=self.width, resampling=self.network.resampling)

    def _embed_all(
        self,
        items: Sequence[ImageSource | Sample],
        batch_size: int,
        progress: ProgressCallback | None,
        *,
        by_name: bool = False,
        skip: SkipCallback | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings (N, D) of items, or all of the network's features side by side."""

        def prepared(item: ImageSource | Sample) -> NDArray[np.uint8] | DataError:
            try:
                return self.prepare(item)
            except DataError as error:
                return error

        embed = self.network.embed_features if by_name else self.network.embed
        self.network.expect(len(items))
        dim = sum(self.network.features.values()) if by_name else self.dim
        embeddings = np.empty((len(items), dim), dtype=np.float32)
        done = num_rows = 0
        readers = num_readers(str(self.network.device))
        for batch in prepared_batches(items, prepared, batch_size, num_readers=readers):
            images = []
            for place, image in enumerate(batch, start=done):
                if not isinstance(image, DataError):
                    images.append(image)
                elif skip is None:
                    raise image
                else:
                    skip(place, image)
            if images:
                embeddings[num_rows : num_rows + len(images)] = embed(np.stack(images))
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


def _network(
    model: Embedder | Network, *, device: str | torch.device | None, bfloat16: bool, feature: str | None
) -> Network:
    """What computes the embeddings of a model, with the options that it takes."""
    if not isinstance(model, Network):
        from reidkit.encoders.torch_network import (
            TorchNetwork,  # needs torch, which a network's file does not
        )

        return TorchNetwork(model, device=device, bfloat16=bfloat16, feature=feature)
    if str(device or "cpu").partition(":")[0] != "cpu":
        raise ConfigError(f"device = {device}: {model} runs on the CPU alone")
    if bfloat16:
        raise ConfigError(f"bfloat16: {model} was made elsewhere, and computes as its file says")
    if feature is not None:
        raise ConfigError(f"feature = {feature!r}: {model} has one output, its embedding")
    return model


def _has_pixels_of(image: object, height: int, width: int) -> bool:
    """Whether it is an array that the network takes as it is: by way of Pillow it would come out the same."""
    return isinstance(image, np.ndarray) and image.shape == (height, width, 3) and image.dtype == np.uint8


def _is_one(images: ImageSource | Sample | Iterable[ImageSource | Sample]) -> bool:
    kinds = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Sample)
    return isinstance(images, kinds) or hasattr(images, "read") or not hasattr(images, "__iter__")


def __getattr__(name: str) -> Any:
    if name in ("load_encoder", "weights_file"):  # they were here in 0.1.0
        return getattr(import_module("reidkit.encoders.loading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
