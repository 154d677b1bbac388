"""Where the encoder lies that filled a gallery."""

from __future__ import annotations

from pathlib import Path

from reidkit.encoders.own import goes_by_name
from reidkit.errors import ConfigError, shortened, shown
from reidkit.galleries import Gallery
from reidkit.search.pictures import is_there

_LONGEST_PLACE = 4096  # characters of a path
_WAY_OUT = "give its place: --encoder RUN, in Python encoder=..."


def recorded_place(gallery: Gallery | None, address: str, location: str) -> Path:
    """Where the encoder was when the gallery was filled. A gallery travels: what lies in it, or beside the
    current folder by chance, is not what its owner meant.

    Args:
        gallery: the gallery, if it is there.
        address: where it is.
        location: the same for messages, without a password.

    Raises:
        ConfigError: the gallery does not say, or the encoder is gone.
    """
    place = ((gallery.encoder if gallery is not None else None) or {}).get("path")
    if not isinstance(place, str) or "\0" in place or len(place) > _LONGEST_PLACE:
        raise ConfigError(f"{location} does not say where the encoder is that filled it; {_WAY_OUT}")
    if goes_by_name(place):
        return Path(place)
    path = Path(place)
    try:
        outside = not path.resolve().is_relative_to(Path(address).resolve())
    except (OSError, RuntimeError, ValueError):  # links that run in circles, surrogates
        outside = False
    if not path.is_absolute() or not outside:
        raise ConfigError(
            f"{location} names {shown(place)} as its encoder, which is no path outside of it; {_WAY_OUT}"
        )
    if not is_there(place):
        raise ConfigError(
            f"{location} was filled with the encoder {shortened(place, 200)}, which is gone; if it moved, "
            f"{_WAY_OUT}"
        )
    return path
