import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError
from reidkit.samplers import IdentitySampler, RandomSampler


def batches(sampler, epoch=0, first_batch=0):
    sampler.start(epoch, first_batch)
    return [[draw.sample for draw in batch] for batch in sampler]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=20),
    k=st.integers(1, 5),
    seed=st.integers(0, 5),
    data=st.data(),
)
def test_identity_batches_keep_their_promises(sizes, k, seed, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    p = data.draw(st.integers(1, len(sizes)))
    sampler = IdentitySampler(labels, identities_per_batch=p, images_per_identity=k, seed=seed)
    drawn = batches(sampler)
    assert len(drawn) == max(1, len(labels) // (p * k))
    seen = []
    for batch in drawn:
        identities, counts = np.unique(labels[batch], return_counts=True)
        assert len(identities) == p
        assert set(counts) == {k}
        for identity in identities:
            of_identity = [i for i in batch if labels[i] == identity]
            assert len(set(of_identity)) == min(k, sizes[identity]), "repeats only where there are too few"
        seen += labels[batch][::k].tolist()
    times = np.bincount(seen, minlength=len(sizes))
    assert times.max() - times.min() <= 1, "every identity comes once before any comes again"


def test_batches_depend_on_seed_and_epoch_alone():
    labels = np.repeat(np.arange(10), 6)
    make = lambda seed: IdentitySampler(labels, identities_per_batch=4, images_per_identity=3, seed=seed)  # noqa: E731
    assert batches(make(1), epoch=2) == batches(make(1), epoch=2)
    assert batches(make(1), epoch=2) != batches(make(1), epoch=3)
    assert batches(make(1), epoch=2) != batches(make(2), epoch=2)


@pytest.mark.parametrize("kind", ["identity", "random"])
def test_an_epoch_can_be_entered_anywhere(kind):
    whole = list(started(make(kind), 4, 0))
    for first in range(len(whole) + 1):
        assert list(started(make(kind), 4, first)) == whole[first:], "draws and their seeds are the same"


@pytest.mark.parametrize("kind", ["identity", "random"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_draw_the_batch_of_one(kind, world_size):
    whole = list(started(make(kind), 1, 0))
    parts = [list(started(make(kind, rank=r, world_size=world_size), 1, 0)) for r in range(world_size)]
    for number, batch in enumerate(whole):
        assert [draw for part in parts for draw in part[number]] == batch


def test_what_cannot_be_drawn_is_said():
    labels = np.repeat(np.arange(3), 4)
    with pytest.raises(ConfigError, match="identities_per_batch = 4, but the training set has only 3"):
        IdentitySampler(labels, identities_per_batch=4, images_per_identity=2)
    with pytest.raises(ConfigError, match="cannot be shared evenly by 4 processes"):
        IdentitySampler(labels, identities_per_batch=3, images_per_identity=2, world_size=4)
    with pytest.raises(ConfigError, match="a batch has 13 images, but the training set has only 12"):
        RandomSampler(12, batch_size=13)


def test_random_batches_have_each_image_at_most_once_and_count_the_rest():
    sampler = RandomSampler(23, batch_size=5, seed=0)
    drawn = [index for batch in batches(sampler) for index in batch]
    assert len(drawn) == len(set(drawn)) == 20
    assert sampler.num_left_out == 3


def make(kind, **place):
    if kind == "random":
        return RandomSampler(50, batch_size=12, seed=7, **place)
    labels = np.repeat(np.arange(10), 6)
    return IdentitySampler(labels, identities_per_batch=6, images_per_identity=2, seed=7, **place)


def started(sampler, epoch, first_batch):
    sampler.start(epoch, first_batch)
    return sampler
