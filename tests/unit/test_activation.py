"""Activation maps: their places add up to the similarity, and lie where it comes from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reidkit.activation import contributions, similarity_maps
from reidkit.encoder import Encoder
from reidkit.errors import ConfigError
from reidkit.models import build_model
from reidkit.models.embedder import SingleBranch

HEIGHT, WIDTH = 64, 32


class Patches(nn.Module):
    """Means of 8 x 8 patches of the three colours, as far as they are brighter than the mean image."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(nn.functional.avg_pool2d(images, 8))


def colour_encoder(pooling: str = "average") -> Encoder:
    model = SingleBranch(Patches(), 3, smallest_side=8, pooling=pooling, neck="plain")
    return Encoder(model, height=HEIGHT, width=WIDTH, device="cpu")


def black_with(colour: str, box: tuple[int, int, int, int]) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "black")
    image.paste(colour, box)
    return image


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["resnet18", "osnet_x0_25"])
def test_places_add_up_to_the_similarity_where_pooling_is_linear(name: str) -> None:
    torch.manual_seed(0)
    options = {"pretrained": False} if name.startswith("resnet") else {}
    encoder = Encoder(
        build_model(name, neck="plain", pooling="average", **options), height=64, width=32, device="cpu"
    )
    images = noise(0), noise(1)
    similarity = float(np.prod(encoder.encode(list(images)), axis=0).sum())
    for places in contributions(encoder, *images):
        assert places.ndim == 2
        assert float(places.sum()) == pytest.approx(similarity, abs=1e-5)


def test_what_is_alike_is_bright_and_the_rest_is_not() -> None:
    """Red is at the top of one image and at the bottom of the other, beside a green that only one has."""
    query = black_with("red", (0, 0, WIDTH, 16))
    gallery = black_with("red", (0, 48, WIDTH, 64))
    gallery.paste("green", (0, 0, WIDTH, 16))
    query_map, gallery_map = similarity_maps(colour_encoder(), query, gallery)
    for heat in (query_map, gallery_map):
        assert heat.shape == (HEIGHT, WIDTH)
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == pytest.approx(1)
    assert query_map[:12].min() > 0.9
    assert query_map[24:].max() < 0.05
    assert gallery_map[52:].min() > 0.9
    assert gallery_map[:12].max() < 0.05


@pytest.mark.parametrize("pooling", ["max", "gem"])
def test_other_poolings_have_maps_too(pooling: str) -> None:
    query_map, gallery_map = similarity_maps(colour_encoder(pooling), noise(0), noise(1))
    assert query_map.max() == gallery_map.max() == pytest.approx(1)


def test_images_with_nothing_in_common_have_empty_maps() -> None:
    red, green = (black_with(colour, (0, 0, WIDTH, HEIGHT)) for colour in ("#ff0000", "#00ff00"))
    for heat in similarity_maps(colour_encoder(), red, green):
        assert not heat.any()


def test_images_of_any_size_and_mode_are_taken() -> None:
    query_map, _ = similarity_maps(colour_encoder(), Image.new("L", (300, 200), 200), noise(1))
    assert query_map.shape == (HEIGHT, WIDTH)


def test_nothing_of_the_network_is_changed() -> None:
    model = build_model("resnet18", pretrained=False)
    encoder = Encoder(model, height=64, width=32, device="cpu")
    before = encoder.fingerprint
    similarity_maps(encoder, noise(0), noise(1))
    assert encoder.fingerprint == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.backbone._forward_hooks


def test_a_network_of_several_branches_is_refused() -> None:
    model = build_model("jlml")
    encoder = Encoder(model, height=160, width=64, device="cpu")
    with pytest.raises(ConfigError, match="one backbone, a pooling and a neck"):
        similarity_maps(encoder, noise(0), noise(1))
