"""Encoders loaded by what names them: a run folder, a file of ours or of others, or a name of the package."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reidkit import trust
from reidkit.encoders.backends import check_backend, with_backend
from reidkit.encoders.check_encoder import check_encoder
from reidkit.encoders.encoder import Encoder
from reidkit.encoders.network_file import is_network_file, load_network
from reidkit.encoders.own import LOMO, is_own, own_file, place_of
from reidkit.encoders.runtimes import SUFFIXES
from reidkit.encoders.views import WHOLE, check_views
from reidkit.errors import CheckpointError, ConfigError, shown, working_on

if TYPE_CHECKING:
    import torch


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
    # Needs torch, which a network's file does not.
    from reidkit.encoders.encoder_file import load_encoder_file

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
            f"`reid import-weights {shlex.quote(str(path))} --model NAME`"
        )
    return path
