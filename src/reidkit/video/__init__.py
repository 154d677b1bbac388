"""From cameras to people: video and boxes in, tracks with embeddings in a gallery out.

:func:`track` does all of it for files, :func:`follow` for streams; ``reid track`` calls them.
"""

from __future__ import annotations

from reidkit.video.following import Followed, follow
from reidkit.video.options import TrackOptions
from reidkit.video.tracking import Tracked, track

__all__ = ["Followed", "TrackOptions", "Tracked", "follow", "track"]
