"""From cameras to people: video and boxes in, tracks with embeddings in a gallery out.

:func:`track` does all of it; ``reid track`` calls it.
"""

from __future__ import annotations

from reidkit.video.options import TrackOptions
from reidkit.video.tracking import Tracked, track

__all__ = ["TrackOptions", "Tracked", "track"]
