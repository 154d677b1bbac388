"""An encoder of ours, embedded by the library that is fastest on this machine.

PyTorch trains, but onnxruntime and OpenVINO embed two to four times as fast on many CPUs. Which of them wins
depends on the network and on the processor, so it is measured (:mod:`reidkit.encoders.backend_choice`), once
for an encoder and a machine, and kept. That takes about half a minute, and so it is done only where PyTorch
has more than a minute of work to do; what was kept is used from a few seconds of work on. A few images, such
as those of a search, are always embedded by PyTorch, which is there already.

The embeddings are those of one encoder, whoever computes them: they agree on the first images that come to
:data:`reidkit.encoders.agreement.MIN_COSINE`, or PyTorch goes on alone and a message says why.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reidkit import logs
from reidkit.encoders.backend_choice import kept, measured
from reidkit.encoders.network import Network, WrappedNetwork
from reidkit.encoders.runtimes import check_runtime
from reidkit.errors import ConfigError, UnknownName, short

if TYPE_CHECKING:
    from reidkit.encoders.encoder import Encoder

logger = logs.get_logger(__name__)

BACKENDS = ("auto", "torch", "onnx", "openvino")

WORTH_OPENING = 3.0
"""Seconds of PyTorch's work from which on a file that is kept is opened, which takes about one."""

WORTH_MEASURING = 60.0
"""Seconds of PyTorch's work from which on it is measured what is fastest."""


def check_backend(backend: str) -> None:
    """Raise :class:`UnknownName` where there is no such backend."""
    if backend not in BACKENDS:
        raise UnknownName("backend", backend, BACKENDS)


def with_backend(encoder: Encoder, backend: str) -> Network:
    """The network of an encoder that was just loaded, embedding by that backend.

    Raises:
        ConfigError: a backend for CPUs, and an encoder on another device.
        MissingExtra: a package that the backend needs is not installed.
    """
    on_cpu = str(encoder.device).partition(":")[0] == "cpu"
    if backend in ("onnx", "openvino"):
        if not on_cpu:
            raise ConfigError(
                f"backend = {backend!r} runs on the CPU, not on {encoder.device}; leave one out"
            )
        check_runtime(backend)
    return encoder.network if backend == "torch" or not on_cpu else FastestNetwork(encoder, backend)


class FastestNetwork(WrappedNetwork):
    """A network of PyTorch that lets another library embed where that is faster, or was asked for.

    Args:
        encoder: the network, with the size of its images.
        backend: "auto", "onnx" or "openvino".
    """

    def __init__(self, encoder: Encoder, backend: str) -> None:
        super().__init__(encoder.network)
        self.backend = backend
        self._size = encoder.height, encoder.width
        self._to_come = self._num_batches = 0
        self._seconds = 0.0  # that PyTorch worked
        self._other: Network | None = None
        self._steps = [(WORTH_OPENING, kept), (WORTH_MEASURING, measured)]  # not taken yet
        self._looking = threading.Lock()
        self._apart = False  # it is looked in threads of its own

    def expect(self, num_images: int) -> None:
        self._to_come = max(self._to_come, num_images)

    def keep_nobody_waiting(self) -> None:
        self._apart = True

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._to_come = max(0, self._to_come - len(images))
        if (embeddings := self._by_other(images)) is not None:
            return embeddings
        started = time.perf_counter()
        embeddings = self.own.embed(images)
        seconds = time.perf_counter() - started
        self._num_batches += 1
        self._seconds += seconds
        # What was embedded counts as well as what is to come, for who asks for one image at a time.
        work = self._seconds + self._to_come * seconds / len(images)
        if self._is_due(work) and self._looking.acquire(blocking=False):
            if self._apart:
                threading.Thread(target=self._look, args=(work, images, embeddings), daemon=True).start()
            else:
                self._look(work, images, embeddings)
        return embeddings

    def _is_due(self, work: float) -> bool:
        """Whether so many seconds of work are worth the next step towards another library."""
        if self.backend != "auto":
            return bool(self._steps)
        # The first batch had to wait for what is done once, and tells little of the others.
        return self._num_batches > 1 and bool(self._steps) and work > self._steps[0][0]

    def _look(self, work: float, images: NDArray[np.uint8], embeddings: NDArray[np.float32]) -> None:
        """Take the steps towards another library that are due, and let go of the lock."""
        try:
            while self._is_due(work):
                _, step = self._steps.pop(0)
                choice = step(self._encoder(), self.backend, images, embeddings)
                if choice is not None:
                    self._other, self._steps = choice.network, []
                    logger.log(logging.INFO if choice.as_wished else logging.WARNING, choice.told)
        finally:
            self._looking.release()

    def _by_other(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Embeddings by the other library; None where there is none, or no longer."""
        other = self._other
        if other is None:
            return None
        height, width = self._size
        if images.shape[1:3] != self._size or self._own_fingerprint() not in other.fingerprints(
            height=height, width=width
        ):
            self._go_on_alone("its weights, or the size of its images, were changed")
            return None
        try:
            return other.embed(images)
        except Exception as error:  # whatever a runtime raises; PyTorch can still do it
            self._go_on_alone(short(error, 200))
            return None

    def _go_on_alone(self, why: str) -> None:
        self._other = None
        logger.warning(f"embedded by PyTorch from here on: {why}")

    def _encoder(self) -> Encoder:
        from reidkit.encoders.encoder import Encoder

        height, width = self._size
        return Encoder(self.own, height=height, width=width)

    def _own_fingerprint(self) -> str:
        height, width = self._size
        return self.own.fingerprints(height=height, width=width)[0]
