"""What the library tells while it works, by Python's :mod:`logging`; its user decides where that goes.

Every module has a logger of its own name, so that ``logging.getLogger("reidkit").setLevel("WARNING")`` leaves
warnings only, and ``setLevel("CRITICAL")`` nothing. Progress is INFO, advice is WARNING.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from reidkit.texts.printable import printable

LIBRARY = logging.getLogger("reidkit")

_muted: ContextVar[bool] = ContextVar("muted", default=False)


def get_logger(name: str) -> logging.Logger:
    """The logger of a module. Where several processes work as one, only the main one is heard."""
    logger = logging.getLogger(name)
    logger.addFilter(_is_heard)
    return logger


@contextmanager
def muted() -> Iterator[None]:
    """Inside it nothing is told: for work whose caller tells more briefly what became of it."""
    before = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(before)


def show_by_default() -> None:
    """Show progress on standard error, unless the program has set up logging: for work that takes long.

    A level or a handler of the logger "reidkit" stays as it is, and the root logger's handlers are enough.
    Where a program sets those up later on, they take over.
    """
    if not LIBRARY.hasHandlers():
        if LIBRARY.level == logging.NOTSET:
            LIBRARY.setLevel(logging.INFO)
        LIBRARY.addHandler(_Default())


class Printable(logging.Formatter):
    """Messages as they are, but for what would steer a terminal: they hold names of files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n\t")


class _Default(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at that time, while the root logger has no handler."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)  # StreamHandler's would keep today's standard error
        self.setFormatter(Printable())
        self.addFilter(lambda record: not logging.getLogger().handlers)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def _is_heard(record: logging.LogRecord) -> bool:
    # Imported it is wherever several processes may work as one.
    distributed = sys.modules.get("reidkit.training.distributed")
    return not _muted.get() and (distributed is None or distributed.is_main())
