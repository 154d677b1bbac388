"""Faults that the harness must find: what each planted call does wrong, in the order of their numbers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.cases import Case, Maker, kind
from tests.fuzz.hostile import CANARY


def _import_canary() -> None:
    __import__(CANARY)


def _swallow_and_start() -> None:
    with contextlib.suppress(Exception):
        subprocess.run([sys.executable, "-c", ""], check=False)


def _raise() -> None:
    raise ZeroDivisionError("unforeseen")


def _warn() -> None:
    import warnings

    warnings.warn("something", stacklevel=1)


def _wait_for_ever(maker: Maker) -> Callable[[], object]:
    os.mkfifo(maker.folder / "fifo")
    return lambda: Path("fifo").read_text()


PLANTED: tuple[tuple[str, Callable[[], object]], ...] = (
    ("traceback: ZeroDivisionError", _raise),
    ("imported fuzz_canary", _import_canary),
    ("started a process", _swallow_and_start),
    ("used the network", lambda: socket.create_connection(("127.0.0.1", 9), timeout=1)),
    ("wrote outside its folder (victim)", lambda: Path("../sentinel/victim").write_text("x")),
    ("made, though not to be written: more", lambda: Path("more").write_text("x")),
    ("left over: ../tmp/forgotten", lambda: Path("../tmp/forgotten").write_text("x")),
    ("a control character is printed: '\\x1b'", lambda: print("\x1b[31mred")),
    ("a Python warning is printed", _warn),
    ("exit code 2 without an error", lambda: sys.exit(2)),
    ("exit code 1", lambda: sys.exit(1)),
    ("the process died (SIGABRT)", os.abort),
    ("more than 2 GB", lambda: bytearray(b"x") * (5 * 2**29)),
)
"""Texts that the first fault begins with, and what brings it about."""


@kind("planted", weight=0)
def planted(maker: Maker) -> Case:
    return Case(PLANTED[maker.number][1])


@kind("planted hang", weight=0)
def hang(maker: Maker) -> Case:
    if maker.number == 0:
        return Case(_wait_for_ever(maker))
    return Case(lambda: time.sleep(1))
