"""What kind of file something is, by how it begins, and whether it is a picture that can be read.

Names lie: a PNG called ``.jpg`` is a PNG. A picture of a kind that is not read is whole all the same, and is
never called damaged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

LOOK = 160
"""How many bytes from the start :func:`kind_of` wants to see."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file.

    Attributes:
        name: what people call it, for messages.
        format: Pillow's name of it; empty where it is not read.
        hint: what to do about one that is not read.
    """

    name: str
    format: str = ""
    hint: str = "convert it to JPEG or PNG"

    @property
    def is_read(self) -> bool:
        """Whether :func:`reidkit.images.reading.load_image` reads it."""
        return bool(self.format)


_HEIC = Kind("HEIC", "HEIF")
_HEIC_UNREAD = Kind("HEIC", hint='it needs pillow-heif: pip install "reidkit[heic]"')
_AVIF = Kind("AVIF", "AVIF")
_AVIF_UNREAD = Kind("AVIF", hint="it needs a newer Pillow: pip install --upgrade pillow")
_VIDEO = Kind("a video", hint="cut pictures out of it")
_RAW = Kind("a camera's raw file", hint="develop it to JPEG or PNG")

# Formats of photographs whose decoders run in this process: Pillow would hand PostScript to another program.
_SIGNATURES: tuple[tuple[bytes, Kind], ...] = (
    (rb"\xff\xd8\xff\xf7", Kind("JPEG-LS")),
    (rb"\xff\xd8\xff", Kind("JPEG", "JPEG")),
    (rb"\x89PNG", Kind("PNG", "PNG")),
    (rb"BM", Kind("BMP", "BMP")),
    (
        rb"[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0.{8}\x01\0[\x01\x04\x08\x10\x18\x20]\0",
        Kind("BMP without its header", "DIB"),
    ),
    (rb"RIFF.{4}WEBP|RIFF.{0,7}\Z", Kind("WebP", "WEBP")),
    (rb"(II\*\0|MM\0\*).{4}CR", _RAW),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", Kind("TIFF", "TIFF")),
    (rb"GIF8", Kind("GIF", "GIF")),
    (rb"P[1-6]\s", Kind("PPM", "PPM")),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", Kind("JPEG 2000", "JPEG2000")),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", Kind("JPEG XL")),
    (rb"II\xbc", Kind("JPEG XR")),
    (rb"P7\s|P[Ff]\s", Kind("a PAM or PFM picture")),
    (rb"IIR[OS]|MMOR|IIU\0|FUJIFILMCCD-RAW|FOVb", _RAW),
    (rb"8BP[SB]", Kind("a Photoshop file")),
    (rb"gimp xcf", Kind("a GIMP file")),
    (rb"%PDF", Kind("a PDF")),
    (rb"%!PS|\xc5\xd0\xd3\xc6", Kind("PostScript")),
    (rb"\s*(<\?xml.*)?<svg", Kind("SVG")),
    (rb"v/1\x01", Kind("OpenEXR")),
    (rb"#\?RADIANCE|#\?RGBE", Kind("Radiance HDR")),
    (rb"DDS ", Kind("a DDS texture")),
    (rb"qoif", Kind("QOI")),
    (rb"BPG\xfb", Kind("BPG")),
    (rb"FLIF", Kind("FLIF")),
    (rb".{128}DICM", Kind("DICOM")),
    (rb"\0\0\x01\0[^\0]\0", Kind("an icon")),
    (rb"icns", Kind("an icon")),
    (rb"RIFF.{4}AVI |\x1aE\xdf\xa3|FLV\x01|\0\0\x01[\xba\xb3]|OggS", _VIDEO),
    (rb".{4}(moov|mdat|wide|free|skip)", _VIDEO),
)
_COMPILED = tuple((re.compile(signature, re.DOTALL), kind) for signature, kind in _SIGNATURES)


_RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".kdc", ".mef", ".mrw"),
    *(".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srw"),
)
_BY_SUFFIX = {".tga": Kind("TGA"), ".pcx": Kind("PCX")} | dict.fromkeys(_RAW_SUFFIXES, _RAW)


def kind_by_suffix(suffix: str) -> Kind | None:
    """The kind of pictures that begin like nothing in particular, or (cameras' raw files) like a TIFF."""
    return _BY_SUFFIX.get(suffix.lower())


def kind_of(start: bytes) -> Kind | None:
    """The kind of the file that begins so; ``None`` where it is none that is known.

    Args:
        start: its first :data:`LOOK` bytes, or all of a shorter file.
    """
    if start[4:8] == b"ftyp":
        return _of_brands(start)
    return next((kind for signature, kind in _COMPILED if signature.match(start)), None)


@cache
def has_heic() -> bool:
    """Whether pillow-heif, the extra that reads HEIC, is installed."""
    return find_spec("pillow_heif") is not None


@cache
def has_avif() -> bool:
    """Whether this Pillow was built with AVIF (the wheels since 11.3 are)."""
    from PIL import features

    # Older ones warn of, rather than refuse, a name that they do not know.
    return "avif" in features.modules and bool(features.check("avif"))


def _of_brands(start: bytes) -> Kind:
    """ISO media files say what they are by brands: the main one, then those they are compatible with."""
    size = int.from_bytes(start[:4], "big")
    main, *others = [start[place : place + 4] for place in (8, *range(16, min(size, len(start)), 4))]
    brands = {main, *others}
    if brands & {b"avif", b"avis"}:
        return _AVIF if has_avif() else _AVIF_UNREAD
    if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return _HEIC if has_heic() else _HEIC_UNREAD
    return _RAW if main == b"crx " else _VIDEO
