"""From cameras to people: video and boxes in, tracks with embeddings in a gallery out."""

from __future__ import annotations
