"""Which images make a batch. Batches are drawn from (seed, epoch) alone: no state, any position at once.

A sampler yields lists of :class:`Draw`. The global batch is drawn first, then each process takes its slice,
so that any number of processes sees the same batches and nothing has to re-shard them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reidkit.errors import ConfigError


class Draw(NamedTuple):
    """One image of a batch: its place in the split, and the seed of its random transforms."""

    sample: int
    seed: int


class TrackletFrames:
    """The frames that an epoch takes of each tracklet: long tracklets count no more than short ones.

    Args:
        tracklets: the sample indices of each tracklet, its frames in their order.
        per_tracklet: frames an epoch takes of each; all of a tracklet that has fewer.
        evenly: the middle frames of that many equal parts, the same in every epoch; otherwise they are drawn
            again, without repeats, for each epoch.
    """

    def __init__(self, tracklets: Sequence[Sequence[int]], *, per_tracklet: int, evenly: bool) -> None:
        self.tracklets = [np.asarray(frames, dtype=np.int64) for frames in tracklets]
        self.per_tracklet, self.evenly = per_tracklet, evenly
        self.num_frames = sum(min(per_tracklet, len(frames)) for frames in self.tracklets)
        self.tracklet_of = np.zeros(sum(map(len, self.tracklets)), dtype=np.int64)
        for number, frames in enumerate(self.tracklets):
            self.tracklet_of[frames] = number

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The (num_frames,) sample indices of one epoch, ascending."""
        return np.sort(np.concatenate([self._of_tracklet(frames, rng) for frames in self.tracklets]))

    def _of_tracklet(self, frames: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        if len(frames) <= self.per_tracklet:
            return frames
        if self.evenly:
            parts = np.arange(self.per_tracklet)
            return frames[(2 * parts + 1) * len(frames) // (2 * self.per_tracklet)]
        return rng.choice(frames, self.per_tracklet, replace=False)


class Share(NamedTuple):
    """The slice of each global batch that one process takes: number ``rank`` of ``world_size`` equal ones."""

    rank: int = 0
    world_size: int = 1


WHOLE = Share()


class BatchSampler:
    """Base class: the global batches of an epoch, and the share of one process.

    Subclasses give ``num_batches``, ``batch_size``, ``num_left_out`` (images of an epoch that no batch has)
    and :meth:`global_batches`.

    Args:
        seed: of all draws.
        share: what this process takes of each global batch.
    """

    num_batches: int
    batch_size: int
    num_left_out: int

    def __init__(self, *, seed: int = 0, share: Share = WHOLE) -> None:
        self.seed, self.share = seed, share
        self.epoch = 0
        self.first_batch = 0

    def global_batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """All batches of an epoch as arrays of sample indices."""
        raise NotImplementedError

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, and the batch of it, that the next iteration begins with."""
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return self.num_batches - self.first_batch

    def __iter__(self) -> Iterator[list[Draw]]:
        batches = self.global_batches(np.random.default_rng([self.seed, self.epoch]))
        rank, world_size = self.share
        slice_size = self.batch_size // world_size
        mine = slice(rank * slice_size, (rank + 1) * slice_size)
        for number in range(self.first_batch, self.num_batches):
            seeds = np.random.SeedSequence([self.seed, self.epoch, number]).generate_state(self.batch_size)
            yield [Draw(int(i), int(s)) for i, s in zip(batches[number][mine], seeds[mine], strict=True)]

    def _check_slices(self) -> None:
        if self.batch_size % self.share.world_size:
            raise ConfigError(
                f"a batch of {self.batch_size} images cannot be shared evenly by {self.share.world_size} "
                "processes; choose a batch that is a multiple of their number"
            )


class IdentitySampler(BatchSampler):
    """P identities x K images (Hermans et al. 2017), the batch that metric losses need.

    Identities are dealt from a shuffled deck: each comes once before any comes again, and never twice in one
    batch. An identity with fewer than K images repeats some. An epoch is floor(images / (P K)) batches, at
    least one; ``num_left_out`` counts the images beyond that.

    Args:
        identities: (N,) identity of every training sample, in index order.
        identities_per_batch: P.
        images_per_identity: K.
        cameras: (N,) cameras, to spread the K images of an identity over as many of them as it has. Each
            image is still used once before any is used again; images of a rare camera are spread evenly.
        sets: (N,) data sets, to take as many identities from each into every batch; otherwise sets take part
            in proportion to their identities.
        frames: which images an epoch uses; all if left out. The K images of an identity are then also spread
            over its tracklets, after cameras.
        seed, share: see :class:`BatchSampler`.

    Raises:
        ConfigError: fewer identities than P, in the whole or in one of the sets that share a batch.
    """

    def __init__(
        self,
        identities: Sequence[int] | NDArray[np.int64],
        *,
        identities_per_batch: int,
        images_per_identity: int,
        cameras: Sequence[int] | NDArray[np.int64] | None = None,
        sets: Sequence[str] | None = None,
        frames: TrackletFrames | None = None,
        seed: int = 0,
        share: Share = WHOLE,
    ) -> None:
        super().__init__(seed=seed, share=share)
        labels = np.asarray(identities)
        self.images_of = [np.flatnonzero(labels == identity) for identity in np.unique(labels)]
        self.frames = frames
        self.spread_over = [] if cameras is None else [np.asarray(cameras)]
        if frames is not None:
            self.spread_over.insert(0, frames.tracklet_of)
        if len(self.images_of) < identities_per_batch:
            raise ConfigError(
                f"identities_per_batch = {identities_per_batch}, but the training set has only "
                f"{len(self.images_of)} identities; lower it to that number or less: "
                f"sampler.identities_per_batch={len(self.images_of)} of `reid train`"
            )
        self.identities_per_batch = identities_per_batch
        self.images_per_identity = images_per_identity
        self.groups = [list(range(len(self.images_of)))] if sets is None else self._by_set(sets)
        self.batch_size = identities_per_batch * images_per_identity
        num_images = len(labels) if frames is None else frames.num_frames
        self.num_batches = max(1, num_images // self.batch_size)
        self.num_left_out = max(0, num_images - self.num_batches * self.batch_size)
        self._check_slices()

    def global_batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        images_of = self.images_of
        if self.frames is not None:
            in_epoch = np.zeros(len(self.frames.tracklet_of), dtype=bool)
            in_epoch[self.frames.draw(rng)] = True
            # With wrong labels an identity may have no frame in the epoch: then use any of its images.
            images_of = [chosen if len(chosen := im[in_epoch[im]]) else im for im in images_of]
        decks = [_Deck(images, rng, self.spread_over) for images in images_of]
        return [
            np.concatenate([decks[identity].deal(self.images_per_identity) for identity in identities])
            for identities in self._deal_identities(rng)
        ]

    def _deal_identities(self, rng: np.random.Generator) -> list[list[int]]:
        """P identity numbers a batch, from each group in turn."""
        waiting: list[deque[int]] = [deque() for _ in self.groups]
        dealt = []
        for number in range(self.num_batches):
            batch: list[int] = []
            for place in range(self.identities_per_batch):
                turn = (number * self.identities_per_batch + place) % len(self.groups)
                if not waiting[turn]:
                    # A new deck in the middle of a batch: identities already in the batch go last.
                    order = rng.permutation(self.groups[turn]).tolist()
                    waiting[turn].extend(sorted(order, key=lambda i: i in batch))
                batch.append(waiting[turn].popleft())
            dealt.append(batch)
        return dealt

    def _by_set(self, sets: Sequence[str]) -> list[list[int]]:
        """Identity numbers of each set."""
        set_of = [sets[images[0]] for images in self.images_of]
        names = sorted(set(set_of))
        groups = [[number for number, name in enumerate(set_of) if name == wanted] for wanted in names]
        share = -(-self.identities_per_batch // len(names))
        for name, group in zip(names, groups, strict=True):
            if len(group) < share:
                raise ConfigError(
                    f"identities_per_batch = {self.identities_per_batch} takes {share} identities of each of "
                    f"{len(names)} sets, but {name!r} has only {len(group)}; lower it, or turn balancing off"
                )
        return groups


class _Deck:
    """The images of one identity, shuffled and cut into hands; reshuffled when all hands are dealt.

    What does not fill a hand is not dealt; an identity with less than a hand has all its images in it, and
    repeats some.
    """

    def __init__(
        self, images: NDArray[np.int64], rng: np.random.Generator, spread_over: Sequence[NDArray[np.int64]]
    ) -> None:
        self.images, self.rng, self.spread_over = images, rng, spread_over
        self.hands: deque[NDArray[np.int64]] = deque()

    def deal(self, count: int) -> NDArray[np.int64]:
        if not self.hands:
            self.hands.extend(self._cut(count))
        return np.resize(self.hands.popleft(), count)

    def _cut(self, count: int) -> NDArray[np.int64]:
        """The hands (h, count) of a newly shuffled deck; of a smaller deck one, (1, n)."""
        order = self.rng.permutation(self.images)
        for labels in self.spread_over:  # what comes last counts first
            order = _spread(order, labels[order])
        num_hands = max(1, len(order) // count)
        order = order[: num_hands * count]  # spread, so that what is left over is of where most are
        if num_hands == 1 or not self.spread_over:
            return order.reshape(num_hands, -1)
        # Dealt around the table, sorted by camera, every camera reaches as many hands as it has images.
        order = order[np.lexsort([labels[order] for labels in self.spread_over])]
        hands = order.reshape(-1, num_hands).T
        return self.rng.permutation(hands)


def _spread(order: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first image of every camera (or tracklet), then the second of every camera, ..."""
    seen: dict[int, int] = {}
    rounds = []
    for label in labels.tolist():
        rounds.append(seen.get(label, 0))
        seen[label] = rounds[-1] + 1
    return order[np.argsort(rounds, kind="stable")]


class RandomSampler(BatchSampler):
    """Plain shuffling, each image at most once an epoch (JLML). The last, smaller batch is left out.

    Args:
        num_images: size of the training split.
        batch_size: images a global batch.
        frames: which of the images an epoch has; all without it.
        seed, share: see :class:`BatchSampler`.

    Raises:
        ConfigError: fewer images than a batch.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        frames: TrackletFrames | None = None,
        seed: int = 0,
        share: Share = WHOLE,
    ) -> None:
        super().__init__(seed=seed, share=share)
        self.frames = frames
        if frames is not None:
            num_images = frames.num_frames
        if num_images < batch_size:
            raise ConfigError(f"a batch has {batch_size} images, but the training set has only {num_images}")
        self.num_images, self.batch_size = num_images, batch_size
        self.num_batches = num_images // batch_size
        self.num_left_out = num_images - self.num_batches * batch_size
        self._check_slices()

    def global_batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        images = self.num_images if self.frames is None else self.frames.draw(rng)
        order = rng.permutation(images)[: self.num_batches * self.batch_size]
        return list(order.reshape(self.num_batches, self.batch_size))
