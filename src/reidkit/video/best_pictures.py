"""The best pictures of a track whose end is not known yet."""

from __future__ import annotations

import numpy as np

from reidkit.video.view import Crop, best_of


class BestPictures:
    """Keeps at most twice as many pictures as are wanted, however long the track goes on.

    The track is cut into stretches of as many boxes, of each of which the best picture is kept. When there
    are too many stretches, each two neighbours become one.

    Args:
        num: pictures that are wanted, 1 or more.
    """

    def __init__(self, num: int) -> None:
        self.num = num
        self.num_boxes = 0
        self._stretches: list[Crop | None] = [None]
        self._length, self._filled = 1, 0

    def next_box(self) -> None:
        """Another box of the track; its picture, if it is worth a look, follows by :meth:`offer`."""
        self.num_boxes += 1
        if self._filled == self._length:
            self._stretches.append(None)
            self._filled = 0
        if len(self._stretches) > 2 * self.num:
            pairs = zip(self._stretches[::2], [*self._stretches[1::2], None], strict=False)
            self._stretches = [_better(first, second) for first, second in pairs]
            self._length *= 2
        self._filled += 1

    def may_be_better(self, lie: float) -> bool:
        """Whether a picture that lies so well (its quality is no more) can replace what is kept."""
        kept = self._stretches[-1]
        return kept is None or lie > kept.quality

    def offer(self, crop: Crop) -> None:
        """Keep a picture of the last box, if it is better than that of the stretch."""
        self._stretches[-1] = _better(self._stretches[-1], crop)

    def chosen(self) -> list[Crop]:
        """The best pictures of all boxes so far, by time; none of them looks like another."""
        kept = [crop for crop in self._stretches if crop is not None]
        parts = np.array_split(np.arange(len(kept)), min(self.num, len(kept))) if kept else []
        return best_of({place: [kept[row] for row in rows] for place, rows in enumerate(parts)})


def _better(first: Crop | None, second: Crop | None) -> Crop | None:
    if first is None or second is None:
        return first or second
    return second if second.quality > first.quality else first
