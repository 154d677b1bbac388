"""Activation maps: their places add up to the similarity, and lie where it comes from."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from reidkit.encoders.encoder import Encoder
from reidkit.errors import ConfigError
from reidkit.models import build_model
from reidkit.models._embedder import SingleBranch
from reidkit.reports.maps import contributions, similarity_maps

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
    (places,) = contributions(encoder, *images)
    assert places.shape[0] == 2
    assert places.sum(dim=(1, 2)).tolist() == pytest.approx([similarity, similarity], abs=1e-5)


@pytest.mark.parametrize("uniloss", [False, True])
def test_jlml_has_a_map_of_the_whole_and_one_of_each_stripe(uniloss: bool) -> None:
    torch.manual_seed(0)
    encoder = Encoder(build_model("jlml", stripes=2, uniloss=uniloss), height=64, width=32, device="cpu")
    images = noise(0), noise(1)
    maps = contributions(encoder, *images)
    similarity = float(np.prod(encoder.encode(list(images)), axis=0).sum())
    assert [tuple(places.shape) for places in maps] == [(2, 2, 1)] * 3
    assert sum(places.sum(dim=(1, 2)) for places in maps).tolist() == pytest.approx(
        [similarity] * 2, abs=1e-5
    )
    assert similarity_maps(encoder, *images)[0].max() == pytest.approx(1)


def test_the_patches_of_a_transformer_lie_as_in_the_image() -> None:
    """The similarity comes from the patches that are alike, wherever the image has them."""
    torch.manual_seed(0)
    model = build_model("timm:vit_tiny_patch16_224", image_size=[64, 32], neck="plain")
    encoder = Encoder(model, height=64, width=32, device="cpu")
    (places,) = contributions(encoder, noise(0), noise(1))
    assert places.shape == (2, 4, 2)
    similarity = float(np.prod(encoder.encode([noise(0), noise(1)]), axis=0).sum())
    assert places.sum(dim=(1, 2)).tolist() == pytest.approx([similarity] * 2, abs=1e-5)


def test_a_branch_that_is_not_asked_for_adds_nothing() -> None:
    torch.manual_seed(0)
    encoder = Encoder(build_model("jlml", stripes=2), height=64, width=32, device="cpu", feature="local")
    whole, upper, lower = contributions(encoder, noise(0), noise(1))
    assert not whole.any()
    assert upper.any()
    assert lower.any()


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


def test_a_network_that_does_not_say_where_its_maps_are_is_refused() -> None:
    class Silent(SingleBranch):
        last_maps = ()

    model = Silent(Patches(), 3, smallest_side=8, pooling="average", neck="plain")
    with pytest.raises(ConfigError, match="where its last maps are"):
        similarity_maps(Encoder(model, height=HEIGHT, width=WIDTH, device="cpu"), noise(0), noise(1))
