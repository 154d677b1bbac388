"""Encoders that lie about, for who has pictures and no encoder yet."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from reidkit.datasets._given_images import is_table
from reidkit.encoders.own import OWN, goes_by_name
from reidkit.encoders.runtimes import SUFFIXES
from reidkit.errors import ConfigError
from reidkit.files import require_regular
from reidkit.images.reading import is_image

WEIGHTS = ("best.safetensors", "last.safetensors")
"""Files of a run folder that are its encoder, the better first."""

_MOST_LISTED = 3


class NoEncoder(ConfigError):
    """Pictures were given to embed, and it was not said which of some encoders shall do it."""

    def __init__(self, pictures: Sequence[Path], location: object, found: Sequence[Path]) -> None:
        named = shlex.join(map(str, pictures[:1])) + (" ..." if len(pictures) > 1 else "")
        listed = ", ".join(map(str, found[:_MOST_LISTED]))
        more = f" and {len(found) - _MOST_LISTED:,} more" if len(found) > _MOST_LISTED else ""
        super().__init__(
            f"an encoder is needed to embed {named}: there {'is' if len(found) == 1 else 'are'} "
            f"{listed}{more}, and {OWN}, which comes with reidkit; name one: "
            f"reid index {shlex.quote(str(found[0]))} {named} --gallery {shlex.quote(str(location))}"
        )


def encoders_in(folder: Path) -> list[Path]:
    """Run folders and encoders' files in a folder and in its folder ``runs``, the latest first."""
    places = [*_inside(folder), *_inside(folder / "runs"), *_inside(folder / "runs", "*/*")]
    found = [place for place in places if is_encoder(place) and place.stem not in ("best", "last")]
    found.sort(key=lambda place: place.stat().st_mtime, reverse=True)
    return [place.relative_to(folder) for place in found]


def is_encoder(path: Path) -> bool:
    """Whether something is an encoder by its name: a run folder that has weights, or a network's file.

    A folder that may not be entered is none; whoever lists it says so.
    """
    try:
        if path.is_dir():
            return any((path / name).is_file() for name in WEIGHTS)
    except OSError:
        return False
    return path.suffix.lower() in (*SUFFIXES, ".safetensors")


def encoder_and_pictures(paths: Sequence[Path]) -> tuple[Path | None, tuple[Path, ...]]:
    """The encoder, where the first of what was given is not pictures, and the rest.

    Raises :class:`ConfigError` where there is no rest, :class:`DataError` where there is nothing at all.
    """
    first, *others = paths
    if not goes_by_name(first) and _are_pictures(first):
        return None, tuple(paths)
    if not others:
        if not goes_by_name(first) and not first.is_dir():
            require_regular(first)
        raise ConfigError(f"nothing to embed by {first}; name images, folders or a table after it")
    return first, tuple(others)


def _are_pictures(path: Path) -> bool:
    """Images, a table or a folder of them. A run that has no weights yet, or nothing, is none of these."""
    if path.is_dir():
        runs_files = ("config.toml", "run.json")
        networks = any(is_encoder(inside) for inside in _inside(path))
        return not (is_encoder(path) or networks or any((path / name).is_file() for name in runs_files))
    return path.is_file() and not is_encoder(path) and (is_table(path) or is_image(path))


def _inside(folder: Path, pattern: str = "*") -> Iterable[Path]:
    try:
        return sorted(folder.glob(pattern)) if folder.is_dir() else []
    except OSError:
        return []
