"""JPEG, decoded strictly: what the decoder only warns of elsewhere is an error here.

libjpeg goes on over damage: it warns, fills what is missing with grey, and Pillow drops the warnings.
simplejpeg is the same decoder (libjpeg-turbo, equal bits) with the warnings raised.

Found in this way: files that are cut, cut and closed by an end mark, filled with zeros to the end, and nearly
all in which many bytes are overwritten. JPEG has no checksum. What is not found is again a JPEG, and no
decoder can tell it from a whole one:

- changed bits that leave the lengths of all codes as they are;
- overwritten stretches after which the codes fall into step again with the same number of blocks: on crops of
  64 x 128 about 2 % of those of 400 bytes, a quarter of 100, half of 16, four fifths of single bytes.

Two kinds of damage decode without a warning and are looked for here: a progressive file that was cut exactly
between two scans, and a table of quantisation steps that holds a zero.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
_OTHER_BITS = (12, 16)  # that there are; of other numbers a header is damaged
_FRAME_WITHIN = 1 << 20  # bytes; what stands before are notes of 64 kB each
_BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
_PROGRESSIVE, _QUANTISATION, _SCAN, _END = (0xC2, 0xCA), 0xDB, 0xDA, 0xD9
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # neither a byte of the codes nor a restart among them


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
    _check_headers(data)
    return pixels[:, :, 0] if mode == "L" else pixels


def _check_headers(data: bytes) -> None:
    """Raise ``ValueError`` for what no encoder writes and no decoder minds (ITU-T T.81, B.2.4.1, G.1.1.1)."""
    progressive = False
    bits_left: dict[tuple[int, int], int] = {}  # of a component's coefficient, those not yet given
    for marker, segment in _segments(data):
        if marker == _QUANTISATION and _holds_a_zero_step(segment):
            raise ValueError("a quantisation table holds a zero")
        progressive = progressive or marker in _PROGRESSIVE
        if marker in _FRAMES and segment:
            components = segment[6::3][: segment[5]]
            bits_left = {(component, place): 1 for component in components for place in range(64)}
        if marker == _SCAN:
            if not progressive:  # one scan holds all of its components
                return
            components = segment[1 : 1 + 2 * segment[0] : 2]
            first, last, bits = segment[-3:]
            for component in components:
                bits_left |= {(component, place): bits & 15 for place in range(first, last + 1)}
    if progressive and any(bits_left.values()):
        raise ValueError("scans of a progressive JPEG are missing")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers of a picture that was decoded, up to its end, with the bytes that each brings."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _END:
            return
        if marker == 0xFF or marker in _BARE_MARKERS:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == _SCAN:
            following = _AFTER_SCAN.search(data, place)
            place = following.start() if following else len(data)


def _holds_a_zero_step(segment: bytes) -> bool:
    place = 0
    while place < len(segment):
        width = 2 if segment[place] >> 4 else 1
        table = segment[place + 1 : place + 1 + 64 * width]
        if 0 in (table if width == 1 else map(max, table[::2], table[1::2])):
            return True
        place += 1 + 64 * width
    return False


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
            return _UNREAD_FRAMES.get(marker) or (f"{bits} bits a channel" if bits in _OTHER_BITS else None)
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
