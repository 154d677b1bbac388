"""Networks of PyTorch, as encoders use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy, deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from reidkit.encoders.autocast import autocast
from reidkit.encoders.devices import default_device
from reidkit.encoders.encoder_file import save_weights
from reidkit.encoders.fingerprint import fingerprints
from reidkit.encoders.network import Network
from reidkit.errors import UnknownName
from reidkit.images.transforms import normalize
from reidkit.models import Embedder


class TorchNetwork(Network):
    """A model, in evaluation mode while it embeds. It stays as it was given, on its device.

    Args:
        model: the model, whose weights are shared, so that training goes on to show; on another device than
            its own, a copy is used, of the weights as they are now.
        device: where it runs; a GPU where there is one.
        bfloat16: multiply in bfloat16.
        feature: which of the model's features to embed by, in place of its own embedding.

    Raises:
        UnknownName: the model has no such feature.
    """

    model: Embedder
    device: torch.device
    resampling = Image.Resampling.BILINEAR

    def __init__(
        self,
        model: Embedder,
        *,
        device: str | torch.device | None = None,
        bfloat16: bool = False,
        feature: str | None = None,
    ) -> None:
        if feature is not None and feature not in model.features:
            raise UnknownName("feature of this model", feature, model.features)
        self.device = torch.device(device or default_device())
        self.model = model if _is_on(self.device, model) else deepcopy(model).to(self.device)
        self.bfloat16, self.feature = bfloat16, feature
        if feature is not None:
            self.model = copy(self.model)  # shares all weights; the one that was given embeds as before
            self.model.embedding_feature = feature
        self._fingerprints: tuple[Any, tuple[str, ...]] | None = None

    @property
    def description(self) -> Mapping[str, Any]:
        return self.model.description

    @property
    def embedding_dim(self) -> int:
        return self.model.embedding_dim

    @property
    def features(self) -> Mapping[str, int]:
        return self.model.features

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._computed(images, self.model.embed)

    def embed_features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        def side_by_side(inputs: Tensor) -> Tensor:
            found = self.model(inputs)
            return torch.cat([F.normalize(found[name].float(), dim=1) for name in self.model.features], dim=1)

        return self._computed(images, side_by_side)

    def fingerprints(self, *, height: int, width: int) -> tuple[str, ...]:
        """Computed again where weights were changed, but not where that was done through ``tensor.data``."""
        state = list(self.model.state_dict().values())
        counted = not any(tensor.is_inference() for tensor in state)  # those do not count their changes
        changes = [(tensor.data_ptr(), tensor._version) for tensor in state] if counted else []
        made_of = (height, width, *changes)
        if self._fingerprints is None or not counted or self._fingerprints[0] != made_of:
            found = fingerprints(self.model, height=height, width=width, feature=self.feature)
            self._fingerprints = made_of, found
        return self._fingerprints[1]

    def save(self, path: Path, description: Mapping[str, Any]) -> None:
        save_weights(path, self.model.state_dict(), description)

    @torch.inference_mode()
    def _computed(self, images: NDArray[np.uint8], embed: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)
        inputs = normalize(pixels, self.model.mean, self.model.std)
        dtype = _dtype_of(self.model)
        inputs = inputs.to(dtype, memory_format=torch.channels_last)
        # Weights that are in a half type have it, too: it keeps from that what would be computed wrongly.
        kind = torch.bfloat16 if self.bfloat16 else torch.float32 if dtype == torch.float64 else dtype
        with evaluating(self.model), autocast(self.device, kind):
            embeddings = embed(inputs)
        return embeddings.float().cpu().numpy()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside it, a model is in evaluation mode; after it, each of its modules in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _dtype_of(model: nn.Module) -> torch.dtype:
    """Of its weights; float32 where it has none."""
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)


def _is_on(device: torch.device, model: nn.Module) -> bool:
    """Whether all of a model lies on a device; without a number, a kind of device is that of any number."""
    places = {tensor.device for tensors in (model.parameters(), model.buffers()) for tensor in tensors}
    return all(place.type == device.type and device.index in (None, place.index) for place in places)
