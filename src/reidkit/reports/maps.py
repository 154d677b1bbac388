"""Where in two images the similarity of their embeddings comes from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from reidkit.encoders.encoder import Encoder
from reidkit.encoders.torch_network import evaluating
from reidkit.errors import ConfigError
from reidkit.images.transforms import normalize, resized
from reidkit.models._embedder import Embedder, LastMap


def similarity_maps(
    encoder: Encoder, query_image: Image.Image, gallery_image: Image.Image
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each image, how much each place adds to the cosine similarity of the two.

    The shares of :func:`contributions`, spread over the parts of the image that they belong to, negative ones
    set to 0, divided by their maximum.

    Returns:
        Two maps (H, W) in [0, 1] of the encoder's image size, of the query and of the gallery image; all 0
        where no place adds anything.

    Raises:
        ConfigError: the network does not say where its last maps are.
    """
    height, width = encoder.height, encoder.width
    total = torch.zeros(2, height, width)
    for last, places in zip(
        _last_maps(encoder), contributions(encoder, query_image, gallery_image), strict=True
    ):
        top, bottom = round(last.top * height), round(last.bottom * height)
        size = (bottom - top, width)
        density = places.cpu() * places[0].numel() / (size[0] * size[1])
        total[:, top:bottom] += F.interpolate(density[None], size, mode="bilinear", align_corners=False)[0]
    query_map, gallery_map = total.clamp(min=0)
    return _scaled(query_map), _scaled(gallery_map)


def contributions(encoder: Encoder, query_image: Image.Image, gallery_image: Image.Image) -> list[Tensor]:
    """Gradient times activation of the similarity, summed over channels, at each place of the last maps.

    The lengths of both embeddings are held fixed: with an average pooling and a neck without bias the places
    then add up to the cosine similarity itself. Were they not, the gradient would be at right angles to the
    embedding and the places would add up to 0. With a bias, or ReLUs in the neck, what the places add is the
    part of the similarity that grows with them. After Selvaraju et al., Grad-CAM, ICCV 2017.

    Returns:
        (2, h, w) for each of the network's ``last_maps``: of the query and of the gallery image.

    Raises:
        ConfigError: as :func:`similarity_maps`.
    """
    last_maps = _last_maps(encoder)
    model = encoder.model
    assert isinstance(model, Embedder)
    images = np.stack(
        [
            resized(image.convert("RGB"), height=encoder.height, width=encoder.width)
            for image in (query_image, gallery_image)
        ]
    )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    inputs = normalize(pixels.to(encoder.device), model.mean, model.std)
    kept: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: tuple[Tensor, ...], feature_map: Tensor) -> Tensor:
        # A separate leaf: the gradient is needed here and not further back.
        kept[module] = feature_map.detach().requires_grad_()
        return kept[module]

    hooks = [last.module.register_forward_hook(keep) for last in last_maps]
    try:
        with evaluating(model), torch.enable_grad():
            parts = model.embedding_parts(model(inputs))  # (2, D_p) each
    finally:
        for hook in hooks:
            hook.remove()
    similarities = torch.stack([_similarities(part.float()) for part in parts]).mean()
    maps = [kept[last.module] for last in last_maps]
    # A branch that the chosen feature does not read adds nothing.
    gradients = torch.autograd.grad(similarities, maps, allow_unused=True, materialize_grads=True)
    return [
        (gradient * feature_map.detach()).sum(dim=1)
        for gradient, feature_map in zip(gradients, maps, strict=True)
    ]


def _similarities(part: Tensor) -> Tensor:
    """The cosine of two embeddings (2, D), twice: once to differentiate for each image."""
    unit = part / part.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
    # Each image against the other held fixed: the gradient of a product is then not shared between them.
    cosine: Tensor = (unit * unit.detach().flip(0)).sum()
    return cosine


def _last_maps(encoder: Encoder) -> Sequence[LastMap]:
    model = encoder.model
    if not isinstance(model, Embedder) or not model.last_maps:
        raise ConfigError(
            "activation maps need a network that says where its last maps are; "
            f"{model.description.get('name', type(model).__name__)} does not"
        )
    return model.last_maps


def _scaled(places: Tensor) -> NDArray[np.float32]:
    highest = places.max()
    scaled: NDArray[np.float32] = (places / highest if highest > 0 else places).numpy()
    return scaled
