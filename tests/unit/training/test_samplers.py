import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reidkit.errors import ConfigError
from reidkit.training.samplers import IdentitySampler, RandomSampler, Share, TrackletFrames


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
    parts = [list(started(make(kind, share=Share(r, world_size)), 1, 0)) for r in range(world_size)]
    for number, batch in enumerate(whole):
        assert [draw for part in parts for draw in part[number]] == batch


def test_what_cannot_be_drawn_is_said():
    labels = np.repeat(np.arange(3), 4)
    with pytest.raises(ConfigError, match="identities_per_batch = 4, but the training set has only 3"):
        IdentitySampler(labels, identities_per_batch=4, images_per_identity=2)
    with pytest.raises(ConfigError, match="cannot be shared evenly by 4 processes"):
        IdentitySampler(labels, identities_per_batch=3, images_per_identity=2, share=Share(0, 4))
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


def hands_of(sampler, size, *, num_batches=None):
    return [
        batch[i : i + size] for batch in batches(sampler)[:num_batches] for i in range(0, len(batch), size)
    ]


@pytest.mark.parametrize(
    ("images_under", "size", "cameras_a_hand"),
    [
        ((8, 4, 3), 4, [3, 3, 3]),  # every hand has all three
        ((12, 1, 1, 1), 4, [2, 2, 2]),  # three rare images for three hands
        ((9, 2, 1), 3, [1, 2, 2, 2]),
        ((4, 4, 4, 3), 4, [4, 4, 4]),
        ((20, 20), 4, [2] * 10),
        ((7,), 3, [1, 1]),
        ((2, 1), 4, [2]),
    ],
)
def test_every_hand_of_a_deck_has_its_share_of_cameras(images_under, size, cameras_a_hand):
    """As many pairs of hand and camera as there can be, shared out evenly, while no image comes twice."""
    cameras = np.tile(np.repeat(np.arange(len(images_under)), images_under), 6)
    labels = np.repeat(np.arange(6), sum(images_under))
    # Of six identities two a batch: every identity has its turn in each round of three batches.
    sizes = {"identities_per_batch": 2, "images_per_identity": size}
    hands = hands_of(IdentitySampler(labels, cameras=cameras, **sizes), size)
    of_deck: dict[int, list] = {identity: [] for identity in range(6)}
    for hand in hands:
        dealt = of_deck[labels[hand[0]]]
        if len(dealt) < len(cameras_a_hand):
            dealt.append(hand)
    complete = [dealt for dealt in of_deck.values() if len(dealt) == len(cameras_a_hand)]
    assert complete
    for dealt in complete:
        assert sorted(len(set(cameras[hand])) for hand in dealt) == cameras_a_hand
        images = [image for hand in dealt for image in hand]
        assert len(set(images)) == min(len(images), sum(images_under)), "nothing comes twice"


def test_no_hand_comes_first_in_spreading():
    """A hand's number says nothing of its cameras: an epoch may deal a part of a deck."""
    cameras = np.tile(np.repeat([0, 1], [18, 2]), 200)
    labels = np.repeat(np.arange(200), 20)
    sampler = IdentitySampler(labels, cameras=cameras, identities_per_batch=200, images_per_identity=4)
    rounds = np.reshape(hands_of(sampler, 4), (5, 200, 4))
    shares = cameras[rounds].any(axis=2).mean(axis=1)  # of hands that show both cameras: 2 of 5
    assert np.abs(shares - 0.4).max() < 0.12


def test_spread_batches_are_the_same_for_any_number_of_processes():
    labels, cameras = np.repeat(np.arange(6), 15), np.tile(np.repeat([0, 1, 2], [8, 4, 3]), 6)
    sizes = {"cameras": cameras, "identities_per_batch": 3, "images_per_identity": 4}
    whole = list(started(IdentitySampler(labels, **sizes), 4, 0))
    assert list(started(IdentitySampler(labels, **sizes), 4, 2)) == whole[2:]
    parts = [list(started(IdentitySampler(labels, share=Share(r, 2), **sizes), 4, 0)) for r in range(2)]
    assert [[draw for part in parts for draw in part[number]] for number in range(len(whole))] == whole


def test_sets_take_equal_parts_of_every_batch_when_balanced():
    """A set of 5 identities beside one of 50."""
    labels = np.repeat(np.arange(55), 4)
    sets = ["small" if label < 5 else "large" for label in labels]
    sampler = IdentitySampler(labels, identities_per_batch=6, images_per_identity=2, sets=sets)
    for batch in batches(sampler):
        identities = np.unique(labels[batch])
        assert len(identities) == 6
        assert (identities < 5).sum() == 3
    with pytest.raises(ConfigError, match="takes 6 identities of each of 2 sets, but 'small' has only 5"):
        IdentitySampler(labels, identities_per_batch=12, images_per_identity=2, sets=sets)


