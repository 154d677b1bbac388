"""A gallery to fill, and which encoder does it where none is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reidkit import logs
from reidkit.encoders.at_hand import NoEncoder, encoders_in
from reidkit.encoders.own import OWN, QUALITY
from reidkit.galleries import NoGallery, without_password
from reidkit.search.searcher import Searcher

if TYPE_CHECKING:
    from reidkit.galleries._storage import Storage

logger = logs.get_logger(__name__)


def searcher_to_fill(
    location: str | Path,
    images: Sequence[Path],
    *,
    encoder: Path | None,
    backend: str = "auto",
    storage: Storage | None = None,
) -> Searcher:
    """A searcher to add these images; without an encoder by the one that the gallery was filled by.

    Where there is no gallery either, it is ``reidkit-small``, which comes with the package; a log message
    says how good that is.

    Raises :class:`reidkit.encoders.at_hand.NoEncoder` where the current folder holds encoders, of which one
    is to be named, and as :class:`Searcher` does.
    """
    try:
        return Searcher(location, encoder=encoder, backend=backend, storage=storage)
    except NoGallery:
        if found := encoders_in(Path()):
            raise NoEncoder(images, without_password(location), found) from None
    logger.info(f"no encoder was named, so it is {OWN}: {QUALITY}")
    return Searcher(location, encoder=OWN, backend=backend, storage=storage)
