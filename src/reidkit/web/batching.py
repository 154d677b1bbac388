"""Pictures of several requests, embedded together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.network import Network, WrappedNetwork
from reidkit.web.together import Together

MOST_AT_ONCE = 64

Images = NDArray[np.uint8]
Rows = NDArray[np.float32]


class BatchingNetwork(WrappedNetwork):
    """A network that embeds pictures of several threads together.

    Args:
        own: what embeds.
        waiting: pictures that may wait.
        pause: seconds, as :class:`reidkit.web.together.Together` takes it.
    """

    def __init__(self, own: Network, *, waiting: int, pause: float) -> None:
        super().__init__(own)
        self._together: Together[Images, Rows] = Together(
            self._embed_all,
            name="embedding",
            size=len,
            at_once=MOST_AT_ONCE,
            waiting=waiting,
            pause=pause,
            what="pictures wait to be embedded",
        )

    @property
    def num_waiting(self) -> int:
        """Pictures in the queue."""
        return self._together.num_waiting

    def embed(self, images: Images) -> Rows:
        """As the network does, in the batch of whoever asks at the same time.

        Raises :class:`reidkit.web.together.Busy` where too many wait already.
        """
        return self._together.do(images)

    def close(self) -> None:
        """Embed what waits, and take no more."""
        self._together.close()

    def _embed_all(self, portions: list[Images]) -> list[Rows]:
        embeddings = self.own.embed(np.concatenate(portions))
        ends = np.cumsum([len(images) for images in portions])[:-1]
        return np.split(embeddings, ends)
