"""What an encoder asks of its network, whatever computes it: PyTorch, or the runtime of a network's file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    import torch


FINGERPRINT_LENGTH = 16
"""Hexadecimal digits of a fingerprint."""


class Network(ABC):
    """A network that embeds images.

    Attributes:
        model: what computes: a :class:`reidkit.models.Embedder`, or the opened file.
        device: where it runs.
        feature: which of its features it embeds by; None is its own choice.
        resampling: how images are resized for it.
        views: of each image that it embeds (:mod:`reidkit.encoders.views`).
    """

    model: Any
    device: torch.device | str
    feature: str | None
    resampling: Image.Resampling
    views: str = "whole"

    @property
    @abstractmethod
    def description(self) -> Mapping[str, Any]:
        """What names it in reports and files."""

    @property
    @abstractmethod
    def embedding_dim(self) -> int:
        """Width D of its embeddings."""

    @property
    @abstractmethod
    def features(self) -> Mapping[str, int]:
        """Width of each of its features by name; empty where it gives the embedding alone."""

    def expect(self, num_images: int) -> None:  # noqa: B027 - most have nothing to make ready
        """So many images are going to be embedded, or more: for networks that can make ready for many."""

    def keep_nobody_waiting(self) -> None:  # noqa: B027 - most have nothing to decide
        """Decide on another library, if at all, in a thread of its own, where images of others would wait."""

    @abstractmethod
    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB images (B, H, W, 3) -> unit embeddings (B, D)."""

    @abstractmethod
    def embed_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB images (B, H, W, 3) -> all :attr:`features`, each of unit length, side by side."""

    @abstractmethod
    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        """Names of the embedding space for images of this size: today's, then those of earlier versions."""

    @abstractmethod
    def save(self, path: Path, description: Mapping[str, Any]) -> None:
        """Write its weights with a description that :func:`reidkit.load_encoder` reads.

        Raises :class:`CheckpointError` where it has a file of its own, in a format of its own.
        """


class WrappedNetwork(Network):
    """A network that embeds by another one, and is otherwise as that one is."""

    def __init__(self, own: Network) -> None:
        self.own = own
        self.model, self.device, self.feature = own.model, own.device, own.feature
        self.resampling, self.views = own.resampling, own.views

    @property
    def description(self) -> Mapping[str, Any]:
        return self.own.description

    @property
    def embedding_dim(self) -> int:
        return self.own.embedding_dim

    @property
    def features(self) -> Mapping[str, int]:
        return self.own.features

    def expect(self, num_images: int) -> None:
        self.own.expect(num_images)

    def keep_nobody_waiting(self) -> None:
        self.own.keep_nobody_waiting()

    def embed_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.own.embed_features(images)

    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        return self.own.fingerprints(height=height, width=width)

    def save(self, path: Path, description: Mapping[str, Any]) -> None:
        self.own.save(path, description)
