"""A real Milvus server for tests, in a folder that is gone afterwards, from the package milvus."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator

import pytest


@contextlib.contextmanager
def running_milvus() -> Iterator[Callable[[], str]]:
    """Locations of empty galleries on a server; the test is skipped, with the reason, where there is none."""
    package = pytest.importorskip(
        "milvus", reason="the package milvus, which carries a server, is not installed"
    )
    numbers = itertools.count()
    with tempfile.TemporaryDirectory(prefix="reidkit-milvus-", ignore_cleanup_errors=True) as folder:
        server = package.MilvusServer()
        server.set_base_dir(folder)
        try:
            server.start()
            yield lambda: f"milvus://127.0.0.1:{server.listen_port}?gallery=test_{next(numbers)}"
        finally:
            server.stop()
