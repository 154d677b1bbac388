from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reidkit.config import TransformConfig
from reidkit.errors import DataError
from reidkit.images.cache import read
from reidkit.models._embedder import IMAGENET
from reidkit.training.augmentation import augmentation
from reidkit.training.loader import TrainingImages, batches, collate
from reidkit.training.samplers import Draw
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
    images = TrainingImages(split, EVERYTHING, mean=IMAGENET.mean)
    torch.manual_seed(1)
    first, index, _ = images[Draw(2, 77)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, _, _ = images[Draw(2, 77)]
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not touched"
    assert torch.equal(first, second)
    assert index == 2
    assert first.shape == (3, 32, 16)
    assert first.dtype == torch.uint8
    others = [images[Draw(2, seed)][0] for seed in range(5)]
    assert any(not torch.equal(first, other) for other in others)


def test_in_a_batch_an_image_is_decoded_once_and_its_draws_differ(split):
    decoded = []

    def crop(sample):
        decoded.append(sample.index)
        return read(sample, height=32, width=16)

    images = TrainingImages(split, EVERYTHING, mean=IMAGENET.mean, crop=crop)
    draws = [Draw(1, 5), Draw(2, 6), Draw(1, 7)]
    batch = images.__getitems__(draws)
    assert decoded == [1, 2]
    assert not torch.equal(batch[0].image, batch[2].image)
    assert all(torch.equal(item.image, images[draw].image) for item, draw in zip(batch, draws, strict=True))


def test_an_unreadable_image_is_an_error_or_gives_place_to_one_of_the_same_identity(split):
    split = tuple(
        replace(sample, identity=identity) for sample, identity in zip(split, [4, 4, 5], strict=True)
    )
    split[1].path.write_bytes(split[1].path.read_bytes()[:50])
    stopping = TrainingImages(split, EVERYTHING, mean=IMAGENET.mean)
    with pytest.raises(DataError, match=r"1\.png is truncated"):
        list(batches([collate([stopping[Draw(index, 3)] for index in range(3)])]))

    skipping = TrainingImages(split, EVERYTHING, mean=IMAGENET.mean, skip_unreadable=True)
    batch = collate(skipping.__getitems__([Draw(index, 3) for index in range(3)]))
    assert batch.indices.tolist() == [0, 0, 2], "an image of its own identity"
    assert torch.equal(batch.images[1], stopping[Draw(0, 3)].image), "under the draw's own seed"
    ((index, problem),) = batch.unreadable
    assert index == 1
    assert "1.png is truncated" in problem

    split[0].path.unlink()  # nothing is left of identity 4
    batch = collate([skipping[Draw(0, 3)]])
    assert batch.indices.tolist() == [2]
    assert sorted(index for index, _ in batch.unreadable) == [0, 1]
    split[2].path.unlink()
    with pytest.raises(DataError, match=r"0\.png is missing"):
        list(batches([collate([skipping[Draw(0, 3)]])]))


@pytest.mark.parametrize("seed", range(4))
def test_the_replacement_depends_on_the_draw_alone(split, seed):
    split = tuple(replace(sample, identity=4) for sample in split)
    split[1].path.unlink()
    images = TrainingImages(split, EVERYTHING, mean=IMAGENET.mean, skip_unreadable=True)
    first = images[Draw(1, seed)]
    again = images.__getitems__([Draw(2, 9), Draw(1, seed)])[1]
    assert first.sample == again.sample
    assert torch.equal(first.image, again.image)


@pytest.mark.parametrize("key", RANDOM)
def test_each_augmentation_changes_images_and_zero_turns_it_off(key):
    image = torch.randint(0, 256, (3, 32, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    none = augmentation(TransformConfig(height=32, width=16, **OFF), IMAGENET.mean)
    assert torch.equal(none(image), image)
    value = {"shift": 4, "zoom": 0.3}.get(key, 1.0)
    torch.manual_seed(0)
    changed = augmentation(TransformConfig(height=32, width=16, **{**OFF, key: value}), IMAGENET.mean)(image)
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
