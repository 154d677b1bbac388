"""Embedding by all processes together: each embeds its share, the main one has the whole and evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import BATCH_SIZE, Encoder
from reidkit.errors import DataError
from reidkit.evaluation.comparison import compare
from reidkit.evaluation.evaluation import validation_features
from reidkit.evaluation.features import label_features
from reidkit.progress import ProgressCallback
from reidkit.training import distributed
from reidkit.types import Dataset, Features, Split


def embed_validation(encoder: Encoder, part: Split) -> tuple[Features, Features] | None:
    """Query and gallery made from a part's samples; None on all processes but the main one.

    Every process must come here, with the same part. Batch norm's statistics, which differ between processes
    in training, are made those of the main one.
    """
    distributed.copy_from_main(encoder.model.buffers())
    embeddings = embed_together(encoder, part)
    return None if embeddings is None else validation_features(label_features(embeddings, part))


def check_validation(data: Dataset) -> None:
    """Raise :class:`DataError` where no image of the ``val`` part has a match to find in it, or no other.

    Of one identity alone every ranking is right: mAP would be 100 % from the first epoch on, which would stay
    the best.
    """
    # Which image is to find which is decided by labels alone, so that any embedding will do.
    features = label_features(np.ones((len(data.val), 1), dtype=np.float32), data.val)
    query, gallery = validation_features(features)
    if len(gallery) and compare(query, gallery).same_identity_pairs.positive.any():
        if len(np.unique(gallery.identities)) > 1:
            return
        raise DataError(
            f"the val part of {data.name!r} ({len(data.val)} images) cannot be scored: all images to find "
            "are of one identity, so that every ranking is right; give it more identities, or leave it out "
            "and set data.val_identities to how many to hold out of train"
        )
    need = "seen by two or more cameras" if query.cameras is not None else "with two or more images"
    raise DataError(
        f"the val part of {data.name!r} ({len(data.val)} images of "
        f"{len({sample.identity for sample in data.val})} identities) cannot be scored: it holds no identity "
        f"{need}; give it some, or leave it out and set data.val_identities to how many to hold out of train"
    )


class SharedEncoder(Encoder):
    """The encoder of the main process where all embed what it is asked for.

    Meanwhile all other processes are in :func:`help_main`, until :meth:`release`.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder.network, height=encoder.height, width=encoder.width, card=encoder.card)
        self._own = encoder

    def features(
        self, split: Split, *, batch_size: int = BATCH_SIZE, progress: ProgressCallback | None = None
    ) -> Features:
        """As :meth:`Encoder.features`, bit for bit; ``progress`` is that of this process."""
        distributed.from_main(split)
        embeddings = embed_together(self._own, split, batch_size=batch_size, progress=progress)
        assert embeddings is not None
        return label_features(embeddings, split)

    def release(self) -> None:
        """Nothing more will be asked for: the other processes go on."""
        distributed.from_main(None)


@contextmanager
def by_all_processes(encoder: Encoder) -> Iterator[Encoder | None]:
    """While inside, all processes embed what the main one asks this encoder for.

    The others get None, once nothing more is asked for. Alone, a process gets the encoder as it is.
    """
    if distributed.world_size() == 1:
        yield encoder
        return
    if distributed.is_main():
        shared = SharedEncoder(encoder)
        yield shared
        shared.release()
        _leave_together()
        return
    with distributed.failures_explained():
        help_main(encoder)
        _leave_together()
    yield None


def _leave_together() -> None:
    """A launcher ends all processes when one fails, and none should have gone before."""
    distributed.barrier()
    distributed.shutdown()


def help_main(encoder: Encoder) -> None:
    """Embed this process's share of what the main process requests from its :class:`SharedEncoder`."""
    while (split := distributed.from_main(None)) is not None:
        embed_together(encoder, split)


def embed_together(
    encoder: Encoder, split: Split, *, batch_size: int = BATCH_SIZE, progress: ProgressCallback | None = None
) -> NDArray[np.float32] | None:
    """Embeddings (N, D) of samples; None on all processes but the main one. Every process must come here.

    Processes take whole batches in turn: the same image in another batch may round differently.
    """
    num_processes = distributed.world_size()
    batch_of = np.arange(len(split)) // batch_size
    of_rank = [np.flatnonzero(batch_of % num_processes == rank) for rank in range(num_processes)]
    own = tuple(split[index] for index in of_rank[distributed.rank()])
    share = encoder.features(own, batch_size=batch_size, progress=progress).embeddings
    shares = distributed.gather_on_main(share)
    if shares is None:
        return None
    embeddings = np.empty((len(split), encoder.dim), dtype=np.float32)
    for indices, share in zip(of_rank, shares, strict=True):
        embeddings[indices] = share
    return embeddings
