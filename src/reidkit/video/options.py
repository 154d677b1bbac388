"""How people are looked for in videos."""

from __future__ import annotations

from dataclasses import dataclass

from reidkit.errors import ConfigError, shown

JOINING_RATE = 1e-3
"""Of the pairs of two people, so many may be taken for one."""


@dataclass(frozen=True, slots=True)
class TrackOptions:
    """Options of :func:`reidkit.video.track`.

    Attributes:
        best: how many pictures of a track are embedded, 1 or more.
        context: what is cut out around a box on each side, as a share of its width and height.
        confidence: of a box with which a track may begin, where tracks are found here.
        lost_seconds: how long a person may be without a box and keep the track.
        min_boxes: what has fewer boxes is no track.
        join_seconds: how long a person may be hidden and keep the tracklet, by looks.
        join_score: how much the two tracks must look the same, -1 to 1. ``None`` leaves tracks of a file as
            they are; of those found here it joins from the score at which the encoder's calibration takes one
            pair of two people in a thousand for one person, and none without a calibration.
        piece_seconds: of a stream, a track that goes on is stored after so many seconds, and then again.
    """

    best: int = 5
    context: float = 0.0
    confidence: float = 0.5
    lost_seconds: float = 1.0
    min_boxes: int = 3
    join_seconds: float = 5.0
    join_score: float | None = None
    piece_seconds: float = 60.0

    def __post_init__(self) -> None:
        ranges = {
            "best": (1, 1000),
            "context": (0, 1),
            "confidence": (0, 1),
            "lost_seconds": (0, 3600),
            "min_boxes": (1, 100_000),
            "join_seconds": (0, 86_400),
            "join_score": (-1, 1),
            "piece_seconds": (1, 3600),
        }
        problems = [
            f"{name} = {shown(value)}; give a number from {low} to {high:,}"
            for name, (low, high) in ranges.items()
            if (value := getattr(self, name)) is not None and not _is_within(value, low, high)
        ]
        if problems:
            raise ConfigError(problems)


def _is_within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
