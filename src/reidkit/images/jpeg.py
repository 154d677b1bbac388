"""JPEG, decoded strictly: what the decoder only warns of elsewhere is an error here.

libjpeg goes on over damage: it warns, fills what is missing with grey, and Pillow drops the warnings.
simplejpeg is the same decoder (libjpeg-turbo, equal bits) with the warnings raised.

Found in this way: files that are cut, cut and closed by an end mark, filled with zeros to the end, and nearly
all in which many bytes are overwritten. JPEG has no checksum. What is not found is again a JPEG, and no
decoder can tell it from a whole one:

- changed bits that leave the lengths of all codes as they are;
- overwritten stretches after which the codes fall into step again with the same number of blocks: on crops of
  64 x 128 about 2 % of those of 400 bytes, a quarter of 100, half of 16, four fifths of single bytes;
- a progressive file that ends exactly between two scans.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import simplejpeg
from numpy.typing import NDArray

MAX_SCANS = 100
"""A progressive file repeats the whole picture with every scan; encoders write about ten."""

_COLOURS: dict[str, Literal["RGB", "GRAY", "CMYK"]] = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
# Frames that are no 8-bit sequential or progressive Huffman ones (ITU-T T.81, table B.1).
_UNREAD_FRAMES = {
    0xC3: "lossless",
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xCB: "lossless, arithmetic coding",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
    0xF7: "JPEG-LS",
}
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA, *_UNREAD_FRAMES}
_FRAME_WITHIN = 1 << 20  # bytes; what stands before are notes of 64 kB each
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}


class UnreadJpeg(Exception):
    """A JPEG of a kind that is not decoded here; the message says which."""


def decode(data: bytes, mode: str) -> NDArray[np.uint8] | None:
    """The pixels: (H, W, 3) of mode "RGB", (H, W) of "L", (H, W, 4) of "CMYK" as they are stored.

    ``None`` for sampling factors that simplejpeg does not know: Pillow reads them, without telling damage.

    Args:
        data: the file; what follows the picture's end mark does not matter.
        mode: Pillow's name of the colours stored.

    Raises:
        ValueError: damaged; the message is the decoder's.
        UnreadJpeg: lossless, hierarchical or of 12 bits; or more than :data:`MAX_SCANS` scans.
    """
    num_scans = data.count(b"\xff\xda")  # those of a preview in the metadata count, too
    if num_scans > MAX_SCANS:
        raise UnreadJpeg(f"{num_scans} scans; {MAX_SCANS} are decoded at most")
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, _COLOURS[mode])
    except ValueError as error:
        if "Could not determine subsampling" in str(error):
            return None
        if unread := why_unread(data):
            raise UnreadJpeg(unread) from None
        raise
    return pixels[:, :, 0] if mode == "L" else pixels


def why_unread(data: bytes) -> str | None:
    """Which kind of JPEG it is, if it is one that is not decoded; ``None`` where that is not the reason."""
    place = 2
    while place + 4 <= min(len(data), _FRAME_WITHIN):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF or marker in _BARE_MARKERS:  # any number of 0xFF may stand before a marker
            place += 1 if marker == 0xFF else 2
            continue
        if marker in _FRAMES:
            bits = data[place + 4] if place + 4 < len(data) else 8
            return _UNREAD_FRAMES.get(marker) or (None if bits == 8 else f"{bits} bits a channel")
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
