"""How OpenVINO runs a network on the CPU: one batch by all threads together, or parts of it by each alone.

Threads that share the work of a batch wait for each other after every layer; where layers take little time,
as in 8-bit integers, two cores lose a sixth by that. Threads that each take a part of the batch, OpenVINO's
streams, do not wait, but a lone image would then have one thread. So there are two sessions, the second made
where there is enough work for it. Both gave the same bits wherever that was tried.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.runtimes import num_threads

WORTH_COMPILING = 5.0
"""Batches must have taken so many times what compiling took before there is a second session."""

_MOST_A_PART = 8  # images; larger parts are not faster, and leave threads without work at the end


class Sessions:
    """A network that OpenVINO compiled, for as many threads as call it.

    Args:
        openvino: the package.
        model: the network as OpenVINO has read it.
    """

    def __init__(self, openvino: Any, model: Any) -> None:
        self._openvino, self._model = openvino, model
        started = time.perf_counter()
        self.compiled = self._compile("LATENCY")
        self._seconds_left = WORTH_COMPILING * (time.perf_counter() - started)
        self._streams: Any = None
        self._turn = threading.Lock()  # OpenVINO refuses who comes while a request is under way

    def run(self, images: NDArray[Any], *, place_in: int, place_out: int) -> NDArray[Any]:
        """Images (B, 3, H, W), C-contiguous -> the output at a place (B, ...)."""
        with self._turn:
            if len(images) == 1 or num_threads() == 1 or not self._takes_parts(place_in):
                return self._run_whole(images, place_in, place_out)
            if self._streams is None and self._seconds_left <= 0:
                self._streams = self._openvino.AsyncInferQueue(self._compile("THROUGHPUT"))
            if self._streams is not None:
                return self._run_parts(images, place_in, place_out)
            started = time.perf_counter()
            output = self._run_whole(images, place_in, place_out)
            self._seconds_left -= time.perf_counter() - started
            return output

    def _takes_parts(self, place_in: int) -> bool:
        shape = self.compiled.inputs[place_in].partial_shape
        return bool(shape.rank.is_static and shape[0].is_dynamic)

    def _run_whole(self, images: NDArray[Any], place_in: int, place_out: int) -> NDArray[Any]:
        result: NDArray[Any] = self.compiled({place_in: images}, share_inputs=True)[place_out]
        return result

    def _run_parts(self, images: NDArray[Any], place_in: int, place_out: int) -> NDArray[Any]:
        rounds = -(-len(images) // (len(self._streams) * _MOST_A_PART))
        parts = np.array_split(images, min(len(images), rounds * len(self._streams)))
        outputs: list[Any] = [None] * len(parts)

        def keep(request: Any, place: int) -> None:
            outputs[place] = np.array(request.output_tensors[place_out].data)

        self._streams.set_callback(keep)
        for place, part in enumerate(parts):
            self._streams.start_async({place_in: part}, place, share_inputs=True)
        self._streams.wait_all()
        return np.concatenate(outputs)

    def _compile(self, hint: str) -> Any:
        settings = {
            "PERFORMANCE_HINT": hint,
            "INFERENCE_NUM_THREADS": num_threads(),
            # Left alone, it computes in bfloat16 where the processor can, and figures differ by machine.
            "INFERENCE_PRECISION_HINT": "f32",
            # A thread that keeps to one core waits where that is taken: by those that read images, by others.
            "ENABLE_CPU_PINNING": False,
        }
        return self._openvino.compile_model(self._model, "CPU", settings)
