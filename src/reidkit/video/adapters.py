"""The encoder in other people's trackers: each method has the shape that one of them asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from reidkit.encoders.encoder import BATCH_SIZE, Encoder
from reidkit.errors import ConfigError, shown
from reidkit.video.crops import cut
from reidkit.video.frames import Picture

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class TrackerEncoder:
    """An encoder that embeds boxes of a frame.

    Args:
        encoder: any.
        color: order of the colours in frames: "bgr" as OpenCV reads them, or "rgb".
        context: added on each side of a box, as a share of its width and height.

    Boxes that hold no pixel of the frame have an embedding of zeros, which is like nobody's.
    """

    encoder: Encoder
    color: Literal["bgr", "rgb"] = "bgr"
    context: float = 0.0

    def __post_init__(self) -> None:
        if self.color not in ("bgr", "rgb"):
            raise ConfigError(f"color is {shown(self.color)}; allowed: bgr, rgb")

    @property
    def embedding_dim(self) -> int:
        """Width of the embeddings."""
        return self.encoder.dim

    def extract_embeddings(
        self, detections: Any, frame: Picture, *, batch_size: int = BATCH_SIZE // 2
    ) -> NDArray[np.float32]:
        """Embeddings (N, D) of ``supervision.Detections`` in a frame; (0, 0) without detections."""
        return self._embedded(frame, np.asarray(detections.xyxy), batch_size)

    def encode(self, frames: Sequence[Picture], detections: Sequence[Any]) -> list[Tensor]:
        """A tensor (N, D) for each frame; detections are arrays whose rows begin left, top, right, bottom."""
        import torch

        found = []
        for frame, boxes in zip(frames, detections, strict=True):
            rows = np.asarray(boxes, np.float64)[:, :4] if len(boxes) else np.empty((0, 4))
            embeddings = self._embedded(frame, rows, BATCH_SIZE)
            found.append(torch.from_numpy(np.array(embeddings.reshape(len(rows), self.embedding_dim))))
        return found

    def embeds(self, raw_detections: Sequence[Any], frame: Picture) -> list[NDArray[np.float32]]:
        """For deep-sort-realtime: ``tracker.update_tracks(raw, embeds=this.embeds(raw, frame))``.

        Detections are ``([left, top, width, height], confidence, class)``.
        """
        boxes = np.array([detection[0] for detection in raw_detections], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return list(self._embedded(frame, boxes, BATCH_SIZE))

    def _embedded(self, frame: Picture, boxes: NDArray[Any], batch_size: int) -> NDArray[np.float32]:
        if not len(boxes):
            return np.empty((0, 0), np.float32)
        picture = frame[:, :, ::-1] if self.color == "bgr" else frame
        finite = np.isfinite(boxes).all(axis=1)
        crops = [
            cut(picture, box.tolist(), context=self.context) if is_finite else None
            for box, is_finite in zip(np.asarray(boxes, np.float64), finite, strict=True)
        ]
        embeddings = np.zeros((len(boxes), self.embedding_dim), np.float32)
        places = [place for place, crop in enumerate(crops) if crop is not None]
        if places:
            whole = [crops[place] for place in places]
            embeddings[places] = self.encoder.encode(whole, batch_size=batch_size)  # type: ignore[arg-type]
        return embeddings