# Tracklets: 8 identities with 3 tracklets each, of 5, 20 and 2 frames; 27 frames an identity

LENGTHS = [5, 20, 2] * 8
STARTS = np.cumsum([0, *LENGTHS])
TRACKLETS = [list(range(start, end)) for start, end in itertools.pairwise(STARTS)]
IDENTITY_OF_FRAME = np.repeat(np.arange(24) // 3, LENGTHS)
TRACKLET_OF_FRAME = np.repeat(np.arange(24), LENGTHS)


def tracklet_sampler(kind, *, evenly=False, per_tracklet=4, **place):
    frames = TrackletFrames(TRACKLETS, per_tracklet=per_tracklet, evenly=evenly)
    if kind == "random":
        return RandomSampler(len(IDENTITY_OF_FRAME), batch_size=10, frames=frames, **place)
    sizes = {"identities_per_batch": 5, "images_per_identity": 2}
    return IdentitySampler(IDENTITY_OF_FRAME, frames=frames, **sizes, **place)


@pytest.mark.parametrize("kind", ["identity", "random"])
@pytest.mark.parametrize("evenly", [False, True])
def test_an_epoch_counts_tracklets_and_takes_a_few_frames_of_each(kind, evenly):
    sampler = tracklet_sampler(kind, evenly=evenly)
    assert sampler.num_batches == 8 * (4 + 4 + 2) // 10
    of_epoch = [{index for batch in batches(sampler, epoch) for index in batch} for epoch in range(3)]
    for drawn in of_epoch:
        assert np.bincount(TRACKLET_OF_FRAME[sorted(drawn)]).max() <= 4
    everything = set().union(*of_epoch)
    most = np.bincount(TRACKLET_OF_FRAME[sorted(everything)]).max()
    assert most == 4 if evenly else most > 4, "random frames differ from epoch to epoch"
    if evenly:  # the middles of 4 equal parts of 20 frames
        places = {index - STARTS[TRACKLET_OF_FRAME[index]] for index in everything if index in TRACKLETS[1]}
        assert places == {2, 7, 12, 17}
    assert batches(tracklet_sampler(kind, evenly=evenly), epoch=2) == batches(sampler, epoch=2)


def test_a_person_with_no_frame_in_an_epoch_lends_any_of_their_images():
    """Wrong labels can give a person single frames of others' tracklets."""
    labels = np.array([0] * 9 + [1] + [2] * 10)
    frames = TrackletFrames([list(range(10)), list(range(10, 20))], per_tracklet=1, evenly=True)
    sampler = IdentitySampler(labels, frames=frames, identities_per_batch=3, images_per_identity=2)
    (batch,) = batches(sampler, epoch=0)
    assert sorted(labels[batch].tolist()) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("kind", ["identity", "random"])
def test_an_epoch_of_frames_can_be_entered_anywhere_and_shared(kind):
    whole = list(started(tracklet_sampler(kind), 4, 0))
    assert list(started(tracklet_sampler(kind), 4, 3)) == whole[3:]
    parts = [list(started(tracklet_sampler(kind, share=Share(r, 2)), 4, 0)) for r in range(2)]
    assert [[draw for part in parts for draw in part[number]] for number in range(len(whole))] == whole


def test_images_of_an_identity_come_from_different_tracklets():
    frames = TrackletFrames(TRACKLETS, per_tracklet=2, evenly=False)
    sizes = {"identities_per_batch": 4, "images_per_identity": 3}
    for batch in batches(IdentitySampler(IDENTITY_OF_FRAME, frames=frames, **sizes)):
        tracklets = np.sort(TRACKLET_OF_FRAME[np.reshape(batch, (4, 3))], axis=1)
        assert (np.diff(tracklets, axis=1) == 1).all(), "all three tracklets of each identity"


def test_cameras_come_before_tracklets():
    """Three tracklets, two of them under camera 0: three hands of two share the two images of camera 1."""
    cameras = (TRACKLET_OF_FRAME % 3 == 2).astype(int)
    frames = TrackletFrames(TRACKLETS, per_tracklet=2, evenly=False)
    sizes = {"identities_per_batch": 8, "images_per_identity": 2}
    sampler = IdentitySampler(IDENTITY_OF_FRAME, frames=frames, cameras=cameras, **sizes)
    hands = np.array(hands_of(sampler, 2))
    assert len(hands) == 24
    assert (cameras[hands].sum(axis=1) == 1).sum() == 16
    alone = hands[cameras[hands].sum(axis=1) == 0]
    assert (np.diff(TRACKLET_OF_FRAME[alone], axis=1) != 0).all(), "then two tracklets"
