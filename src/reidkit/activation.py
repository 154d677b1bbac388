"""Where in two images the similarity of their embeddings comes from."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from reidkit.encoder import Encoder
from reidkit.errors import ConfigError
from reidkit.models.embedder import SingleBranch
from reidkit.transforms import normalize, to_input


def similarity_maps(
    encoder: Encoder, query_image: Image.Image, gallery_image: Image.Image
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each image, how much each place adds to the cosine similarity of the two.

    The shares of :func:`contributions`, negative ones set to 0, enlarged to the encoder's image size and
    divided by their maximum.

    Returns:
        Two maps (H, W) in [0, 1], of the query and of the gallery image; all 0 where no place adds anything.

    Raises:
        ConfigError: the network is not one of a backbone, a pooling and a neck.
    """
    query_map, gallery_map = contributions(encoder, query_image, gallery_image)
    return _scaled(encoder, query_map), _scaled(encoder, gallery_map)


def contributions(
    encoder: Encoder, query_image: Image.Image, gallery_image: Image.Image
) -> tuple[Tensor, Tensor]:
    """Gradient times activation of the similarity, summed over channels, at each place of the last map.

    The lengths of both embeddings are held fixed: with an average pooling and a neck without bias the places
    then add up to the cosine similarity itself. Were they not, the gradient would be at right angles to the
    embedding and the places would add up to 0. With a bias, or ReLUs in the neck, what the places add is the
    part of the similarity that grows with them. After Selvaraju et al., Grad-CAM, ICCV 2017.

    Returns:
        Two maps (h, w) of the backbone's size, of the query and of the gallery image.

    Raises:
        ConfigError: as :func:`similarity_maps`.
    """
    model = encoder.model
    if not isinstance(model, SingleBranch):
        raise ConfigError(
            "activation maps need a network of one backbone, a pooling and a neck; "
            f"{dict(model.description)} has no single last feature map"
        )
    images = torch.stack(
        [
            to_input(image.convert("RGB"), height=encoder.height, width=encoder.width)
            for image in (query_image, gallery_image)
        ]
    )
    inputs = normalize(images.to(encoder.device), model.mean, model.std)
    kept: list[Tensor] = []

    def keep(_: torch.nn.Module, __: tuple[Tensor, ...], feature_map: Tensor) -> Tensor:
        # A leaf of its own: the gradient is wanted here and in nothing before.
        kept.append(feature_map.detach().requires_grad_())
        return kept[-1]

    model.eval()
    hook = model.backbone.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            embeddings = model(inputs)[model.embedding_feature].float()  # (2, D)
    finally:
        hook.remove()
    unit = embeddings / embeddings.detach().norm(dim=1, keepdim=True).clamp(min=1e-12)
    # Each image against the other held fixed: the gradient of a product is then not shared between them.
    similarities = (unit * unit.detach().flip(0)).sum()
    (gradient,) = torch.autograd.grad(similarities, kept[0])
    query_map, gallery_map = (gradient * kept[0].detach()).sum(dim=1)  # (h, w) each
    return query_map, gallery_map


def _scaled(encoder: Encoder, feature_map: Tensor) -> NDArray[np.float32]:
    size = (encoder.height, encoder.width)
    positive = feature_map.clamp(min=0)[None, None]
    enlarged = F.interpolate(positive, size, mode="bilinear", align_corners=False)[0, 0]
    highest = enlarged.max()
    scaled: NDArray[np.float32] = (enlarged / highest if highest > 0 else enlarged).cpu().numpy()
    return scaled
