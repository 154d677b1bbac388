"""Small videos for tests, written by PyAV: each picture is grey, and the brighter the later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

STEP = 5
"""How much brighter each picture of :func:`grey_pictures` is than the one before."""


def grey_pictures(num: int, *, width: int = 64, height: int = 48) -> list[NDArray[np.uint8]]:
    return [np.full((height, width, 3), STEP * number, np.uint8) for number in range(num)]


def number_in(image: NDArray[np.uint8]) -> int:
    """Which of :func:`grey_pictures` it is, after coding."""
    return round(float(image.mean()) / STEP)


def write_video(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]],
    *,
    rate: int = 10,
    milliseconds: Sequence[int] | None = None,
    rotation: int = 0,
    codec: str = "libx264",
) -> Path:
    """A video, with times of its pictures where they are uneven; a picture every 12 is a key frame."""
    av = pytest.importorskip("av", reason="PyAV is not installed")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p" if codec != "mjpeg" else "yuvj420p"
        stream.codec_context.gop_size = 12
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
                if rotation:
                    stream.set_display_rotation(rotation)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path
