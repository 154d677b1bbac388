"""The galleries that are served, each opened before any encoder is loaded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from reidkit.logs import get_logger
from reidkit.web.served import Served
from reidkit.web.settings import Settings

logger = get_logger(__name__)


class ServedGalleries(Mapping[str, Served]):
    """Galleries by name, which a thread opens, and whose encoders it loads then.

    Importing PyTorch stops all threads for a while. So encoders are loaded where somebody needs one, or once
    :meth:`load_encoders` says so.
    """

    def __init__(self, settings: Settings) -> None:
        self._needs_encoders = threading.Event()
        self._served = {
            name: Served(name, given, settings, self._needs_encoders.set)
            for name, given in settings.galleries.items()
        }
        threading.Thread(target=self._open_all, name="opening", daemon=True).start()

    def __getitem__(self, name: str) -> Served:
        return self._served[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._served)

    def __len__(self) -> int:
        return len(self._served)

    def load_encoders(self) -> None:
        """Let encoders be loaded, in another thread, if they are not yet."""
        self._needs_encoders.set()

    def wait(self, *, load: bool = True) -> None:
        """Wait until all galleries are open and all encoders loaded, which it begins if it may ``load``.

        Raises as :class:`reidkit.search.searcher.Searcher` does, for the first that cannot be opened.
        """
        if load:
            self.load_encoders()
        for served in self.values():
            served.wait()

    def close(self) -> None:
        """Do what waits, and close all."""
        for served in self.values():
            served.close()

    def _open_all(self) -> None:
        """Open all, load all encoders, and do once what would make the first search slow."""
        for served in self.values():
            served.open()
        self._needs_encoders.wait()
        for served in self.values():
            served.load()
        for served in self.values():
            try:
                served.warm()
            except Exception as error:  # whoever searches will hear of it
                logger.debug(f"the gallery {served.name} was not made ready for searches: {error}")
