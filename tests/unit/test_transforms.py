import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.config import TransformConfig
from reidkit.models.embedder import IMAGENET_MEAN, IMAGENET_STD
from reidkit.samplers import Draw
from reidkit.transforms import TrainingImages, augmentation, normalize, to_input
from reidkit.types import Sample

RANDOM = ["flip", "shift", "zoom", "blur", "jitter", "grayscale", "autoaugment", "erasing"]
OFF = dict.fromkeys(RANDOM, 0)
EVERYTHING = TransformConfig(height=32, width=16, **{**dict.fromkeys(RANDOM, 0.5), "shift": 4})


@pytest.fixture
def split(tmp_path):
    rng = np.random.default_rng(0)
    samples = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, i, 1, i))
    return tuple(samples)


def test_an_image_depends_on_its_draw_alone(split):
    images = TrainingImages(split, EVERYTHING, mean=IMAGENET_MEAN)
    torch.manual_seed(1)
    first, index = images[Draw(2, 77)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, _ = images[Draw(2, 77)]
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not touched"
    assert torch.equal(first, second)
    assert index == 2
    assert first.shape == (3, 32, 16)
    assert first.dtype == torch.uint8
    others = [images[Draw(2, seed)][0] for seed in range(5)]
    assert any(not torch.equal(first, other) for other in others)


@pytest.mark.parametrize("key", RANDOM)
def test_each_augmentation_changes_images_and_zero_turns_it_off(key):
    image = torch.randint(0, 256, (3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    none = augmentation(TransformConfig(height=32, width=16, **OFF), IMAGENET_MEAN)
    assert torch.equal(none(image), image)
    value = {"shift": 4, "zoom": 0.3}.get(key, 1.0)
    torch.manual_seed(0)
    changed = augmentation(TransformConfig(height=32, width=16, **{**OFF, key: value}), IMAGENET_MEAN)(image)
    assert changed.shape == image.shape
    assert changed.dtype == torch.uint8
    assert not torch.equal(changed, image)
    if key == "flip":
        assert torch.equal(changed, image.flip(-1))
    if key == "grayscale":
        assert torch.equal(changed[0], changed[1])
        assert torch.equal(changed[1], changed[2])
    if key == "blur":
        assert changed.float().std() < image.float().std()


def test_normalize_is_the_textbook_formula():
    images = torch.randint(
        0, 256, (2, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(normalize(images, IMAGENET_MEAN, IMAGENET_STD), (images / 255 - mean) / std)


def test_to_input_resizes_only_where_needed():
    image = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3))
    assert np.array_equal(to_input(image, height=40, width=20).permute(1, 2, 0).numpy(), np.asarray(image))
    assert to_input(image, height=8, width=6).shape == (3, 8, 6)
