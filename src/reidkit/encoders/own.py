"""The encoder that comes with the package: ``reidkit-small``, which learned from drawn people only.

How it was made and what it is worth stand in its model card, docs/reidkit_small.md.
"""

from __future__ import annotations

from pathlib import Path

OWN = "reidkit-small"
"""What stands for it wherever an encoder is asked for; a folder of that name is meant by ``./`` and it."""

LOMO = "lomo"
"""The other encoder that needs no file: colours and textures described by hand, ``encoders/lomo``."""

NO_CALIBRATION = f"{OWN} learned from drawn people only; what its scores mean for real ones is not known"

QUALITY = (
    "it comes with reidkit, learned from drawn people only, and of 100 real ones its first hit is right in "
    "58 of 100 searches; `reid encoders` lists better ones"
)


def is_own(encoder: object) -> bool:
    """Whether an encoder is asked for by the name of this one."""
    return str(encoder) == OWN


def goes_by_name(encoder: object) -> bool:
    """Whether an encoder is asked for by a name, and lies nowhere."""
    return str(encoder) in (OWN, LOMO)


def place_of(encoder: str | Path) -> Path:
    """Where an encoder lies, or the name by which it goes.

    A path would lose the ``./`` of ``./lomo``, by which somebody's own folder is told from the name.
    """
    path = Path(encoder)
    return path.absolute() if goes_by_name(path) and str(encoder) != str(path) else path


def place_to_record(encoder: Path) -> str:
    """What a gallery keeps of where its encoder is: those of the package go by their names."""
    return str(encoder if goes_by_name(encoder) else encoder.resolve())


def own_file() -> Path:
    """Where its weights lie."""
    return Path(__file__).parent / "weights" / f"{OWN}.safetensors"
