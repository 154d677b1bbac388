"""Small pictures to be kept beside embeddings and shown when the pictures themselves are gone."""

from __future__ import annotations

import io

from PIL import Image

SIZE = (128, 256)
"""Width and height that a thumbnail has at most: what a network for people looks at."""

_QUALITY = 80  # at which even noise of this size stays far below what a gallery keeps


def thumbnail(image: Image.Image) -> bytes:
    """A picture as a small JPEG file of its proportions, without what else the picture's own file says."""
    small = image.convert("RGB")
    small.thumbnail(SIZE)
    small.info = {}  # comments, and what else a file says of where and when it was taken
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return buffer.getvalue()
