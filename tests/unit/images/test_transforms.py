from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision

from reidkit.images.cache import read
from reidkit.images.reading import load_image
from reidkit.images.transforms import normalize, normalize_array, resized
from reidkit.models._embedder import IMAGENET
from reidkit.types import Sample

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)  # (B, H, W, 3)
TENSORS = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def test_images_are_resized_only_where_needed() -> None:
    image = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3))
    np.testing.assert_array_equal(resized(image, height=40, width=20), np.asarray(image))
    for resampling in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        expected = np.asarray(image.resize((6, 8), resampling))
        np.testing.assert_array_equal(resized(image, height=8, width=6, resampling=resampling), expected)


def test_tensors_of_images_are_those_of_torchvision(tmp_path: Path) -> None:
    """Bit for bit and as they lie in memory: runs of earlier versions go on with the same numbers."""
    for index, (height, width) in enumerate([(30, 15), (12, 6), (1, 1)]):
        path = tmp_path / f"{index}.png"
        pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        check_against_torchvision(path)


def test_tensors_of_real_images_are_those_of_torchvision(real_data: Path) -> None:
    for path in sorted((real_data / "market1501-500" / "query").glob("*.jpg"))[:20]:
        check_against_torchvision(path)


def check_against_torchvision(path: Path) -> None:
    expected = torchvision.pil_to_tensor(load_image(path).resize((6, 12), Image.Resampling.BILINEAR))
    image = read(Sample(path, 0, 0, 0), height=12, width=6)
    assert torch.equal(image, expected)
    assert image.stride() == expected.stride()


def test_normalize_is_the_textbook_formula() -> None:
    mean, std = torch.tensor(IMAGENET.mean).view(3, 1, 1), torch.tensor(IMAGENET.std).view(3, 1, 1)
    torch.testing.assert_close(normalize(TENSORS, IMAGENET.mean, IMAGENET.std), (TENSORS / 255 - mean) / std)


@pytest.mark.parametrize(
    ("mean", "std"), [(IMAGENET.mean, IMAGENET.std), ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))]
)
def test_arrays_are_normalised_as_tensors_are(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    every = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    for images in (IMAGES, every, IMAGES[:0]):
        expected = normalize(torch.from_numpy(images).permute(0, 3, 1, 2), mean, std)
        np.testing.assert_array_equal(normalize_array(images, mean, std), expected.numpy())
