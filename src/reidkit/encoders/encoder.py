"""An encoder: weights, transform and normalisation together, turning images into unit embeddings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reidkit import trust
from reidkit.analysis.calibration import Calibration
from reidkit.arrays import Embeddings
from reidkit.encoders.backends import check_backend, with_backend
from reidkit.encoders.check_encoder import check_encoder
from reidkit.encoders.network import Network
from reidkit.encoders.network_file import is_network_file, load_network
from reidkit.encoders.own import LOMO, is_own, own_file, place_of
from reidkit.encoders.reading_ahead import num_readers, prepared_batches
from reidkit.encoders.runtimes import SUFFIXES
from reidkit.encoders.views import WHOLE, ViewsNetwork, check_views
from reidkit.errors import CheckpointError, ConfigError, DataError, shown, working_on
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


def load_encoder(
    path: str | Path,
    *,
    device: str | torch.device | None = None,
    preprocessing: str | Path | Mapping[str, Any] | None = None,
    feature: str | None = None,
    views: str | None = None,
    backend: str = "auto",
    allow_code: Sequence[str] = (),
) -> Encoder:
    """Load an encoder.

    Args:
        path: a run folder (its best weights, else its last), a ``.safetensors`` file, or a network made
            elsewhere: ``.onnx``, or OpenVINO's ``.xml``. "reidkit-small" comes with the package, and
            so does "lomo", :class:`reidkit.encoders.lomo.Lomo`; a folder of that name is "./lomo".
        device: where it runs; a GPU where there is one. Networks made elsewhere run on the CPU.
        preprocessing: for a network made elsewhere, the TOML file that says how images are prepared for it,
            or its keys and values; left out, the ``.toml`` beside it, else its metadata.
        feature: which of the network's features to embed by, such as "global" or "local" of JLML; its
            embedding where left out.
        views: "flip" adds up the embeddings of each image and of its mirror image, "crops" those of four
            corners besides, at two and ten times the cost; "whole" is the image alone. What the encoder was
            saved with, if left out.
        backend: what embeds on a CPU: "torch", "onnx" (onnxruntime), "openvino", or "auto", which for many
            images finds out what is fastest; see :mod:`reidkit.encoders.backends`. A network made elsewhere
            has its own.
        allow_code: modules of your own from which the file may take its network, ``["my_package.models"]``;
            they are imported, which runs them. See :mod:`reidkit.trust`.

    Raises:
        CheckpointError: nothing there, or the file is damaged, or was made for another network; or a network
            made elsewhere gives embeddings that are not finite, always the same or of another width.
        CodeRefused: the file names a network of your own that is not allowed.
        ConfigError: a device, preprocessing, feature or backend that the network does not go with.
        UnknownName: the network has no such feature; there are no such views, or backend.
        MissingExtra: the runtime of a network made elsewhere, or of the backend, is not installed.
    """
    if not isinstance(path, str | PathLike) or not str(path):
        raise ConfigError(f"path is {shown(path)}; give a run folder or a network's file, or reidkit-small")
    path = place_of(path)
    check_backend(backend)
    check_views(views or WHOLE)
    if str(path) == LOMO:
        return _lomo(device, preprocessing, feature, backend).with_views(views or WHOLE)
    if is_network_file(path):
        return _load_network_file(path, device, preprocessing, feature, backend).with_views(views or WHOLE)
    if preprocessing is not None:
        raise ConfigError(f"preprocessing goes with {' and '.join(SUFFIXES)} files; {path} has its own")
    file = weights_file(path)
    from reidkit.encoders.encoder_file import (
        load_encoder_file,  # needs torch, which a network's file does not
    )

    with working_on(file), trust.allow_code(*allow_code):
        model, description = load_encoder_file(file)
    feature = feature or description.feature
    encoder = Encoder(
        model,
        height=description.transform.height,
        width=description.transform.width,
        card=description.card,
        device=device,
        feature=None if feature == model.embedding_feature else feature,
    )
    encoder.network = with_backend(encoder, backend)
    return encoder.with_views(views or description.views)


def _lomo(
    device: str | torch.device | None,
    preprocessing: str | Path | Mapping[str, Any] | None,
    feature: str | None,
    backend: str,
) -> Encoder:
    from reidkit.encoders.lomo import HEIGHT, WIDTH, Lomo

    if preprocessing is not None or backend != "auto":
        raise ConfigError("lomo is no network: it takes no preprocessing and no backend, and is not exported")
    return Encoder(Lomo(feature), height=HEIGHT, width=WIDTH, device=device)


def _load_network_file(
    path: Path,
    device: str | torch.device | None,
    preprocessing: str | Path | Mapping[str, Any] | None,
    feature: str | None,
    backend: str,
) -> Encoder:
    network = load_network(path, preprocessing=preprocessing)
    if backend not in ("auto", network.file.runtime):
        runtime = network.file.runtime
        raise ConfigError(f"backend = {backend!r}: {path} is run by {runtime} only; leave it out")
    made_from = network.exported_from.card if network.exported_from else {}
    external = {**network.description, "preprocessing": dataclasses.asdict(network.preprocessing)}
    card = {**made_from, "external": external}
    encoder = Encoder(
        network, height=network.height, width=network.width, card=card, device=device, feature=feature
    )
    try:
        check_encoder(encoder)
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    return encoder


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


def _is_one(images: ImageSource | Sample | Iterable[ImageSource | Sample]) -> bool:
    kinds = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Sample)
    return isinstance(images, kinds) or hasattr(images, "read") or not hasattr(images, "__iter__")


def weights_file(path: Path) -> Path:
    """The file that :func:`load_encoder` reads: of a run folder the best weights, else the last."""
    if is_own(path):
        return own_file()
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
        from reidkit.encoders.torchscript import is_torchscript

        if is_torchscript(path):
            raise CheckpointError(
                f"{path} is a TorchScript archive, that is, a program, which reidkit does not run; for a "
                "file that it reads, export to ONNX or OpenVINO (`reid export RUN --to onnx`)"
            )
        raise CheckpointError(
            f"{path} does not say which network its weights are for; make an encoder of it with "
            f"`reid import-weights {path} --model NAME`"
        )
    return path
